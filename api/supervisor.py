"""Keeps the processes of one installation running: starts, watches, restarts with backoff, and drains them in order.

A plain loop without threads: `prctl` ties the children to this thread, so that they end even when it is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from api.forks import Fork, can_fork
from assistant.clock import monotonic
from assistant.settings import ROOT

__all__ = ["Child", "Supervisor", "free_port", "procfile"]

_BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_SECONDS = 5.0
_HOPELESS = 4
"""Ends in a row, before the first page was ever served, after which the start is given up."""
_LOG_BYTES = 20_000_000
_LOG_SECONDS = 10.0
"""How often the logs of running processes are looked at."""
_TICK = 0.1
OURS = [sys.executable, "-m", "api.cli"]
"""How `notifyr` is run by the interpreter that reads this."""


def procfile(path: Path) -> dict[str, list[str]]:
    """Process name -> command, in the order of the file. `notifyr` is run by the interpreter that reads this."""
    processes = {}
    for text in path.read_text().splitlines():
        name, colon, command = text.partition(":")
        words = command.split()
        if colon and not name.startswith("#") and words:
            ours = OURS if words[0] == "notifyr" else [words[0]]
            processes[name.strip()] = [*ours, *words[1:]]
    return processes


def free_port(host: str, wanted: int, *, taken: Sequence[int] = ()) -> int:
    """`wanted`, or the next free port above it. Raises `OSError` when a hundred are taken or the address is not ours."""
    for port in range(wanted, min(wanted + 100, 65536)):
        if port in taken:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError as error:
                if error.errno not in {98, 48, 13}:  # in use (Linux, macOS), or a port only root may have
                    raise
    raise OSError(f"no free port from {wanted} on")


@dataclass
class Child:
    """One process and what became of it."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | Fork | None = None
    started: float = 0.0
    due: float = 0.0
    failures: int = 0


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@dataclass
class Supervisor:
    """`environment` is what every child gets; `logs` the folder of their output, unless `stream` sends it to stderr."""

    environment: Mapping[str, str]
    logs: Path
    say: Callable[[str], None]
    stream: bool = False
    on_exit: Callable[[int], None] = lambda _pid: None
    forking: bool = False
    """Our own commands are forks of this process, which has imported what they need (`api.forks.preload`)."""
    children: list[Child] = field(default_factory=list)
    stopping: bool = False
    logs_due: float = 0.0

    def start(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command)
        self.children.append(child)
        self._launch(child)
        return child

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _launch(self, child: Child) -> None:
        output = sys.stderr.fileno() if self.stream else self._open_log(child.name)
        try:
            if self.forking and list(child.command[:3]) == OURS and can_fork():
                child.process = Fork(
                    child.command[3:], self.environment, output=output, errors=output, first=_die_with_parent
                )
                return
            child.process = subprocess.Popen(  # noqa: S603  # the Procfile's words, no shell
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.environment),
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is ours to pass on, in the right order
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # this process has no other thread
            )
        finally:
            child.started = monotonic()
            if not self.stream:
                os.close(output)

    def _open_log(self, name: str) -> int:
        path = self.log_of(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _put_aside(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tick(self, *, hopeful: bool) -> Child | None:
        """Look after every child once, then rest a moment. Returns one that will not start, unless `hopeful`."""
        now = monotonic()
        if not self.stream and now >= self.logs_due:
            self.logs_due = now + _LOG_SECONDS
            for child in self.children:
                _put_aside(self.log_of(child.name))
        for child in self.children:
            if child.process is None:
                if now >= child.due:
                    self._launch(child)
                continue
            code = child.process.poll()
            if code is None:
                if now - child.started > _STEADY_SECONDS:
                    child.failures = 0
                continue
            self.on_exit(child.process.pid)
            child.process = None
            child.failures += 1
            wait = _BACKOFF[min(child.failures, len(_BACKOFF)) - 1]
            child.due = now + wait
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            self.say(f"{child.name} {how}; starting it again in {wait:g} s (log: {self.log_of(child.name)})")
            if not hopeful and child.failures >= _HOPELESS:
                return child
        time.sleep(_TICK)
        return None

    def stop(self, *, seconds: float = 30.0) -> None:
        """Drain: what takes in first, then what works, the store last. What is still there after `seconds` is killed."""
        self.stopping = True
        end = monotonic() + seconds
        store = [child for child in self.children if child.name == "valkey"]
        rest = [child for child in self.children if child.name != "valkey"]
        for group, until in ((rest, end - 2), (store, end)):
            for child in group:
                if child.process is not None and child.process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        child.process.send_signal(signal.SIGTERM)
            for child in group:
                _wait(child, until)


def _put_aside(log: Path) -> None:
    """Keep a log that has grown large as `NAME.log.1`, and go on with an empty one.

    It is copied and emptied, not renamed: whoever writes holds it open, to append. What is written between the last read and
    the emptying is lost. Without room for the copy it stays as it is until the next look.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= _LOG_BYTES:
            return
        kept = os.open(log.with_suffix(".log.1"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(kept, "wb") as old, log.open("rb+") as full:
            shutil.copyfileobj(full, old, 1 << 20)
            full.truncate(0)


def _wait(child: Child, until: float) -> None:
    if child.process is None:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):  # it had its time; the rows say what it left undone
        child.process.wait(max(0.1, until - monotonic()))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
