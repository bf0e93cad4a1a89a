"""Internal notes: words among agents in a thread. They are no messages, so nothing can send, quote or draft from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.db.inbox import Note
from assistant.db.session import publish
from assistant.errors import InvalidInput, NotFound
from assistant.services.paging import Key, Page, after, bounded, read_cursor, write_cursor
from assistant.services.threads import get_thread

__all__ = ["LONGEST", "add", "of_thread", "page", "put_back", "quoted", "remove"]

LONGEST = 20_000
_TELLING = 20
"""Letters from which a line of a note is its own and not chance."""


def add(session: Session, thread_id: str, *, agent_id: str, text: str, form_id: str) -> Note:
    """Write a note; the same form twice leaves one. Raises `NotFound`, `InvalidInput`."""
    get_thread(session, thread_id)
    text = text.strip()
    if not text:
        raise InvalidInput("write something first")
    if len(text) > LONGEST:
        raise InvalidInput(f"a note has at most {LONGEST:,} characters")
    note = Note(thread_id=thread_id, agent_id=agent_id, text=text, form_id=form_id)
    try:
        with session.begin_nested():
            session.add(note)
    except IntegrityError:
        known = session.scalars(select(Note).where(Note.form_id == form_id)).one_or_none()
        if known is None:
            raise
        return known
    publish(session, "thread.changed", thread_id=thread_id, reason="note", agent_id=agent_id)
    return note


def of_thread(session: Session, thread_id: str) -> Sequence[Note]:
    """The notes of a thread, oldest first."""
    return session.scalars(select(Note).where(Note.thread_id == thread_id).order_by(Note.created_at, Note.id)).all()


_KEYS = (Key(lambda: Note.__table__.c.created_at, "moment"), Key(lambda: Note.__table__.c.id, "id"))


def page(session: Session, thread_id: str, *, cursor: str = "", limit: int = 50) -> Page[Note]:
    """One page of a thread's notes, oldest first. Raises `NotFound`, `InvalidInput`."""
    get_thread(session, thread_id)
    limit = bounded(limit)
    query = select(Note).where(Note.thread_id == thread_id)
    if cursor:
        query = query.where(after(_KEYS, read_cursor(cursor, "notes", _KEYS)))
    rows = session.scalars(query.order_by(Note.created_at, Note.id).limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], write_cursor("notes", (last.created_at, last.id)) if last is not None else None)


def remove(session: Session, note_id: str, *, agent_id: str) -> Note:
    """Take one's own note away. Raises `NotFound`, also for a note of another agent."""
    note = session.get(Note, note_id)
    if note is None or note.agent_id != agent_id:
        raise NotFound("there is no such note of yours")
    session.delete(note)
    publish(session, "thread.changed", thread_id=note.thread_id, reason="note", agent_id=agent_id)
    return note


def put_back(
    session: Session, note_id: str, thread_id: str, *, agent_id: str, text: str, form_id: str, at: datetime
) -> Note:
    """Undo `remove`: the same note, where it stood. One that is there already stays as it is. Raises `NotFound`."""
    get_thread(session, thread_id)
    found = session.get(Note, note_id)
    if found is None:
        found = Note(id=note_id, thread_id=thread_id, agent_id=agent_id, text=text, form_id=form_id, created_at=at)
        try:
            with session.begin_nested():
                session.add(found)
        except IntegrityError:  # pressed twice at once: the other press was first
            raise NotFound("this note is back already") from None
        publish(session, "thread.changed", thread_id=thread_id, reason="note", agent_id=agent_id)
    return found


def quoted(notes: Sequence[Note], text: str) -> str:
    """The first line of a note that also stands in `text`; empty when none does. For the question before sending."""
    flat = " ".join(text.lower().split())
    for note in notes:
        for line in note.text.splitlines():
            words = " ".join(line.lower().split())
            if len(words) >= _TELLING and words in flat:
                return line.strip()
    return ""
