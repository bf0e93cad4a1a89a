"""An outgoing message before its first attempt: what is looked at, what follows from its score, and the verdict that is kept.

The look itself is `pipelines.outgoing`. It is made once, with no transaction open; its verdict is written in the transaction that
would claim the message, so that a message is either looked at and claimed, or looked at and held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select, update
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.contacts import Identity
from assistant.db.messages import Message, Thread
from assistant.db.profiles import Profile
from assistant.db.session import after_commit
from assistant.services.outbox_rows import announce_id, changed, due, note
from assistant.states import Author, Delivery, Direction, Screening
from assistant.telemetry import METRICS
from assistant.values import MessageClass

__all__ = ["LOOKS_LIKE_SPAM", "SPAM_FROM", "Limits", "Outgoing", "Part", "Seen", "decide", "keep", "unseen"]

LOOKS_LIKE_SPAM = "looks-like-spam"
"""Error code of a message that is held back or refused here."""
SPAM_FROM = 0.5
"""Score from which a message is labelled `spam`."""
_STEPS = {
    Screening.HOLD: "Send it anyway, or take it back and write it in other words",
    Screening.REJECT: "Write the reply again in other words",
}
_TOLD = (Delivery.RECEIVED, Delivery.SENT, Delivery.DELIVERED)
"""Messages whose people know of the thread."""
_MOST_MESSAGES = 200
"""Messages of a thread whose people are known in it."""

# Made once: every message asks them before its first attempt.
_WAITS = and_(
    Message.id == bindparam("message_id"),
    Message.direction == Direction.OUTBOUND,
    Message.screening == Screening.NONE,
    Message.attempts == 0,
    due(bindparam("now")),
)
"""It waits for its first attempt, and nobody has looked at it."""
_WAITING = select(Message).where(_WAITS)
_THREADS_OTHERS = (
    select(Message.from_address, Message.to_addresses, Message.cc_addresses)
    .where(
        Message.thread_id == bindparam("thread_id"),
        Message.id != bindparam("message_id"),
        Message.status.in_(_TOLD),
    )
    .order_by(Message.occurred_at.desc())
    .limit(_MOST_MESSAGES)
)
_CONTACTS_ADDRESSES = select(Identity.address).where(
    Identity.contact_id == select(Thread.contact_id).where(Thread.id == bindparam("thread_id")).scalar_subquery()
)
_OUR_ADDRESSES = select(Profile.address)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is looked at."""

    subject: str
    text: str
    html: str = ""
    sender: str = ""
    machine: bool = False
    """No person wrote or approved it."""
    recipients: int = 1
    strangers: int = 0
    """Recipients who have no part in the thread."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was found: its name, what a person reads, and how probable spam is by it alone, in [0, 1]."""

    name: str
    reason: str
    score: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What the look found. `missing` names the scorers that failed; without any score it is None."""

    score: float | None
    parts: tuple[Part, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """`ham` or `spam`; empty where nothing could score it."""
        if self.score is None:
            return ""
        return "spam" if self.score >= SPAM_FROM else "ham"

    @property
    def reasons(self) -> str:
        """The parts in words, the strongest first."""
        found = sorted(self.parts, key=lambda one: (-one.score, one.name))
        said = [f"{one.reason} ({one.score:.2f})" for one in found]
        return "; ".join([*said, *(f"not scored by its {name}" for name in self.missing)]) or "nothing was found"


@dataclass(frozen=True, slots=True)
class Limits:
    """Scores from which something is done; 1 is never reached. `unscored`: what is done at least where a scorer failed."""

    warn: float = 0.5
    hold: float = 0.7
    reject: float = 1.0
    hold_agents: float = 1.0
    reject_agents: float = 1.0
    unscored: Screening = Screening.ALLOW


_GROWING = (Screening.ALLOW, Screening.WARN, Screening.HOLD, Screening.REJECT)


def decide(seen: Seen, limits: Limits, *, machine: bool) -> Screening:
    """The strongest outcome whose score is reached, and no weaker one than `unscored` where a scorer failed."""
    hold = limits.hold if machine else limits.hold_agents
    reject = limits.reject if machine else limits.reject_agents
    score = seen.score if seen.score is not None else 0.0
    reached = [
        outcome
        for outcome, limit in ((Screening.WARN, limits.warn), (Screening.HOLD, hold), (Screening.REJECT, reject))
        if limit < 1 and score >= limit
    ]
    least = limits.unscored if seen.missing else Screening.ALLOW
    return max([least, *reached], key=_GROWING.index)


def unseen(session: Session, message_id: str) -> Outgoing | None:
    """What is to be looked at; None when it was, or is not due, or an earlier attempt may have left."""
    message = session.scalar(_WAITING, {"message_id": message_id, "now": utcnow()})
    if message is None:
        return None
    recipients = {
        str(one["address"]).casefold() for one in (*message.to_addresses, *message.cc_addresses, *message.bcc_addresses)
    }
    return Outgoing(
        subject=message.subject,
        text=message.text,
        html=message.html,
        sender=message.from_address,
        machine=message.author != Author.AGENT or message.message_class != MessageClass.PERSONAL,
        recipients=len(recipients),
        strangers=len(recipients - _known(session, message)),
    )


def keep(session: Session, message_id: str, seen: Seen, outcome: Screening) -> bool:
    """Write the verdict, and what follows from it. False when somebody else did, or it is not due any more."""
    values: dict[str, Any] = {"screening": outcome, "spam_label": seen.label, "spam_score": seen.score}
    if step := _STEPS.get(outcome):
        status = Delivery.HELD if outcome is Screening.HOLD else Delivery.REJECTED
        words = f"it looks like spam: {seen.reasons[:800]}. {step}."
        values |= {"status": status, "release_at": None, "error_code": LOOKS_LIKE_SPAM, "error_detail": words}
    if not changed(session, update(Message).where(_WAITS).values(**values), message_id=message_id, now=utcnow()):
        return False
    score = "no score" if seen.score is None else f"{seen.label}, {seen.score:.2f}"
    note(session, message_id, f"screened:{outcome}", actor="worker", detail=f"{score}: {seen.reasons}")
    if step:
        announce_id(session, message_id)
    scored = "part" if seen.missing else "full"
    after_commit(session, lambda: METRICS.outgoing_screened.labels(outcome=str(outcome), scored=scored).inc())
    return True


def _known(session: Session, message: Message) -> set[str]:
    """Addresses of who takes part in its thread, ours among them."""
    asked = {"thread_id": message.thread_id}
    rows = session.execute(_THREADS_OTHERS, {**asked, "message_id": message.id}).all()
    found = {address.casefold() for address in session.scalars(_CONTACTS_ADDRESSES, asked)}
    found |= {address.casefold() for address in session.scalars(_OUR_ADDRESSES)}
    for sender, to, cc in rows:
        found |= {sender.casefold(), *(str(one["address"]).casefold() for one in (*to, *cc))}
    return found
