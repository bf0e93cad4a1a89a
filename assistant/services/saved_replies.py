"""Saved replies: words that agents use often, with a few names to fill in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.db.inbox import SavedReply
from assistant.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from assistant.services.paging import Key, Page, after, bounded, read_cursor, write_cursor

__all__ = ["NAMES", "every", "fill", "get", "left_open", "page", "remove", "save", "tag_of"]

NAMES = {
    "first_name": "the contact's first name",
    "name": "the contact's whole name",
    "subject": "the thread's subject",
    "agent": "your name",
}
"""What may stand in braces, and what it becomes. Nothing else is looked up: a saved reply is words, never a program."""
_LONGEST = 20_000
_HOLE = re.compile(r"\{([a-z_]{1,40})\}")


def every(session: Session) -> Sequence[SavedReply]:
    """Every saved reply, by name."""
    return session.scalars(select(SavedReply).order_by(SavedReply.name)).all()


_KEYS = (Key(lambda: SavedReply.__table__.c.id, "id"),)


def page(session: Session, *, cursor: str = "", limit: int = 50) -> Page[SavedReply]:
    """One page of the saved replies, oldest first. Raises `InvalidInput`."""
    limit = bounded(limit)
    query = select(SavedReply)
    if cursor:
        query = query.where(after(_KEYS, read_cursor(cursor, "saved-replies", _KEYS)))
    rows = session.scalars(query.order_by(SavedReply.id).limit(limit + 1)).all()
    return Page(rows[:limit], write_cursor("saved-replies", (rows[limit - 1].id,)) if len(rows) > limit else None)


def tag_of(reply: SavedReply) -> str:
    """Which words were read: equal for equal name and text, 16 hexadecimal digits."""
    return hashlib.sha256(f"{reply.name}\n{reply.text}".encode()).hexdigest()[:16]


def save(
    session: Session, *, name: str, text: str, agent_id: str, reply_id: str | None = None, tag: str | None = None
) -> SavedReply:
    """Write a saved reply, or change the one with that id.

    `tag`: of the words that were read. Raises `InvalidInput`, `NotFound`, `Conflict` for a name that is taken,
    `PreconditionFailed` when somebody changed the words since.
    """
    name, text = " ".join(name.split())[:80], text.strip()
    if not name or not text:
        raise InvalidInput("a saved reply needs a name and a text")
    if len(text) > _LONGEST:
        raise InvalidInput(f"a saved reply has at most {_LONGEST:,} characters")
    if unknown := sorted(set(_HOLE.findall(text)) - set(NAMES)):
        raise InvalidInput(f"{{{unknown[0]}}} is not known; there are {', '.join(f'{{{one}}}' for one in NAMES)}")
    try:
        with session.begin_nested():
            reply = _unchanged(session, reply_id, tag) if reply_id else SavedReply(agent_id=agent_id)
            reply.name, reply.text = name, text
            session.add(reply)
            session.flush()
    except IntegrityError:
        raise Conflict(f"there is a saved reply with the name {name}") from None
    return reply


def remove(session: Session, reply_id: str, *, tag: str | None = None) -> SavedReply:
    """Raises `NotFound`, and `PreconditionFailed` when its words are not those of `tag` any more."""
    reply = _unchanged(session, reply_id, tag)
    session.delete(reply)
    return reply


def fill(text: str, values: Mapping[str, str]) -> str:
    """The words with their names filled in. What has no value stays as it is, so that it is seen before sending."""
    return _HOLE.sub(lambda hole: values.get(hole[1]) or hole[0], text)


def left_open(text: str) -> str:
    """The first name in braces that nothing was filled in for; empty when there is none. For the question before sending."""
    return next((hole[0] for hole in _HOLE.finditer(text) if hole[1] in NAMES), "")


def get(session: Session, reply_id: str) -> SavedReply:
    """Raises `NotFound`."""
    reply = session.get(SavedReply, reply_id)
    if reply is None:
        raise NotFound("there is no such saved reply")
    return reply


def _unchanged(session: Session, reply_id: str, tag: str | None) -> SavedReply:
    reply = session.get(SavedReply, reply_id, with_for_update=True, populate_existing=True)
    if reply is None:
        raise NotFound("there is no such saved reply")
    if tag is not None and tag != tag_of(reply):
        raise PreconditionFailed("the saved reply changed since you read it; read it again")
    return reply
