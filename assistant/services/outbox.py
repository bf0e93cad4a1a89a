"""The outbox: an outbound message is a row, and its status says what is left to do.

    held ──release──> queued ──claim──> sending ──receipt──> sent
     ^└──undo──> cancelled │   ^           ├─ retryable error ─> queued (later), failed after the last try
     └── looks like spam ──┘   │           │
                               └───────────┼─ profile refused ─> queued (the profile is blocked)
                                           ├─ refused ─────────> failed, rejected (a bad address is suppressed)
                                           └─ no answer, or the claim's holder died ─> unknown (a person decides)

Every move is a conditional update, so that of two workers, two agents, or an agent and a worker exactly one wins. A claim
carries a token: only the holder of the newest one may record an outcome. Nobody is written to after a STOP, because consent
and suppression are read again in the claiming transaction. Each message is looked at once before its first attempt
(`screening`); one that is held back waits for an agent's release, and no sweep, retry or crash sends it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.messages import Attachment, Message, Thread
from assistant.db.session import enqueue
from assistant.errors import (
    Conflict,
    InvalidInput,
    NotFound,
)
from assistant.services import access, profiles
from assistant.services.addressing import (
    as_json,
    check_recipients,
    clean,
    newest_inbound,
    reply_subject,
    reply_targets,
    threading_of,
)
from assistant.services.outbox_rows import (
    actor_name,
    announce,
    changed,
    derive,
    may_have_left,
    note,
)
from assistant.states import Author, Delivery, Direction, Screening
from assistant.values import Address, MessageClass, StoredAttachment

__all__ = [
    "cancel",
    "queue_message",
    "release",
    "resolve_unknown",
    "retry",
    "send_now",
]

_MAX_TEXT = 200_000
_LONGEST_COUNTDOWN = 60
"""Seconds a task may wait in the broker; what is sent later is found by the sweeper (Redis repeats tasks with a long eta)."""


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
    bcc: Sequence[Address] = (),
    attachments: Sequence[StoredAttachment] = (),
    threaded: bool = True,
    suggestion_id: str | None = None,
    idempotency_key: str | None = None,
    message_class: MessageClass = MessageClass.PERSONAL,
    hold_seconds: int = 0,
) -> Message:
    """Put a reply into the outbox; the same `idempotency_key` gives the same message. Without `to`: to the newest sender.

    `hold_seconds` is the undo window, or the time until it is sent later. Without `threaded` it answers nothing (a forward, a
    new message). Raises `NotAllowed` with the reason when someone must not be written to, `NotFound`,
    `InvalidInput`.
    """
    if idempotency_key is not None and (known := _by_key(session, idempotency_key)) is not None:
        return known
    thread = session.get(Thread, thread_id)
    if thread is None:
        raise NotFound("there is no such thread")
    _check_text(text, html)
    parent = newest_inbound(session, thread_id)
    recipients = clean(to) if to is not None else reply_targets(thread, parent)
    copies, blind = clean(cc), clean(bcc)
    check_recipients(session, thread, [*recipients, *copies, *blind], message_class)
    profile = profiles.get(session, thread.profile_id)
    message_id, now = new_id(), utcnow()
    in_reply_to, references = threading_of(parent if threaded else None)
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
        subject=reply_subject(subject if subject is not None else thread.subject, fresh=subject is not None),
        text=text,
        new_text=text,
        html=html,
        from_address=profile.address,
        from_name=profile.name,
        to_addresses=[as_json(address) for address in recipients],
        cc_addresses=[as_json(address) for address in copies],
        bcc_addresses=[as_json(address) for address in blind],
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
    _attach(session, message_id, attachments)
    note(session, message.id, "held" if hold_seconds else "queued", actor=actor_name(author, agent_id))
    derive(session, thread_id)
    if hold_seconds <= _LONGEST_COUNTDOWN:
        enqueue(session, "deliver", message_id, delay=float(hold_seconds))
    announce(session, message)
    return message


def _check_text(text: str, html: str) -> None:
    if not text.strip() and not html.strip():
        raise InvalidInput("the message is empty")
    if len(text) > _MAX_TEXT or len(html) > _MAX_TEXT:
        raise InvalidInput(f"a message has at most {_MAX_TEXT:,} characters")


def _attach(session: Session, message_id: str, attachments: Sequence[StoredAttachment]) -> None:
    session.add_all(
        Attachment(
            message_id=message_id,
            position=position,
            filename=one.filename,
            content_type=one.content_type,
            size=one.size,
            content_id=one.content_id,
            inline=one.inline,
            blob_key=one.blob_key,
        )
        for position, one in enumerate(attachments)
    )


def cancel(session: Session, message_id: str, *, agent_id: str | None) -> Message:
    """Take a message back (undo send). Raises `Conflict` once a worker has claimed it or it may have left, `NotFound`."""
    message = _move(
        session,
        message_id,
        (Delivery.HELD, Delivery.QUEUED),
        "cancelled",
        actor=actor_name(Author.AGENT, agent_id),
        refusal="it is too late to take this message back: it is {status}, or somebody may have it already",
        unless=may_have_left(),
        status=Delivery.CANCELLED,
        release_at=None,
        lease_until=None,
        error_code="undone",
        error_detail="taken back before it was sent",
    )
    derive(session, message.thread_id)
    return message


def send_now(session: Session, message_id: str, *, agent_id: str | None = None) -> Message:
    """End the undo window. Raises `Conflict` when the message is not held any more, `NotFound`."""
    message = _move(
        session,
        message_id,
        (Delivery.HELD,),
        "released",
        actor=actor_name(Author.AGENT, agent_id),
        refusal="this message does not wait for the end of its undo window: it is {status}",
        unless=Message.screening == Screening.HOLD,
        status=Delivery.QUEUED,
        release_at=None,
    )
    enqueue(session, "deliver", message_id)
    return message


def release(session: Session, message_id: str, *, agent_id: str) -> Message:
    """Send a message that is held back because it looks like spam. Raises `Conflict` when it is not held back, `NotFound`.

    Who said so stands in its trail and in the audit trail; it is not scored a second time.
    """
    message = _move(
        session,
        message_id,
        (Delivery.HELD,),
        "released",
        actor=actor_name(Author.AGENT, agent_id),
        refusal="this message is not held back as spam: it is {status}",
        unless=Message.screening != Screening.HOLD,
        status=Delivery.QUEUED,
        release_at=None,
        screening=Screening.RELEASED,
        error_code="",
        error_detail="",
    )
    access.audit(session, agent_id, action="outgoing.release", subject=message_id)
    enqueue(session, "deliver", message_id)
    return message


def retry(session: Session, message_id: str, *, agent_id: str | None) -> Message:
    """Try a failed message again, from the first attempt. Raises `Conflict` when it has not failed, `NotFound`."""
    message = _move(
        session,
        message_id,
        (Delivery.FAILED,),
        "retried",
        actor=actor_name(Author.AGENT, agent_id),
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
    # It was held back when the backup was taken that it is restored from: who sends it again releases it.
    released = literal(Screening.RELEASED, Message.screening.type)
    changes["resend"]["screening"] = case((Message.screening == Screening.HOLD, released), else_=Message.screening)
    if outcome not in changes:
        raise InvalidInput(f"the outcome is one of {', '.join(sorted(changes))}")
    message = _move(
        session,
        message_id,
        (Delivery.UNKNOWN,),
        f"resolved:{outcome}",
        actor=actor_name(Author.AGENT, agent_id),
        refusal="this message is not unknown any more: it is {status}",
        # Without its token a worker that wakes up late can change nothing any more.
        claim_token=None,
        lease_until=None,
        **changes[outcome],
    )
    if outcome == "resend":
        enqueue(session, "deliver", message_id)
    return message


def _move(
    session: Session,
    message_id: str,
    from_: Collection[Delivery],
    kind: str,
    *,
    actor: str,
    refusal: str,
    unless: ColumnElement[bool] | None = None,
    **values: Any,
) -> Message:
    of_these = [Message.id == message_id, Message.direction == Direction.OUTBOUND, Message.status.in_(from_)]
    won = changed(
        session,
        update(Message).where(*of_these, *([] if unless is None else [~unless])).values(**values),
    )
    message = session.get(Message, message_id, populate_existing=True)
    if message is None or Direction(message.direction) is not Direction.OUTBOUND:
        raise NotFound("there is no such message in the outbox")
    if not won:
        raise Conflict(refusal.format(status=message.status), detail={"state": str(message.status)})
    note(session, message_id, kind, actor=actor)
    announce(session, message)
    return message


def _by_key(session: Session, key: str) -> Message | None:
    return session.scalars(select(Message).where(Message.idempotency_key == key)).one_or_none()
