"""The mails that are here already when an agent calls one spam or not: found, read, and saved with another verdict on spam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from assistant.clock import utcnow
from assistant.db.learning import Correction
from assistant.db.messages import DraftText, Message, Suggestion, Thread
from assistant.db.session import publish
from assistant.db.timeline import ThreadEvent
from assistant.services import corrections, threads, triage
from assistant.states import Direction, ThreadState, TriageState
from assistant.values import Turn

__all__ = ["DAYS", "MOST", "Mail", "candidates", "mail", "save", "turns"]

DAYS = 30
MOST = 2000
"""Mails that are looked through for one correction, the newest ones."""
_LIKE = {"spam": "like one an agent called spam", "ham": "like one an agent called no spam"}
_TAKEN_BACK = "what an agent said of one like it was taken back"
_HELD_FOR = frozenset({triage.BY_ITS_SCORE, _LIKE["spam"]})
"""Why the program itself puts a thread into quarantine: an agent who is not there any more leaves a line without a name, too."""
_TRIAGED = (TriageState.DONE, TriageState.PARTIAL)
_IN = (ThreadState.OPEN, ThreadState.PENDING, ThreadState.SPAM)


@dataclass(frozen=True, slots=True)
class Mail:
    """What is needed to know one again. Of a long text only its front and its end."""

    message_id: str
    text: str


def mail(session: Session, message_id: str, *, front: int, back: int) -> Mail | None:
    """The mail that was corrected; None where it is gone."""
    found = session.execute(
        select(Message.id, Message.subject, _shortened(front, back)).where(Message.id == message_id)
    ).one_or_none()
    return None if found is None else Mail(found[0], f"{found[1]}\n{found[2]}")


def candidates(session: Session, *, but: str, front: int, back: int) -> list[Mail]:
    """Triaged mails that may be of a campaign, newest first, in one query: each the newest of its thread, open or held as spam.

    None of them an agent has called spam or not. `but`: the mail that was corrected. `front` and `back`: characters that are read
    of a text, where it is longer than both.
    """
    since = utcnow() - timedelta(days=DAYS)
    newer = aliased(Message)
    later = exists().where(
        newer.thread_id == Message.thread_id,
        newer.direction == Direction.INBOUND,
        or_(
            newer.occurred_at > Message.occurred_at,
            (newer.occurred_at == Message.occurred_at) & (newer.id > Message.id),
        ),
    )
    corrected = exists().where(
        Correction.message_id == Message.id, Correction.head == "spam", Correction.undone_at.is_(None)
    )
    ids = (
        select(Message.id)
        .join(Thread, Thread.id == Message.thread_id)
        .where(
            Message.id != but,
            Message.direction == Direction.INBOUND,
            Message.triage.in_(_TRIAGED),
            Message.created_at
            >= since,  # what an import brought in is older than its row: for this one there is an index
            Message.occurred_at >= since,
            Thread.state.in_(_IN),
            Thread.spam_score.is_not(None),
            ~corrected,
            ~later,
        )
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(MOST)
        .subquery()
    )
    rows = session.execute(
        select(Message.id, Message.subject, _shortened(front, back))
        .join(ids, ids.c.id == Message.id)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
    )
    return [Mail(message_id, f"{subject}\n{text}") for message_id, subject, text in rows]


def _shortened(front: int, back: int) -> ColumnElement[str]:
    """A text as far as it is read: two thousand mails of many megabytes are never in memory at once."""
    whole, length = Message.new_text, func.length(Message.new_text)
    ends = func.substr(whole, 1, front).concat(func.substr(whole, length - back + 1))
    return case((length > 2 * (front + back), ends), else_=whole)


def turns(session: Session, message_ids: Sequence[str]) -> list[Turn]:
    """Mails with the labels and steps of their triage. One that is gone meanwhile is left out."""
    found = (session.get(Message, message_id) for message_id in message_ids)
    return [triage.with_labels(session, message) for message in found if message is not None]


def save(session: Session, message_id: str, *, version: str, said: Callable[[Turn], Turn]) -> bool | None:
    """Store another verdict on spam of one mail, with what follows for its thread. False when it changes nothing.

    `said` puts the verdict into the mail's turn as it is now, and returns the very turn where it was the same before. None, and
    nothing is stored, when corrections are others than those of `version`, by which it was judged. A mail that an agent called
    spam or not meanwhile, or that is not its thread's newest any more, stays as it is.
    """
    message = session.get(Message, message_id)
    if message is None:
        return False
    thread = session.get_one(Thread, message.thread_id, with_for_update=True, populate_existing=True)
    session.refresh(message)
    # After the lock: whoever judged by newer corrections and was here first is seen now, and is not overwritten.
    if corrections.generation(session, "spam") != version:
        return None
    if (
        message.triage not in _TRIAGED
        or thread.state not in _IN
        or not triage.is_newest(session, message)
        or corrections.newest(session, message_id, "spam") is not None
    ):
        return False
    before = triage.with_labels(session, message)
    turn = said(before)
    if turn is before:
        return False
    message.labels = [asdict(label) for label in turn.labels]
    message.trace = [asdict(step) for step in turn.trace]
    triage.describe_spam(thread, turn, TriageState(message.triage))
    session.flush()
    if triage.opted_out(turn.trace) and not triage.opted_out(before.trace):
        triage.withdraw(session, thread, message)  # of a mail that was held nobody has listened to that
    state = _state(session, thread, message, turn)
    if state is not None:
        threads.change(session, thread.id, state=state, reason=_reason(turn, state))
    else:
        publish(session, "thread.changed", thread_id=thread.id, reason="triaged")
    return True


def _state(session: Session, thread: Thread, message: Message, turn: Turn) -> ThreadState | None:
    """Where the thread goes by the program's own verdict; None where it stays, as by an agent's decision."""
    held = any(step.stage == "classify" and step.outcome == "stop" for step in turn.trace)
    newest = session.scalars(
        select(ThreadEvent)
        .where(ThreadEvent.thread_id == thread.id, ThreadEvent.kind.in_([state.value for state in ThreadState]))
        .order_by(ThreadEvent.created_at.desc(), ThreadEvent.id.desc())
        .limit(1)
    ).first()
    if newest is not None and newest.agent_id is not None:
        return None
    if held and thread.state == ThreadState.OPEN and not _taken_up(session, thread, message):
        return ThreadState.SPAM
    ours = newest is not None and newest.kind == ThreadState.SPAM and newest.reason in _HELD_FOR
    return ThreadState.OPEN if thread.state == ThreadState.SPAM and ours and not held else None


def _taken_up(session: Session, thread: Thread, message: Message) -> bool:
    """Whether somebody works on a mail. A reply that is only suggested is none of that: it is set aside with its thread."""
    answered = select(Message.id).where(
        Message.thread_id == thread.id,
        Message.direction == Direction.OUTBOUND,
        Message.created_at >= message.created_at,
    )
    writing = select(DraftText.id).where(DraftText.thread_id == thread.id, DraftText.text != "")
    decided = select(Suggestion.id).where(
        Suggestion.message_id == message.id,
        or_(Suggestion.agent_id.is_not(None), Suggestion.decided_at.is_not(None), Suggestion.instruction != ""),
    )
    corrected = select(Correction.id).where(Correction.message_id == message.id)
    handled = select(ThreadEvent.id).where(
        ThreadEvent.thread_id == thread.id,
        ThreadEvent.agent_id.is_not(None),
        ThreadEvent.created_at >= message.created_at,
    )
    return (
        thread.assignee_id is not None
        or thread.starred
        or any(session.scalar(query.limit(1)) is not None for query in (answered, writing, decided, corrected, handled))
    )


def _reason(turn: Turn, state: ThreadState) -> str:
    """Why, in the thread's own words: because of a mail like it, because that was taken back, or by its score as ever."""
    why: Any = next((step.detail.get("spam_because") for step in turn.trace if step.stage == "classify"), None) or {}
    called = "spam" if state is ThreadState.SPAM else "ham"
    if why.get("called") == called:
        return _LIKE[called]
    return triage.BY_ITS_SCORE if state is ThreadState.SPAM else _TAKEN_BACK
