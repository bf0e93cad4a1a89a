"""What agents say a label should have been: one table for all heads, with a cap, undo, and a slice no trained head learns from."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, bindparam, case, func, select, update
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.learning import Correction
from assistant.db.messages import Message
from assistant.db.session import enqueue, publish
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.states import Direction

__all__ = [
    "CAP",
    "HELD_OUT_IN",
    "Lesson",
    "changed_since",
    "generation",
    "is_held_out",
    "lessons",
    "newest",
    "record",
    "undo",
    "undo_batch",
]

CAP = 5
"""Corrections of one head that the mail of one sender may teach in a day: a flood from one address is no evidence."""
HELD_OUT_IN = 5
"""One text in so many is only measured with by the heads that are trained; what is merely known again is known of it, too."""
_READ = 2000
_REJUDGED = 100
"""Corrections of spam, the newest of those taken back at once, whose campaigns are looked through again."""
# Made once: it is asked twice for every message.
_GENERATION = select(
    func.count(Correction.id),
    func.count(Correction.undone_at),
    func.max(Correction.created_at),
    func.max(Correction.undone_at),
).where(Correction.head.in_(bindparam("heads", expanding=True)))


@dataclass(frozen=True, slots=True)
class Lesson:
    """One corrected text. Lessons to learn and texts held out are never the same messages."""

    message_id: str
    subject: str
    text: str
    label: str
    sender: str
    at: datetime
    over_cap: bool = False


def record(session: Session, message_id: str, *, head: str, label: str, agent_id: str | None = None) -> Correction:
    """Note that `label` is what the head should have said; the one before it, if any, is undone. The same again is one.

    Raises `NotFound`, and `InvalidInput` for our own mail.
    """
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound("there is no such message")
    if message.direction != Direction.INBOUND:
        raise InvalidInput("only what came in has labels to correct")
    before = newest(session, message_id, head)
    if before is not None and before.new_label == label:
        return before
    now = utcnow()
    if before is not None:
        before.undone_at = now
    said = max(
        (one for one in message.labels if str(one["name"]).partition(":")[0] == head),
        key=lambda one: float(one["score"]),
        default=None,
    )
    sender = message.from_address.casefold()
    made = Correction(
        message_id=message_id,
        head=head,
        old_label=str(said["name"]).partition(":")[2] if said else "",
        old_score=float(said["score"]) if said else None,
        new_label=label[:80],
        sender=sender,
        agent_id=agent_id,
        held_out=is_held_out(f"{message.subject}\n{message.new_text}"),
        over_cap=_taught_today(session, head, sender) >= CAP,
        created_at=now,
    )
    session.add(made)
    session.flush()
    _spread(session, head, message_id)
    publish(session, "thread.changed", thread_id=message.thread_id, reason="corrected", agent_id=agent_id or "")
    return made


def undo(session: Session, correction_id: str, *, restore: bool = False) -> Correction:
    """Take a correction back: the next lesson is learned without it. Raises `NotFound`, `Conflict` when it is undone.

    `restore`: the correction that it replaced counts again.
    """
    found = session.get(Correction, correction_id)
    if found is None:
        raise NotFound("there is no such correction")
    if found.undone_at is not None:
        raise Conflict("this correction is undone already")
    found.undone_at = utcnow()
    if restore:
        session.execute(
            update(Correction)
            .where(
                Correction.message_id == found.message_id,
                Correction.head == found.head,
                Correction.undone_at == found.created_at,
                Correction.id != found.id,
            )
            .values(undone_at=None)
        )
    message = session.get_one(Message, found.message_id)
    _spread(session, found.head, message.id)
    publish(session, "thread.changed", thread_id=message.thread_id, reason="corrected")
    return found


def undo_batch(session: Session, *, agent_id: str = "", sender: str = "", since: datetime | None = None) -> int:
    """Take back everything that an agent or a sender taught (a poisoned batch); returns how many. Name one of them."""
    if not agent_id and not sender:
        raise InvalidInput("say whose corrections to take back: an agent or a sender")
    conditions: list[ColumnElement[bool]] = [Correction.undone_at.is_(None)]
    conditions += [Correction.agent_id == agent_id] if agent_id else []
    conditions += [Correction.sender == sender.casefold()] if sender else []
    conditions += [Correction.created_at >= since] if since else []
    latest = func.max(Correction.created_at)
    of_spam = session.scalars(
        select(Correction.message_id)
        .where(*conditions, Correction.head == "spam")
        .group_by(Correction.message_id)
        .order_by(latest.desc())
        .limit(_REJUDGED)
    ).all()
    done = session.execute(update(Correction).where(*conditions).values(undone_at=utcnow()))
    for message_id in of_spam:
        _spread(session, "spam", message_id)
    publish(session, "labels.changed")
    return int(done.rowcount)  # type: ignore[attr-defined]  # an UPDATE returns a CursorResult


def newest(session: Session, message_id: str, head: str) -> Correction | None:
    """The correction of a message that counts, or None."""
    return session.scalar(
        select(Correction)
        .where(Correction.message_id == message_id, Correction.head == head, Correction.undone_at.is_(None))
        .order_by(Correction.created_at.desc(), Correction.id.desc())
        .limit(1)
    )


def lessons(session: Session, head: str, *, held_out: bool | None = False, limit: int = 2000) -> Sequence[Lesson]:
    """Corrected texts of a head, newest first: those to train with, only those held out for measuring, or (None) both.

    Both are for a memory, which knows the same text again and generalises to no other. What one sender taught beyond the cap
    is in neither.
    """
    asked = [] if held_out is None else [Correction.held_out.is_(held_out)]
    rows = session.execute(
        select(Correction, Message.subject, Message.new_text)
        .join(Message, Message.id == Correction.message_id)
        .where(
            Correction.head == head,
            Correction.undone_at.is_(None),
            *asked,
            *([] if held_out else [Correction.over_cap.is_(False)]),
        )
        .order_by(Correction.created_at.desc(), Correction.id.desc())
        .limit(limit)
    )
    return [
        Lesson(one.message_id, subject, text, one.new_label, one.sender, one.created_at, one.over_cap)
        for one, subject, text in rows
    ]


def generation(session: Session, *heads: str) -> str:
    """Changes exactly when what `lessons` returns may change: what a trained head compares before it answers."""
    made, undone, newest_at, undone_at = session.execute(_GENERATION, {"heads": heads}).one()
    return f"{made}.{undone}.{newest_at}.{undone_at}"


def changed_since(session: Session, head: str, since: datetime) -> list[str]:
    """Messages whose label of a head was corrected, or given back, from a time on; the newest ones, `_REJUDGED` at most."""
    changed = case((Correction.undone_at > Correction.created_at, Correction.undone_at), else_=Correction.created_at)
    newest = func.max(changed)
    found = (
        select(Correction.message_id)
        .where(Correction.head == head, changed >= since)
        .group_by(Correction.message_id)
        .order_by(newest.desc(), Correction.message_id)
        .limit(_REJUDGED)
    )
    return list(session.scalars(found))


def is_held_out(text: str) -> bool:
    """Decided by the words alone, whatever the numbers: twins of a mail, and a second opinion on it, fall on one side."""
    letters = unicodedata.normalize("NFKC", text).casefold()[:_READ]
    words = " ".join(re.findall(r"[^\W\d_]+", letters))
    return int.from_bytes(hashlib.sha256(words.encode("utf-8", "replace")).digest()[:4]) % HELD_OUT_IN == 0


def _spread(session: Session, head: str, message_id: str) -> None:
    """Have the mails that are here already judged again by it. A hint that is lost leaves it to the later ones of the campaign."""
    if head == "spam":
        enqueue(session, "rejudge", message_id)


def _taught_today(session: Session, head: str, sender: str) -> int:
    return (
        session.scalar(
            select(func.count(Correction.id)).where(
                Correction.head == head,
                Correction.sender == sender,
                Correction.undone_at.is_(None),
                Correction.created_at >= utcnow() - timedelta(days=1),
            )
        )
        or 0
    )
