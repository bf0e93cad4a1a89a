"""Receiving: one inbound message becomes one row in one thread, however often it is delivered.

Threads: a parent named by In-Reply-To is joined even when the subject changed; References need the same base subject,
because clients recycle them (RFC 5256, RFC 5322 section 3.6.4). A forward starts a thread of its own, and so does a
stranger: whoever learns a Message-ID does not get into somebody else's conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, literal_column, select, union_all
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Attachment, Message, MessageEvent, Thread
from assistant.db.profiles import Profile
from assistant.db.session import enqueue, publish
from assistant.errors import NotFound
from assistant.services import contacts, suggestions, timeline
from assistant.states import Author, Delivery, Direction, ThreadState, TriageState
from assistant.subjects import base_subject, is_forward
from assistant.values import Address, InboundMessage, StoredAttachment

__all__ = ["Received", "receive"]

_SNIPPET = 200
_NAMELESS = frozenset({"sender unreadable", "quarantine"})
# Made once: making these costs more than their answers, and they are asked for every message.
_OF_PROFILE = select(Message.id, Message.thread_id, Message.external_id, Message.content_hash).where(
    Message.profile_id == bindparam("profile_id")
)
# The same bytes have another id where one of their deliveries broke the parser. A partial index needs its own words.
_SAME = union_all(
    _OF_PROFILE.where(Message.external_id.in_(bindparam("ids", expanding=True))),
    _OF_PROFILE.where(Message.content_hash != literal_column("''"), Message.content_hash == bindparam("content_hash")),
)
_PARENTS = (
    select(Message.external_id, Thread, Message.subject)
    .join(Thread, Thread.id == Message.thread_id)
    .where(Message.profile_id == bindparam("profile_id"), Message.external_id.in_(bindparam("ids", expanding=True)))
)
_CHILDREN = (
    select(Thread)
    .join(Message, Message.thread_id == Thread.id)
    .where(
        Message.profile_id == bindparam("profile_id"),
        Thread.contact_id == bindparam("contact_id"),
        Thread.base_subject == bindparam("base"),
        Message.in_reply_to.in_(bindparam("ids", expanding=True)),
    )
    .order_by(Thread.created_at, Thread.id)
)
_REOPENED = (ThreadState.CLOSED, ThreadState.SNOOZED, ThreadState.PENDING)


@dataclass(frozen=True, slots=True)
class Received:
    """`created` is False when the message was known already."""

    message_id: str
    thread_id: str
    created: bool


def receive(
    session: Session,
    *,
    profile_id: str,
    message: InboundMessage,
    new_text: str,
    size: int,
    attachments: Sequence[StoredAttachment] = (),
    backfill: bool = False,
    triage: bool = True,
) -> Received:
    """Store one message. The same one again (equal id and content) gives the row that is there.

    The same id with another content is another message: anybody can reuse an id. `backfill` is for imported mail: it is
    labelled like any other (unless `triage` is off), but it is not shown as new, and no reply is drafted for it. Raises
    `NotFound` for an unknown profile.
    """
    profile = session.get(Profile, profile_id)
    if profile is None:
        raise NotFound("there is no such profile")
    external_id, known = _identity(session, profile_id, message)
    if known is not None:
        return known
    # One message of a contact at a time: an answer that comes at the same moment sees the thread it belongs to.
    contact = contacts.resolve(session, message.sender, lock=True)
    try:
        with session.begin_nested():
            thread, stranger = _thread(session, profile, contact, message)
            row = _row(profile_id, thread.id, external_id, message, new_text, size, stranger)
            row.backfill, row.triage = backfill, TriageState.WAITING if triage else None
            first, before = not thread.message_count, thread.state
            _count(thread, row, len(attachments), backfill=backfill)
            session.add(thread)
            session.flush()
            session.add(row)
            if thread.state != before:
                timeline.noted(session, thread.id, thread.state.value, reason="they wrote again")
            session.flush()
    except IntegrityError:
        # Another process stored the same message between our look and our insert.
        _, known = _identity(session, profile_id, message)
        if known is None:
            raise
        return known
    for position, part in enumerate(attachments):
        session.add(
            Attachment(
                message_id=row.id,
                position=position,
                filename=part.filename[:300],
                content_type=part.content_type[:100],
                size=part.size,
                content_id=part.content_id[:300],
                inline=part.inline,
                blob_key=part.blob_key,
                risk=part.risk,
            )
        )
    session.add(MessageEvent(message_id=row.id, event_id=f"received:{row.id}", kind="received", actor="channel"))
    if not first:  # a new thread has nothing yet that could be stale, and asks nothing before its triage
        suggestions.expire_open(session, thread.id)
        suggestions.refresh_thread(session, thread)
    if triage:
        enqueue(session, "triage", row.id)
    publish(session, "thread.changed", thread_id=thread.id, reason="received")
    return Received(row.id, thread.id, created=True)


def _identity(session: Session, profile_id: str, message: InboundMessage) -> tuple[str, Received | None]:
    """The id to store under, and where this very message is when it is there already."""
    suffix = f"#{message.content_hash[:16]}"
    base = message.external_id[: 1000 - len(suffix)]
    asked = {"profile_id": profile_id, "ids": (base, base + suffix), "content_hash": message.content_hash}
    rows = session.execute(_SAME, asked).all()
    for row in rows:
        if row.content_hash == message.content_hash:
            return row.external_id, Received(row.id, row.thread_id, created=False)
    return (base + suffix if any(row.external_id == base for row in rows) else base), None


def _thread(session: Session, profile: Profile, contact: Contact, message: InboundMessage) -> tuple[Thread, bool]:
    """The thread to put a message into (a new one is not stored yet), and whether a stranger asked for somebody else's."""
    base = base_subject(message.subject)
    stranger = False
    # Nobody can prove to be the sender of a mail that names none: it joins nothing.
    if not is_forward(message.subject) and not _NAMELESS.intersection(message.defects):
        for candidate in _candidates(session, profile.id, contact, message, base):
            if _takes_part(session, candidate, contact, message.sender):
                # Two processes may write to one thread: the second counts from what the first left.
                session.refresh(candidate, with_for_update={"key_share": True})
                return candidate, False
            stranger = True
    thread = Thread(
        id=new_id(),
        profile_id=profile.id,
        contact_id=contact.id,
        channel=message.channel,
        subject=message.subject[:1000],
        base_subject=base[:1000],
        state=ThreadState.OPEN,
        version=1,
        message_count=0,
        attachment_count=0,
        last_message_at=message.received_at or utcnow(),
    )
    return thread, stranger


def _candidates(
    session: Session, profile_id: str, contact: Contact, message: InboundMessage, base: str
) -> list[Thread]:
    """Threads that the headers point at, most trusted first."""
    named = [message.reply_to_id] if message.reply_to_id else []
    listed = [one for one in reversed(message.references) if one and one not in named][:50]
    found: dict[str, Thread] = {}
    ids = named + listed
    parents: dict[str, Thread] = {}
    subjects: dict[str, str] = {}
    if ids:
        rows = session.execute(_PARENTS, {"profile_id": profile_id, "ids": ids}).all()
        parents = {row[0]: row[1] for row in rows}
        subjects = {row[0]: base_subject(row[2]) for row in rows}
    for one in named:
        if one in parents:
            found.setdefault(parents[one].id, parents[one])
    for one in listed:
        # The subject of the message too: an agent may have moved it into a thread with another one.
        if one in parents and base in (parents[one].base_subject, subjects[one]):
            found.setdefault(parents[one].id, parents[one])
    # Arrived out of order: an answer to this message, or to the same missing parent, is here already.
    asked = {"profile_id": profile_id, "contact_id": contact.id, "base": base}
    children = session.scalars(_CHILDREN, asked | {"ids": [one for one in (message.external_id, *ids) if one]}).all()
    for thread in children:
        found.setdefault(thread.id, thread)
    return list(found.values())


def _takes_part(session: Session, thread: Thread, contact: Contact, sender: Address) -> bool:
    """Whether the sender is the thread's contact or was written to, or written from, in it before."""
    if thread.contact_id == contact.id:
        return True
    rows = session.execute(
        select(Message.from_address, Message.to_addresses, Message.cc_addresses).where(Message.thread_id == thread.id)
    ).all()
    seen = {str(row.from_address) for row in rows}
    for row in rows:
        seen.update(str(one["address"]) for one in (*row.to_addresses, *row.cc_addresses))
    own = session.scalars(
        select(Identity.address).where(Identity.contact_id == thread.contact_id, Identity.channel == thread.channel)
    ).all()
    return sender.value in seen | set(own)


def _row(
    profile_id: str, thread_id: str, external_id: str, message: InboundMessage, new_text: str, size: int, stranger: bool
) -> Message:
    return Message(
        id=new_id(),
        thread_id=thread_id,
        profile_id=profile_id,
        direction=Direction.INBOUND,
        author=Author.CONTACT,
        status=Delivery.RECEIVED,
        external_id=external_id,
        in_reply_to=message.reply_to_id[:1000],
        references=list(message.references),
        subject=message.subject[:1000],
        text=message.text,
        new_text=new_text,
        html=message.html,
        from_address=message.sender.value[:320],
        from_name=message.sender.display_name[:300],
        to_addresses=[_pair(one) for one in message.recipients],
        cc_addresses=[_pair(one) for one in message.cc],
        reply_to_address=message.reply_to.value[:320] if message.reply_to else "",
        auto_submitted=message.auto_submitted[:40],
        raw_key=message.raw_key,
        raw_size=size,
        content_hash=message.content_hash,
        defects=[*message.defects, *(["stranger-reply"] if stranger else [])],
        quarantined="quarantine" in message.defects,
        occurred_at=message.received_at or utcnow(),
    )


def _pair(address: Address) -> dict[str, str]:
    return {"address": address.value, "name": address.display_name}


def _count(thread: Thread, row: Message, attachments: int, *, backfill: bool) -> None:
    """What the list shows of a thread after one more message."""
    thread.message_count += 1
    thread.attachment_count += attachments
    thread.version += 1
    if row.occurred_at >= thread.last_message_at or thread.message_count == 1:
        thread.last_message_at = row.occurred_at
        thread.last_inbound_at = row.occurred_at
        thread.last_direction = Direction.INBOUND
        thread.snippet = " ".join((row.new_text or row.text).split())[:_SNIPPET]
    thread.unread = thread.unread if backfill and thread.message_count > 1 else not backfill
    if thread.state in _REOPENED and not backfill and not row.auto_submitted:
        thread.state, thread.snoozed_until = ThreadState.OPEN, None
