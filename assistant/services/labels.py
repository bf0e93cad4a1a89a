"""Labels that agents put on threads. A label comes into being with its first use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from zlib import crc32

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.inbox import Label, ThreadLabel
from assistant.db.session import publish
from assistant.errors import InvalidInput, NotFound
from assistant.services.paging import Key, Page, after, bounded, read_cursor, write_cursor
from assistant.services.threads import get_thread

__all__ = [
    "add",
    "add_all",
    "every",
    "name_of",
    "of_threads",
    "on_thread",
    "page",
    "put",
    "remove",
    "take_back",
    "take_off",
]

_LONGEST = 50
_HUES = 8
_MOST = 20


def name_of(text: str) -> str:
    """A label's name as it is kept: lower case, words joined by `-`. Raises `InvalidInput`."""
    name = "-".join("".join(c if c.isalnum() or c in "-_" else " " for c in text.lower()).split())
    if not name:
        raise InvalidInput("a label needs a letter or a digit")
    if len(name) > _LONGEST:
        raise InvalidInput(f"a label has at most {_LONGEST} characters")
    return name


def every(session: Session) -> Sequence[tuple[Label, int]]:
    """Every label by name, with how many threads have it."""
    rows = session.execute(
        select(Label, func.count(ThreadLabel.id))
        .outerjoin(ThreadLabel, ThreadLabel.label_id == Label.id)
        .group_by(Label.id)
        .order_by(Label.name)
    )
    return [(label, count) for label, count in rows]


_KEYS = (Key(lambda: Label.__table__.c.id, "id"),)


def page(session: Session, *, cursor: str = "", limit: int = 50) -> Page[tuple[Label, int]]:
    """One page of the labels in the order of their first use, with how many threads have each. Raises `InvalidInput`."""
    limit = bounded(limit)
    query = select(Label, func.count(ThreadLabel.id)).outerjoin(ThreadLabel, ThreadLabel.label_id == Label.id)
    if cursor:
        query = query.where(after(_KEYS, read_cursor(cursor, "labels", _KEYS)))
    rows = [
        (label, count) for label, count in session.execute(query.group_by(Label.id).order_by(Label.id).limit(limit + 1))
    ]
    return Page(rows[:limit], write_cursor("labels", (rows[limit - 1][0].id,)) if len(rows) > limit else None)


def on_thread(session: Session, thread_id: str) -> Sequence[Label]:
    """The labels of one thread, by name. Raises `NotFound`."""
    get_thread(session, thread_id)
    return of_threads(session, [thread_id])[thread_id]


def put(session: Session, thread_id: str, *, name: str, agent_id: str | None) -> Label:
    """As `add`; the label, whether it was there or not."""
    add(session, thread_id, name=name, agent_id=agent_id)
    return session.scalars(select(Label).where(Label.name == name_of(name))).one()


def take_off(session: Session, thread_id: str, *, label_id: str, agent_id: str | None) -> None:
    """Take a label off a thread by its id. Raises `NotFound` when the thread has no such label."""
    name = session.scalar(select(Label.name).where(Label.id == label_id))
    if name is None or not remove(session, thread_id, name=name, agent_id=agent_id):
        get_thread(session, thread_id)
        raise NotFound("the thread has no such label")


def of_threads(session: Session, thread_ids: Iterable[str]) -> dict[str, list[Label]]:
    """The labels of several threads in one query."""
    found: dict[str, list[Label]] = {thread_id: [] for thread_id in thread_ids}
    rows = session.execute(
        select(ThreadLabel.thread_id, Label)
        .join(Label, Label.id == ThreadLabel.label_id)
        .where(ThreadLabel.thread_id.in_(found))
        .order_by(Label.name)
    )
    for thread_id, label in rows:
        found[thread_id].append(label)
    return found


def add(session: Session, thread_id: str, *, name: str, agent_id: str | None, at: datetime | None = None) -> bool:
    """Put a label on a thread. False when it was there. `at`: the moment of one act on several. Raises `NotFound`, `InvalidInput`."""
    get_thread(session, thread_id)
    label = _label(session, name_of(name))
    if len(of_threads(session, [thread_id])[thread_id]) >= _MOST:
        raise InvalidInput(f"a thread has at most {_MOST} labels")
    try:
        with session.begin_nested():
            put = ThreadLabel(thread_id=thread_id, label_id=label.id, agent_id=agent_id, created_at=at or utcnow())
            session.add(put)
    except IntegrityError:
        return False
    publish(session, "thread.changed", thread_id=thread_id, reason="labels", agent_id=agent_id or "")
    return True


def add_all(session: Session, thread_ids: Sequence[str], *, name: str, agent_id: str) -> datetime:
    """Put a label on several threads at one moment, which is what `take_back` asks for."""
    at = utcnow()
    for thread_id in thread_ids:
        add(session, thread_id, name=name, agent_id=agent_id, at=at)
    return at


def take_back(session: Session, *, name: str, agent_id: str, at: datetime) -> int:
    """Take a label off the threads that an agent put it on at that moment, and off no other. Returns how many."""
    put = session.scalars(
        select(ThreadLabel.thread_id)
        .join(Label, Label.id == ThreadLabel.label_id)
        .where(Label.name == name, ThreadLabel.agent_id == agent_id, ThreadLabel.created_at == at)
    ).all()
    return sum(remove(session, thread_id, name=name, agent_id=agent_id) for thread_id in put)


def remove(session: Session, thread_id: str, *, name: str, agent_id: str | None) -> bool:
    """Take a label off a thread. False when it was not there. Raises `NotFound`. A label that nothing has goes away."""
    get_thread(session, thread_id)
    label = session.scalar(select(Label).where(Label.name == name))
    if label is None:
        return False
    taken = session.scalar(
        select(ThreadLabel.id).where(ThreadLabel.thread_id == thread_id, ThreadLabel.label_id == label.id)
    )
    if taken is None:
        return False
    session.execute(delete(ThreadLabel).where(ThreadLabel.id == taken))
    if session.scalar(select(ThreadLabel.id).where(ThreadLabel.label_id == label.id).limit(1)) is None:
        session.delete(label)
    publish(session, "thread.changed", thread_id=thread_id, reason="labels", agent_id=agent_id or "")
    return True


def _label(session: Session, name: str) -> Label:
    known = session.scalar(select(Label).where(Label.name == name))
    if known is not None:
        return known
    label = Label(name=name, hue=crc32(name.encode()) % _HUES)
    try:
        with session.begin_nested():
            session.add(label)
    except IntegrityError:
        found = session.scalar(select(Label).where(Label.name == name))
        if found is None:
            raise
        return found
    return label
