"""What may become of a message, as a pure function of few facts: tested as a table, no model decides here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from assistant.services.intervals import interval
from assistant.values import Decision, DecisionKind

__all__ = [
    "NEEDED",
    "Facts",
    "Mode",
    "SendFacts",
    "confidence_of",
    "decide",
    "may_send",
    "sends_needed",
    "spam_verdict",
    "word_of",
]

Mode = Literal["suggest", "granted"]
"""`suggest`: nothing leaves without a person. `granted`: drafts for intents that an admin has granted may."""
NEEDED = 0.9
"""The lower bound (95 %) of the share of clean sends from which an intent can be granted."""

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


def decide(facts: Facts, *, policy: Mode = "suggest") -> Decision:
    """The first rule that fits. Nothing is sent from here: a draft comes first, and `may_send` decides about that.

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
    return Decision(DecisionKind.SUGGEST, "policy: suggest only" if policy == "suggest" else "policy: granted intents")


@dataclass(frozen=True, slots=True)
class SendFacts:
    """What is known about a finished draft when it might be sent without a person."""

    mode: Mode = "suggest"
    granted: bool = False
    """The draft's intent has a grant that is not revoked."""
    bound: float = 0.0
    """Lower bound of the intent's clean share now."""
    needed: float = NEEDED
    word: str = "check"
    unsupported: int = 0
    failed: tuple[str, ...] = ()
    """Checks of the guard that did not hold."""
    asked: bool = False
    """A person asked for this draft, so a person reads it."""
    person: str = ""
    """Why a person has this thread: somebody is assigned, is replying, has closed it."""


def may_send(facts: SendFacts) -> Decision:
    """`REPLY` only when every rule allows it; else `SUGGEST` with the first that does not."""
    rules = (
        (facts.mode == "granted", "policy: suggest only"),
        (facts.granted, "policy: this intent is not granted"),
        (facts.bound >= facts.needed, f"policy: {facts.bound:.0%} clean is less than {facts.needed:.0%}"),
        (facts.word == "ready", f"policy: the draft is “{facts.word}”, not “ready”"),
        (not facts.unsupported, "policy: something in the draft has no source"),
        (not facts.failed, f"policy: the guard found {', '.join(facts.failed[:2])}"),
        (not facts.asked, "policy: an agent asked for this draft"),
        (not facts.person, f"policy: {facts.person}"),
    )
    refused = next((reason for holds, reason in rules if not holds), "")
    return Decision(DecisionKind.SUGGEST, refused) if refused else Decision(DecisionKind.REPLY, "policy: granted")


def sends_needed(clean: int, count: int, *, needed: float = NEEDED) -> int:
    """How many clean sends in a row would bring the lower bound to `needed`; 0 when it is there, 1000 for that or more."""
    more = 0
    while more < 1000 and interval(clean + more, count + more)[0] < needed:
        more += 1
    return more


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
