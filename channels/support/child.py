"""The parser in a process of its own: limits on CPU, memory and time, and nothing it says is trusted but text.

Frames are a 4-byte length and bytes. To the child: the raw mail. Back: JSON, then one frame for each attachment. Never
pickle: what comes back was made from a stranger's bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import platform
import select
import signal
import struct
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import LifoQueue
from typing import IO, Any

from assistant.clock import monotonic
from assistant.errors import StorageError
from assistant.values import Address, Attachment, InboundMessage

__all__ = ["ParserChild", "main"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_OF_ATTACHMENT = ("filename", "content_type", "content_id", "inline", "risk")
CHILDREN = 2
CPU_SECONDS = 5
MEMORY = 512 * 1024 * 1024
WALL_SECONDS = 10.0
_LARGEST = 200_000_000
_FROM_OUTSIDE = frozenset(-one for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
"""Exit codes that no mail brings about: an operator, a shutdown, the kernel that is short of memory."""
_SOCKET_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Machine -> what seccomp calls it (linux/audit.h), and the number of `socket` there."""


class ParserChild:
    """`parse(raw)` as in `channels.support.mime`, in children that are replaced when they die or take too long.

    Safe to call from several threads: two mails are read at a time (about 1 ms each), so a bomb holds nobody else's up. A
    child starts with the first mail that finds none free.
    """

    def __init__(self, *, wall_seconds: float = WALL_SECONDS) -> None:
        self._children = tuple(_Child(wall_seconds) for _ in range(CHILDREN))
        # Last in, first out: the second child starts only where two mails come at once.
        self._free: LifoQueue[_Child] = LifoQueue()
        for child in self._children:
            self._free.put(child)

    @property
    def restarts(self) -> int:
        return sum(child.restarts for child in self._children)

    def parse(self, raw: bytes, *, received_at: datetime | None = None) -> InboundMessage:
        """Read a mail. One that breaks its child comes back quarantined, with nothing but its hash.

        Raises `StorageError` when the mail was not the reason: no child could be started, or somebody stopped or killed it.
        """
        child = self._free.get()
        try:
            message = child.parse(raw)
        finally:
            self._free.put(child)
        return replace(message or _quarantined(raw), received_at=received_at)

    def close(self) -> None:
        """Stop the children, each once it has read what it reads."""
        held = [self._free.get() for _ in self._children]
        for child in held:
            child.stop()
            self._free.put(child)


class _Child:
    """One process, for one thread at a time."""

    def __init__(self, wall_seconds: float) -> None:
        self._wall = wall_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self.restarts = 0

    def parse(self, raw: bytes) -> InboundMessage | None:
        """None when the mail broke it."""
        for attempt in (1, 2):
            process, fresh = self._running()
            spent = _cpu_seconds(process)
            try:
                return _ask(process, raw, monotonic() + self._wall)
            except TimeoutError as error:
                spent = _cpu_seconds(process) - spent
                self._replace(error, len(raw))
                if spent < CPU_SECONDS / 2:
                    raise StorageError("the mail could not be read: its parser stood still") from error
                return None
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                code = self._replace(error, len(raw))
                if code == -signal.SIGXCPU:
                    return None
                # A child that was old may have died of something else (a limit, a signal): one more try in a new one.
                if code not in _FROM_OUTSIDE and (fresh or attempt == 2):
                    return None
        raise StorageError("the mail could not be read: its parser was killed twice")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        process.wait(5)

    def _running(self) -> tuple[subprocess.Popen[bytes], bool]:
        """The process, and whether it is a new one, which waits for its first mail."""
        if self._process is not None and self._process.poll() is None:
            return self._process, False
        self.stop()
        try:
            self._process = _started()
            _read(self._process.stdout, monotonic() + self._wall)
        except (OSError, EOFError, ValueError) as error:
            self.stop()
            _warn(error, 0)
            raise StorageError(f"the mail could not be read: no parser starts ({type(error).__name__})") from error
        return self._process, True

    def _replace(self, error: Exception, size: int) -> int | None:
        """End it. Its exit code when it had ended by itself; a process that closes its end is about to."""
        process = self._process
        assert process is not None
        code = None
        if isinstance(error, EOFError | ConnectionError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(1)
        self.stop()
        self.restarts += 1
        _warn(error, size)
        return code


def _started() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from channels.support.child import main; main()"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _ask(process: subprocess.Popen[bytes], raw: bytes, deadline: float) -> InboundMessage:
    _write(process.stdin, raw, deadline)
    facts = json.loads(_read(process.stdout, deadline))
    contents = [_read(process.stdout, deadline) for _ in range(int(facts.pop("contents")))]
    return _message(facts, contents)


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    import psutil  # not at the top: the child needs none of it

    try:
        used = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system)


def _quarantined(raw: bytes) -> InboundMessage:
    digest = hashlib.sha256(raw).hexdigest()
    return InboundMessage(
        channel="email",
        external_id=f"<{digest}@synthetic.invalid>",
        sender=Address("email", "unreadable@invalid"),
        recipients=(),
        subject="",
        text="",
        content_hash=digest,
        defects=("the parser broke on it", "quarantine"),
    )


def _warn(error: Exception, size: int) -> None:
    import structlog  # not at the top: the child, which reads mails in this module too, needs none of it

    structlog.get_logger(__name__).warning("parser_child_died", error=type(error).__name__, size=size)


# -- frames


def _write(pipe: IO[bytes] | None, content: bytes, deadline: float) -> None:
    assert pipe is not None
    data = memoryview(struct.pack("!I", len(content)) + content)
    while data:
        left = deadline - monotonic()
        if left <= 0 or not select.select([], [pipe], [], left)[1]:
            raise TimeoutError("the parser does not read")
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(pipe.fileno(), data[:65_536]) :]


def _read(pipe: IO[bytes] | None, deadline: float) -> bytes:
    assert pipe is not None
    (length,) = struct.unpack("!I", _exactly(pipe, 4, deadline))
    if length > _LARGEST:
        raise ValueError("the parser answers too much")
    return _exactly(pipe, length, deadline)


def _exactly(pipe: IO[bytes], count: int, deadline: float) -> bytes:
    out = bytearray()
    while len(out) < count:
        left = deadline - monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise TimeoutError("the parser takes too long")
        piece = os.read(pipe.fileno(), min(1 << 20, count - len(out)))
        if not piece:
            raise EOFError("the parser died")
        out += piece
    return bytes(out)


def _message(facts: dict[str, Any], contents: list[bytes]) -> InboundMessage:
    def address(one: dict[str, str]) -> Address:
        return Address(str(one["channel"]), str(one["value"]), str(one["display_name"]))

    attachments = tuple(
        Attachment(content=content, **{name: part[name] for name in _OF_ATTACHMENT})
        for part, content in zip(facts.pop("attachments"), contents, strict=True)
    )
    sent = facts.pop("sent_at")
    return InboundMessage(
        **{
            **facts,
            "sender": address(facts["sender"]),
            "recipients": tuple(address(one) for one in facts["recipients"]),
            "cc": tuple(address(one) for one in facts["cc"]),
            "reply_to": address(facts["reply_to"]) if facts["reply_to"] else None,
            "references": tuple(facts["references"]),
            "defects": tuple(facts["defects"]),
            "attachments": attachments,
            "sent_at": datetime.fromisoformat(sent).astimezone(UTC) if sent else None,
            "received_at": None,
        }
    )


# -- the child


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _without_sockets() -> None:
    """From here on the process can open no socket (seccomp, Linux): a parser that is taken over reaches nobody.

    Elsewhere, and where a container forbids it, the other limits still hold.
    """
    machine, number = _SOCKET_CALLS.get(platform.machine(), (0, 0))
    if sys.platform != "linux" or not machine:
        return
    load, equal, from_on, answer, allow = 0x20, 0x15, 0x35, 0x06, 0x7FFF0000
    steps = (
        (load, 0, 0, 4),  # the machine that the call is for: one of another kind has other numbers, and is refused
        (equal, 0, 5, machine),
        (load, 0, 0, 0),  # the number of the call
        (from_on, 3, 0, 0x40000000),  # x32: other numbers for the same calls
        (equal, 2, 0, number),
        (equal, 1, 0, 425),  # io_uring_setup, which opens sockets without `socket`
        (answer, 0, 0, allow),
        (answer, 0, 0, 0x00050000 | errno.EPERM),
    )
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(code, len(code))
    program = _Filter(len(steps), ctypes.addressof(held))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    prctl(22, 2, ctypes.addressof(program), 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _limit_cpu() -> None:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, resource.RLIM_INFINITY))


def main() -> None:
    """Say that it is there (an empty frame), and read mails from standard input until it ends.

    Runs with its own limits and without a network; each mail may take `CPU_SECONDS` more (the kernel counts whole ones).
    """
    import resource

    from channels.support.mime import parse

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _without_sockets()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _limit_cpu()
    sink.write(struct.pack("!I", 0))
    sink.flush()
    while len(head := source.read(4)) == 4:
        _limit_cpu()
        message = parse(source.read(struct.unpack("!I", head)[0]))
        facts = asdict(replace(message, attachments=()))
        facts["sent_at"] = message.sent_at.isoformat() if message.sent_at else None
        facts["received_at"] = None
        facts["headers"] = dict(message.headers)
        facts["attachments"] = [{name: getattr(a, name) for name in _OF_ATTACHMENT} for a in message.attachments]
        facts["contents"] = len(message.attachments)
        for frame in (json.dumps(facts).encode(), *(a.content for a in message.attachments)):
            sink.write(struct.pack("!I", len(frame)) + frame)
        sink.flush()
