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
import struct
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from assistant.clock import monotonic
from assistant.values import Address, Attachment, InboundMessage

__all__ = ["ParserChild", "main"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_OF_ATTACHMENT = ("filename", "content_type", "content_id", "inline", "risk")
CPU_SECONDS = 5
MEMORY = 512 * 1024 * 1024
WALL_SECONDS = 10.0
_LARGEST = 200_000_000
_SOCKET_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Machine -> what seccomp calls it (linux/audit.h), and the number of `socket` there."""


class ParserChild:
    """`parse(raw)` as in `channels.support.mime`, in a child that is replaced when it dies or takes too long.

    Safe to call from several threads; they queue on one child (about 1 ms a mail). The child starts with the first mail.
    """

    def __init__(self, *, wall_seconds: float = WALL_SECONDS) -> None:
        self._wall = wall_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self.restarts = 0

    def parse(self, raw: bytes, *, received_at: datetime | None = None) -> InboundMessage:
        """Read a mail. Never raises: a mail that breaks its child comes back quarantined, with nothing but its hash."""
        with self._lock:
            for attempt in (1, 2):
                fresh = self._child is None
                try:
                    return replace(self._ask(raw), received_at=received_at)
                except (OSError, EOFError, ValueError, KeyError, TypeError, TimeoutError) as error:
                    self._stop()
                    self.restarts += 1
                    _warn(error, len(raw))
                    # A child that was old may have died of something else (a limit, a signal): one more try in a new one.
                    if fresh or attempt == 2:
                        break
        digest = hashlib.sha256(raw).hexdigest()
        return InboundMessage(
            channel="email",
            external_id=f"<{digest}@synthetic.invalid>",
            sender=Address("email", "unreadable@invalid"),
            recipients=(),
            subject="",
            text="",
            received_at=received_at,
            content_hash=digest,
            defects=("the parser broke on it", "quarantine"),
        )

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, raw: bytes) -> InboundMessage:
        if self._child is not None and self._child.poll() is not None:
            self._stop()
        if self._child is None:
            self._start()
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        deadline = monotonic() + self._wall
        _write(child.stdin, raw, deadline)
        facts = json.loads(_read(child.stdout, deadline))
        contents = [_read(child.stdout, deadline) for _ in range(int(facts.pop("contents")))]
        return _message(facts, contents)

    def _start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", "from channels.support.child import main; main()"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        child.wait(5)


def _warn(error: Exception, size: int) -> None:
    import structlog  # not at the top: the child, which reads mails in this module too, needs none of it

    structlog.get_logger(__name__).warning("parser_child_died", error=type(error).__name__, size=size)


# -- frames


def _write(pipe: IO[bytes], content: bytes, deadline: float) -> None:
    data = memoryview(struct.pack("!I", len(content)) + content)
    while data:
        left = deadline - monotonic()
        if left <= 0 or not select.select([], [pipe], [], left)[1]:
            raise TimeoutError("the parser does not read")
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(pipe.fileno(), data[:65_536]) :]


def _read(pipe: IO[bytes], deadline: float) -> bytes:
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


def main() -> None:
    """Read mails from standard input until it ends. Runs with its own limits and without a network; each mail may take `CPU_SECONDS` more."""
    import resource

    from channels.support.mime import parse

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _without_sockets()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(4)) == 4:
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS + 1, resource.RLIM_INFINITY))
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
