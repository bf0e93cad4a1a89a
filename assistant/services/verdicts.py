"""What the models say of a message and what a person says instead: shown with its threshold, corrected, taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from assistant.db.contacts import Consent
from assistant.db.learning import Correction
from assistant.db.messages import Message, Thread
from assistant.errors import InvalidInput, NotFound
from assistant.services import contacts, corrections, threads
from assistant.services.rules import Rules
from assistant.states import Direction, ThreadState
from assistant.values import Address

__all__ = ["HEADS", "Verdict", "call_spam", "correct", "moved", "of_message", "take_back", "take_back_spam"]

HEADS = ("spam", "intent", "reply_intent", "urgency", "sentiment", "language", "optout")
"""Heads that a person may correct, in the order of the page."""
_ASKED = {"spam": "spam", "optout": "yes"}
"""Heads that ask for one label: the score is always that of this one."""
_ON_THREAD = ("intent", "reply_intent", "urgency", "sentiment", "language")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One head on one message."""

    head: str
    label: str
    """The best label, whether it is claimed or not."""
    score: float
    """Probability of `label`; for spam that of being spam, for optout that of `yes`."""
    threshold: float
    claimed: bool
    others: tuple[tuple[str, float], ...] = ()
    """The next best, with their probabilities."""
    correction: Correction | None = None


def of_message(session: Session, message: Message, *, rules: Rules, defaults: Mapping[str, float]) -> list[Verdict]:
    """Every head that said something, with what a person said instead. One query."""
    said: dict[str, list[tuple[str, float]]] = {}
    for one in message.labels:
        head, _, label = str(one["name"]).partition(":")
        said.setdefault(head, []).append((label, float(one["score"])))
    claims = _claims(message)
    corrected = {
        one.head: one
        for one in session.scalars(
            select(Correction)
            .where(Correction.message_id == message.id, Correction.undone_at.is_(None))
            .order_by(Correction.created_at, Correction.id)
        )
    }
    found = []
    for head in HEADS:
        if head not in said:
            continue
        ranked = sorted(said[head], key=lambda pair: -pair[1])
        label, score = ranked[0]
        asked = _ASKED.get(head, label)
        score = next((one for name, one in ranked if name == asked), score)
        threshold = rules.threshold(head, asked, default=defaults.get(head, 0.6))
        claimed = score >= threshold
        if head in _ON_THREAD or (head == "optout" and head in claims):
            claimed = claims.get(head) == label
        found.append(Verdict(head, label, score, threshold, claimed, tuple(ranked[1:4]), corrected.get(head)))
    return found


def correct(session: Session, message_id: str, *, head: str, label: str, agent_id: str) -> Correction:
    """Set a label right: noted for learning, and true of the thread at once. Raises `NotFound`, `InvalidInput`.

    A corrected opt-out counts as what it is: `yes` withdraws the consent, `no` gives it back. Spam goes into quarantine, and
    what is none comes out of it.
    """
    if head not in HEADS or not label or len(label) > 80:
        raise InvalidInput("say which label is right")
    made = corrections.record(session, message_id, head=head, label=label, agent_id=agent_id)
    _apply(session, message_id, head, label, agent_id)
    return made


def take_back(session: Session, correction_id: str, *, agent_id: str | None = None) -> Correction:
    """Undo a correction: the label is again what the model claimed."""
    made = corrections.undo(session, correction_id)
    message = session.get_one(Message, made.message_id)
    _apply(session, message.id, made.head, _claims(message).get(made.head, ""), agent_id)
    return made


def call_spam(session: Session, thread_id: str, *, spam: bool, agent_id: str) -> None:
    """An agent moved a thread into quarantine or out of it: that is a verdict on its newest message, learned like any other."""
    newest = _newest(session, thread_id)
    if newest is not None:
        corrections.record(session, newest, head="spam", label="spam" if spam else "ham", agent_id=agent_id)
        _mark_spam(session, newest)


def moved(session: Session, change: threads.Change, *, agent_id: str, undoes: bool = False) -> None:
    """What an agent says of spam by moving a thread: into quarantine, or out of it back to the open ones.

    `undoes`: who moves it back takes back what they said by moving it, where that stands still.
    """
    was, now = change.undo.get("state"), change.thread.state
    spam = now == ThreadState.SPAM
    if was is None or spam == (was == ThreadState.SPAM) or now not in (ThreadState.SPAM, ThreadState.OPEN):
        return
    if not (undoes and take_back_spam(session, change.thread.id, spam=not spam, agent_id=agent_id)):
        call_spam(session, change.thread.id, spam=spam, agent_id=agent_id)


def take_back_spam(session: Session, thread_id: str, *, spam: bool, agent_id: str) -> bool:
    """Undo of `call_spam`: the verdict is learned no more, and one that it replaced counts again. False where it does not stand."""
    newest = _newest(session, thread_id)
    made = corrections.newest(session, newest, "spam") if newest is not None else None
    if made is None or made.new_label != ("spam" if spam else "ham") or made.agent_id != agent_id:
        return False
    corrections.undo(session, made.id, restore=True)
    _mark_spam(session, made.message_id)
    return True


def _apply(session: Session, message_id: str, head: str, label: str, agent_id: str | None) -> None:
    message = session.get_one(Message, message_id)
    thread = session.get(Thread, message.thread_id, with_for_update=True)
    if thread is None:
        raise NotFound("there is no such thread")
    if head == "optout":
        _opt_out(session, message, thread.channel, wants_out=label == "yes")
    if _newest(session, thread.id) != message_id:
        return
    if head == "spam":
        _mark_spam(session, message_id)
    if head in _ON_THREAD:
        setattr(thread, head, "" if label == "other" else label)
    held = thread.state == ThreadState.SPAM
    if head == "spam" and held != (label == "spam") and thread.state != ThreadState.TRASH:
        session.flush()
        state = ThreadState.OPEN if held else ThreadState.SPAM
        threads.change_state(session, thread.id, state=state, agent_id=agent_id)


def _mark_spam(session: Session, message_id: str) -> None:
    """What counts of a thread's newest message as spam: what a person said, or else what triage decided."""
    message = session.get_one(Message, message_id)
    made = corrections.newest(session, message_id, "spam")
    verdict = made.new_label if made is not None else str(_detail(message).get("spam", ""))
    session.get_one(Thread, message.thread_id).spam_verdict = verdict
    session.flush()


def _newest(session: Session, thread_id: str) -> str | None:
    return session.scalar(
        select(Message.id)
        .where(Message.thread_id == thread_id, Message.direction == Direction.INBOUND)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    )


def _opt_out(session: Session, message: Message, channel: str, *, wants_out: bool) -> None:
    """Of who wrote the message. Only a withdrawal that stands on it is given back: another one is not ours to undo."""
    writer = contacts.resolve(session, Address(channel, message.from_address, message.from_name))
    newest = session.scalar(
        select(Consent)
        .where(Consent.contact_id == writer.id, Consent.channel == channel)
        .order_by(Consent.created_at.desc(), Consent.id.desc())
        .limit(1)
    )
    source = f"agent about {message.id}"
    ours = newest is not None and (newest.message_id == message.id or newest.source == source)
    out = newest is not None and newest.kind == "withdrawn"
    if wants_out != out and (wants_out or ours):
        kind = "withdrawn" if wants_out else "granted"
        contacts.record_consent(session, writer.id, channel=channel, kind=kind, source=source)


def _claims(message: Message) -> dict[str, str]:
    """Head -> label, as the classify stage claimed them."""
    detail = _detail(message)
    found = {str(head): str(label) for head, label in (detail.get("claims") or {}).items()}
    if detail.get("spam") in ("spam", "uncertain", "ham"):
        found["spam"] = "spam" if detail["spam"] == "spam" else "ham"
    if "opt_out" in detail:
        found["optout"] = "yes" if detail["opt_out"] == "recorded" else "no"
    return found


def _detail(message: Message) -> dict[str, Any]:
    steps: Sequence[dict[str, Any]] = message.trace
    return next((step.get("detail") or {} for step in steps if step.get("stage") == "classify"), {})
