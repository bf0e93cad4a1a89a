"""Saved filters: a view, an order and a search under a name of one's own, with how many threads it holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.db.inbox import SavedFilter
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.services import searching, threads

__all__ = ["MOST", "counted", "every", "remove", "rename", "save"]

MOST = 12
"""Filters one agent may save: each is counted with every page."""
_NAME, _SHOWN = 60, 99


def every(session: Session, agent_id: str) -> Sequence[SavedFilter]:
    """An agent's filters, by name."""
    return session.scalars(select(SavedFilter).where(SavedFilter.agent_id == agent_id).order_by(SavedFilter.name)).all()


def counted(session: Session, agent_id: str, *, zone: tzinfo = UTC) -> list[tuple[SavedFilter, str]]:
    """Filters with the number of threads each holds, as text: `7`, or `99+` for more than 99."""
    found = []
    for one in every(session, agent_id):
        filters = searching.read(one.q, zone=zone, agent_id=agent_id)
        number = threads.count_up_to(session, one.view, filters=filters, most=_SHOWN + 1)
        found.append((one, f"{_SHOWN}+" if number > _SHOWN else str(number)))
    return found


def save(session: Session, *, agent_id: str, name: str, view: str, sort: str, q: str) -> SavedFilter:
    """Keep what a list shows under a name. Raises `InvalidInput`, `Conflict` for a name that is taken."""
    if view not in threads.VIEWS or sort not in threads.SORTS or len(q) > 200:
        raise InvalidInput("there is no such list to save")
    if (session.scalar(select(func.count()).where(SavedFilter.agent_id == agent_id)) or 0) >= MOST:
        raise InvalidInput(f"{MOST} filters can be saved: delete one first")
    return _kept(session, SavedFilter(agent_id=agent_id, view=view, sort=sort, q=q), name)


def rename(session: Session, filter_id: str, *, agent_id: str, name: str) -> SavedFilter:
    """Raises `NotFound` for another agent's, `InvalidInput`, `Conflict` for a name that is taken."""
    return _kept(session, _own(session, filter_id, agent_id), name)


def remove(session: Session, filter_id: str, *, agent_id: str) -> SavedFilter:
    """Raises `NotFound`."""
    gone = _own(session, filter_id, agent_id)
    session.delete(gone)
    return gone


def _own(session: Session, filter_id: str, agent_id: str) -> SavedFilter:
    found = session.get(SavedFilter, filter_id)
    if found is None or found.agent_id != agent_id:
        raise NotFound("there is no such filter")
    return found


def _kept(session: Session, row: SavedFilter, name: str) -> SavedFilter:
    name = " ".join(name.split())
    if not name or len(name) > _NAME:
        raise InvalidInput(f"a filter needs a name of at most {_NAME} characters")
    try:
        with session.begin_nested():
            row.name = name
            session.add(row)
            session.flush()
    except IntegrityError:
        raise Conflict(f"you have a filter with the name {name}") from None
    return row
