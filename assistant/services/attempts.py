"""One attempt at one message: the claim, and what is recorded after it. Later, what carriers report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Any

from sqlalchemy import and_, bindparam, select, update
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.messages import Attachment, Message
from assistant.db.profiles import Profile
from assistant.db.session import enqueue
from assistant.errors import (
    CredentialsRefused,
    NotifyrError,
    PermanentChannelError,
    RecipientRefused,
    UncertainDelivery,
)
from assistant.events import DeliveryEvent, Outcome, advance, fold
from assistant.services import contacts, policies, profiles
from assistant.services.addressing import (
    addresses,
)
from assistant.services.outbox_rows import (
    announce,
    announce_id,
    changed,
    derive,
    due,
    may_have_left,
    note,
    profile_active,
)
from assistant.states import Author, Delivery, Direction
from assistant.values import Address, MessageClass, Receipt

__all__ = [
    "PARTLY",
    "AttachmentRef",
    "Claim",
    "apply_event",
    "claim",
    "record_failure",
    "record_sent",
]

_BACKOFF_FIRST = 5.0
_BACKOFF_FACTOR = 3.0
_BACKOFF_MOST = 3600.0
PARTLY = "partly-delivered"
"""Error code of a message that some recipients have and others do not."""
_LONGEST_COUNTDOWN = 60.0
"""Seconds a task may wait in the broker; later ones are found by the sweeper (Redis repeats tasks with a long eta)."""
_random = SystemRandom()

# Made once: every attempt asks them, and making one costs as much as its answer.
_TAKE = (
    update(Message)
    .where(Message.id == bindparam("message_id"), due(bindparam("now")), profile_active())
    .values(
        status=Delivery.SENDING,
        claim_token=bindparam("token"),
        lease_until=bindparam("until"),
        attempts=Message.attempts + 1,
        release_at=None,
    )
)
_TAKEN = (
    select(Message, Profile)
    .join(Profile, Profile.id == Message.profile_id)
    .where(Message.id == bindparam("message_id"))
    .execution_options(populate_existing=True)
)
_FILES = (
    select(Attachment)
    .where(Attachment.message_id == bindparam("message_id"))
    .order_by(Attachment.position, Attachment.id)
)
_HELD_BY = and_(
    Message.id == bindparam("message_id"),
    Message.claim_token == bindparam("token"),
    Message.status.in_((Delivery.SENDING, Delivery.UNKNOWN)),
)


@dataclass(frozen=True, slots=True)
class AttachmentRef:
    filename: str
    content_type: str
    blob_key: str
    content_id: str
    inline: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to make one attempt at one message, and all that the attempt needs. Valid until `lease_until`."""

    message_id: str
    token: str
    attempt: int
    lease_until: datetime
    channel: str
    profile_id: str
    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    subject: str
    text: str
    html: str
    external_id: str
    in_reply_to: str
    references: tuple[str, ...]
    message_class: MessageClass
    created_at: datetime
    attachments: tuple[AttachmentRef, ...] = ()
    settled: Mapping[str, str] = field(default_factory=dict)
    """Recipients of earlier attempts: those who have it (no words), and those who never will (the refusal)."""

    @property
    def left(self) -> list[str]:
        """Who is still to get it."""
        everybody = dict.fromkeys(address.value for address in (*self.to, *self.cc, *self.bcc))
        return [address for address in everybody if address not in self.settled]

    def lost(self, more: Mapping[str, str]) -> str:
        """Who never got it, and why, in one line."""
        found = {address: why for address, why in self.settled.items() if why} | dict(more)
        return "; ".join(f"{address}: {why}" for address, why in found.items())[:1000]


def claim(session: Session, message_id: str, *, lease_seconds: float) -> Claim | None:
    """Take one due message for one attempt. None when there is nothing to do: not due, taken, cancelled, profile blocked.

    A recipient who said STOP or is suppressed since the message was queued is found here: it is cancelled, with the reason.
    So is a policy that was revoked since; its draft asks a person again.
    """
    now, token = utcnow(), new_id()
    lease_until = now + timedelta(seconds=lease_seconds)
    if not changed(session, _TAKE, message_id=message_id, now=now, token=token, until=lease_until):
        return None
    message, profile, channel = _claimed(session, message_id)
    if message.author == Author.ASSISTANT and not policies.holds(session, message.suggestion_id):
        ended = _stop(session, message, "policy-revoked", "the policy it was sent under is revoked")
        if ended is Delivery.CANCELLED:
            policies.give_back(session, message.suggestion_id)
        return None
    to, cc, bcc = (
        addresses(channel, stored) for stored in (message.to_addresses, message.cc_addresses, message.bcc_addresses)
    )
    for address in (*to, *cc, *bcc):
        if address.value in message.settled:
            continue
        reason = contacts.may_write(session, channel=channel, address=address.value, thread_id=message.thread_id)
        if reason is not None:
            _stop(session, message, "not-allowed", f"{address.value}: {reason}" if message.settled else reason)
            return None
    note(session, message.id, f"claimed:{message.attempts}", actor="worker")
    announce(session, message)
    return Claim(
        message_id=message.id,
        token=token,
        attempt=message.attempts,
        lease_until=lease_until,
        channel=channel,
        profile_id=profile.id,
        sender=Address(channel, profile.address, profile.name),
        to=to,
        cc=cc,
        bcc=bcc,
        subject=message.subject,
        text=message.text,
        html=message.html,
        external_id=message.external_id,
        in_reply_to=message.in_reply_to,
        references=tuple(message.references),
        message_class=MessageClass(message.message_class),
        created_at=message.created_at,
        attachments=_attachments(session, message.id),
        settled=message.settled,
    )


def record_sent(session: Session, claim: Claim, receipt: Receipt, *, max_attempts: int = 8) -> Delivery | None:
    """Note that the carrier accepted. None when the claim is not the newest any more: then somebody else decided.

    While some recipients were asked to wait, the message is queued again for them alone. Whoever never got it is named in
    `error_detail` of the sent message.
    """
    if claim.attempt < max_attempts and any(one.later for one in receipt.refused):
        status = _record_partly(session, claim, receipt)
    else:
        status = Delivery.DELIVERED if receipt.status == "delivered" else Delivery.SENT
        lost = claim.lost({one.address: one.detail for one in receipt.refused})
        if not _record(
            session,
            claim,
            status=status,
            sent_at=utcnow(),
            receipt=receipt.detail[:1000],
            error_code=PARTLY if lost else "",
            error_detail=lost,
        ):
            return None
        note(session, claim.message_id, f"{status}:{claim.attempt}", actor="worker", detail=receipt.detail)
    if status is None:
        return None
    for one in receipt.refused:
        kind = f"{'later' if one.later else 'refused'}:{one.address}"
        note(session, claim.message_id, kind[:40], actor="carrier", detail=one.detail)
        if one.bad_address:
            _suppress(session, claim, one.address, one.detail)
    announce_id(session, claim.message_id)
    return status


def _record_partly(session: Session, claim: Claim, receipt: Receipt) -> Delivery | None:
    """Some have it, some were asked to wait: the next attempt is for these alone."""
    refused = {one.address: one for one in receipt.refused}
    settled = {**claim.settled}
    for address in claim.left:
        if address not in refused:
            settled[address] = ""
        elif not refused[address].later:
            settled[address] = refused[address].detail
    delay = _backoff(claim.attempt, least=None)
    if not _record(
        session,
        claim,
        status=Delivery.QUEUED,
        settled=settled,
        release_at=utcnow() + timedelta(seconds=delay),
        receipt=receipt.detail[:1000],
        error_code=PARTLY,
        error_detail=claim.lost({one.address: one.detail for one in receipt.refused}),
    ):
        return None
    note(session, claim.message_id, f"partly:{claim.attempt}", actor="worker", detail=receipt.detail)
    if delay <= _LONGEST_COUNTDOWN:
        enqueue(session, "deliver", claim.message_id, delay=delay)
    return Delivery.QUEUED


def record_failure(session: Session, claim: Claim, error: NotifyrError, *, max_attempts: int = 8) -> Delivery | None:
    """Note that an attempt failed, and what follows from the kind of error. None when the claim is not the newest any more.

    Retryable: queued again, later each time, until `max_attempts`. `CredentialsRefused`: the profile is blocked and its
    messages stay queued. `UncertainDelivery`: unknown, never sent again without a person. Anything else: failed for good.
    """
    detail = error.message[:1000]
    if isinstance(error, UncertainDelivery):
        return _settle(session, claim, Delivery.UNKNOWN, error.code, detail)
    if isinstance(error, CredentialsRefused):
        # The attempt says nothing about the message, so it is not counted.
        status = _settle(session, claim, Delivery.QUEUED, error.code, detail, attempts=claim.attempt - 1)
        if status is not None:
            profiles.block(session, claim.profile_id, code=error.code, text=detail)
        return status
    if error.retryable and claim.attempt < max_attempts:
        delay = _backoff(claim.attempt, least=error.delay)
        release_at = utcnow() + timedelta(seconds=delay)
        status = _settle(session, claim, Delivery.QUEUED, error.code, detail, release_at=release_at)
        if status is not None and delay <= _LONGEST_COUNTDOWN:
            enqueue(session, "deliver", claim.message_id, delay=delay)
        return status
    if error.retryable:
        detail = f"given up after {claim.attempt} tries; the last answer: {detail}"[:1000]
    if claim.settled:
        # The others have it: it was sent, and is shown with the names of those who never got it.
        lost = claim.lost(dict.fromkeys(claim.left, detail))
        return _settle(session, claim, Delivery.SENT, PARTLY, lost, sent_at=utcnow())
    rejected = isinstance(error, PermanentChannelError) and not isinstance(error, RecipientRefused)
    status = _settle(session, claim, Delivery.REJECTED if rejected else Delivery.FAILED, error.code, detail)
    if status is not None and isinstance(error, RecipientRefused):
        for address in _refused_addresses(claim, error):
            _suppress(session, claim, address, detail)
    return status


def apply_event(session: Session, event: DeliveryEvent) -> bool:
    """Take in a carrier's report about one of our messages. False when it is known already or about nothing of ours."""
    # Locked: an attempt that is recorded at this moment comes before or after it, and neither is lost.
    message = session.scalars(
        select(Message)
        .where(Message.external_id == event.external_id, Message.direction == Direction.OUTBOUND)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()
    if message is None or not note(
        session,
        message.id,
        str(event.kind),
        actor="carrier",
        detail=f"{event.reason} {event.detail}".strip(),
        event_id=event.event_id,
        occurred_at=event.occurred_at,
    ):
        return False
    outcome: Outcome = fold([event])
    current = Delivery(message.status)
    status = advance(current, outcome)
    if status is not current:
        error = {"error_code": event.reason[:60], "error_detail": event.detail[:1000]}
        if status is Delivery.DELIVERED:  # nothing went wrong, unless some recipients never got it: they stay named
            error = {} if message.error_code == PARTLY else {"error_code": "", "error_detail": ""}
        changed(
            session,
            update(Message)
            .where(Message.id == message.id, Message.status == current)
            .values(status=status, lease_until=None, **error),
        )
    announce_id(session, message.id)
    return True


def _record(session: Session, claim: Claim, **values: Any) -> bool:
    """Change a claimed row, also one that the sweeper gave up on: the holder of the newest token knows better."""
    statement = update(Message).where(_HELD_BY).values(claim_token=None, lease_until=None, **values)
    return changed(session, statement, message_id=claim.message_id, token=claim.token)


def _settle(session: Session, claim: Claim, status: Delivery, code: str, detail: str, **values: Any) -> Delivery | None:
    if not _record(session, claim, status=status, error_code=code, error_detail=detail, **values):
        return None
    kind = "deferred" if status is Delivery.QUEUED else str(status)
    note(session, claim.message_id, f"{kind}:{claim.attempt}", actor="worker", detail=detail)
    announce_id(session, claim.message_id)
    return status


def _stop(session: Session, message: Message, code: str, reason: str) -> Delivery:
    """End a message that may not be sent any more. What may have left is never called taken back."""
    if message.settled:
        status, code = Delivery.SENT, PARTLY
    elif session.scalar(select(Message.id).where(Message.id == message.id, may_have_left())):
        status, reason = Delivery.UNKNOWN, f"an earlier attempt may have reached them; not sent again: {reason}"
    else:
        status = Delivery.CANCELLED
    _end(session, message, status, code, reason)
    return status


def _end(session: Session, message: Message, status: Delivery, code: str, detail: str) -> None:
    """Close a message that was claimed in this very transaction."""
    message.status, message.error_code, message.error_detail = status, code, detail[:1000]
    message.claim_token = message.lease_until = None
    session.flush()
    note(session, message.id, str(status), actor="worker", detail=detail)
    derive(session, message.thread_id)
    announce(session, message)


def _backoff(attempt: int, *, least: float | None) -> float:
    longest = min(_BACKOFF_MOST, _BACKOFF_FIRST * _BACKOFF_FACTOR ** (attempt - 1))
    return max(longest * _random.uniform(0.5, 1.0), least or 0.0)


def _refused_addresses(claim: Claim, error: RecipientRefused) -> list[str]:
    named = error.detail.get("addresses")
    if isinstance(named, list | tuple):
        return [str(address) for address in named]
    return [claim.to[0].value] if len(claim.to) == 1 and not claim.cc else []


def _suppress(session: Session, claim: Claim, address: str, detail: str) -> None:
    contacts.suppress(
        session, Address(claim.channel, address), cause="refused", detail=detail[:500], message_id=claim.message_id
    )


def _claimed(session: Session, message_id: str) -> tuple[Message, Profile, str]:
    row = session.execute(_TAKEN, {"message_id": message_id}).one()
    return row[0], row[1], row[1].channel


def _attachments(session: Session, message_id: str) -> tuple[AttachmentRef, ...]:
    rows = session.scalars(_FILES, {"message_id": message_id})
    return tuple(
        AttachmentRef(row.filename, row.content_type, row.blob_key, row.content_id, row.inline) for row in rows
    )
