"""The audit trail, read back: who did what, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from assistant.db.access import Agent, AuditEntry
from assistant.services.paging import Key, Page, after, bounded, order_by, read_cursor, write_cursor

__all__ = ["AREAS", "Entry", "trail"]

AREAS = {
    "": "Everything",
    "session": "Sign-ins",
    "agent": "Agents",
    "key": "API keys",
    "link": "Links",
    "password": "Passwords",
    "knowledge": "Knowledge",
    "quarantine": "Quarantine",
    "outgoing": "Outgoing mail",
    "reply": "Saved replies",
    "thread": "Threads",
}
"""First part of an action -> its name; a trail can be narrowed to one."""
_ORDER = (
    Key(lambda: AuditEntry.__table__.c.created_at, "moment", descending=True),
    Key(lambda: AuditEntry.__table__.c.id, "id", descending=True),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `actor` and `subject` are names where they are known agents, else as they were written."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


def trail(session: Session, *, area: str = "", cursor: str | None = None, limit: int = 50) -> Page[Entry]:
    """A page of the trail. Raises `InvalidCursor`. An unknown area has no lines."""
    name = f"audit:{area}"
    query = select(AuditEntry).order_by(*order_by(_ORDER)).limit(bounded(limit) + 1)
    if area:
        query = query.where(AuditEntry.action.startswith(f"{area}.", autoescape=True))
    if cursor:
        query = query.where(after(_ORDER, read_cursor(cursor, name, _ORDER)))
    rows = session.scalars(query).all()
    more, rows = len(rows) > limit, rows[:limit]
    names = _names(session, rows)
    return Page(
        [
            Entry(
                row.created_at,
                names.get(row.actor, row.actor),
                row.action,
                names.get(row.subject, row.subject),
                row.detail,
            )
            for row in rows
        ],
        write_cursor(name, [rows[-1].created_at, rows[-1].id]) if more else None,
    )


def _names(session: Session, rows: Sequence[AuditEntry]) -> dict[str, str]:
    ids = {row.actor for row in rows} | {row.subject for row in rows}
    found = session.execute(select(Agent.id, Agent.name).where(Agent.id.in_(ids))).all() if ids else []
    return {row.id: row.name for row in found}
