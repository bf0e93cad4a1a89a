"""Our own processes as forks of one that has imported everything once: they share its memory, and they start at once.

Only where fork is safe (Linux, and a process with one thread); elsewhere each process is started from its command.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from assistant.clock import monotonic

__all__ = ["Fork", "can_fork", "preload"]

_SHARED = (
    "anyio._backends._asyncio",
    "api.commands.serve",
    "api.main",
    "api.startup",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.fixups.django",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.control",
    "celery.worker.loops",
    "celery.worker.strategy",
    "channels.support.mime",
    "channels.support.shape",
    "kombu.transport.redis",
    "mailparser_reply",
    "obstore.store",
    "pipelines.mailboxes",
    "pipelines.outbound",
    "pipelines.triage",
    "pipelines.worker",
    "sqlalchemy.dialects.sqlite",
    "uvicorn",
)
"""What more than one of our processes works with. Nothing here starts a thread or loads a model."""


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ARENA_MAX = -8
"""glibc's M_ARENA_MAX: else each thread of each child gets a heap of its own, most of it unused."""


def can_fork() -> bool:
    """Whether a child of this process is whole: on Linux, and while no other thread could hold a lock."""
    return sys.platform == "linux" and len(list(Path("/proc/self/task").iterdir())) == 1


def preload() -> None:
    """Import what the children share, and keep the collector off it: it would write to every page.

    Nothing is collected before either: what a child makes would fill the holes, and each page would be its own.
    """
    gc.disable()
    if tune := getattr(ctypes.CDLL(None), "mallopt", None):
        tune(_ARENA_MAX, 2)
    for name in _SHARED:
        import_module(name)
    import_module("sqlalchemy.orm").configure_mappers()
    gc.freeze()
    gc.enable()


class Fork:
    """A child that runs `notifyr WORDS...`. The part of `subprocess.Popen` that a supervisor uses."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        *,
        output: int,
        errors: int,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """`output` and `errors` are descriptors; `first` is called in the child before anything else."""
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # none may reach the child while it has our handlers
        try:
            self.pid = os.fork()
            if not self.pid:
                _be(words, environment, (output, errors), first)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else asked for it first
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`, as `Popen.wait` does."""
        end = None if timeout is None else monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and monotonic() >= end:
                raise subprocess.TimeoutExpired("notifyr", timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _be(
    words: Sequence[str], environment: Mapping[str, str], outputs: tuple[int, int], first: Callable[[], None]
) -> NoReturn:
    """The child: a session, an environment and an output of its own; then the command, as if it had been typed."""
    code = 1
    try:
        first()
        os.setsid()  # Ctrl-C is the parent's to pass on, in the right order
        for one in _SIGNALS:
            signal.signal(one, signal.default_int_handler if one is signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        with Path(os.devnull).open() as nothing:
            for number, descriptor in enumerate((nothing.fileno(), *outputs)):
                os.dup2(descriptor, number)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["notifyr", *words]
        _name([sys.executable, "-m", "api.cli", *words])
        from api.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # nothing of this child may come back into the parent's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            # What the interpreter does at its end, and `multiprocessing` at the end of its forks.
            threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
            atexit._run_exitfuncs()  # noqa: SLF001
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _name(command: Sequence[str]) -> None:
    """Write the words over our own command line, so that `ps` tells the children apart.

    Where they are longer, they run on into the space of the environment behind it (C has copies of that by now), and the
    kernel then reads one string up to its end.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end, after, last = (int(one) for one in fields[45:49])
    words = [word.encode() for word in command]
    text = b"\0".join(words)
    room = end - start
    if len(text) >= room:
        text, room = b" ".join(words), (last if after == end else end) - start
    ctypes.memmove(start, text[: room - 1].ljust(room, b"\0"), room)
