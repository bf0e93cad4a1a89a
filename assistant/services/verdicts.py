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
from assistant.services import contacts, corrections
from assistant.services.rules import Rules
from assistant.states import Direction
from assistant.values import Address

__all__ = ["HEADS", "Verdict", "correct", "of_message", "take_back"]

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
        claimed = claims[head] == label if head in claims else head not in _ON_THREAD and score >= threshold
        found.append(Verdict(head, label, score, threshold, claimed, tuple(ranked[1:4]), corrected.get(head)))
    return found


def correct(session: Session, message_id: str, *, head: str, label: str, agent_id: str) -> Correction:
    """Set a label right: noted for learning, and true of the thread at once. Raises `NotFound`, `InvalidInput`.

    A corrected opt-out counts as what it is: `yes` withdraws the consent, `no` gives it back.
    """
    if head not in HEADS or not label or len(label) > 80:
        raise InvalidInput("say which label is right")
    made = corrections.record(session, message_id, head=head, label=label, agent_id=agent_id)
    _apply(session, message_id, head, label)
    return made


def take_back(session: Session, correction_id: str) -> Correction:
    """Undo a correction: the label is again what the model claimed."""
    made = corrections.undo(session, correction_id)
    message = session.get_one(Message, made.message_id)
    _apply(session, message.id, made.head, _claims(message).get(made.head, ""))
    return made


def _apply(session: Session, message_id: str, head: str, label: str) -> None:
    message = session.get_one(Message, message_id)
    thread = session.get(Thread, message.thread_id, with_for_update=True)
    if thread is None:
        raise NotFound("there is no such thread")
    if head == "optout":
        _opt_out(session, message, thread.channel, wants_out=label == "yes")
    newest = session.scalar(
        select(Message.id)
        .where(Message.thread_id == thread.id, Message.direction == Direction.INBOUND)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    )
    if head in _ON_THREAD and newest == message_id:
        setattr(thread, head, "" if label == "other" else label)


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
    steps: Sequence[dict[str, Any]] = message.trace
    detail: dict[str, Any] = next((step.get("detail") or {} for step in steps if step.get("stage") == "classify"), {})
    found = {str(head): str(label) for head, label in (detail.get("claims") or {}).items()}
    if "opt_out" in detail:
        found["optout"] = "yes" if detail["opt_out"] == "recorded" else "no"
    return found
