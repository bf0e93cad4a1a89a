"""Spam and intent by the encoder, on the subject and the new text only: quoted history must not decide."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace

from assistant.errors import ModelUnavailable
from assistant.services.autopilot import Facts, decide, spam_verdict
from assistant.values import DecisionKind, Label, Turn
from models.base import Classifier
from pipelines.stages.run import noted

__all__ = ["Classify", "readable", "windows"]

WINDOW = 1200
"""Characters: about what the encoder reads at once."""
MOST_WINDOWS = 3
OPT_OUT_INTENT, OPT_OUT_SURE = "opt_out", 0.9
"""A paraphrased opt-out goes to a person; only the rules of `screen` record one."""


@dataclass(frozen=True, slots=True)
class Classify:
    """Thresholds are probabilities; `model` None means that the encoder is switched off or failed to load."""

    model: Classifier | None
    spam_threshold: float
    uncertain_band: float
    intent_threshold: float
    switched_off: bool = False
    name: str = "classify"

    def __call__(self, turn: Turn) -> Turn:
        if self.switched_off:
            return noted(turn, self.name, "skipped", "the encoder is off")
        if self.model is None:
            raise ModelUnavailable("the encoder is not loaded")
        labels = merged(self.model.classify(windows(turn.message.subject, turn.new_text)))
        turn = replace(turn, labels=(*turn.labels, *labels))
        spam = next((label.score for label in labels if label.name == "spam:spam"), None)
        best = turn.label("intent")
        intent = best.value if best and best.score >= self.intent_threshold else ""
        verdict = spam_verdict(
            spam,
            threshold=self.spam_threshold,
            band=self.uncertain_band,
            known_sender=any(earlier.direction == "outbound" for earlier in turn.history),
        )
        claimed = f"intent {intent} {best.score:.2f}" if intent and best else "no clear intent"
        detail = {"model": self.model.name, "intent": intent, "spam": verdict}
        if turn.decision is not None:
            return noted(turn, self.name, "ok", claimed, score=spam, **detail)
        if verdict in ("spam", "uncertain"):
            decision = decide(Facts(spam=verdict, spam_score=spam))
            outcome = "stop" if decision.kind == DecisionKind.STOP else "handoff"
            return noted(replace(turn, decision=decision), self.name, outcome, decision.reason, score=spam, **detail)
        if intent == OPT_OUT_INTENT and best and best.score >= OPT_OUT_SURE:
            decision = decide(Facts(person_needed="seems to ask not to be written to: please look"))
            return noted(replace(turn, decision=decision), self.name, "handoff", claimed, score=spam, **detail)
        return noted(turn, self.name, "ok", claimed, score=spam, **detail)


def windows(subject: str, text: str) -> list[str]:
    """What the encoder is shown: the subject with the start of the text; of a long text also its middle and its end.

    An attacker who pads the front is still read at the end.
    """
    subject, text = readable(subject)[:300], readable(text)
    head = f"{subject}\n{text[:WINDOW]}".strip() or "(empty)"
    if len(text) <= WINDOW:
        return [head]
    middle = max(WINDOW, (len(text) - WINDOW) // 2)
    starts = sorted({min(middle, len(text) - WINDOW), len(text) - WINDOW})
    return [head, *(text[start : start + WINDOW] for start in starts)][:MOST_WINDOWS]


def readable(text: str) -> str:
    """`text` in compatibility form without invisible characters, which would hide words from the model."""
    return "".join(
        character for character in unicodedata.normalize("NFKC", text) if unicodedata.category(character) != "Cf"
    )


def merged(found: list[list[Label]]) -> tuple[Label, ...]:
    """One set of labels for all windows: the most suspicious window decides on spam, the first one on the rest."""
    first = found[0]
    spam = max((label.score for labels in found for label in labels if label.name == "spam:spam"), default=None)
    if spam is None:
        return tuple(first)
    rest = tuple(label for label in first if label.head != "spam")
    return (*sorted((Label("spam:spam", spam), Label("spam:ham", 1 - spam)), key=lambda label: -label.score), *rest)
