"""What an empty list has to tell: how much was done today, what sleeps longest, what was held lately."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Thread
from assistant.db.timeline import ThreadEvent
from assistant.states import ThreadState

__all__ = ["HELD_DAYS", "done_since", "held_lately", "longest_snoozed"]

HELD_DAYS = 30
"""Days that the spam view looks back to."""


def done_since(session: Session, moment: datetime) -> int:
    """Threads that were closed since then and are closed now: each counts once, and not when that was taken back."""
    return _threads(session, ThreadState.CLOSED, moment, now_in=ThreadState.CLOSED)


def held_lately(session: Session) -> int:
    """Threads that came into spam in the last `HELD_DAYS`, wherever they are now."""
    return _threads(session, ThreadState.SPAM, utcnow() - timedelta(days=HELD_DAYS))


def longest_snoozed(session: Session) -> Thread | None:
    """The snoozed thread whose last message is the oldest. Its contact is not loaded."""
    return session.scalars(
        select(Thread).where(Thread.state == ThreadState.SNOOZED).order_by(Thread.last_message_at, Thread.id).limit(1)
    ).one_or_none()


def _threads(session: Session, kind: ThreadState, since: datetime, *, now_in: ThreadState | None = None) -> int:
    query = select(func.count(ThreadEvent.thread_id.distinct())).where(
        ThreadEvent.kind == kind.value, ThreadEvent.created_at >= since
    )
    if now_in is not None:
        query = query.join(Thread, Thread.id == ThreadEvent.thread_id).where(Thread.state == now_in)
    return session.scalar(query) or 0
