"""The outbox: an outbound message is a row, and its status says what is left to do.

    held ──release──> queued ──claim──> sending ──receipt──> sent
      └──undo──> cancelled     ^           ├─ retryable error ─> queued (later), failed after the last try
                               └───────────┼─ profile refused ─> queued (the profile is blocked)
                                           ├─ refused ─────────> failed, rejected (a bad address is suppressed)
                                           └─ no answer, or the claim's holder died ─> unknown (a person decides)

Every move is a conditional update, so that of two workers, two agents, or an agent and a worker exactly one wins. A claim
carries a token: only the holder of the newest one may record an outcome. Nobody is written to after a STOP, because consent
and suppression are read again in the claiming transaction.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, and_, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.messages import Attachment, Message, MessageEvent, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import enqueue, publish
from assistant.errors import (
    Conflict,
    CredentialsRefused,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotifyrError,
    PermanentChannelError,
    RecipientRefused,
    UncertainDelivery,
)
from assistant.events import DeliveryEvent, Outcome, advance, fold
from assistant.services import contacts, profiles
from assistant.states import Author, Delivery, Direction, ProfileState, SuggestionState, TriageState
from assistant.telemetry import METRICS
from assistant.values import Address, MessageClass, Receipt

__all__ = [
    "AttachmentRef",
    "Claim",
    "Swept",
    "apply_event",
    "cancel",
    "claim",
    "queue_message",
    "record_failure",
    "record_sent",
    "resolve_unknown",
    "retry",
    "send_now",
    "sweep",
]

_DAY = timedelta(days=1)
_AUTOMATIC_PER_PEER_AND_THREAD = 2
_AUTOMATIC_PER_CONTACT = 10
_MAX_TEXT = 200_000
_MAX_RECIPIENTS = 50
_MAX_REFERENCES = 30
_BACKOFF_FIRST = 5.0
_BACKOFF_FACTOR = 3.0
_BACKOFF_MOST = 3600.0
_LONGEST_COUNTDOWN = 60.0
"""Seconds a task may wait in the broker; later ones are found by the sweeper (Redis repeats tasks with a long eta)."""
_SWEEP_LIMIT = 500
_SWEEP_AFTER = {"triage": timedelta(minutes=2), "draft": timedelta(minutes=5), "deliver": timedelta(seconds=20)}
"""Age from which a row counts as forgotten by the broker, and the time between two hints for the same row."""
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MESSAGE_ID = re.compile(r"(<[^<>\s\x00-\x1f\x7f-\U0010ffff]{1,900}>)(?:#[0-9a-f]{1,64})?")
_random = SystemRandom()


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
    subject: str
    text: str
    html: str
    external_id: str
    in_reply_to: str
    references: tuple[str, ...]
    message_class: MessageClass
    created_at: datetime
    attachments: tuple[AttachmentRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows one sweep took up again, by kind."""

    triage: int = 0
    draft: int = 0
    deliver: int = 0
    unknown: int = 0
    retried: int = 0


# -- queueing, and what an agent may still do


def queue_message(
    session: Session,
    *,
    thread_id: str,
    author: Author,
    agent_id: str | None = None,
    text: str,
    html: str = "",
    subject: str | None = None,
    to: Sequence[Address] | None = None,
    cc: Sequence[Address] = (),
    suggestion_id: str | None = None,
    idempotency_key: str | None = None,
    message_class: MessageClass = MessageClass.PERSONAL,
    hold_seconds: int = 0,
) -> Message:
    """Put a reply into the outbox; the same `idempotency_key` gives the same message. Without `to`: to the newest sender.

    `hold_seconds` is the undo window. Raises `NotAllowed` with the reason when someone must not be written to, `NotFound`,
    `InvalidInput`.
    """
    if idempotency_key is not None and (known := _by_key(session, idempotency_key)) is not None:
        return known
    thread = session.get(Thread, thread_id)
    if thread is None:
        raise NotFound("there is no such thread")
    if not text.strip() and not html.strip():
        raise InvalidInput("the message is empty")
    if len(text) > _MAX_TEXT or len(html) > _MAX_TEXT:
        raise InvalidInput(f"a message has at most {_MAX_TEXT:,} characters")
    parent = _newest_inbound(session, thread_id)
    recipients = _clean(to) if to is not None else _reply_targets(thread, parent)
    copies = _clean(cc)
    _check_recipients(session, thread, [*recipients, *copies], message_class)
    profile = profiles.get(session, thread.profile_id)
    message_id, now = new_id(), utcnow()
    in_reply_to, references = _threading(parent)
    message = Message(
        id=message_id,
        thread_id=thread_id,
        profile_id=profile.id,
        direction=Direction.OUTBOUND,
        author=author,
        agent_id=agent_id,
        status=Delivery.HELD if hold_seconds else Delivery.QUEUED,
        external_id=f"<{message_id}@{profile.address.rpartition('@')[2] or 'localhost'}>",
        in_reply_to=in_reply_to,
        references=references,
        subject=_reply_subject(subject if subject is not None else thread.subject, fresh=subject is not None),
        text=text,
        new_text=text,
        html=html,
        from_address=profile.address,
        from_name=profile.name,
        to_addresses=[_as_json(address) for address in recipients],
        cc_addresses=[_as_json(address) for address in copies],
        message_class=str(message_class),
        suggestion_id=suggestion_id,
        idempotency_key=idempotency_key,
        release_at=now + timedelta(seconds=hold_seconds) if hold_seconds else None,
        occurred_at=now,
    )
    try:
        with session.begin_nested():
            session.add(message)
    except IntegrityError:
        known = _by_key(session, idempotency_key) if idempotency_key is not None else None
        if known is None:
            raise
        return known
    _trail(session, message.id, "held" if hold_seconds else "queued", actor=_actor(author, agent_id))
    _derive(session, thread_id)
    enqueue(session, "deliver", message_id, delay=float(hold_seconds))
    _announce(session, message)
    return message


def cancel(session: Session, message_id: str, *, agent_id: str | None) -> Message:
    """Take a message back (undo send). Raises `Conflict` once a worker has claimed it, `NotFound`."""
    message = _move(
        session,
        message_id,
        (Delivery.HELD, Delivery.QUEUED),
        "cancelled",
        actor=_actor(Author.AGENT, agent_id),
        refusal="it is too late to take this message back: it is {status}",
        status=Delivery.CANCELLED,
        release_at=None,
        lease_until=None,
        error_code="undone",
        error_detail="taken back before it was sent",
    )
    _derive(session, message.thread_id)
    return message


def send_now(session: Session, message_id: str, *, agent_id: str | None = None) -> Message:
    """End the undo window. Raises `Conflict` when the message is not held any more, `NotFound`."""
    message = _move(
        session,
        message_id,
        (Delivery.HELD,),
        "released",
        actor=_actor(Author.AGENT, agent_id),
        refusal="this message is not held any more: it is {status}",
        status=Delivery.QUEUED,
        release_at=None,
    )
    enqueue(session, "deliver", message_id)
    return message


def retry(session: Session, message_id: str, *, agent_id: str | None) -> Message:
    """Try a failed message again, from the first attempt. Raises `Conflict` when it has not failed, `NotFound`."""
    message = _move(
        session,
        message_id,
        (Delivery.FAILED,),
        "retried",
        actor=_actor(Author.AGENT, agent_id),
        refusal="only a failed message can be tried again: this one is {status}",
        status=Delivery.QUEUED,
        release_at=None,
        attempts=0,
        error_code="",
        error_detail="",
    )
    enqueue(session, "deliver", message_id)
    return message


def resolve_unknown(session: Session, message_id: str, *, outcome: str, agent_id: str | None) -> Message:
    """What a person found out about an `unknown` message: it was `sent`, it `failed`, or `resend` it all the same.

    Raises `Conflict` when it is not unknown any more, `InvalidInput`, `NotFound`.
    """
    changes: dict[str, dict[str, Any]] = {
        "sent": {"status": Delivery.SENT, "sent_at": utcnow(), "error_code": "", "error_detail": ""},
        "failed": {"status": Delivery.FAILED},
        "resend": {"status": Delivery.QUEUED, "release_at": None, "error_code": "", "error_detail": ""},
    }
    if outcome not in changes:
        raise InvalidInput(f"the outcome is one of {', '.join(sorted(changes))}")
    message = _move(
        session,
        message_id,
        (Delivery.UNKNOWN,),
        f"resolved:{outcome}",
        actor=_actor(Author.AGENT, agent_id),
        refusal="this message is not unknown any more: it is {status}",
        # Without its token a worker that wakes up late can change nothing any more.
        claim_token=None,
        lease_until=None,
        **changes[outcome],
    )
    if outcome == "resend":
        enqueue(session, "deliver", message_id)
    return message


# -- one attempt


def claim(session: Session, message_id: str, *, lease_seconds: float) -> Claim | None:
    """Take one due message for one attempt. None when there is nothing to do: not due, taken, cancelled, profile blocked.

    A recipient who said STOP or is suppressed since the message was queued is found here: it is cancelled, with the reason.
    """
    now, token = utcnow(), new_id()
    lease_until = now + timedelta(seconds=lease_seconds)
    won = _changed(
        session,
        update(Message)
        .where(Message.id == message_id, _due(now), _profile_active())
        .values(
            status=Delivery.SENDING,
            claim_token=token,
            lease_until=lease_until,
            attempts=Message.attempts + 1,
            release_at=None,
        ),
    )
    if not won:
        return None
    message, profile, channel, contact_id = _claimed(session, message_id)
    to, cc = _addresses(channel, message.to_addresses), _addresses(channel, message.cc_addresses)
    for address in (*to, *cc):
        if reason := contacts.may_write(session, contact_id=contact_id, channel=channel, address=address.value):
            _end(session, message, Delivery.CANCELLED, "not-allowed", reason)
            return None
    _trail(session, message.id, f"claimed:{message.attempts}", actor="worker")
    _announce(session, message)
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
        subject=message.subject,
        text=message.text,
        html=message.html,
        external_id=message.external_id,
        in_reply_to=message.in_reply_to,
        references=tuple(message.references),
        message_class=MessageClass(message.message_class),
        created_at=message.created_at,
        attachments=_attachments(session, message.id),
    )


def record_sent(session: Session, claim: Claim, receipt: Receipt) -> bool:
    """Note that the carrier accepted. False when the claim is not the newest any more: then somebody else decided."""
    status = Delivery.DELIVERED if receipt.status == "delivered" else Delivery.SENT
    if not _record(
        session,
        claim,
        status=status,
        sent_at=utcnow(),
        receipt=receipt.detail[:1000],
        error_code="",
        error_detail="; ".join(f"{one.address}: {one.detail}" for one in receipt.refused)[:1000],
    ):
        return False
    _trail(session, claim.message_id, f"{status}:{claim.attempt}", actor="worker", detail=receipt.detail)
    for one in receipt.refused:
        _trail(session, claim.message_id, f"refused:{one.address}"[:40], actor="carrier", detail=one.detail)
        if one.bad_address:
            _suppress(session, claim, one.address, one.detail)
    _announce_id(session, claim.message_id)
    return True


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
    rejected = isinstance(error, PermanentChannelError) and not isinstance(error, RecipientRefused)
    status = _settle(session, claim, Delivery.REJECTED if rejected else Delivery.FAILED, error.code, detail)
    if status is not None and isinstance(error, RecipientRefused):
        for address in _refused_addresses(claim, error):
            _suppress(session, claim, address, detail)
    return status


def apply_event(session: Session, event: DeliveryEvent) -> bool:
    """Take in a carrier's report about one of our messages. False when it is known already or about nothing of ours."""
    message = session.scalars(
        select(Message).where(Message.external_id == event.external_id, Message.direction == Direction.OUTBOUND)
    ).first()
    if message is None or not _trail(
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
        _changed(
            session,
            update(Message)
            .where(Message.id == message.id, Message.status == current)
            .values(status=status, error_code=event.reason[:60], error_detail=event.detail[:1000], lease_until=None),
        )
    _announce_id(session, message.id)
    return True


# -- the sweeper


def sweep(session: Session, *, now: datetime, repeatable: Collection[str] = ()) -> Swept:
    """Take up what the broker or a dead worker left behind. Running it twice, or in two processes, changes nothing more.

    A claim past its lease becomes `unknown`: its mail may have been accepted. Only on channels in `repeatable`, which refuse a
    second message with the same key, is it queued again.
    """
    unknown, retried = _expire_claims(session, now, repeatable)
    triage = _hint(
        session,
        "triage",
        now,
        Message,
        and_(Message.direction == Direction.INBOUND, Message.triage == TriageState.WAITING),
    )
    draft = _hint(session, "draft", now, Suggestion, Suggestion.state == SuggestionState.DRAFTING)
    deliver = _hint(session, "deliver", now, Message, and_(_due(now), _profile_active()))
    swept = Swept(triage=triage, draft=draft, deliver=deliver, unknown=unknown, retried=retried)
    for kind in ("triage", "draft", "deliver", "unknown", "retried"):
        if count := getattr(swept, kind):
            METRICS.swept.labels(kind=kind).inc(count)
    _measure(session, now)
    return swept


def _expire_claims(session: Session, now: datetime, repeatable: Collection[str]) -> tuple[int, int]:
    expired = session.execute(
        select(Message.id, Message.attempts, Profile.channel)
        .join(Profile, Profile.id == Message.profile_id)
        .where(Message.status == Delivery.SENDING, Message.lease_until <= now)
        .limit(_SWEEP_LIMIT)
    ).all()
    unknown = retried = 0
    for message_id, attempt, channel in expired:
        again = channel in repeatable
        # The token stays: should the holder still be alive, it knows the truth and may record it (`_record`).
        values: dict[str, Any] = (
            {"status": Delivery.QUEUED, "lease_until": None, "claim_token": None, "release_at": None}
            if again
            else {
                "status": Delivery.UNKNOWN,
                "lease_until": None,
                "error_code": UncertainDelivery.code,
                "error_detail": "the worker that was sending it ended without a result: it may have been sent",
            }
        )
        won = _changed(
            session,
            update(Message)
            .where(Message.id == message_id, Message.status == Delivery.SENDING, Message.lease_until <= now)
            .values(**values),
        )
        if not won:
            continue
        _trail(session, message_id, f"{'requeued' if again else 'unknown'}:{attempt}", actor="sweeper")
        _announce_id(session, message_id)
        if again:
            enqueue(session, "deliver", message_id)
            retried += 1
        else:
            unknown += 1
    return unknown, retried


def _hint(
    session: Session, task: str, now: datetime, table: type[Message | Suggestion], waiting: ColumnElement[bool]
) -> int:
    since = now - _SWEEP_AFTER[task]
    forgotten = or_(
        and_(table.hinted_at.is_(None), table.created_at <= since),
        table.hinted_at <= since,
    )
    ids = session.scalars(
        select(table.id).where(waiting, forgotten).order_by(table.created_at, table.id).limit(_SWEEP_LIMIT)
    ).all()
    if ids:
        session.execute(
            update(table).where(table.id.in_(ids)).values(hinted_at=now).execution_options(synchronize_session=False)
        )
    for row_id in ids:
        enqueue(session, task, row_id)
    return len(ids)


def _measure(session: Session, now: datetime) -> None:
    waiting = {
        "triage": and_(Message.direction == Direction.INBOUND, Message.triage == TriageState.WAITING),
        "deliver": and_(Message.direction == Direction.OUTBOUND, Message.status == Delivery.QUEUED),
        "unknown": and_(Message.direction == Direction.OUTBOUND, Message.status == Delivery.UNKNOWN),
    }
    for kind, condition in waiting.items():
        count, oldest = session.execute(select(func.count(), func.min(Message.created_at)).where(condition)).one()
        METRICS.queue_depth.labels(kind=kind).set(count)
        METRICS.queue_age.labels(kind=kind).set((now - oldest).total_seconds() if oldest is not None else 0)


# -- conditions and conditional moves


def _due(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(Message.status == Delivery.QUEUED, or_(Message.release_at.is_(None), Message.release_at <= now)),
        and_(Message.status == Delivery.HELD, Message.release_at <= now),
    )


def _profile_active() -> ColumnElement[bool]:
    return Message.profile_id.in_(select(Profile.id).where(Profile.state == ProfileState.ACTIVE))


def _changed(session: Session, statement: Any) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _move(
    session: Session,
    message_id: str,
    from_: Collection[Delivery],
    kind: str,
    *,
    actor: str,
    refusal: str,
    **values: Any,
) -> Message:
    won = _changed(
        session,
        update(Message)
        .where(Message.id == message_id, Message.direction == Direction.OUTBOUND, Message.status.in_(from_))
        .values(**values),
    )
    message = session.get(Message, message_id, populate_existing=True)
    if message is None or Direction(message.direction) is not Direction.OUTBOUND:
        raise NotFound("there is no such message in the outbox")
    if not won:
        raise Conflict(refusal.format(status=message.status), detail={"state": str(message.status)})
    _trail(session, message_id, kind, actor=actor)
    _announce(session, message)
    return message


def _record(session: Session, claim: Claim, **values: Any) -> bool:
    """Change a claimed row, also one that the sweeper gave up on: the holder of the newest token knows better."""
    return _changed(
        session,
        update(Message)
        .where(
            Message.id == claim.message_id,
            Message.claim_token == claim.token,
            Message.status.in_((Delivery.SENDING, Delivery.UNKNOWN)),
        )
        .values(claim_token=None, lease_until=None, **values),
    )


def _settle(session: Session, claim: Claim, status: Delivery, code: str, detail: str, **values: Any) -> Delivery | None:
    if not _record(session, claim, status=status, error_code=code, error_detail=detail, **values):
        return None
    kind = "deferred" if status is Delivery.QUEUED else str(status)
    _trail(session, claim.message_id, f"{kind}:{claim.attempt}", actor="worker", detail=detail)
    _announce_id(session, claim.message_id)
    return status


def _end(session: Session, message: Message, status: Delivery, code: str, detail: str) -> None:
    """Close a message that was claimed in this very transaction."""
    message.status, message.error_code, message.error_detail = status, code, detail[:1000]
    message.claim_token = message.lease_until = None
    session.flush()
    _trail(session, message.id, str(status), actor="worker", detail=detail)
    _derive(session, message.thread_id)
    _announce(session, message)


def _backoff(attempt: int, *, least: float | None) -> float:
    longest = min(_BACKOFF_MOST, _BACKOFF_FIRST * _BACKOFF_FACTOR ** (attempt - 1))
    return max(longest * _random.uniform(0.5, 1.0), least or 0.0)


# -- who is written to


def _check_recipients(
    session: Session, thread: Thread, recipients: Sequence[Address], message_class: MessageClass
) -> None:
    if not recipients:
        raise InvalidInput("there is nobody to write to in this thread: say who")
    if len(recipients) > _MAX_RECIPIENTS:
        raise InvalidInput(f"a message has at most {_MAX_RECIPIENTS} recipients")
    for address in recipients:
        reason = contacts.may_write(
            session, contact_id=thread.contact_id, channel=thread.channel, address=address.value
        )
        if reason is not None:
            raise NotAllowed(reason, detail={"address": address.value})
    if message_class is not MessageClass.PERSONAL:
        _break_loops(session, thread, recipients)


def _break_loops(session: Session, thread: Thread, recipients: Iterable[Address]) -> None:
    """Two robots must not talk to each other (RFC 3834): whatever they claim to be, they are stopped by counting."""
    since = utcnow() - _DAY
    automatic = and_(
        Message.direction == Direction.OUTBOUND,
        Message.message_class != str(MessageClass.PERSONAL),
        Message.status != Delivery.CANCELLED,
        Message.created_at > since,
    )
    in_thread = session.scalars(select(Message.to_addresses).where(automatic, Message.thread_id == thread.id)).all()
    to_contact = session.scalar(
        select(func.count())
        .select_from(Message)
        .join(Thread, Thread.id == Message.thread_id)
        .where(automatic, Thread.contact_id == thread.contact_id)
    )
    for address in recipients:
        if profiles.is_own_address(session, address.channel, address.value):
            raise NotAllowed("automatic mail is never sent to one of our own addresses")
        seen = sum(any(one["address"] == address.value for one in sent) for sent in in_thread)
        if seen >= _AUTOMATIC_PER_PEER_AND_THREAD or (to_contact or 0) >= _AUTOMATIC_PER_CONTACT:
            raise NotAllowed(
                "this person already got as much automatic mail today as one may get: a person must answer"
            )


def _reply_targets(thread: Thread, parent: Message | None) -> list[Address]:
    if parent is None:
        return []
    target = parent.reply_to_address or parent.from_address
    return _clean([Address(thread.channel, target, "" if parent.reply_to_address else parent.from_name)])


def _clean(addresses: Sequence[Address]) -> list[Address]:
    """Each address once, names without line breaks (they may come from a stranger's mail)."""
    found: dict[str, Address] = {}
    for address in addresses:
        if not address.value or _BREAKS.search(address.value) or " " in address.value:
            raise InvalidInput("an address has a character that no address has")
        found.setdefault(address.value, Address(address.channel, address.value, _one_line(address.display_name)[:300]))
    return list(found.values())


def _refused_addresses(claim: Claim, error: RecipientRefused) -> list[str]:
    named = error.detail.get("addresses")
    if isinstance(named, list | tuple):
        return [str(address) for address in named]
    return [claim.to[0].value] if len(claim.to) == 1 and not claim.cc else []


def _suppress(session: Session, claim: Claim, address: str, detail: str) -> None:
    contacts.suppress(
        session, Address(claim.channel, address), cause="refused", detail=detail[:500], message_id=claim.message_id
    )


def _addresses(channel: str, stored: Iterable[dict[str, str]]) -> tuple[Address, ...]:
    return tuple(Address(channel, one["address"], one.get("name", "")) for one in stored)


def _as_json(address: Address) -> dict[str, str]:
    return {"address": address.value, "name": address.display_name}


# -- threading, and the columns that the list reads


def _newest_inbound(session: Session, thread_id: str) -> Message | None:
    return session.scalars(
        select(Message)
        .where(Message.thread_id == thread_id, Message.direction == Direction.INBOUND)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    ).one_or_none()


def _threading(parent: Message | None) -> tuple[str, list[str]]:
    """In-Reply-To and References of an answer (RFC 5322, section 3.6.4), the first and the newest ids kept when long."""
    if parent is None:
        return "", []
    parent_id = _message_id(parent.external_id)
    before = [found for one in parent.references if (found := _message_id(one))]
    if not before and (grandparent := _message_id(parent.in_reply_to)):
        before = [grandparent]
    references = list(dict.fromkeys(one for one in [*before, parent_id] if one))
    if parent_id and references[-1] != parent_id:
        references = [*(one for one in references if one != parent_id), parent_id]
    if len(references) > _MAX_REFERENCES:
        references = [references[0], *references[-(_MAX_REFERENCES - 1) :]]
    return parent_id, references


def _message_id(stored: str) -> str:
    """The id that may stand in a header: neither a made-up one (a hash) nor one with a suffix of ours."""
    found = _MESSAGE_ID.fullmatch(stored.strip())
    return found.group(1) if found else ""


def _reply_subject(subject: str, *, fresh: bool) -> str:
    subject = _one_line(subject)
    if fresh or subject[:3].lower() == "re:":
        return subject[:1000]
    return f"Re: {subject}"[:1000].rstrip()


def _one_line(text: str) -> str:
    return " ".join(_BREAKS.sub(" ", text).split())


def _derive(session: Session, thread_id: str) -> None:
    """Bring the thread's derived columns up to its messages, in the same transaction."""
    session.flush()
    counted = and_(Message.thread_id == thread_id, Message.status != Delivery.CANCELLED)
    last = session.execute(
        select(Message.occurred_at, Message.direction, Message.new_text, Message.text)
        .where(counted)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    ).first()
    total, outbound = session.execute(
        select(func.count(Message.id), func.count(Message.id).filter(Message.direction == Direction.OUTBOUND)).where(
            counted
        )
    ).one()
    values: dict[str, Any] = {"message_count": total, "has_outbound": outbound > 0, "version": Thread.version + 1}
    if last is not None:
        values |= {
            "last_message_at": last.occurred_at,
            "last_direction": last.direction,
            "snippet": _one_line(last.new_text or last.text)[:300],
        }
    thread = session.get(Thread, thread_id)
    session.execute(
        update(Thread).where(Thread.id == thread_id).values(**values).execution_options(synchronize_session=False)
    )
    if thread is not None:
        session.refresh(thread)


# -- small readers and writers


def _by_key(session: Session, key: str) -> Message | None:
    return session.scalars(select(Message).where(Message.idempotency_key == key)).one_or_none()


def _claimed(session: Session, message_id: str) -> tuple[Message, Profile, str, str]:
    row = session.execute(
        select(Message, Profile, Thread.contact_id)
        .join(Profile, Profile.id == Message.profile_id)
        .join(Thread, Thread.id == Message.thread_id)
        .where(Message.id == message_id)
        .execution_options(populate_existing=True)
    ).one()
    return row[0], row[1], row[1].channel, row[2]


def _attachments(session: Session, message_id: str) -> tuple[AttachmentRef, ...]:
    rows = session.scalars(
        select(Attachment).where(Attachment.message_id == message_id).order_by(Attachment.position, Attachment.id)
    )
    return tuple(
        AttachmentRef(row.filename, row.content_type, row.blob_key, row.content_id, row.inline) for row in rows
    )


def _trail(
    session: Session,
    message_id: str,
    kind: str,
    *,
    actor: str,
    detail: str = "",
    event_id: str | None = None,
    occurred_at: datetime | None = None,
) -> bool:
    """Write one line of a message's trail. False when the carrier's event with this id is there already."""
    event = MessageEvent(
        message_id=message_id,
        event_id=(event_id or new_id())[:200],
        kind=kind[:40],
        actor=actor[:80],
        detail=detail[:1000],
        occurred_at=occurred_at or utcnow(),
    )
    if event_id is None:
        session.add(event)
        session.flush()
        return True
    try:
        with session.begin_nested():
            session.add(event)
    except IntegrityError:
        return False
    return True


def _announce(session: Session, message: Message) -> None:
    publish(session, "message.changed", thread_id=message.thread_id, message_id=message.id, status=str(message.status))


def _announce_id(session: Session, message_id: str) -> None:
    row = session.execute(select(Message.thread_id, Message.status).where(Message.id == message_id)).one()
    publish(session, "message.changed", thread_id=row.thread_id, message_id=message_id, status=str(row.status))


def _actor(author: Author, agent_id: str | None) -> str:
    return f"agent:{agent_id}" if agent_id else str(author)
