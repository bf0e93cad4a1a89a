"""Merging two threads of one contact, and splitting a message off: both with a reason, both can be taken back.

A merged thread has no row any more; its id leads to where its messages are. Later mail finds its thread by the messages that
it answers, so it follows them wherever they were moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.inbox import Label, Note, ThreadLabel, Upload
from assistant.db.messages import Attachment, DraftText, Message, Suggestion, Thread
from assistant.db.moves import ThreadMove
from assistant.db.session import publish
from assistant.db.timeline import ThreadEvent
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.services import access, contacts, suggestions, triage
from assistant.services.outbox_rows import derive
from assistant.states import Delivery, Direction, ThreadState
from assistant.subjects import base_subject
from assistant.values import Address

__all__ = ["merge", "moves_of", "now_at", "siblings", "split", "undo"]

_VERDICT = (
    "intent",
    "intent_score",
    "urgency",
    "reply_intent",
    "sentiment",
    "language",
    "spam_score",
    "spam_verdict",
    "certainty",
)
_KEPT = (*_VERDICT, "profile_id", "contact_id", "channel", "subject", "base_subject", "state", "starred", "unread")
_CHANGED = (*_VERDICT, "state", "starred", "assignee_id")
_ALONG: dict[str, Any] = {
    "messages": Message,
    "suggestions": Suggestion,
    "notes": Note,
    "uploads": Upload,
    "events": ThreadEvent,
}
"""What goes along whole; drafts and labels can be on both threads, so they are joined."""
_WORKED = (ThreadState.OPEN, ThreadState.PENDING)
_LONGEST_REASON = 300
_STEPS = 20
_CHOICES = 20


def merge(session: Session, thread_id: str, *, into_id: str, reason: str, agent_id: str) -> ThreadMove:
    """Put everything of one thread into another of the same contact. Raises `NotFound`, `InvalidInput`."""
    reason = _said(reason)
    if thread_id == into_id:
        raise InvalidInput("a thread cannot be merged into itself")
    thread, into = _locked(session, thread_id, into_id)
    if (thread.contact_id, thread.channel) != (into.contact_id, into.channel):
        raise InvalidInput("only threads of one contact on one channel can be merged")
    move = _join(session, thread, into, agent_id=agent_id, reason=reason)
    access.audit(session, agent_id, action="thread.merged", subject=thread_id, into=into_id, reason=reason)
    return move


def split(session: Session, message_id: str, *, reason: str, agent_id: str) -> ThreadMove:
    """Give a received message a thread of its own. Raises `NotFound`, `InvalidInput`, `Conflict` when it is alone there."""
    reason = _said(reason)
    found = session.get(Message, message_id)
    if found is None:
        raise NotFound("there is no such message")
    if found.direction != Direction.INBOUND:
        raise InvalidInput("only a received message can get a thread of its own")
    (old,) = _locked(session, found.thread_id)
    message = session.get_one(Message, message_id, populate_existing=True)
    if message.thread_id != old.id or _count(session, old.id) < 2:
        raise Conflict("this message is the only one of its thread")
    newest = _newest(session, old.id) == message_id
    sender = Address(old.channel, message.from_address, message.from_name)
    fresh = Thread(
        id=new_id(),
        profile_id=message.profile_id,
        contact_id=contacts.resolve(session, sender).id,
        channel=old.channel,
        subject=message.subject,
        base_subject=base_subject(message.subject),
        state=ThreadState.OPEN,
        unread=False,
        assignee_id=old.assignee_id,
        last_message_at=message.occurred_at,
    )
    session.add(fresh)
    session.flush()
    if newest:
        _carry(old, fresh)
    moved = {"messages": [message_id], "suggestions": _ids(session, Suggestion, Suggestion.message_id == message_id)}
    _move(session, moved, fresh.id)
    move = ThreadMove(
        kind="split",
        from_id=old.id,
        into_id=fresh.id,
        agent_id=agent_id,
        reason=reason,
        subject=fresh.subject,
        moved=moved,
    )
    session.add(move)
    if newest:
        triage.describe(session, old)
    else:
        triage.describe(session, fresh)
    for one in (old, fresh):
        _settle(session, one, agent_id)
    access.audit(session, agent_id, action="thread.split", subject=old.id, into=fresh.id, reason=reason)
    return move


def undo(session: Session, move_id: str, *, agent_id: str) -> ThreadMove:
    """Take a merge or a split back, once. Raises `NotFound`, `Conflict` when a later move is in the way."""
    move = session.get(ThreadMove, move_id, with_for_update=True)
    if move is None:
        raise NotFound("there is no such merge or split")
    if move.undone_at is not None:
        raise Conflict("this was taken back already")
    if move.kind == "split":
        fresh, old = _locked(session, move.into_id, move.from_id)
        _join(session, fresh, old, agent_id=agent_id, reason="split taken back").undone_at = utcnow()
    else:
        _restore(session, move, agent_id)
    move.undone_at = utcnow()
    access.audit(session, agent_id, action=f"thread.{move.kind}.undone", subject=move.from_id, into=move.into_id)
    return move


def now_at(session: Session, thread_id: str) -> str:
    """Where the messages of a thread that is gone are now; empty when it never was."""
    at = thread_id
    for _ in range(_STEPS):
        if session.get(Thread, at) is not None:
            return at
        gone = (
            select(ThreadMove)
            .where(
                or_(
                    (ThreadMove.from_id == at) & (ThreadMove.kind == "merge"),
                    # A split that was taken back: its thread went back into the old one.
                    (ThreadMove.into_id == at) & (ThreadMove.kind == "split") & ThreadMove.undone_at.is_not(None),
                )
            )
            .order_by(ThreadMove.created_at.desc(), ThreadMove.id.desc())
            .limit(1)
        )
        move = session.scalars(gone).one_or_none()
        if move is None:
            return ""
        at = move.into_id if move.from_id == at else move.from_id
    return ""


def moves_of(session: Session, thread_id: str) -> Sequence[ThreadMove]:
    """What was merged into a thread, split off it, or made it, and is not taken back; oldest first."""
    return session.scalars(
        select(ThreadMove)
        .where(or_(ThreadMove.into_id == thread_id, ThreadMove.from_id == thread_id), ThreadMove.undone_at.is_(None))
        .order_by(ThreadMove.created_at, ThreadMove.id)
    ).all()


def siblings(session: Session, thread: Thread) -> Sequence[Thread]:
    """Other threads of the same contact on the same channel, newest first: what it can be merged into."""
    return session.scalars(
        select(Thread)
        .where(Thread.contact_id == thread.contact_id, Thread.channel == thread.channel, Thread.id != thread.id)
        .order_by(Thread.last_message_at.desc(), Thread.id.desc())
        .limit(_CHOICES)
    ).all()


# -- parts


def _said(reason: str) -> str:
    reason = " ".join(reason.split())[:_LONGEST_REASON]
    if not reason:
        raise InvalidInput("say why, so that colleagues understand it later")
    return reason


def _locked(session: Session, *thread_ids: str) -> list[Thread]:
    """The threads, locked in the order of their ids: a mail that arrives now waits, or is moved along."""
    found = {
        one.id: one
        for one in session.scalars(
            select(Thread)
            .where(Thread.id.in_(thread_ids))
            .order_by(Thread.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    }
    if len(found) != len(set(thread_ids)):
        raise Conflict("the thread is not there any more: it was merged meanwhile")
    return [found[one] for one in thread_ids]


def _join(session: Session, thread: Thread, into: Thread, *, agent_id: str, reason: str) -> ThreadMove:
    before = {name: getattr(thread, name) for name in (*_KEPT, "assignee_id", "version")} | {
        "created_at": thread.created_at.isoformat(),
        "snoozed_until": thread.snoozed_until.isoformat() if thread.snoozed_until else None,
        "into": {name: getattr(into, name) for name in _CHANGED},
    }
    moved = {name: _ids(session, table, table.thread_id == thread.id) for name, table in _ALONG.items()}
    if (_newest_at(session, thread.id) or 0) > (_newest_at(session, into.id) or 0):
        _carry(thread, into)
    _move(session, moved, into.id)
    moved |= {"drafts": _join_drafts(session, thread.id, into.id)} | _join_labels(session, thread.id, into.id)
    into.starred, into.unread = into.starred or thread.starred, into.unread or thread.unread
    into.assignee_id = into.assignee_id or thread.assignee_id
    if thread.state in _WORKED and into.state in (ThreadState.CLOSED, ThreadState.SNOOZED):
        into.state, into.snoozed_until = ThreadState.OPEN, None
    move = ThreadMove(
        kind="merge",
        from_id=thread.id,
        into_id=into.id,
        agent_id=agent_id,
        reason=reason,
        subject=thread.subject,
        moved=moved,
        before=before,
    )
    session.add(move)
    session.flush()
    session.expunge(thread)
    session.execute(delete(Thread).where(Thread.id == thread.id))
    publish(session, "thread.changed", thread_id=thread.id, reason="merged", agent_id=agent_id)
    _settle(session, into, agent_id)
    return move


def _restore(session: Session, move: ThreadMove, agent_id: str) -> None:
    """The merged thread stands again, with what went along and is still there."""
    try:
        (into,) = _locked(session, move.into_id)
    except Conflict:
        raise Conflict("the thread was merged again since: take that back first") from None
    before = dict(move.before)
    changed, version = before.pop("into"), before.pop("version")
    state = ThreadState(before.pop("state"))
    snoozed = before.pop("snoozed_until")
    until = datetime.fromisoformat(snoozed) if snoozed else None
    if state is ThreadState.SNOOZED and (until is None or until <= utcnow()):
        state, until = ThreadState.OPEN, None
    created = datetime.fromisoformat(before.pop("created_at"))
    thread = Thread(
        id=move.from_id, **before, state=state, snoozed_until=until, created_at=created, version=version + 1
    )
    session.add(thread)
    session.flush()
    newest = _newest(session, into.id)
    _move(session, {name: ids for name, ids in move.moved.items() if name in _ALONG}, thread.id)
    for name, table in (("drafts", DraftText), ("labels", ThreadLabel)):
        session.execute(update(table).where(table.id.in_(move.moved[name])).values(thread_id=thread.id))
    labels = session.scalars(select(Label.id).where(Label.id.in_(move.moved["shared"])))
    session.add_all(ThreadLabel(thread_id=thread.id, label_id=one, agent_id=agent_id) for one in labels)
    _give_back(into, thread, changed, verdict=newest in move.moved["messages"])
    for one in (thread, into):
        _settle(session, one, agent_id)


def _give_back(into: Thread, thread: Thread, changed: dict[str, Any], *, verdict: bool) -> None:
    """What the other thread had only from the one that goes."""
    if verdict:
        for name in _VERDICT:
            if name in changed:  # a move that an earlier release noted knows fewer
                setattr(into, name, changed[name])
    if thread.starred:
        into.starred = changed["starred"]
    if thread.assignee_id == into.assignee_id:
        into.assignee_id = changed["assignee_id"]
    if changed["state"] == ThreadState.CLOSED and into.state == ThreadState.OPEN:
        into.state = ThreadState.CLOSED


def _carry(source: Thread, target: Thread) -> None:
    for name in _VERDICT:
        setattr(target, name, getattr(source, name))


def _move(session: Session, moved: dict[str, list[str]], thread_id: str) -> None:
    for name, ids in moved.items():
        table = _ALONG[name]
        session.execute(update(table).where(table.id.in_(ids)).values(thread_id=thread_id))


def _join_drafts(session: Session, from_id: str, into_id: str) -> list[str]:
    """Unsent words go along; where an agent has words of that kind on both threads, they stand one under the other."""
    there = {
        (one.agent_id, one.kind): one
        for one in session.scalars(select(DraftText).where(DraftText.thread_id == into_id))
    }
    moved = []
    for draft in session.scalars(select(DraftText).where(DraftText.thread_id == from_id)).all():
        other = there.get((draft.agent_id, draft.kind))
        if other is None:
            draft.thread_id = into_id
            moved.append(draft.id)
        else:
            other.text = f"{other.text.rstrip()}\n\n{draft.text}"
            session.delete(draft)
    session.flush()
    return moved


def _join_labels(session: Session, from_id: str, into_id: str) -> dict[str, list[str]]:
    """Labels go along; of those that both threads have, the names of the labels are kept for a way back."""
    there = set(session.scalars(select(ThreadLabel.label_id).where(ThreadLabel.thread_id == into_id)))
    here = session.scalars(select(ThreadLabel).where(ThreadLabel.thread_id == from_id).order_by(ThreadLabel.id)).all()
    moved, shared = [], []
    for one in here:
        if one.label_id in there:
            shared.append(one.label_id)
            session.delete(one)
        else:
            one.thread_id = into_id
            moved.append(one.id)
    session.flush()
    return {"labels": moved, "shared": shared}


def _settle(session: Session, thread: Thread, agent_id: str) -> None:
    """Bring every derived column of a thread up to its messages, and tell who looks at it."""
    derive(session, thread.id)
    newest = _newest(session, thread.id)
    thread.last_inbound_at = session.get_one(Message, newest).occurred_at if newest else None
    thread.attachment_count = (
        session.scalar(
            select(func.count(Attachment.id))
            .join(Message, Message.id == Attachment.message_id)
            .where(Message.thread_id == thread.id)
        )
        or 0
    )
    session.flush()
    suggestions.expire_open(session, thread.id, but=newest)
    suggestions.refresh_thread(session, thread)
    publish(session, "thread.changed", thread_id=thread.id, reason="moved", agent_id=agent_id)


def _newest(session: Session, thread_id: str) -> str:
    found = session.scalar(
        select(Message.id)
        .where(Message.thread_id == thread_id, Message.direction == Direction.INBOUND)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    )
    return found or ""


def _newest_at(session: Session, thread_id: str) -> float | None:
    newest = _newest(session, thread_id)
    return session.get_one(Message, newest).occurred_at.timestamp() if newest else None


def _count(session: Session, thread_id: str) -> int:
    counted = select(func.count(Message.id)).where(Message.thread_id == thread_id, Message.status != Delivery.CANCELLED)
    return session.scalar(counted) or 0


def _ids(session: Session, table: Any, condition: Any) -> list[str]:
    return list(session.scalars(select(table.id).where(condition).order_by(table.id)))
