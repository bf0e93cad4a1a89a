"""The sweeper: takes up what the broker lost or a dead worker left behind. Rows are the truth, tasks are hints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, and_, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import enqueue, publish
from assistant.errors import (
    UncertainDelivery,
)
from assistant.services import suggestions, threads, timeline
from assistant.services.outbox_rows import (
    announce_id,
    changed,
    due,
    note,
    profile_active,
)
from assistant.services.triage import MAX_ATTEMPTS
from assistant.states import Delivery, Direction, SuggestionState, ThreadState, TriageState
from assistant.telemetry import METRICS

__all__ = [
    "Swept",
    "sweep",
]

_SWEEP_LIMIT = 500
_SWEEP_AFTER = {"triage": timedelta(seconds=60), "draft": timedelta(seconds=90), "deliver": timedelta(seconds=20)}
"""Age from which a row counts as forgotten by the broker, and the time between two hints for the same row."""

_PARTIAL_AGAIN = timedelta(minutes=5)
"""Time between two tries of what was triaged in part: a dependency that is away takes longer to come back than a worker."""


_NOW: BindParameter[datetime] = bindparam("now")


def _forgotten(table: type[Message | Suggestion], waiting: ColumnElement[bool]) -> Select[str]:
    """What waits, was stored before `since`, and had no hint after `again`."""
    never = and_(table.hinted_at.is_(None), table.created_at <= bindparam("since"))
    old = or_(never, table.hinted_at <= bindparam("again"))
    return select(table.id).where(waiting, old).order_by(table.created_at, table.id).limit(_SWEEP_LIMIT)


# Made once: making these costs more than their answers.
_UNTRIAGED = _forgotten(Message, and_(Message.direction == Direction.INBOUND, Message.triage == TriageState.WAITING))
_PARTIAL = _forgotten(Message, and_(Message.triage == TriageState.PARTIAL, Message.triage_attempts < MAX_ATTEMPTS))
_UNDRAFTED = _forgotten(Suggestion, Suggestion.state == SuggestionState.DRAFTING)
_UNDELIVERED = _forgotten(Message, and_(due(_NOW), profile_active()))
_EXPIRED = (
    select(Message.id, Message.attempts, Profile.channel)
    .join(Profile, Profile.id == Message.profile_id)
    .where(Message.status == Delivery.SENDING, Message.lease_until <= _NOW)
    .limit(_SWEEP_LIMIT)
)
_ASLEEP = (
    select(Thread.id)
    .where(Thread.state == ThreadState.SNOOZED, Thread.snoozed_until <= _NOW)
    .order_by(Thread.snoozed_until)
    .limit(_SWEEP_LIMIT)
)
_WAITING = {
    kind: select(func.count(), func.min(Message.created_at)).where(condition)
    for kind, condition in {
        "triage": and_(Message.direction == Direction.INBOUND, Message.triage == TriageState.WAITING),
        "deliver": and_(Message.direction == Direction.OUTBOUND, Message.status == Delivery.QUEUED),
        "unknown": and_(Message.direction == Direction.OUTBOUND, Message.status == Delivery.UNKNOWN),
    }.items()
}


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows one sweep took up again, by kind."""

    triage: int = 0
    draft: int = 0
    deliver: int = 0
    unknown: int = 0
    retried: int = 0
    woken: int = 0


def sweep(session: Session, *, now: datetime, repeatable: Collection[str] = (), max_attempts: int = 8) -> Swept:
    """Take up what the broker or a dead worker left behind. Running it twice, or in two processes, changes nothing more.

    A claim past its lease becomes `unknown`: its mail may have been accepted. Only on channels in `repeatable`, which refuse a
    second message with the same key, is it queued again, and no more than `max_attempts` times: what kills its worker each time
    is for a person.
    """
    unknown, retried = _expire_claims(session, now, repeatable, max_attempts)
    triage = _hint(session, "triage", now, Message, _UNTRIAGED)
    triage += _hint(session, "triage", now, Message, _PARTIAL, again=_PARTIAL_AGAIN)
    draft = _hint(session, "draft", now, Suggestion, _UNDRAFTED)
    deliver = _hint(session, "deliver", now, Message, _UNDELIVERED)
    woken = _wake(session, now)
    swept = Swept(triage=triage, draft=draft, deliver=deliver, unknown=unknown, retried=retried, woken=woken)
    for kind in ("triage", "draft", "deliver", "unknown", "retried", "woken"):
        if count := getattr(swept, kind):
            METRICS.swept.labels(kind=kind).inc(count)
    _measure(session, now)
    return swept


def _expire_claims(session: Session, now: datetime, repeatable: Collection[str], max_attempts: int) -> tuple[int, int]:
    expired = session.execute(_EXPIRED, {"now": now}).all()
    unknown = retried = 0
    for message_id, attempt, channel in expired:
        again = channel in repeatable and attempt < max_attempts
        # The token stays: should the holder still be alive, it knows the truth and may record it (`_record`).
        values: dict[str, Any] = (
            {"status": Delivery.QUEUED, "lease_until": None, "claim_token": None, "release_at": None}
            if again
            else {
                "status": Delivery.UNKNOWN,
                "lease_until": None,
                "error_code": UncertainDelivery.code,
                "error_detail": "the worker that was sending it ended without a result: it may have been sent",
            }
        )
        won = changed(
            session,
            update(Message)
            .where(Message.id == message_id, Message.status == Delivery.SENDING, Message.lease_until <= now)
            .values(**values),
        )
        if not won:
            continue
        note(session, message_id, f"{'requeued' if again else 'unknown'}:{attempt}", actor="sweeper")
        announce_id(session, message_id)
        if again:
            enqueue(session, "deliver", message_id)
            retried += 1
        else:
            unknown += 1
    return unknown, retried


def _wake(session: Session, now: datetime) -> int:
    """Bring snoozed threads back when their moment has come: open, unread, on every page that is looking."""
    ids = session.scalars(_ASLEEP, {"now": now}).all()
    woken = 0
    for thread_id in ids:
        won = changed(
            session,
            update(Thread)
            .where(Thread.id == thread_id, Thread.state == ThreadState.SNOOZED, Thread.snoozed_until <= now)
            .values(state=ThreadState.OPEN, snoozed_until=None, unread=True, version=Thread.version + 1),
        )
        if won:
            suggestions.refresh_thread(session, threads.get_thread(session, thread_id))
            timeline.noted(session, thread_id, ThreadState.OPEN.value, reason="the snooze ended")
            publish(session, "thread.changed", thread_id=thread_id, reason="snooze ended")
            woken += 1
    return woken


def _hint(
    session: Session,
    task: str,
    now: datetime,
    table: type[Message | Suggestion],
    forgotten: Select[str],
    *,
    again: timedelta | None = None,
) -> int:
    since = now - _SWEEP_AFTER[task]
    hinted = since if again is None else now - again
    ids = session.scalars(forgotten, {"now": now, "since": since, "again": hinted}).all()
    if ids:
        session.execute(
            update(table).where(table.id.in_(ids)).values(hinted_at=now).execution_options(synchronize_session=False)
        )
    for row_id in ids:
        enqueue(session, task, row_id)
    return len(ids)


def _measure(session: Session, now: datetime) -> None:
    for kind, statement in _WAITING.items():
        count, oldest = session.execute(statement).one()
        METRICS.queue_depth.labels(kind=kind).set(count)
        METRICS.queue_age.labels(kind=kind).set((now - oldest).total_seconds() if oldest is not None else 0)
