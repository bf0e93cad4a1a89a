"""Who a reply goes to and what it answers: recipients, the loop breaker, threading headers and subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Message, Thread
from assistant.errors import (
    InvalidInput,
    NotAllowed,
)
from assistant.services import contacts, profiles
from assistant.services.outbox_rows import (
    one_line,
)
from assistant.states import Delivery, Direction
from assistant.values import Address, MessageClass

__all__ = [
    "addresses",
    "as_json",
    "check_recipients",
    "clean",
    "newest_inbound",
    "reply_subject",
    "reply_targets",
    "threading_of",
]

_DAY = timedelta(days=1)
# Made once: making it costs more than its answer.
_NEWEST_INBOUND = (
    select(Message)
    .where(Message.thread_id == bindparam("thread_id"), Message.direction == Direction.INBOUND)
    .order_by(Message.occurred_at.desc(), Message.id.desc())
    .limit(1)
)
_AUTOMATIC_PER_PEER_AND_THREAD = 2
_AUTOMATIC_PER_CONTACT = 10
_MAX_RECIPIENTS = 50
_MAX_REFERENCES = 30
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_MESSAGE_ID = re.compile(r"(<[^<>\s\x00-\x1f\x7f-\U0010ffff]{1,900}>)(?:#[0-9a-f]{1,64})?")


def check_recipients(
    session: Session, thread: Thread, recipients: Sequence[Address], message_class: MessageClass
) -> None:
    if not recipients:
        raise InvalidInput("there is nobody to write to in this thread: say who")
    if len(recipients) > _MAX_RECIPIENTS:
        raise InvalidInput(f"a message has at most {_MAX_RECIPIENTS} recipients")
    for address in recipients:
        reason = contacts.may_write(session, channel=thread.channel, address=address.value, thread_id=thread.id)
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


def reply_targets(thread: Thread, parent: Message | None) -> list[Address]:
    if parent is None:
        return []
    target = parent.reply_to_address or parent.from_address
    return clean([Address(thread.channel, target, "" if parent.reply_to_address else parent.from_name)])


def clean(addresses: Sequence[Address]) -> list[Address]:
    """Each address once, names without line breaks (they may come from a stranger's mail)."""
    found: dict[str, Address] = {}
    for address in addresses:
        if not address.value or _CONTROL.search(address.value):
            raise InvalidInput("an address has a character that no address has")
        found.setdefault(address.value, Address(address.channel, address.value, one_line(address.display_name)[:300]))
    return list(found.values())


def addresses(channel: str, stored: Iterable[dict[str, str]]) -> tuple[Address, ...]:
    return tuple(Address(channel, one["address"], one.get("name", "")) for one in stored)


def as_json(address: Address) -> dict[str, str]:
    return {"address": address.value, "name": address.display_name}


def newest_inbound(session: Session, thread_id: str) -> Message | None:
    return session.scalars(_NEWEST_INBOUND, {"thread_id": thread_id}).one_or_none()


def threading_of(parent: Message | None) -> tuple[str, list[str]]:
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


def reply_subject(subject: str, *, fresh: bool) -> str:
    subject = one_line(subject)
    if fresh or subject[:3].lower() == "re:":
        return subject[:1000]
    return f"Re: {subject}"[:1000].rstrip()
