"""Email: RFC 5322 messages out through a relay, or into a local outbox folder when none is set."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable
from datetime import timedelta
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, SecretStr

from assistant.clock import utcnow
from assistant.errors import InvalidInput, NotAllowed, PermanentChannelError, TemporaryChannelError, UnsupportedFeature
from assistant.failpoints import failpoint
from assistant.values import Address, InboundMessage, MessageClass, OutboundMessage, Receipt, Webhook
from channels.base import KEPT_HERE, Capability
from channels.support.smtp import Accepted, Relay, RelayAddress

__all__ = ["Email", "EmailConfig", "compose"]

_BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
"""CR, LF, NUL, and everything else that `str.splitlines` or a lenient parser takes for a line end."""
_ID = re.compile(r"<[^<>\s\x00-\x1f\x7f-\U0010ffff]{1,900}>")
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f-\x9f]{1,64}@[A-Za-z0-9.-]{1,255}")
_ID_HEADERS = frozenset({"message-id", "in-reply-to", "references"})
_MARKS: dict[MessageClass, dict[str, str]] = {
    MessageClass.PERSONAL: {},
    MessageClass.AUTO_REPLY: {"Auto-Submitted": "auto-replied", "X-Auto-Response-Suppress": "All"},
    MessageClass.AUTO_GENERATED: {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"},
}
"""RFC 3834, section 5: what tells other robots not to answer."""
_NULL_SENDER = frozenset({MessageClass.AUTO_REPLY})
"""RFC 3834, section 3.3: a bounce of an automatic answer must come back to nobody."""


_LEFTOVER = timedelta(days=1)


class EmailConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    """The profile's address: the only one that may stand in From."""
    outbox: Path
    """Folder of the local Maildir, used while there is no relay."""
    relay_url: SecretStr | None = None
    relay_ca_file: Path | None = None
    relay_timeout: float = 30.0


class Transport(Protocol):
    """Where finished mail goes."""

    async def submit(
        self, sender: str, recipients: list[str], content: bytes, *, deadline: float | None = None
    ) -> Accepted: ...

    async def close(self) -> None: ...


class _Policy(EmailPolicy):
    """CRLF, 7-bit bodies, and message ids folded between ids: the standard library would encode a long one as a word."""

    def fold(self, name: str, value: Any) -> str:
        if name.lower() in _ID_HEADERS:
            return f"{name}: " + "\r\n ".join(str(value).split()) + "\r\n"
        return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        if name.lower() in _ID_HEADERS:
            return self.fold(name, value).encode("ascii")
        return bytes(super().fold_binary(name, value))


_POLICY = _Policy(linesep="\r\n", cte_type="7bit", max_line_length=78, raise_on_defect=False)


class Email:
    """The email channel. `send` hands one message over; see `channels.base.Channel` for what it raises."""

    name: ClassVar[str] = "email"
    capabilities: ClassVar[Capability] = (
        Capability.INBOUND | Capability.HTML | Capability.ATTACHMENTS | Capability.SUBJECT
    )
    Config: ClassVar[type[BaseModel]] = EmailConfig

    def __init__(self, config: EmailConfig) -> None:
        self._config = config
        self._transport: Transport | None = None
        # Refuses a bad URL when the channel is opened, not at the first mail.
        self._relay = RelayAddress.parse(config.relay_url.get_secret_value()) if config.relay_url else None

    @property
    def repeatable(self) -> bool:
        """True when handing the same message over twice leaves one: the outbox folder does, SMTP cannot."""
        return self._relay is None

    async def send(self, message: OutboundMessage) -> Receipt:
        if _same_address(message.sender.value, self._config.address) is False:
            raise NotAllowed("the sender is not the address of this profile")
        content = _composed(message)
        sender = "" if message.message_class in _NULL_SENDER else message.sender.value
        everybody = dict.fromkeys(address.value for address in (*message.to, *message.cc, *message.bcc))
        recipients = [address for address in everybody if address not in message.settled]
        accepted = await self._open().submit(sender, recipients, content, deadline=message.deadline)
        identity = message.thread_headers.message_id if message.thread_headers else message.id
        return Receipt(external_id=identity, detail=accepted.answer, refused=accepted.refused)

    def verify(self, webhook: Webhook) -> None:
        raise UnsupportedFeature("mail does not come in by webhook: use the SMTP listener or an IMAP mailbox")

    def parse(self, webhook: Webhook) -> list[InboundMessage]:
        raise UnsupportedFeature("mail does not come in by webhook: use the SMTP listener or an IMAP mailbox")

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    def _open(self) -> Transport:
        if self._transport is None:
            config = self._config
            self._transport = (
                _Folder(config.outbox)
                if self._relay is None
                else Relay(self._relay, ca_file=config.relay_ca_file, timeout=config.relay_timeout)
            )
        return self._transport


class _Folder:
    """A Maildir that any mail program can open. The file is named after the message, so a repeat writes nothing new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = False

    async def submit(
        self, sender: str, recipients: list[str], content: bytes, *, deadline: float | None = None
    ) -> Accepted:
        envelope = f"Return-Path: <{sender}>\r\nX-Envelope-To: {', '.join(recipients)}\r\n".encode()
        try:
            name = await asyncio.to_thread(self._write, envelope + content, content)
        except OSError as error:
            raise TemporaryChannelError(f"the outbox folder cannot be written: {error.strerror}") from error
        return Accepted(f"250 {KEPT_HERE} as {name}")

    async def close(self) -> None:
        return None

    def _write(self, data: bytes, content: bytes) -> str:
        self._open()
        name = _file_name(content)
        final = self._folder / "new" / name
        if any((self._folder / "cur").glob(f"{name}:*")):
            return name
        if not final.exists():
            failpoint("folder.before_write")
            temporary = self._folder / "tmp" / f"{name}.{os.getpid()}"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            failpoint("folder.before_rename")
            temporary.rename(final)
            failpoint("folder.after_rename")
        # One that was there already, too: whoever wrote it may have died before its name was on the disk.
        _sync(final.parent)
        return name

    def _open(self) -> None:
        for part in ("tmp", "new", "cur"):
            (self._folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._opened:
            return
        for folder in (self._folder, self._folder.parent):
            _sync(folder)
        # What a killed process left there, as Maildir's rules have it. No write takes a day.
        old = (utcnow() - _LEFTOVER).timestamp()
        for one in (self._folder / "tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if one.stat().st_mtime < old:
                    one.unlink()
        self._opened = True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_name(content: bytes) -> str:
    found = re.search(rb"^Message-ID: <([^>]*)>", content, re.MULTILINE)
    return re.sub(r"[^A-Za-z0-9.@_-]", "_", found.group(1).decode("ascii") if found else "message")[:200]


def _composed(message: OutboundMessage) -> bytes:
    """A message that the standard library stumbles over is known to be unsent, whatever it raises."""
    try:
        return compose(message)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PermanentChannelError(f"the message cannot be written as mail: {type(error).__name__}") from error


def compose(message: OutboundMessage) -> bytes:
    """The message as it goes over the wire: RFC 5322, CRLF line ends, 7-bit, no line over 998 octets, no Bcc.

    Raises `InvalidInput` for a header value with a line break in it, and for an address or id that is none.
    """
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = _mailboxes([message.sender])
    mail["To"] = _mailboxes(message.to)
    if message.cc:
        mail["Cc"] = _mailboxes(message.cc)
    mail["Subject"] = _one_line(message.subject, "subject")
    mail["Date"] = format_datetime(message.created_at or utcnow())
    if (threading := message.thread_headers) is not None:
        mail["Message-ID"] = _ids([threading.message_id], "Message-ID")
        if threading.in_reply_to:
            mail["In-Reply-To"] = _ids([threading.in_reply_to], "In-Reply-To")
        if threading.references:
            mail["References"] = _ids(threading.references, "References")
    for name, value in _MARKS[message.message_class].items():
        mail[name] = value
    _body(mail, message)
    return mail.as_bytes(policy=_POLICY)


def _body(mail: EmailMessage, message: OutboundMessage) -> None:
    mail.set_content(_plain(message.text), cte=_encoding(message.text))
    if message.html:
        mail.add_alternative(_plain(message.html), subtype="html", cte=_encoding(message.html))
    for one in message.attachments:
        main, _, sub = one.content_type.partition("/")
        if not re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", one.content_type) or main in ("multipart", "message"):
            main, sub = "application", "octet-stream"
        mail.add_attachment(
            one.content,
            maintype=main,
            subtype=sub,
            filename=_one_line(one.filename, "file name") or "attachment",
            disposition="inline" if one.inline else "attachment",
            cid=_ids([f"<{one.content_id.strip('<>')}>"], "Content-ID") if one.content_id else None,
        )


def _encoding(text: str) -> str:
    """Plain when it is ASCII in short lines, else quoted-printable: no relay needs to know 8BITMIME."""
    plain = text.isascii() and all(len(line) <= 78 for line in text.splitlines())
    return "7bit" if plain else "quoted-printable"


def _plain(text: str) -> str:
    """Body text whose only line end is LF; the generator makes CRLF of it. No NUL (RFC 5322, section 2.3)."""
    whole = text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return "\n".join(re.split(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", whole))


def _one_line(text: str, what: str) -> str:
    if _BREAKS.search(text):
        raise InvalidInput(f"the {what} has a line break or control character in it")
    return text.encode("utf-8", "replace").decode("utf-8")


def _ids(ids: Iterable[str], header: str) -> str:
    found = list(ids)
    if not all(_ID.fullmatch(one) for one in found):
        raise InvalidInput(f"{header} has something in it that is no message id")
    return " ".join(found)


def _mailboxes(addresses: Iterable[Address]) -> tuple[HeaderAddress, ...]:
    found = []
    for address in addresses:
        if not _ADDRESS.fullmatch(address.value):
            raise InvalidInput("an address has a character that no mail address has")
        local, _, domain = address.value.rpartition("@")
        name = _one_line(address.display_name, "display name")
        found.append(HeaderAddress(display_name=name, username=local, domain=domain))
    if not found:
        raise InvalidInput("a message needs an address here")
    return tuple(found)


def _same_address(one: str, other: str) -> bool:
    (local, _, domain), (other_local, _, other_domain) = one.rpartition("@"), other.rpartition("@")
    return (local, domain.lower()) == (other_local, other_domain.lower())
