"""Killing a real process at a named failpoint, over and over, and looking at what is left.

A round: fork; the child arms one failpoint with `exit` and takes one step of the path; the parent waits for its end, with
one round a core at the same time. The parent is a process of its own for each batch (`one_batch.py`): a fork is quick while it is
small, and obstore's threads, which recovering starts, would be missing in the forks of the next batch, which wait for them.
After its rounds a batch recovers as production would (sweeps, tasks again) and checks its promises. What a path prepares is made
once and copied for each batch, where it is all in files. A path is a `CrashPath`: add one to `catalogue.py` and it is run like the
others.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from assistant import failpoints
from assistant.clock import monotonic
from assistant.settings import ROOT

__all__ = ["LONGEST", "Ask", "CrashPath", "CrashRun", "Crashed", "batch", "batches", "crash", "sqlite_in"]

Ask = Callable[..., Iterator[dict[str, Any]]]
_KILLED = 137
_BATCH = 60
LONGEST = 400
"""Seconds for a batch: more than it takes on a busy machine, less than a landing can wait for one that hangs."""
_WIDTH = min(4, os.cpu_count() or 1)
"""Rounds that run at the same time: as in production, another worker is always at the same tables."""


class CrashRun(Protocol):
    """One run of a path. `step` happens in a child that may die; the others in the parent, with nothing else open."""

    def prepare(self, rounds: int) -> None:
        """Make the work of all rounds. No connection, thread or loop may be left open: children inherit them."""

    def begin(self) -> None:
        """Start what a batch has for itself, and what no copy of files could hold: a server in a thread."""

    def step(self, number: int) -> None:
        """Do the work of one round, opening what it needs."""

    def recover(self) -> None:
        """What production does after a crash: sweep, deliver tasks again, the sender tries again."""

    def problems(self) -> list[str]:
        """Every promise that does not hold."""


@dataclass(frozen=True)
class CrashPath:
    name: str
    failpoints: tuple[str, ...]
    """`name`, or `name:2` for the second time that it is passed."""
    start: Callable[[Path, str], CrashRun]
    """From a folder and the URL of an empty database."""
    share: float = 1.0
    """Of the rounds of a path: where a death leaves little, few are enough."""
    whole: bool = False
    """Whether every landing plays all its rounds; of another path it plays what a few seconds allow."""
    copied: bool = False
    """Whether all that it prepares is in its folder: then a copy of it is as good for the next batch."""


@dataclass
class Crashed:
    """What a run of crashes came to."""

    path: str
    seed: int
    rounds: int = 0
    seconds: float = 0.0
    killed: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed = ", ".join(f"{name} {count}" for name, count in sorted(self.killed.items()))
        return (
            f"{self.path}: {self.rounds} rounds, seed {self.seed}, {self.seconds:.1f} s; killed at {killed}; "
            f"{self.survived} not reached; {len(self.problems)} problems"
        )


def sqlite_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'notifyr.db'}"


def crash(
    path: CrashPath,
    folder: Path,
    *,
    rounds: int,
    seed: int,
    seconds: float,
    ask: Ask,
    database: Callable[[Path], str] = sqlite_in,
    at_once: int = _BATCH,
) -> Crashed:
    """`rounds` crashes spread evenly over the path's failpoints, in batches of `at_once` that recover and are checked each.

    `ask` is of `batches`. No batch begins after `seconds`: what a round costs differs twentyfold between machines, and the
    result says how many they were.
    """
    result = Crashed(path.name, seed)
    began = monotonic()
    copied = path.copied and database is sqlite_in
    while (left := rounds - result.rounds) > 0 and (not result.rounds or monotonic() - began < seconds):
        own = folder / f"from-{result.rounds}"
        own.mkdir()
        wanted, before = left if copied else min(at_once, left), result.rounds
        for found in ask(
            path=path.name,
            folder=str(own),
            url=database(own),
            rounds=wanted,
            at_once=min(at_once, left),
            seed=seed + result.rounds,
            seconds=seconds - (monotonic() - began),
        ):
            result.killed.update(found["killed"])
            result.survived += found["survived"]
            result.problems += found["problems"]
            result.rounds += sum(found["killed"].values()) + found["survived"]
        if result.problems or result.rounds == before:
            break  # one that ended early says how
    result.seconds = monotonic() - began
    return result


@contextmanager
def batches() -> Iterator[Ask]:
    """What runs one batch after another, of any path, in forks of one process that has imported what most of them need."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.one_batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=ROOT,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        lines, stream = process.stdout, process.stdin

        def ask(**given: Any) -> Iterator[dict[str, Any]]:
            stream.write(json.dumps(given) + "\n")
            stream.flush()
            while line := lines.readline():
                if not (found := json.loads(line)):
                    return
                yield found
            ended = process.wait()
            said.seek(0)
            raise AssertionError(f"the batches ended with {ended}: {said.read()[-3000:]}")

        try:
            yield ask
        finally:
            stream.close()


def batch(run: CrashRun, path: CrashPath, folder: Path, rounds: int, seed: int) -> Crashed:
    """The rounds of one batch, in this process and its forks, on what `run` has prepared."""
    result = Crashed(path.name, seed, rounds)
    chosen = [path.failpoints[number % len(path.failpoints)] for number in range(rounds)]
    random.Random(seed).shuffle(chosen)
    run.begin()
    open_rounds: deque[tuple[int, int, str]] = deque()
    for number, name in enumerate(chosen):
        if len(open_rounds) == _WIDTH:
            _ended(*open_rounds.popleft(), result)
        open_rounds.append((_child(run, number, name, folder), number, name))
    while open_rounds:
        _ended(*open_rounds.popleft(), result)
    run.recover()
    result.problems += run.problems()
    return result


def _ended(child: int, number: int, name: str, result: Crashed) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == _KILLED:
        result.killed[name] += 1
    elif status == 0:
        result.survived += 1
    else:
        result.problems.append(f"round {number} at {name} ended with {status}")


def _child(run: CrashRun, number: int, name: str, folder: Path) -> int:
    """Start one round; the child's process id."""
    child = os.fork()
    if child:
        return child
    try:
        failpoints.disarm()
        point, _, hit = name.partition(":")
        failpoints.arm(f"{point}=exit:{hit or 1}")
        run.step(number)
    except BaseException:  # noqa: BLE001  # a child of pytest must never go on as pytest
        (folder / f"round-{number}.txt").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)
