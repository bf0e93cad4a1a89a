"""One inbound mail, from its bytes to its row: raw first, then read in the child, then one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from assistant.backends.blobs import Blobs, key_of
from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.session import Database, committing
from assistant.errors import StorageError
from assistant.events import DeliveryEvent, EventKind
from assistant.failpoints import failpoint
from assistant.services import attempts, contacts, inbox
from assistant.services.inbox import Received
from assistant.states import Direction
from assistant.telemetry import METRICS
from assistant.values import Address, Attachment, InboundMessage, StoredAttachment
from channels.support.bounces import Report, report_of
from channels.support.quotes import split_reply
from pipelines.together import Together

__all__ = ["Parser", "Receiver"]

_BAD_ADDRESS = ("5.1.1", "5.1.0", "5.1.2", "5.1.3", "5.1.6", "5.1.10")
_REASONS = {"5.2.2": "mailbox-full", "5.7": "policy", "5.4": "network", "5.1": "bad-address"}


class Parser(Protocol):
    """Bytes to a message, whatever they are; `StorageError` when it was not the bytes (`channels.support.child`)."""

    def parse(self, raw: bytes, *, received_at: datetime | None = None) -> InboundMessage: ...


@dataclass(frozen=True, slots=True)
class _Ready:
    """A mail whose bytes are kept and read: what is left is its row."""

    raw: bytes
    message: InboundMessage
    attachments: Sequence[StoredAttachment]
    new_text: str
    profile_id: str
    backfill: bool
    triage: bool = True


class Receiver:
    """Stores mail. `receive` returns only when the mail is safe: what answers the sender may say yes after it."""

    def __init__(self, database: Database, blobs: Blobs, parser: Parser) -> None:
        self._database = database
        self._blobs = blobs
        self._parser = parser
        # In the order of their senders, so that two processes never wait for each other's contacts.
        self._together = Together(self._commit, order=lambda mail: mail.message.sender.value)

    def receive(
        self, raw: bytes, *, profile_id: str, backfill: bool = False, received_at: datetime | None = None
    ) -> Received:
        """Store one mail. Raises `StorageError` when it could not be kept: the sender must try again."""
        now = received_at or utcnow()
        return self._together(_Ready(*self._prepare(raw, now, backfill), profile_id, backfill))

    def receive_many(
        self,
        raws: Sequence[bytes],
        *,
        profile_id: str,
        backfill: bool = False,
        triage: bool = True,
        received_at: datetime | None = None,
    ) -> list[Received]:
        """Store several mails in one transaction (imports): all of them or none."""
        now = received_at or utcnow()
        return self._commit(
            [_Ready(*self._prepare(raw, now, backfill), profile_id, backfill, triage=triage) for raw in raws]
        )

    def _commit(self, mails: Sequence[_Ready]) -> list[Received]:
        try:
            with self._database.transaction() as session:
                committing("receive", session)
                found = [self._store(session, one) for one in mails]
        except OSError as error:
            raise StorageError(f"the mail could not be kept: {type(error).__name__}") from error
        # They may have been there before, without a row, and tidied up just now.
        for mail in mails:
            self._blobs.ensure(mail.message.raw_key, mail.raw)
            for kept, part in zip(mail.attachments, mail.message.attachments, strict=True):
                self._blobs.ensure(kept.blob_key, part.content)
        for one in found:
            METRICS.received.labels("email", "new" if one.created else "known").inc()
        return found

    def _prepare(
        self, raw: bytes, now: datetime, backfill: bool
    ) -> tuple[bytes, InboundMessage, list[StoredAttachment], str]:
        # The content names the blob: a mail that is delivered again finds its bytes there, and no orphan is left.
        key = key_of("raw", raw, suffix=".eml")
        try:
            failpoint("receive.before_blob")
            self._blobs.keep(key, raw)
            failpoint("receive.after_blob")
            message = self._parser.parse(raw, received_at=now)
            if backfill and message.sent_at is not None and message.sent_at < now:
                message = replace(message, received_at=message.sent_at)
            stored = [self._attach(part) for part in message.attachments]
        except OSError as error:
            raise StorageError(f"the mail could not be kept: {type(error).__name__}") from error
        return raw, replace(message, raw_key=key), stored, split_reply(message.text)[0]

    def _attach(self, part: Attachment) -> StoredAttachment:
        key = key_of("parts", part.content)
        failpoint("receive.before_part")
        self._blobs.keep(key, part.content)
        failpoint("receive.after_part")
        return StoredAttachment(
            filename=part.filename,
            content_type=part.content_type,
            size=len(part.content),
            blob_key=key,
            content_id=part.content_id,
            inline=part.inline,
            risk=part.risk,
        )

    def _store(self, session: Session, mail: _Ready) -> Received:
        message = mail.message
        received = inbox.receive(
            session,
            profile_id=mail.profile_id,
            message=message,
            new_text=mail.new_text,
            size=len(mail.raw),
            attachments=mail.attachments,
            backfill=mail.backfill,
            triage=mail.triage,
        )
        if received.created and message.auto_submitted == "bounce" and "quarantine" not in message.defects:
            for report in report_of(mail.raw):
                _apply(session, report, message)
        return received


def _apply(session: Session, report: Report, message: InboundMessage) -> None:
    """A delivery report about one of our mails. Only a failure of a message that we sent counts: the rest is backscatter."""
    kinds = {"failed": EventKind.BOUNCED, "delayed": EventKind.DEFERRED, "delivered": EventKind.DELIVERED}
    kind = kinds.get(report.action)
    if kind is None or not report.original_id:
        return
    known = attempts.apply_event(
        session,
        DeliveryEvent(
            event_id=f"dsn:{message.content_hash[:32]}:{report.recipient[:100]}",
            kind=kind,
            external_id=report.original_id,
            occurred_at=message.received_at or utcnow(),
            address=report.recipient,
            reason=next((word for code, word in _REASONS.items() if report.status.startswith(code)), ""),
            detail=f"{report.status} {report.diagnostic}"[:500],
            raw_key=message.raw_key,
        ),
    )
    if known and kind is EventKind.BOUNCED and report.status in _BAD_ADDRESS:
        detail = f"{report.status} {report.diagnostic}"[:500]
        for address in _written_to(session, report):
            contacts.suppress(session, Address("email", address), cause="hard-bounce", detail=detail)


def _written_to(session: Session, report: Report) -> list[str]:
    """The reported address, if the message went there. Whoever got one mail of ours could else block any other address."""
    sent = session.execute(
        select(Message.to_addresses, Message.cc_addresses).where(
            Message.external_id == report.original_id, Message.direction == Direction.OUTBOUND
        )
    ).all()
    addresses = {str(one["address"]) for row in sent for part in row for one in part}
    return [one for one in addresses if one.lower() == report.recipient.lower()]
