"""Batches of crashes: `crashes.crash` writes a line for a path, and reads the result of each batch as JSON, and at the end `{}`.

This process imports what most paths need once and forks for a path. It opens nothing itself, so that every path starts clean.
The path's process prepares, and forks for each batch: they inherit its compiled statements, and begin with a copy of its folder.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

gc.disable()  # a batch is short, and each of its forks would copy what the collector touches
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what else is said, as the log of what runs, is no answer

import tests.faults.paths  # noqa: E402
import tests.faults.send_path  # noqa: E402, F401
from assistant.clock import monotonic  # noqa: E402
from tests.faults.catalogue import PATHS, STORES  # noqa: E402
from tests.faults.crashes import LONGEST, CrashPath, CrashRun, batch  # noqa: E402


def _say(**found: Any) -> None:
    print(json.dumps(found), file=_ANSWERS, flush=True)


def _ended_early(how: str) -> None:
    _say(killed={}, survived=0, problems=[f"a batch ended {how}"])


def _apart(work: Callable[[], None], *, what: str) -> bool:
    """Do `work` in a fork, whose own forks end with it. Whether it came to its end; if not, a problem has been said."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        try:
            work()
        except BaseException:  # noqa: BLE001  # whatever it is, the reader of the result has to hear of it
            _ended_early(f"early, {what}: {traceback.format_exc()[-3000:]}")
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # rounds that hang
    if os.WIFSIGNALED(status):  # it could say nothing any more
        hung = f", it took more than {LONGEST} s" if os.WTERMSIG(status) == signal.SIGALRM else ""
        _ended_early(f"by signal {os.WTERMSIG(status)}, {what}{hung}")
    return status == 0


def _path(given: dict[str, Any]) -> None:
    """Prepare once, then play batches on copies until the rounds or the time are over."""
    folder, rounds, at_once = Path(given["folder"]), given["rounds"], given["at_once"]
    kept = folder.with_name(f"{folder.name}-kept")
    path = next(one for one in PATHS + STORES if one.name == given["path"])
    began = monotonic()
    signal.alarm(LONGEST)
    run = path.start(folder, given["url"])
    run.prepare(at_once)
    signal.alarm(0)
    if rounds > at_once:
        shutil.copytree(folder, kept)
    for played in range(0, rounds, at_once):
        if played:
            if monotonic() - began >= given["seconds"]:
                return
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
        count, seed = min(at_once, rounds - played), given["seed"] + played
        if not _apart(lambda: _batch(run, path, folder, count, seed), what=f"seed {seed}"):  # noqa: B023
            return


def _batch(run: CrashRun, path: CrashPath, folder: Path, rounds: int, seed: int) -> None:
    signal.alarm(LONGEST)
    found = batch(run, path, folder, rounds, seed)
    _say(killed=found.killed, survived=found.survived, problems=found.problems)


if __name__ == "__main__":
    gc.collect()  # once, while there is little
    for line in sys.stdin:
        given = json.loads(line)
        _apart(lambda: _path(given), what="preparing")  # noqa: B023
        _say()
