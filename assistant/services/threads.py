"""Reading and sorting threads, and the acts on one: state, assignment, snooze, marks. The list is one query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Float,
    Integer,
    Select,
    String,
    func,
    literal_column,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload, selectinload

from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.base import UtcDateTime
from assistant.db.contacts import Contact, Identity
from assistant.db.inbox import Label, ThreadLabel
from assistant.db.messages import Attachment, Message, Suggestion, Thread
from assistant.db.session import publish
from assistant.errors import InvalidInput, NotFound, PreconditionFailed
from assistant.services import access, suggestions, timeline
from assistant.services.mentions import mentioning
from assistant.services.paging import Key, Page, after, bounded, order_by, read_cursor, words, write_cursor
from assistant.states import Delivery, Direction, ThreadState, transition

__all__ = [
    "FARTHEST",
    "SORTS",
    "VIEWS",
    "Change",
    "Filters",
    "View",
    "assign",
    "change",
    "change_state",
    "count_up_to",
    "get_attachment",
    "get_message",
    "get_suggestion",
    "get_thread",
    "list_threads",
    "mark_read",
    "messages_of",
    "messages_page",
    "snooze",
    "star",
    "suggestions_of",
]

_OPEN = (ThreadState.OPEN, ThreadState.PENDING)
_IN_OUTBOX = (
    Delivery.HELD,
    Delivery.QUEUED,
    Delivery.SENDING,
    Delivery.DEFERRED,
    Delivery.UNKNOWN,
    Delivery.FAILED,
    Delivery.REJECTED,
    Delivery.BOUNCED,
)


_LABEL = "label:"
FARTHEST = 500
"""Threads that one page shows at most when it is read again as far down as it was."""


@dataclass(frozen=True, slots=True)
class View:
    """One list: the states its threads are in, and what else they have in common."""

    states: Sequence[ThreadState]
    also: Callable[[], ColumnElement[bool]] | None = None


def _in_outbox() -> ColumnElement[bool]:
    # A set made once from the messages' index, not a look at the messages of each thread.
    return Thread.id.in_(
        select(Message.thread_id).where(Message.status.in_(_IN_OUTBOX), Message.direction == Direction.OUTBOUND)
    )


VIEWS: dict[str, View] = {
    "inbox": View(_OPEN),
    "unread": View(_OPEN, lambda: Thread.__table__.c.unread),
    "review": View(_OPEN, lambda: Thread.__table__.c.needs_review),
    "spam": View((ThreadState.SPAM,)),
    "sent": View((*_OPEN, ThreadState.SNOOZED, ThreadState.CLOSED), lambda: Thread.__table__.c.has_outbound),
    "snoozed": View((ThreadState.SNOOZED,)),
    "done": View((ThreadState.CLOSED,)),
    "trash": View((ThreadState.TRASH,)),
    "outbox": View(tuple(ThreadState), _in_outbox),
    "all": View(tuple(state for state in ThreadState if state is not ThreadState.TRASH)),
}
"""Every list of the inbox by name, and which threads are in it."""


# Literal text, because it has to read like the expression in an index: migration 0007 has one for each order.
_WAITS = "CASE threads.last_direction WHEN 'inbound' THEN 0 ELSE 1 END"
_SINCE = "coalesce(threads.last_inbound_at, threads.last_message_at)"
_URGENCY = (
    "CASE threads.urgency WHEN 'critical' THEN 0 WHEN 'urgent' THEN 0 WHEN 'high' THEN 1 WHEN 'normal' THEN 2 "
    "WHEN 'medium' THEN 2 WHEN 'low' THEN 3 ELSE 2 END"
)
_DOUBT = "coalesce(threads.certainty, 2.0)"
_LAST = Key(lambda: Thread.__table__.c.last_message_at, "moment", descending=True)
_ID = Key(lambda: Thread.__table__.c.id, "id", descending=True)

SORTS: dict[str, tuple[Key, ...]] = {
    "newest": (_LAST, _ID),
    "oldest-waiting": (
        Key(lambda: literal_column(_WAITS, Integer())),
        Key(lambda: literal_column(_SINCE, UtcDateTime()), "moment"),
        _ID,
    ),
    "most-urgent": (Key(lambda: literal_column(_URGENCY, Integer())), _LAST, _ID),
    "least-certain": (Key(lambda: literal_column(_DOUBT, Float())), _LAST, _ID),
}
"""Every sort order by name. The id at the end makes each one total, so that a cursor names exactly one place."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows a list. `search`: words that must all occur in subject, snippet, contact name or address.

    `assignee` is an agent's id, or `none` for threads that nobody has.
    """

    search: str = ""
    unread: bool | None = None
    starred: bool | None = None
    assignee: str = ""
    channel: str = ""
    intent: str = ""
    contact_id: str = ""
    label: str = ""
    """Also read from the search: its words `label:name`."""
    sender: str = ""
    """Part of a contact's name or address."""
    subject: str = ""
    attachments: bool | None = None
    before: datetime | None = None
    after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What an act did. `undo` are the values to hand to `change` to take it back."""

    thread: Thread
    undo: Mapping[str, Any] = field(default_factory=dict)


# -- lists


def list_threads(
    session: Session,
    view: str,
    *,
    cursor: str | None = None,
    upto: str | None = None,
    limit: int = 50,
    sort: str = "newest",
    filters: Filters | None = None,
) -> Page[Thread]:
    """One page of a view in one query; contact, its addresses and the assignee are loaded with it.

    A cursor names a place in the order, not a number of rows, so new mail never repeats or hides a thread.
    `upto`: instead of `limit` threads all of them until that place, `FARTHEST` at most. Raises `InvalidInput` for an unknown
    view, sort or cursor.
    """
    if view not in VIEWS:
        raise InvalidInput(f"there is no view of that name; there are {', '.join(VIEWS)}")
    if sort not in SORTS:
        raise InvalidInput(f"there is no sort of that name; there are {', '.join(SORTS)}")
    keys = SORTS[sort]
    limit = FARTHEST if upto else bounded(limit)
    place = read_cursor(cursor, sort, keys) if cursor else None
    end = read_cursor(upto, sort, keys) if upto else None
    narrow = _with_labels(filters or Filters())
    conditions = _narrowed(view, narrow) + ([after(keys, place)] if place is not None else [])
    parts = [
        select(part.order_by(*order_by(keys)).limit(limit + 1).subquery())
        for part in _parts(VIEWS[view].states, keys, conditions, narrow)
    ]
    found = union(*parts).subquery("found")
    merged = [found.c[f"sort_{number}"] for number in range(len(keys))]
    # Sort values ride along: the cursor is built from what the database compared, without a second look.
    page = (
        select(Thread, *merged)
        .join(found, found.c.id == Thread.id)
        .options(joinedload(Thread.contact).joinedload(Contact.identities), joinedload(Thread.assignee))
        .order_by(*[one.desc() if key.descending else one.asc() for one, key in zip(merged, keys, strict=True)])
        .limit(limit + 1)
    )
    if end is not None:
        named = [replace(key, column=partial(_same, column)) for key, column in zip(keys, merged, strict=True)]
        page = page.where(~after(named, end))
    rows = session.execute(page).unique().all()
    more = len(rows) > limit
    rows = rows[:limit]
    last = write_cursor(sort, rows[-1][1:]) if rows else None
    if upto and not more:
        more = bool(list_threads(session, view, cursor=last or upto, limit=1, sort=sort, filters=filters).items)
    return Page([row[0] for row in rows], (last or upto) if more else None, last)


def _same(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return column


def count_up_to(session: Session, view: str, *, filters: Filters, most: int) -> int:
    """How many threads a filtered view holds, counted as far as `most`: never a walk through a large house."""
    narrow = _with_labels(filters)
    keys = SORTS["newest"]
    parts = [
        select(part.order_by(*order_by(keys)).limit(most).subquery().c.id)
        for part in _parts(VIEWS[view].states, keys, _narrowed(view, narrow), narrow)
    ]
    return session.scalar(select(func.count()).select_from(union(*parts).limit(most).subquery())) or 0


def _narrowed(view: str, filters: Filters) -> list[ColumnElement[bool]]:
    also = VIEWS[view].also
    found: list[ColumnElement[bool]] = [also()] if also is not None else []
    if filters.unread is not None:
        found.append(Thread.unread.is_(filters.unread))
    if filters.starred is not None:
        found.append(Thread.starred.is_(filters.starred))
    if filters.assignee:
        found.append(
            Thread.assignee_id.is_(None) if filters.assignee == "none" else Thread.assignee_id == filters.assignee
        )
    if filters.channel:
        found.append(Thread.channel == filters.channel)
    if filters.intent:
        found.append(Thread.intent == filters.intent)
    if filters.contact_id:
        found.append(Thread.contact_id == filters.contact_id)
    found += _searched(filters)
    found += [
        Thread.id.in_(
            select(ThreadLabel.thread_id).join(Label, Label.id == ThreadLabel.label_id).where(Label.name == one)
        )
        for one in filters.label.split()
    ]
    return found


def _searched(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.sender:
        named = select(Contact.id).where(Contact.display_name.icontains(filters.sender, autoescape=True))
        called = select(Identity.contact_id).where(Identity.address.icontains(filters.sender, autoescape=True))
        found.append(or_(Thread.contact_id.in_(named), Thread.contact_id.in_(called)))
    if filters.subject:
        found.append(Thread.subject.icontains(filters.subject, autoescape=True))
    if filters.attachments is not None:
        found.append(Thread.attachment_count > 0 if filters.attachments else Thread.attachment_count == 0)
    if filters.before is not None:
        found.append(Thread.last_message_at < filters.before)
    if filters.after is not None:
        found.append(Thread.last_message_at >= filters.after)
    return found


def _with_labels(filters: Filters) -> Filters:
    """`label:name` in the search is a label, not a word."""
    looked_for = words(filters.search)
    named = [word[len(_LABEL) :].lower() for word in looked_for if word.lower().startswith(_LABEL)]
    if not named:
        return filters
    rest = " ".join(word for word in looked_for if not word.lower().startswith(_LABEL))
    return replace(filters, search=rest, label=" ".join([filters.label, *named]))


def _parts(
    states: Sequence[ThreadState], keys: Sequence[Key], conditions: Sequence[ColumnElement[bool]], filters: Filters
) -> list[Select[Any]]:
    """Ids and sort values from where they are few, or in order. The same thread may come from two of them.

    Each state has its own stretch of the order's index: its first rows are read there. A contact's threads come from the
    contact. Words are looked for in the newest threads of each state, and in all threads of the contacts called so.
    """
    columns = [key.column().label(f"sort_{number}") for number, key in enumerate(keys)]
    some = select(Thread.id, *columns).where(*conditions)
    whatever_state = literal_column("threads.state || ''", String()).in_(list(states))
    looked_for = words(filters.search)
    if not looked_for:
        few = filters.contact_id or filters.label
        return [some.where(whatever_state)] if few else [some.where(Thread.state == one) for one in states]
    return mentioning(looked_for, states, whatever_state, keys, conditions, newest=SORTS["newest"])


# -- one thread


def get_thread(session: Session, thread_id: str) -> Thread:
    """A thread with its contact, the contact's addresses and the assignee. Raises `NotFound`."""
    thread = (
        session.scalars(
            select(Thread)
            .where(Thread.id == thread_id)
            .options(joinedload(Thread.contact).joinedload(Contact.identities), joinedload(Thread.assignee))
            .execution_options(populate_existing=True)
        )
        .unique()
        .one_or_none()
    )
    if thread is None:
        raise NotFound("there is no such thread")
    return thread


def messages_of(session: Session, thread_id: str) -> Sequence[Message]:
    """Every message of a thread, old to new, with attachments and events: three queries however long it is."""
    return session.scalars(
        select(Message)
        .where(Message.thread_id == thread_id)
        .order_by(Message.occurred_at, Message.id)
        .options(selectinload(Message.attachments), selectinload(Message.events))
    ).all()


_MESSAGE_KEYS = (
    Key(lambda: Message.__table__.c.occurred_at, "moment"),
    Key(lambda: Message.__table__.c.id, "id"),
)


def messages_page(session: Session, thread_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[Message]:
    """One page of a thread's messages, old to new, with attachments and events. Raises `NotFound`, `InvalidInput`."""
    if session.get(Thread, thread_id) is None:
        raise NotFound("there is no such thread")
    limit = bounded(limit)
    query = select(Message).where(Message.thread_id == thread_id)
    if cursor:
        query = query.where(after(_MESSAGE_KEYS, read_cursor(cursor, "messages", _MESSAGE_KEYS)))
    rows = session.scalars(
        query.order_by(Message.occurred_at, Message.id)
        .limit(limit + 1)
        .options(selectinload(Message.attachments), selectinload(Message.events))
    ).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], write_cursor("messages", (last.occurred_at, last.id)) if last is not None else None)


def get_message(session: Session, message_id: str) -> Message:
    """A message with attachments and events. Raises `NotFound`."""
    message = session.scalars(
        select(Message)
        .where(Message.id == message_id)
        .options(selectinload(Message.attachments), selectinload(Message.events))
        .execution_options(populate_existing=True)
    ).one_or_none()
    if message is None:
        raise NotFound("there is no such message")
    return message


def get_attachment(session: Session, attachment_id: str) -> Attachment:
    attachment = session.get(Attachment, attachment_id)
    if attachment is None:
        raise NotFound("there is no such attachment")
    return attachment


def suggestions_of(session: Session, thread_id: str) -> Sequence[Suggestion]:
    """Every suggestion of a thread, newest first. Raises `NotFound`."""
    if session.get(Thread, thread_id) is None:
        raise NotFound("there is no such thread")
    return session.scalars(
        select(Suggestion)
        .where(Suggestion.thread_id == thread_id)
        .order_by(Suggestion.created_at.desc(), Suggestion.id)
    ).all()


def get_suggestion(session: Session, suggestion_id: str) -> Suggestion:
    suggestion = session.get(Suggestion, suggestion_id)
    if suggestion is None:
        raise NotFound("there is no such suggestion")
    return suggestion


# -- acts

_CHANGEABLE: dict[str, InstrumentedAttribute[Any]] = {
    "state": Thread.state,
    "assignee_id": Thread.assignee_id,
    "snoozed_until": Thread.snoozed_until,
    "unread": Thread.unread,
    "starred": Thread.starred,
}


def change(
    session: Session,
    thread_id: str,
    *,
    version: int | None = None,
    agent_id: str | None = None,
    reason: str = "",
    **values: Any,
) -> Change:
    """Set some of `state`, `assignee_id`, `snoozed_until`, `unread`, `starred` in one conditional update.

    Raises `PreconditionFailed` when the thread is not at `version` any more (None: whatever it is at now), `Conflict` for a
    state it cannot move to, `NotFound`, `InvalidInput`. `reason` stands in the thread beside who did it.
    """
    thread = get_thread(session, thread_id)
    if version is not None and version != thread.version:
        raise _changed(thread)
    if unknown := set(values) - set(_CHANGEABLE):
        raise InvalidInput(f"a thread has no {', '.join(sorted(unknown))} to change")
    _check(session, thread, values)
    new = {name: value for name, value in values.items() if getattr(thread, name) != value}
    if not new:
        return Change(thread)
    undo = {name: getattr(thread, name) for name in new}
    done = session.execute(
        update(Thread)
        .where(Thread.id == thread_id, Thread.version == thread.version)
        .values(**new, version=Thread.version + 1)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(done, CursorResult)
    thread = get_thread(session, thread_id)
    if done.rowcount != 1:
        raise _changed(thread)
    timeline.changed(session, thread, undo, agent_id=agent_id, reason=reason)
    if undo.get("state") == ThreadState.SPAM and thread.state != ThreadState.TRASH:
        access.audit(session, agent_id or "system", action="quarantine.release", subject=thread_id)
    if "state" in new:
        suggestions.refresh_thread(session, thread)
    publish(session, "thread.changed", thread_id=thread_id, reason=next(iter(new)), agent_id=agent_id or "")
    return Change(thread, undo)


def change_state(
    session: Session, thread_id: str, *, state: ThreadState, version: int | None = None, agent_id: str | None = None
) -> Change:
    """Open, close, mark as spam, throw away. A thread that leaves the snoozed state forgets its date."""
    return change(session, thread_id, version=version, agent_id=agent_id, state=state, snoozed_until=None)


def snooze(
    session: Session, thread_id: str, *, until: datetime, version: int | None = None, agent_id: str | None = None
) -> Change:
    """Put a thread away until a moment, or until the contact writes."""
    return change(
        session, thread_id, version=version, agent_id=agent_id, state=ThreadState.SNOOZED, snoozed_until=until
    )


def assign(
    session: Session,
    thread_id: str,
    *,
    assignee_id: str | None,
    version: int | None = None,
    agent_id: str | None = None,
) -> Change:
    return change(session, thread_id, version=version, agent_id=agent_id, assignee_id=assignee_id)


def take_by_reply(session: Session, thread_id: str, *, agent: Agent, by_default: bool) -> None:
    """Give a thread that nobody has to the agent who replies in it, when they want that. `by_default`: the server's word."""
    own = agent.preferences.get("assign_on_reply")
    if not (by_default if own is None else own) or get_thread(session, thread_id).assignee_id is not None:
        return
    change(session, thread_id, agent_id=agent.id, assignee_id=agent.id, reason="by replying")


def mark_read(
    session: Session, thread_id: str, *, read: bool = True, version: int | None = None, agent_id: str | None = None
) -> Change:
    return change(session, thread_id, version=version, agent_id=agent_id, unread=not read)


def star(
    session: Session, thread_id: str, *, starred: bool = True, version: int | None = None, agent_id: str | None = None
) -> Change:
    return change(session, thread_id, version=version, agent_id=agent_id, starred=starred)


def _check(session: Session, thread: Thread, values: dict[str, Any]) -> None:
    if "state" in values and ThreadState(values["state"]) != ThreadState(thread.state):
        transition(ThreadState(thread.state), ThreadState(values["state"]))
    state = ThreadState(values.get("state", thread.state))
    until = values.get("snoozed_until", thread.snoozed_until)
    if state is ThreadState.SNOOZED and until is None:
        raise InvalidInput("say until when to snooze")
    if state is not ThreadState.SNOOZED and values.get("snoozed_until") is not None:
        raise InvalidInput("only a snoozed thread has a date to come back at")
    if state is not ThreadState.SNOOZED and thread.snoozed_until is not None:
        values["snoozed_until"] = None
    if (until := values.get("snoozed_until")) is not None and until <= utcnow():
        raise InvalidInput("snooze until a moment in the future")
    assignee_id = values.get("assignee_id")
    if assignee_id is not None:
        agent = session.get(Agent, assignee_id)
        if agent is None or agent.disabled_at is not None:
            raise InvalidInput("there is no such agent to assign to")


def _changed(thread: Thread) -> PreconditionFailed:
    return PreconditionFailed("the thread changed since you read it; read it again", detail={"version": thread.version})
