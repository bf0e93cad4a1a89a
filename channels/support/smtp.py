"""Handing mail to a relay over SMTP (RFC 5321): a small pool of connections, checked TLS, and errors that know their fate.

The one moment that matters is the final dot. Before it is written, every failure is known to be unsent and may be tried
again. After it, silence means that the mail may have been accepted: `UncertainDelivery`, never sent again by itself.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog
from aiosmtplib.protocol import PERIOD_REGEX

from assistant.clock import monotonic
from assistant.errors import (
    ChannelError,
    CredentialsRefused,
    InvalidInput,
    PermanentChannelError,
    RecipientRefused,
    TemporaryChannelError,
    UncertainDelivery,
    UnsupportedFeature,
)
from assistant.failpoints import failpoint
from assistant.values import Refusal

__all__ = ["Accepted", "Relay", "RelayAddress"]

_log = structlog.get_logger(__name__)
_CHUNK = 65_536
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_POOL = 4
_IDLE_SECONDS = 20.0
"""Servers close idle connections after minutes; a connection older than this is not trusted without asking."""
_FINAL_SECONDS = 60.0
"""Least wait for the answer to the final dot: servers scan mail before they answer (RFC 5321, section 4.5.3.2.6)."""
_SIGN_IN_FIRST = frozenset({530, 538})
_GOING_DOWN = 421
"""The relay ends the connection: it says nothing about the recipient (RFC 5321, section 4.2.1)."""
_BAD_ADDRESS = frozenset({"5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
_ENHANCED = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """A relay URL taken apart. `security`: `implicit` (smtps), `required` (STARTTLS or nothing), `opportunistic`."""

    host: str
    port: int
    security: str
    username: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str) -> RelayAddress:
        """From `smtp://[user:password@]host[:port]` or `smtps://...`. Raises `ValueError` that never repeats the URL."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("a relay URL looks like smtp://user:password@host:587 or smtps://host:465")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("a relay URL ends after the port")
        username, password = unquote(parts.username or ""), unquote(parts.password or "")
        security = "implicit" if parts.scheme == "smtps" else "required" if username else "opportunistic"
        default = 587 if security == "required" else _DEFAULT_PORTS[parts.scheme]
        return cls(parts.hostname, parts.port or default, security, username, password)


_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The relay's 250: its words, and the recipients it had refused before."""

    answer: str
    refused: tuple[Refusal, ...] = ()


@dataclass(slots=True)
class _Idle:
    client: aiosmtplib.SMTP
    since: float


class Relay:
    """A pool of connections to one relay. Belongs to one event loop.

    `ca_file` replaces the public authorities. `timeout` is for one command; the answer to the final dot may take a minute.
    """

    def __init__(self, address: RelayAddress, *, ca_file: Path | None = None, timeout: float = 30.0) -> None:
        self._address = address
        self._ca_file = ca_file
        self._timeout = timeout
        self._idle: list[_Idle] = []
        self._slots = asyncio.Semaphore(_POOL)
        self._context: ssl.SSLContext | None = None
        self._warned = False

    async def submit(
        self, sender: str, recipients: Sequence[str], content: bytes, *, deadline: float | None = None
    ) -> Accepted:
        """Hand one mail over. `sender` empty is the null sender; `content` has CRLF line ends. At most one final dot.

        Raises `TemporaryChannelError` and the permanent ones (nothing was accepted), or `UncertainDelivery`. When only some
        recipients are refused, the others get it, and the answer names the refused ones: for now, or for good.
        """
        async with self._slots:
            client, used = await self._connection()
            try:
                try:
                    refused = await self._envelope(client, sender, recipients)
                except (aiosmtplib.SMTPServerDisconnected, ConnectionError):
                    if not used:
                        raise
                    # The relay had closed a connection we kept; nothing was said on it yet.
                    _drop(client)
                    client = await self._connect()
                    refused = await self._envelope(client, sender, recipients)
                await self._content(client, content, deadline)
            except BaseException as error:
                _drop(client)
                raise _translated(error) from error
            answer = await self._final_dot(client)
            self._idle.append(_Idle(client, monotonic()))
            return Accepted(answer, refused)

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
        idle, self._idle = self._idle, []
        for one in idle:
            transport = one.client.transport
            try:
                await one.client.quit(timeout=1)
            except (aiosmtplib.SMTPException, OSError):
                _log.debug("relay_goodbye_failed", exc_info=True)
            _drop(one.client, transport)
        await asyncio.sleep(0)

    # -- connections

    async def _connection(self) -> tuple[aiosmtplib.SMTP, bool]:
        """A connection and whether it was used before. Raises our errors."""
        while self._idle:
            idle = self._idle.pop()
            if idle.client.is_connected and monotonic() - idle.since < _IDLE_SECONDS:
                return idle.client, True
            _drop(idle.client)
        return await self._connect(), False

    async def _connect(self) -> aiosmtplib.SMTP:
        address = self._address
        client = aiosmtplib.SMTP(
            hostname=address.host,
            port=address.port,
            timeout=self._timeout,
            use_tls=address.security == "implicit",
            start_tls=False,
            # To read all public authorities takes longer than a mail: it waits until the relay offers TLS.
            tls_context=self._tls() if address.security == "implicit" or self._ca_file else None,
            local_hostname="localhost",
        )
        try:
            failpoint("smtp.before_connect")
            await client.connect()
            if address.security != "implicit":
                await self._upgrade(client)
            if address.username:
                await client.login(address.username, address.password)
        except BaseException as error:
            _drop(client)
            raise _translated(error) from error
        return client

    async def _upgrade(self, client: aiosmtplib.SMTP) -> None:
        await client.ehlo()
        if client.supports_extension("starttls"):
            await client.starttls(tls_context=self._tls())
            await client.ehlo()
        elif self._address.security == "required":
            raise CredentialsRefused(
                "the relay offers no STARTTLS, so the password was not sent: use smtps://, or find out who removes it"
            )
        elif self._address.host not in _LOOPBACK and not self._warned:
            self._warned = True
            _log.warning("relay_without_tls", host=self._address.host, port=self._address.port)

    def _tls(self) -> ssl.SSLContext:
        """Raises our errors: nothing was said to the relay yet."""
        if self._context is None:
            try:
                context = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
            except OSError as error:
                raise _from_ca_file(error) from error
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context = context
        return self._context

    # -- one transaction

    async def _envelope(self, client: aiosmtplib.SMTP, sender: str, recipients: Sequence[str]) -> tuple[Refusal, ...]:
        failpoint("smtp.before_envelope")
        wide = not all(address.isascii() for address in (sender, *recipients))
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
        if wide and not client.supports_extension("smtputf8"):
            raise UnsupportedFeature("the relay cannot write to an address with letters outside ASCII (no SMTPUTF8)")
        encoding, options = ("utf-8", ["SMTPUTF8", "BODY=8BITMIME"]) if wide else ("ascii", None)
        await client.mail(sender, options=options, encoding=encoding)
        refused = []
        for recipient in recipients:
            try:
                await client.rcpt(recipient, encoding=encoding)
            except aiosmtplib.SMTPRecipientRefused as error:
                if error.code == _GOING_DOWN or error.code in _SIGN_IN_FIRST:
                    raise
                later = error.code < 500
                refused.append(Refusal(recipient, _words(error), not later and _is_bad_address(error), later))
        if len(refused) == len(recipients):
            raise _all_refused(refused)
        return tuple(refused)

    async def _content(self, client: aiosmtplib.SMTP, content: bytes, deadline: float | None) -> None:
        """DATA and everything up to, but without, the final dot."""
        failpoint("smtp.before_data")
        answer = await client.execute_command(b"DATA")
        if answer.code != aiosmtplib.SMTPStatus.start_input:
            raise aiosmtplib.SMTPDataError(answer.code, answer.message)
        stuffed = PERIOD_REGEX.sub(b"..", content)
        for start in range(0, len(stuffed), _CHUNK):
            await self._write(client, stuffed[start : start + _CHUNK])
        if deadline is not None and monotonic() > deadline:
            raise TemporaryChannelError("it took too long to reach the end of the message; nothing was handed over")
        failpoint("smtp.before_dot")

    async def _write(self, client: aiosmtplib.SMTP, data: bytes) -> None:
        """Write and wait until the other side has taken most of it; a relay that stands still for a whole timeout failed."""
        protocol, transport = client.protocol, client.transport
        if protocol is None or not isinstance(transport, asyncio.WriteTransport):
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        protocol.write(data)
        left, since = transport.get_write_buffer_size(), monotonic()
        while (size := transport.get_write_buffer_size()) > _CHUNK:
            if not client.is_connected:
                raise aiosmtplib.SMTPServerDisconnected("Connection lost")
            if size < left:
                left, since = size, monotonic()
            elif monotonic() - since > self._timeout:
                raise aiosmtplib.SMTPTimeoutError("the relay stopped reading")
            await asyncio.sleep(0.01)

    async def _final_dot(self, client: aiosmtplib.SMTP) -> str:
        """From here on, no answer means that nobody knows."""
        protocol = client.protocol
        if protocol is None or not client.is_connected:
            _drop(client)
            raise TemporaryChannelError("the relay closed the connection before the end of the message")
        try:
            protocol.write(b".\r\n")
            failpoint("smtp.after_dot")
            answer = await protocol.read_response(timeout=max(self._timeout, _FINAL_SECONDS))
            failpoint("smtp.after_answer")
        except BaseException as error:
            _drop(client)
            if isinstance(error, Exception):
                raise UncertainDelivery(
                    f"the relay gave no answer to the whole message ({type(error).__name__}): it may have accepted it"
                ) from error
            raise
        if 200 <= answer.code < 300:
            return f"{answer.code} {answer.message}"
        _drop(client)
        if 400 <= answer.code < 600:
            raise _from_response(aiosmtplib.SMTPDataError(answer.code, answer.message))
        raise UncertainDelivery(f"the relay answered the whole message with something unheard of ({answer.code})")


def _drop(client: aiosmtplib.SMTP, transport: asyncio.BaseTransport | None = None) -> None:
    """End a connection at once. A TLS goodbye would wait for a peer that may be the reason why we leave."""
    transport = transport or client.transport
    client.close()
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


# -- foreign exceptions become ours in one table


def _from_response(error: aiosmtplib.SMTPResponseException) -> ChannelError:
    code, words = error.code, _words(error)
    if 400 <= code < 500:
        return TemporaryChannelError(f"the relay asks to try later: {words}")
    if code in _SIGN_IN_FIRST:
        return CredentialsRefused(f"the relay wants another way to sign in: {words}")
    if isinstance(error, aiosmtplib.SMTPRecipientRefused):
        return _all_refused([Refusal(error.recipient, words, _is_bad_address(error))])
    if 500 <= code < 600:
        return PermanentChannelError(f"the relay refused: {words}")
    return TemporaryChannelError(f"the relay answered something unheard of: {words}")


def _from_authentication(error: aiosmtplib.SMTPResponseException) -> ChannelError:
    if 400 <= error.code < 500:
        return _from_response(error)
    return CredentialsRefused(f"the relay did not accept the user name and password ({error.code})")


def _from_certificate(error: Exception) -> ChannelError:
    reason = getattr(error, "verify_message", "") or str(error)
    return CredentialsRefused(f"the relay's certificate is not the right one, so nothing was sent: {reason}")


def _from_ca_file(error: OSError) -> ChannelError:
    """A file that is not there, not readable or no certificate waits for a person; a full table of files does not."""
    if isinstance(error, ssl.SSLError | FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return CredentialsRefused(f"the relay's CA file cannot be used, so nothing was sent: {error.strerror or error}")
    return _from_network(error)


def _from_network(error: Exception) -> ChannelError:
    return TemporaryChannelError(f"the relay cannot be reached: {type(error).__name__}: {error}"[:500])


def _from_smtp(error: Exception) -> ChannelError:
    if "AUTH" in str(error) or "authentication" in str(error):
        return CredentialsRefused("the relay offers no way to sign in that we know")
    return TemporaryChannelError(f"the relay could not be used: {error}"[:500])


_TABLE: tuple[tuple[type[BaseException], Callable[..., ChannelError]], ...] = (
    (aiosmtplib.SMTPAuthenticationError, _from_authentication),
    (aiosmtplib.SMTPResponseException, _from_response),
    (ssl.SSLCertVerificationError, _from_certificate),
    (ssl.SSLError, _from_network),
    (aiosmtplib.SMTPServerDisconnected, _from_network),
    (aiosmtplib.SMTPTimeoutError, _from_network),
    (aiosmtplib.SMTPConnectError, _from_network),
    (aiosmtplib.SMTPException, _from_smtp),
    (TimeoutError, _from_network),
    (OSError, _from_network),
)


def _translated(error: BaseException) -> BaseException:
    """Ours for a foreign exception that fell before the final dot; a programming error or a cancellation stays itself."""
    cause = error.__cause__
    if isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(cause, ssl.SSLCertVerificationError):
        return _from_certificate(cause)
    for kind, become in _TABLE:
        if isinstance(error, kind):
            return become(error)
    if isinstance(error, UnicodeEncodeError | ValueError):
        return InvalidInput("the message has an address that SMTP cannot carry")
    return error


def _all_refused(refused: Sequence[Refusal]) -> ChannelError:
    words = "; ".join(f"{one.address}: {one.detail}" for one in refused)[:900]
    if any(one.later for one in refused):
        return TemporaryChannelError(f"the relay asks to try later: {words}")
    bad = [one.address for one in refused if one.bad_address]
    if bad:
        return RecipientRefused(f"the relay refused the recipient: {words}", detail={"addresses": bad})
    return PermanentChannelError(f"the relay refused the recipient: {words}")


def _is_bad_address(error: aiosmtplib.SMTPResponseException) -> bool:
    """A full mailbox (5.2.2) or a policy (5.7.x) says nothing bad about the address."""
    enhanced = _ENHANCED.search(error.message)
    return enhanced.group(1) in _BAD_ADDRESS if enhanced else error.code in (550, 551, 553)


def _words(error: aiosmtplib.SMTPResponseException) -> str:
    text = error.message.encode("utf-8", "replace").decode("utf-8", "replace")
    return f"{error.code} {' '.join(text.split())}"[:300]
