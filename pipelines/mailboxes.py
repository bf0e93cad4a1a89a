"""The process that takes mail in: an SMTP listener whose 250 means that the mail is stored.

IMAP mailboxes will run in the same loop: each is a coroutine that ends in `Receiver.receive`, as the listener does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from email.utils import parseaddr
from typing import Any, AnyStr, ClassVar

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session
from anyio.to_thread import run_sync

from assistant.backends.coordination import Limiter
from assistant.clock import monotonic
from assistant.db.session import Database
from assistant.errors import ConfigurationError, NotifyrError
from assistant.failpoints import failpoint
from assistant.services import profiles
from assistant.settings import LOOPBACK, Settings
from pipelines.container import Container
from pipelines.inbound import Receiver
from pipelines.peers import Peers

__all__ = ["Listener", "run", "serve"]

_log = structlog.get_logger(__name__)
IDLE_SECONDS = 120.0
MAIL_SECONDS = 900.0
"""Longest time for one mail while its bytes keep coming."""
DRAIN_SECONDS = 20.0
CONNECTIONS = 500
COMMANDS = 2_000
WORKERS = 8
"""Mails of one process that are being stored at the same time; more wait on their sockets."""
PENDING = 64
"""Mails that are being stored or wait for it; one more is for later. So whoever is taken in is answered soon."""
KNOWN_SECONDS = 1.0
_TRIED_PORTS = 20
_BUSY = "451 4.3.2 Too much mail at the moment; try again later"
_TOO_MANY = "451 4.7.1 Too many mails from you in this minute; try again later"
_CROWDED = b"421 4.7.0 Too many connections; try again later\r\n"
_CROWDED_PEER = b"421 4.7.0 Too many connections from you; try again later\r\n"
_TEMPORARY = "451 4.3.0 Not stored; try again later"


class _Protocol(SMTP):
    """aiosmtpd with lines as long as real mail has them, and caps on connections, bytes and time."""

    line_length_limit = 65_536
    open_now: ClassVar[set[Any]] = set()
    _unanswered = 0
    _since = 0.0
    _from = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._from = _address_of(transport.get_extra_info("peername"))
        within = self.event_handler.peers.enter(self._from)
        if not within or len(self.open_now) >= CONNECTIONS:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(_CROWDED if within else _CROWDED_PEER)
            transport.close()
        self.open_now.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.open_now.discard(self)
        self.event_handler.peers.leave(self._from)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Count what came since our last answer: aiosmtpd keeps a line without end, and times a whole mail as one command."""
        if not self._unanswered:
            self._since = monotonic()
        self._unanswered += len(data)
        if self._unanswered > 2 * (self.data_size_limit or 0) + 1_000_000:
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.write(b"552 5.3.4 Too much data\r\n")
            self.transport.close()
            return
        if monotonic() - self._since < MAIL_SECONDS:
            self._reset_timeout()
        super().data_received(data)

    async def push(self, status: AnyStr) -> None:
        self._unanswered = 0
        await super().push(status)


class Listener:
    """aiosmtpd's hooks: who may be written to, and what happens with the mail."""

    def __init__(
        self, settings: Settings, database: Database, receiver: Receiver, limiter: Limiter | None = None
    ) -> None:
        self._settings = settings
        self.peers = Peers(settings, limiter)
        self._database = database
        self._receiver = receiver
        self._busy = asyncio.Semaphore(WORKERS)
        self._known: dict[str, tuple[str, float]] = {}
        self._open_relay_test = settings.smtp_host in LOOPBACK
        self._storing = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def handle_MAIL(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Put off before any of its bytes come when this peer has begun too many mails in the minute."""
        if not await run_sync(self.peers.may_send, _address_of(session.peer)):
            return _TOO_MANY
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Only our own addresses, except on loopback, where anything is taken in (and nothing is ever relayed)."""
        if len(envelope.rcpt_tos) >= self._settings.max_recipients:
            return "452 4.5.3 Too many recipients"
        if not self._open_relay_test and not await run_sync(self._profiles_of, [address]):
            return "550 5.1.1 No such mailbox here"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """250 only after the commit; anything else says that the sender still has to keep the mail."""
        content = envelope.original_content
        raw = content if isinstance(content, bytes) else bytes(content or b"")
        if _has_bare_line_ends(raw):
            return "554 5.6.0 Bare CR or LF in the message (RFC 5321, section 2.3.8)"
        if envelope.mail_from in {None, "", "<>"}:
            # The null sender of bounces and auto-replies (RFC 5321, section 4.5.5) is written down where a reader looks.
            raw = b"Return-Path: <>\r\n" + raw
        if self._storing >= PENDING:
            return _BUSY
        self._storing += 1
        self._idle.clear()
        try:
            async with self._busy:
                return await run_sync(self.store, raw, list(envelope.rcpt_tos))
        except NotifyrError as error:
            _log.warning("mail_not_stored", code=error.code, reason=error.message)
            return _TEMPORARY
        except Exception:  # noqa: BLE001  # whatever broke: the sender keeps the mail and tries again
            _log.exception("mail_not_stored")
            return _TEMPORARY
        finally:
            self._storing -= 1
            if not self._storing:
                self._idle.set()

    async def handle_exception(self, error: Exception) -> str:
        """What goes wrong on our side is temporary, and nothing about it is told to the other side."""
        _log.error("smtp_command_failed", exc_info=error)
        return _TEMPORARY

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is being stored any more, and every answer had a moment to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        await asyncio.sleep(0.05)

    def store(self, raw: bytes, recipients: list[str]) -> str:
        """Store one mail in the mailbox of each recipient that is ours; the answer to its sender.

        When a later mailbox fails, the sender's next try finds the mail in the earlier ones and adds it to the others.
        """
        profile_ids = self._profiles_of(recipients, known_seconds=KNOWN_SECONDS)
        if not profile_ids:
            with self._database.transaction() as session:
                profile_ids = [profiles.ensure_default(session, self._settings).id]
        stored = [self._receiver.receive(raw, profile_id=one) for one in profile_ids]
        failpoint("receive.before_answer")
        return f"250 2.0.0 Stored as {stored[0].message_id}"

    def _profiles_of(self, recipients: list[str], *, known_seconds: float = 0.0) -> list[str]:
        """Our mailboxes among the recipients, each once. One that was found so lately is not looked up again."""
        addresses = dict.fromkeys(parseaddr(one)[1].lower() or one.strip("<>").lower() for one in recipients)
        now, known = monotonic(), self._known
        if any(one not in known or now - known[one][1] > known_seconds for one in addresses):
            with self._database.reading() as session:
                found = {one: profiles.by_address(session, "email", one) for one in addresses}
            known = self._known = {one: (profile.id, now) for one, profile in found.items() if profile is not None}
        return list(dict.fromkeys(known[one][0] for one in addresses if one in known))


def _address_of(peer: Any) -> str:
    """The address in what a socket says of its other end; empty when that has hung up already."""
    return str(peer[0]) if peer else ""


def _has_bare_line_ends(raw: bytes) -> bool:
    pairs = raw.count(b"\r\n")
    return raw.count(b"\r") != pairs or raw.count(b"\n") != pairs


async def serve(container: Container, *, stop: asyncio.Event) -> None:
    """Listen until `stop` is set. The port that was found is written to `run/smtp-address`."""
    settings = container.settings
    listener = Listener(settings, container.database, container.receiver, container.limiter)
    loop = asyncio.get_running_loop()

    def factory() -> _Protocol:
        return _Protocol(
            listener,
            data_size_limit=settings.max_mail_bytes,
            enable_SMTPUTF8=True,
            hostname="localhost" if settings.smtp_host in LOOPBACK else None,
            ident="Notifyr",
            timeout=IDLE_SECONDS,
            command_call_limit={"*": COMMANDS},
            loop=loop,
        )

    server = await _bind(factory, settings)
    port = server.sockets[0].getsockname()[1]
    where = settings.path("run", "smtp-address")
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(f"{settings.smtp_host}:{port}\n")
    _log.info("listening", host=settings.smtp_host, port=port)
    try:
        await stop.wait()
    finally:
        server.close()
        await listener.drain(DRAIN_SECONDS)
        for protocol in list(_Protocol.open_now):
            if protocol.transport is not None:
                protocol.transport.close()
        where.unlink(missing_ok=True)


async def _bind(factory: Any, settings: Settings) -> asyncio.Server:
    """The wanted port, or the next free one on loopback (a demo beside a real server)."""
    loop = asyncio.get_running_loop()
    tries = _TRIED_PORTS if settings.smtp_host in LOOPBACK else 1
    for port in range(settings.smtp_port, settings.smtp_port + tries):
        try:
            return await loop.create_server(factory, settings.smtp_host, port, backlog=256)
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            _log.warning("port_taken", port=port)
    raise ConfigurationError(
        [f"NOTIFYR_SMTP_PORT: {settings.smtp_port} is taken on {settings.smtp_host}; choose another"]
    )


def run(container: Container) -> None:
    """Take mail in until SIGTERM or SIGINT; mails that are being stored are finished first."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        await serve(container, stop=stop)

    with container.database.transaction() as session:
        profiles.ensure_default(session, container.settings)
    try:
        asyncio.run(main())
    finally:
        container.close()
