"""A mail server that does what a script says: the outside world for tests and the demo.

It accepts, defers and refuses by recipient, closes before it answers, is slow, greylists, and counts every mail by its
Message-ID. `python -m channels.twins.smtp_receiver --port 2600 --journal mails.jsonl` runs one as a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from assistant.clock import monotonic

__all__ = ["Act", "ReceivedMail", "SmtpReceiver"]

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>\r\n]*>)", re.IGNORECASE | re.MULTILINE)


class Act(Enum):
    """What to do at the final dot besides giving an answer."""

    CLOSE_AFTER_STORE = auto()
    """Keep the mail and close without a word: the sender cannot know."""
    CLOSE_BEFORE_STORE = auto()
    """Lose the mail and close without a word."""
    SAY_NOTHING = auto()
    """Keep the mail and never answer."""


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    tls: bool
    user: str = ""

    @property
    def message_id(self) -> str:
        found = _MESSAGE_ID.search(self.content)
        return found.group(1).decode("ascii", "replace") if found else ""


class _Controller(Controller):
    """Ends every connection when it stops; aiosmtpd would leave them, and half-made TLS, to the garbage collector."""

    def __init__(self, *arguments: Any, listener: socket.socket, **options: Any) -> None:
        self._servers: list[SMTP] = []
        self._listener = listener
        super().__init__(*arguments, **options)

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        # The port was taken with this socket and never let go: between a look and a bind another process could have it.
        return self.loop.create_server(self._factory_invoker, sock=self._listener, ssl=self.ssl_context)

    def factory(self) -> SMTP:
        server: SMTP = super().factory()  # type: ignore[no-untyped-call]  # aiosmtpd annotates half
        self._servers.append(server)
        return server

    def stop(self, no_assert: bool = False) -> None:
        asyncio.run_coroutine_threadsafe(self._end_all(), self.loop).result(5)
        super().stop(no_assert=no_assert)

    async def _end_all(self) -> None:
        for server in self._servers:
            for transport in (server.transport, server._original_transport):  # noqa: SLF001  # nothing else ends half-made TLS
                if isinstance(transport, asyncio.WriteTransport):
                    transport.abort()
        await asyncio.sleep(0)


@dataclass(slots=True)
class SmtpReceiver:
    """Runs in a thread of its own between `start` and `stop`; also a context manager.

    `recipients` answers RCPT by address: one answer, or several that are used up one by one, the last one for ever after
    being an acceptance. `answers` are given at the final dot, one a mail; then 250. `users` switches on AUTH.
    """

    port: int = 0
    host: str = "127.0.0.1"
    recipients: dict[str, str | list[str]] = field(default_factory=dict)
    senders: deque[str] = field(default_factory=deque)
    answers: deque[str | Act] = field(default_factory=deque)
    greylist: bool = False
    slow: float = 0.0
    """Seconds before every answer to RCPT and to the final dot."""
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    users: Mapping[str, str] | None = None
    journal: Path | None = None
    mails: list[ReceivedMail] = field(default_factory=list)
    dots: Counter[str] = field(default_factory=Counter)
    """Final dots seen by Message-ID, whatever was answered."""
    _seen: set[tuple[str, str]] = field(default_factory=set)
    _controller: _Controller | None = None
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"{'smtps' if self.implicit_tls else 'smtp'}://{self.host}:{self.port}"

    def start(self) -> SmtpReceiver:
        listener = socket.create_server((self.host, self.port))
        self.port = listener.getsockname()[1]
        options: dict[str, Any] = {"data_size_limit": 64_000_000, "decode_data": False, "enable_SMTPUTF8": True}
        if self.tls is not None and not self.implicit_tls:
            options["tls_context"] = self.tls
        if self.users is not None:
            # aiosmtpd warns about AUTH without STARTTLS even when the whole connection is TLS.
            options |= {"authenticator": self._authenticate, "auth_required": not self.implicit_tls}
            options["auth_require_tls"] = self.tls is not None and not self.implicit_tls
        self._controller = _Controller(
            self,
            listener=listener,
            hostname=self.host,
            port=self.port,
            ready_timeout=10,
            ssl_context=self.tls if self.implicit_tls else None,
            **options,
        )
        self._controller.start()
        return self

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop(no_assert=True)
            self._controller = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def counts(self) -> Counter[str]:
        """How often each Message-ID was accepted."""
        with self._arrived:
            return Counter(mail.message_id for mail in self.mails)

    def wait(self, count: int, *, seconds: float = 10.0) -> list[ReceivedMail]:
        """The mails, once there are `count`. Raises `TimeoutError`."""
        until = monotonic() + seconds
        with self._arrived:
            while len(self.mails) < count:
                if not self._arrived.wait(until - monotonic()):
                    raise TimeoutError(f"{len(self.mails)} of {count} mails arrived in {seconds} s")
            return list(self.mails)

    # -- what aiosmtpd calls

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.senders and not (answer := self.senders.popleft()).startswith("2"):
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(self.slow)
        answer = self._recipient_answer(envelope.mail_from or "", address)
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self.slow)
        content = envelope.original_content or b""
        mail = ReceivedMail(
            "" if envelope.mail_from == "<>" else envelope.mail_from or "",
            tuple(envelope.rcpt_tos),
            content,
            tls=session.ssl is not None or self.implicit_tls,
            user=_user(session),
        )
        answer = self.answers.popleft() if self.answers else "250 OK"
        self.dots[mail.message_id] += 1
        if answer is not Act.CLOSE_BEFORE_STORE and (isinstance(answer, Act) or answer.startswith("2")):
            self._keep(mail)
        if answer is Act.SAY_NOTHING:
            await asyncio.sleep(3600)
        if isinstance(answer, Act):
            transport = server.transport
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
            return "250 OK"
        return answer

    # -- the script

    def _recipient_answer(self, sender: str, address: str) -> str:
        answer = self.recipients.get(address, "250 OK")
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else "250 OK"
        if answer.startswith("2") and self.greylist and (sender, address) not in self._seen:
            self._seen.add((sender, address))
            return "450 4.7.1 greylisted, come back later"
        return answer

    def _keep(self, mail: ReceivedMail) -> None:
        with self._arrived:
            self.mails.append(mail)
            self._arrived.notify_all()
        if self.journal is not None:
            line = {"message_id": mail.message_id, "sender": mail.sender, "recipients": mail.recipients}
            with self.journal.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        if not isinstance(data, LoginPassword) or self.users is None:
            return AuthResult(success=False, handled=False)
        known = self.users.get(data.login.decode())
        return AuthResult(success=known is not None and known == data.password.decode(), handled=False, auth_data=data)


def _user(session: Session) -> str:
    data = session.auth_data
    return data.login.decode() if isinstance(data, LoginPassword) else ""


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A mail server for tests that accepts everything and keeps a journal.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True, help="one JSON line for each accepted mail")
    options = parser.parse_args(arguments)
    options.journal.touch()
    with SmtpReceiver(port=options.port, journal=options.journal):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    os._exit(_main())
