"""What may become of a message, as a pure function of few facts: tested as a table, no model decides here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from assistant.values import Decision, DecisionKind

__all__ = ["Facts", "confidence_of", "decide", "spam_verdict", "word_of"]

SpamVerdict = Literal["spam", "uncertain", "ham", "unknown"]
READY = 0.75
CHECK = 0.45


@dataclass(frozen=True, slots=True)
class Facts:
    """What the stages found out about one inbound message."""

    robot: str = ""
    """Why the sender is a machine; empty for a person."""
    person_needed: str = ""
    """Why a person has to look, whatever the labels say: an opt-out, a wish for a human, an unreadable mail."""
    spam: SpamVerdict = "unknown"
    spam_score: float | None = None
    passages: int = 0
    retrieval: Literal["ok", "failed", "off"] = "ok"


def decide(facts: Facts, *, policy: Literal["suggest"] = "suggest") -> Decision:
    """The first rule that fits. Under `suggest` nothing is ever sent without a person.

    Robots come first: no policy may answer one (RFC 3834, section 2).
    """
    if facts.robot:
        return Decision(DecisionKind.STOP, facts.robot)
    if facts.person_needed:
        return Decision(DecisionKind.HANDOFF, facts.person_needed)
    if facts.spam == "spam":
        return Decision(DecisionKind.STOP, f"spam with {_percent(facts.spam_score)}: held back")
    if facts.spam == "uncertain":
        return Decision(DecisionKind.HANDOFF, f"perhaps spam ({_percent(facts.spam_score)}): please look")
    if facts.retrieval == "failed":
        return Decision(DecisionKind.HANDOFF, "approved answers could not be searched: no source")
    if facts.retrieval == "off":
        return Decision(DecisionKind.HANDOFF, "the encoder is off: no source")
    if not facts.passages:
        return Decision(DecisionKind.HANDOFF, "no passage found")
    return Decision(DecisionKind.SUGGEST, f"policy: {policy} only")


def spam_verdict(score: float | None, *, threshold: float, band: float, known_sender: bool) -> SpamVerdict:
    """`spam` from `threshold` on, `uncertain` from `band` on. Somebody we have answered is never hidden by a model."""
    if score is None:
        return "unknown"
    if score >= threshold:
        return "uncertain" if known_sender else "spam"
    return "uncertain" if score >= band else "ham"


def confidence_of(similarity: float, *, rival: float | None, floor: float) -> float:
    """How likely the approved answer fits, in [0, 1]: how far above the floor, less when another answer is as near.

    A monotone score, 0.3 at the floor and 0.95 at a cosine of 0.75; it becomes a calibrated percentage with the
    accepted and edited suggestions of a house.
    """
    span = max(0.75 - floor, 0.05)
    confidence = 0.3 + 0.65 * min(1.0, max(0.0, (similarity - floor) / span))
    if rival is not None and similarity > 0:
        confidence -= 0.25 * max(0.0, 1 - (similarity - rival) / (0.15 * similarity))
    return round(min(0.95, max(0.0, confidence)), 3)


def word_of(confidence: float) -> Literal["ready", "check", "weak"]:
    """The word that the list and the card say first."""
    return "ready" if confidence >= READY else "check" if confidence >= CHECK else "weak"


def _percent(score: float | None) -> str:
    return "unknown probability" if score is None else f"{score:.0%}"
