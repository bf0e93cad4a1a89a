"""The end of the trash: what has lain in it for its days is deleted for good, and the audit trail says so.

A thread goes with its messages, drafts, notes, files and what was learned from it; their bytes go when nothing else names them
(`pipelines/tidying.py`). What the law asks for stays: consents, suppressed addresses, the contact, and the audit trail itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, ScalarSelect, and_, delete, func, select
from sqlalchemy.orm import Session

from assistant.db.access import AuditEntry
from assistant.db.inbox import Label, ThreadLabel
from assistant.db.messages import Message, Thread
from assistant.db.moves import ThreadMove
from assistant.db.session import publish
from assistant.db.timeline import ThreadEvent
from assistant.services import timeline
from assistant.services.outbox_rows import changed
from assistant.states import Delivery, Direction, ThreadState

__all__ = ["purge"]

_BATCH = 100
_UNDER_WAY = (Delivery.HELD, Delivery.QUEUED, Delivery.SENDING, Delivery.DEFERRED, Delivery.UNKNOWN)
"""An outgoing message that may still leave, or whose fate a person has to find out, keeps its thread."""


def purge(session: Session, *, now: datetime, days: int) -> int:
    """Delete up to a batch of threads that have been in the trash for `days`. Returns how many; 0: nothing is left to do.

    A mail that came meanwhile begins the days anew. So does a thread whose way into the trash nothing tells of.
    """
    _begin(session)
    due = _due(now - timedelta(days=days))
    wanted = select(Thread.id, Thread.message_count, _thrown_away_at()).where(due).order_by(Thread.id).limit(_BATCH)
    found = session.execute(wanted).all()
    gone = 0
    worn = set(
        session.scalars(select(ThreadLabel.label_id).where(ThreadLabel.thread_id.in_([one.id for one in found])))
    )
    for thread_id, messages, at in found:
        # Asked again: somebody may have taken it out of the trash since, or written into it.
        if not changed(session, delete(Thread).where(Thread.id == thread_id, due)):
            continue
        session.execute(delete(ThreadMove).where(ThreadMove.into_id == thread_id))
        detail = {"messages": messages, "thrown_away": at.isoformat()}
        session.add(AuditEntry(actor="sweeper", action="thread.purged", subject=thread_id, detail=detail))
        publish(session, "thread.changed", thread_id=thread_id, reason="purged")
        gone += 1
    if worn:
        session.execute(
            delete(Label).where(
                Label.id.in_(worn), ~select(ThreadLabel.id).where(ThreadLabel.label_id == Label.id).exists()
            )
        )
    return gone


def _thrown_away_at() -> ScalarSelect[datetime]:
    """When a thread came into the trash, the last time. NULL when nothing tells."""
    return (
        select(func.max(ThreadEvent.created_at))
        .where(ThreadEvent.thread_id == Thread.id, ThreadEvent.kind == ThreadState.TRASH.value)
        .correlate(Thread)
        .scalar_subquery()
    )


def _due(before: datetime) -> ColumnElement[bool]:
    under_way = (
        select(Message.id)
        .where(
            Message.thread_id == Thread.id,
            Message.direction == Direction.OUTBOUND,
            Message.status.in_(_UNDER_WAY),
        )
        .correlate(Thread)
        .exists()
    )
    return and_(
        Thread.state == ThreadState.TRASH, Thread.last_message_at <= before, _thrown_away_at() <= before, ~under_way
    )


def _begin(session: Session) -> None:
    """Threads that were thrown away before there was a timeline: their days begin now."""
    told = select(ThreadEvent.id).where(ThreadEvent.thread_id == Thread.id, ThreadEvent.kind == ThreadState.TRASH.value)
    found = session.scalars(
        select(Thread.id).where(Thread.state == ThreadState.TRASH, ~told.correlate(Thread).exists()).limit(1_000)
    )
    for thread_id in found.all():
        timeline.noted(session, thread_id, ThreadState.TRASH.value, reason="its days in the trash begin")
    session.flush()
