"""The outbox' rows: when one is due, conditional updates of it, its trail, and the thread columns that follow from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, CursorResult, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.messages import Message, MessageEvent, Thread
from assistant.db.profiles import Profile
from assistant.db.session import publish
from assistant.states import Author, Delivery, Direction, ProfileState, Screening

__all__ = [
    "actor_name",
    "announce",
    "announce_id",
    "changed",
    "derive",
    "due",
    "may_have_left",
    "note",
    "one_line",
    "outcomes",
    "profile_active",
]

_SETTLED = (Delivery.SENT, Delivery.DELIVERED, Delivery.CANCELLED)

# Made once: making one costs more than its answer, and they are asked for every message.
_COUNTED = and_(Message.thread_id == bindparam("thread_id"), Message.status != Delivery.CANCELLED)
_LAST = (
    select(Message.occurred_at, Message.direction, Message.new_text, Message.text)
    .where(_COUNTED)
    .order_by(Message.occurred_at.desc(), Message.id.desc())
    .limit(1)
)
_TOTALS = select(func.count(Message.id), func.count(Message.id).filter(Message.direction == Direction.OUTBOUND)).where(
    _COUNTED
)
_WHERE_AND_HOW = select(Message.thread_id, Message.status).where(Message.id == bindparam("message_id"))

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def due(now: datetime | BindParameter[Any]) -> ColumnElement[bool]:
    """What may be attempted now. Mail that is held back as spam never is, whatever else its row says."""
    waited = or_(
        and_(Message.status == Delivery.QUEUED, or_(Message.release_at.is_(None), Message.release_at <= now)),
        and_(Message.status == Delivery.HELD, Message.release_at <= now),
    )
    return and_(waited, Message.screening.not_in((Screening.HOLD, Screening.REJECT)))


def profile_active() -> ColumnElement[bool]:
    return Message.profile_id.in_(select(Profile.id).where(Profile.state == ProfileState.ACTIVE))


def changed(session: Session, statement: Any, **values: Any) -> bool:
    """Whether a conditional statement found its row. `values` are those of its bound parameters."""
    result = session.execute(statement, values or None, execution_options={"synchronize_session": False})
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def may_have_left() -> ColumnElement[bool]:
    """Of a row that waits: some recipients have it already, or nobody knows how far an earlier attempt came."""
    traces = or_(
        *[MessageEvent.kind.startswith(kind, autoescape=True) for kind in ("unknown:", "partly:", "requeued:")]
    )
    return exists().where(MessageEvent.message_id == Message.id, traces)


def derive(session: Session, thread_id: str) -> None:
    """Bring the thread's derived columns up to its messages, in the same transaction."""
    session.flush()
    last = session.execute(_LAST, {"thread_id": thread_id}).first()
    total, outbound = session.execute(_TOTALS, {"thread_id": thread_id}).one()
    values: dict[str, Any] = {"message_count": total, "has_outbound": outbound > 0, "version": Thread.version + 1}
    if last is not None:
        values |= {
            "last_message_at": last.occurred_at,
            "last_direction": last.direction,
            "snippet": one_line(last.new_text or last.text)[:300],
        }
    thread = session.get(Thread, thread_id)
    session.execute(
        update(Thread).where(Thread.id == thread_id).values(**values).execution_options(synchronize_session=False)
    )
    if thread is not None:
        session.refresh(thread)


def one_line(text: str) -> str:
    return " ".join(_BREAKS.sub(" ", text).split())


def note(
    session: Session,
    message_id: str,
    kind: str,
    *,
    actor: str,
    detail: str = "",
    event_id: str | None = None,
    occurred_at: datetime | None = None,
) -> bool:
    """Write one line of a message's trail. False when the carrier's event with this id is there already."""
    event = MessageEvent(
        message_id=message_id,
        event_id=(event_id or new_id())[:200],
        kind=kind[:40],
        actor=actor[:80],
        detail=detail[:1000],
        occurred_at=occurred_at or utcnow(),
    )
    if event_id is None:
        session.add(event)
        session.flush()
        return True
    try:
        with session.begin_nested():
            session.add(event)
    except IntegrityError:
        return False
    return True


def announce(session: Session, message: Message) -> None:
    publish(session, "message.changed", thread_id=message.thread_id, message_id=message.id, status=str(message.status))


def announce_id(session: Session, message_id: str) -> None:
    row = session.execute(_WHERE_AND_HOW, {"message_id": message_id}).one()
    publish(session, "message.changed", thread_id=row.thread_id, message_id=message_id, status=str(row.status))


def actor_name(author: Author, agent_id: str | None) -> str:
    return f"agent:{agent_id}" if agent_id else str(author)


def outcomes(
    session: Session, thread_ids: Sequence[str], *, unsettled: bool
) -> list[tuple[str, Delivery, str, Screening]]:
    """Thread, status, receipt and screening of the outgoing messages of threads, oldest first; or only of those not settled."""
    query = select(Message.thread_id, Message.status, Message.receipt, Message.screening).where(
        Message.thread_id.in_(thread_ids), Message.direction == Direction.OUTBOUND
    )
    if unsettled:
        query = query.where(Message.status.not_in(_SETTLED))
    rows = session.execute(query.order_by(Message.occurred_at, Message.id)).all()
    return [(one.thread_id, Delivery(one.status), one.receipt or "", Screening(one.screening)) for one in rows]
