"""How much there is: the counts of views and channels, and what an empty list has to tell."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Thread
from assistant.db.timeline import ThreadEvent
from assistant.services import threads
from assistant.states import ThreadState

__all__ = ["HELD_DAYS", "counted", "counts", "done_since", "held_lately", "longest_snoozed"]

HELD_DAYS = 30
"""Days that the spam view looks back to."""


def counts(session: Session) -> dict[str, int]:
    """How many threads each view holds, and how many of the inbox are unread: from an index, and from the outbox's rows."""
    return counted(session)[0]


def counted(session: Session) -> tuple[dict[str, int], dict[str, int]]:
    """`counts`, and for each channel that has threads how many are in the inbox: both from the same rows of the index."""
    marks = (Thread.unread, Thread.needs_review, Thread.has_outbound, Thread.channel)
    found = dict.fromkeys(threads.VIEWS, 0)
    channels: dict[str, int] = {}
    for state, unread, review, outbound, channel, number in session.execute(
        select(Thread.state, *marks, func.count()).group_by(Thread.state, *marks)
    ):
        channels[channel] = channels.get(channel, 0) + (number if state in threads.VIEWS["inbox"].states else 0)
        has = {"unread": unread, "review": review, "sent": outbound, "outbox": False}
        for name, view in threads.VIEWS.items():
            if state in view.states and has.get(name, True):
                found[name] += number
    outbox = threads.VIEWS["outbox"].also
    assert outbox is not None
    found["outbox"] = session.scalar(select(func.count()).select_from(Thread).where(outbox())) or 0
    return found, dict(sorted(channels.items()))


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
