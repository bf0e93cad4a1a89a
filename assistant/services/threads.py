"""Reading and sorting threads, and the acts on one: state, assignment, snooze, marks. The list is one query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload, selectinload

from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Attachment, Message, Suggestion, Thread
from assistant.db.session import publish
from assistant.errors import InvalidInput, NotFound, PreconditionFailed
from assistant.services import suggestions
from assistant.services.paging import Key, Page, after, bounded, order_by, read_cursor, words, write_cursor
from assistant.states import Delivery, Direction, ThreadState, transition

__all__ = [
    "SORTS",
    "VIEWS",
    "Change",
    "Filters",
    "assign",
    "change",
    "change_state",
    "counts",
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


def _in_outbox() -> ColumnElement[bool]:
    return exists().where(
        Message.thread_id == Thread.id, Message.direction == Direction.OUTBOUND, Message.status.in_(_IN_OUTBOX)
    )


VIEWS: dict[str, Callable[[], ColumnElement[bool]]] = {
    "inbox": lambda: Thread.state.in_(_OPEN),
    "unread": lambda: and_(Thread.state.in_(_OPEN), Thread.unread),
    "review": lambda: and_(Thread.state.in_(_OPEN), Thread.needs_review),
    "spam": lambda: Thread.state == ThreadState.SPAM,
    "sent": lambda: and_(Thread.has_outbound, Thread.state.not_in((ThreadState.SPAM, ThreadState.TRASH))),
    "snoozed": lambda: Thread.state == ThreadState.SNOOZED,
    "done": lambda: Thread.state == ThreadState.CLOSED,
    "trash": lambda: Thread.state == ThreadState.TRASH,
    "outbox": _in_outbox,
    "all": lambda: Thread.state != ThreadState.TRASH,
}
"""Every list of the inbox by name, and which threads are in it."""


_URGENCY = {"critical": 0, "urgent": 0, "high": 1, "normal": 2, "medium": 2, "low": 3}
_LAST = Key(lambda: Thread.__table__.c.last_message_at, "moment", descending=True)
_ID = Key(lambda: Thread.__table__.c.id, "id", descending=True)

SORTS: dict[str, tuple[Key, ...]] = {
    "newest": (_LAST, _ID),
    "oldest-waiting": (
        Key(lambda: case((Thread.last_direction == Direction.INBOUND, 0), else_=1)),
        Key(lambda: func.coalesce(Thread.last_inbound_at, Thread.last_message_at), "moment"),
        _ID,
    ),
    "most-urgent": (Key(lambda: case(_URGENCY, value=Thread.urgency, else_=2)), _LAST, _ID),
    "least-certain": (Key(lambda: func.coalesce(Thread.certainty, 2.0)), _LAST, _ID),
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
    limit: int = 50,
    sort: str = "newest",
    filters: Filters | None = None,
) -> Page[Thread]:
    """One page of a view in one query; contact, its addresses and the assignee are loaded with it.

    A cursor names a place in the order, not a number of rows, so new mail never repeats or hides a thread.
    Raises `InvalidInput` for an unknown view, sort or cursor.
    """
    if view not in VIEWS:
        raise InvalidInput(f"there is no view of that name; there are {', '.join(VIEWS)}")
    if sort not in SORTS:
        raise InvalidInput(f"there is no sort of that name; there are {', '.join(SORTS)}")
    limit = bounded(limit)
    keys = SORTS[sort]
    query = select(Thread).where(VIEWS[view](), *_narrowed(filters or Filters()))
    if cursor:
        query = query.where(after(keys, read_cursor(cursor, sort, keys)))
    columns = [key.column() for key in keys]
    # Sort values ride along: the cursor is built from what the database compared, without a second look.
    page = (
        query.add_columns(*[column.label(f"sort_{number}") for number, column in enumerate(columns)])
        .options(joinedload(Thread.contact).joinedload(Contact.identities), joinedload(Thread.assignee))
        .order_by(*order_by(keys))
        .limit(limit + 1)
    )
    rows = session.execute(page).unique().all()
    more = len(rows) > limit
    rows = rows[:limit]
    return Page([row[0] for row in rows], write_cursor(sort, rows[-1][1:]) if more else None)


def counts(session: Session) -> dict[str, int]:
    """How many threads each view holds, and how many of the inbox are unread. One query."""
    columns = [func.count(case((condition(), 1))).label(name) for name, condition in VIEWS.items()]
    row = session.execute(select(*columns).select_from(Thread)).one()
    return {name: int(getattr(row, name)) for name in VIEWS}


def _narrowed(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
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
    return found + [_mentions(word) for word in words(filters.search)]


def _mentions(word: str) -> ColumnElement[bool]:
    """`word` as it stands, in any case: `autoescape` takes the meaning from `%` and `_`."""
    return or_(
        Thread.subject.icontains(word, autoescape=True),
        Thread.snippet.icontains(word, autoescape=True),
        Thread.contact_id.in_(select(Contact.id).where(Contact.display_name.icontains(word, autoescape=True))),
        Thread.contact_id.in_(select(Identity.contact_id).where(Identity.address.icontains(word, autoescape=True))),
    )


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
    session: Session, thread_id: str, *, version: int | None = None, agent_id: str | None = None, **values: Any
) -> Change:
    """Set some of `state`, `assignee_id`, `snoozed_until`, `unread`, `starred` in one conditional update.

    Raises `PreconditionFailed` when the thread is not at `version` any more (None: whatever it is at now), `Conflict` for a
    state it cannot move to, `NotFound`, `InvalidInput`.
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
