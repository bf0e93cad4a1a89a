"""Every label by the encoder and its heads, on the subject and the new text only: quoted history must not decide.

A label is claimed from its threshold on; below it the head abstains, and the agent sees both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from assistant.errors import ModelError, ModelUnavailable
from assistant.services.autopilot import Facts, SpamVerdict, decide, spam_verdict
from assistant.services.rules import Rules
from assistant.telemetry import METRICS
from assistant.values import Decision, DecisionKind, Label, Turn
from models.base import OTHER, OUTSIDE, Classifier
from models.clues import clues as clues_of
from models.reading import readable
from pipelines.stages.run import noted

__all__ = [
    "ALONE",
    "OPT_OUT_SURE",
    "OPT_OUT_UNSURE",
    "Classify",
    "Explaining",
    "Seen",
    "ended",
    "merged",
    "spam_said",
    "told",
    "whole_of",
    "windows",
]

WINDOW = 1200
"""Characters of a window. Wording is read in the whole of it; of these about 270 tokens the encoder reads the front and the end, 128."""
MOST_WINDOWS = 3
ALONE = "words alone"
"""Stage of a verdict on spam that the encoder would have been asked for, had it been there."""
OPT_OUT_SURE, OPT_OUT_UNSURE = 0.9, 0.12
"""From the first on an opt-out is recorded and nothing is sent any more; between them a person is asked."""
FURTHER = 0.6
"""From which probability a kind of reply, an urgency, a sentiment or a language is claimed by default."""
_UNHELD = frozenset({"opt-out", "opt-out-request", "quarantine"})
"""Rules of the screen stage whose mails stay in sight whatever their score: somebody asked out, or nothing could be read."""
_REPORTS = frozenset({"bounce", "complaint"})
"""Rules for reports of machines about our own mail: no label says anything of them."""
_FURTHER_HEADS = ("reply_intent", "urgency", "sentiment", "language")


@runtime_checkable
class Explaining(Protocol):
    """A classifier that reads clues and can say why: examples like the text, the words that weighed most for its labels."""

    def classify(self, texts: Sequence[str], clues: Sequence[Sequence[str]]) -> list[list[Label]]: ...
    def spam_only(self, texts: Sequence[str], clues: Sequence[Sequence[str]]) -> list[list[Label]]: ...
    def faults(self) -> Mapping[str, ModelError]: ...
    def spam_fault(self, text: str, clues: Sequence[str]) -> str: ...
    def spam_because(self, text: str, clues: Sequence[str]) -> dict[str, Any]: ...
    def because(
        self, texts: Sequence[str], labels: Sequence[Label], claims: Mapping[str, str], *, spam: bool
    ) -> tuple[list[str], Mapping[str, Sequence[tuple[str, float]]]]: ...


@dataclass(frozen=True, slots=True)
class Classify:
    """Thresholds are probabilities; `model` None means that the encoder is switched off or failed to load."""

    model: Classifier | None
    spam_threshold: float
    uncertain_band: float
    intent_threshold: float
    switched_off: bool = False
    rules: Callable[[], Rules] = Rules
    clues: Callable[[Turn], tuple[str, ...]] = lambda turn: clues_of(turn.message)
    """What a mail shows besides its words."""
    name: str = "classify"

    def looks_on(self, turn: Turn) -> bool:
        """Labels also what a rule has stopped: how a mail calls itself is its sender's choice, and no way past the judge of spam."""
        return self.model is not None and not self.switched_off and _rule(turn) not in _REPORTS

    def __call__(self, turn: Turn) -> Turn:
        if self.switched_off:
            return noted(turn, self.name, "skipped", "the encoder is off")
        if self.model is None:
            raise ModelUnavailable("the encoder is not loaded")
        shown = windows(turn.message.subject, turn.new_text)
        clues = self.clues(turn)
        whole = whole_of(turn)
        model: object = self.model
        labels = self._labels(shown, whole, clues)
        rules, sender = self.rules(), turn.message.sender.value
        spam = next((label.score for label in labels if label.name == "spam:spam"), None)
        faults = model.faults() if isinstance(model, Explaining) else {}
        fault = model.spam_fault(whole, clues) if spam is None and isinstance(model, Explaining) else ""
        verdict, band = self.verdict(turn, spam, rules)
        claims, abstained = self._claims(labels, rules, sender)
        robot = turn.decision is not None and turn.decision.kind == DecisionKind.STOP
        wants_out = "" if robot else _opt_out(labels, rules, sender)  # what a machine writes withdraws nothing
        turn = replace(turn, labels=(*turn.labels, *labels))
        intent = claims.get("intent", "")
        detail: dict[str, Any] = {
            "model": self.model.name,
            "intent": intent,
            "spam": verdict,
            "claims": claims,
            "abstained": abstained,
            "opt_out": wants_out,
        }
        detail |= self._because(shown, labels, claims | ({"optout": "yes"} if wants_out else {}), verdict)
        lacking = told({head: error for head, error in faults.items() if head != "spam"})
        if fault:
            lacking = "; ".join(part for part in (f"spam was not judged: {fault}", lacking) if part)
        elif isinstance(model, Explaining):
            why = model.spam_because(whole, clues)
            detail["spam_because"] = why | {"band": band}
            lacking = told(faults) if why["stage"] == ALONE else lacking
            METRICS.spam_stages.labels(stage=why["stage"]).inc()
            outcome = "abstained" if verdict == "uncertain" else "claimed"
            METRICS.labels.labels(head="spam", outcome=outcome).inc()
            detail["because"] = [*detail["because"], *spam_said(verdict, why)]
        best = turn.label("intent")
        claimed = f"intent {intent} {best.score:.2f}" if intent and best else "no clear intent"
        seen = Seen(verdict, spam, wants_out, claimed, faults, fault=fault, lacking=lacking)
        decision, outcome, reason = ended(turn, seen)
        if lacking:
            detail["faults"] = {head: error.message for head, error in faults.items()}
        return noted(replace(turn, decision=decision), self.name, outcome, reason, score=spam, **detail)

    def verdict(self, turn: Turn, spam: float | None, rules: Rules) -> tuple[SpamVerdict, list[float]]:
        """What a probability of spam comes to for the sender of a mail; and from where on a person is asked, and a mail is held."""
        threshold = rules.threshold("spam", "spam", default=self.spam_threshold)
        band = min(self.uncertain_band, threshold)
        verdict = spam_verdict(
            None if rules.excepted(turn.message.sender.value, "spam", "spam") else spam,
            threshold=threshold,
            band=band,
            known_sender=any(earlier.direction == "outbound" for earlier in turn.history),
        )
        return verdict, [band, threshold]

    def _labels(self, shown: list[str], whole: str, clues: tuple[str, ...]) -> tuple[Label, ...]:
        """The heads read window by window; spam is judged once, on all of the text, as `notifyr classify` does."""
        model: object = self.model
        if not isinstance(model, Explaining):
            assert self.model is not None  # `__call__` has looked
            return merged(self.model.classify(shown))
        labels = merged(model.classify(shown, [clues] * len(shown)))
        if len(shown) == 1 or not any(label.head == "spam" for label in labels):
            return labels
        (judged,) = model.spam_only([whole], [clues])
        return (*judged, *[label for label in labels if label.head != "spam"])

    def _claims(self, labels: tuple[Label, ...], rules: Rules, sender: str) -> tuple[dict[str, str], list[str]]:
        """Head -> its label, where it is sure enough; and the heads that abstain."""
        claims: dict[str, str] = {}
        abstained = []
        outside = any(label.name == "scope:in" and label.score < OUTSIDE for label in labels)
        for head in ("intent", *_FURTHER_HEADS):
            found = [label for label in labels if label.head == head]
            if not found:
                continue
            best = max(found, key=lambda label: label.score)
            default = self.intent_threshold if head == "intent" else FURTHER
            sure = best.score >= rules.threshold(head, best.value, default=default) and not (
                head == "intent" and (best.value == OTHER or outside)
            )
            if sure and not rules.excepted(sender, head, best.value):
                claims[head] = best.value
            else:
                abstained.append(head)
            METRICS.labels.labels(head=head, outcome="claimed" if head in claims else "abstained").inc()
        return claims, abstained

    def _because(
        self, shown: list[str], labels: tuple[Label, ...], claims: Mapping[str, str], verdict: str
    ) -> dict[str, Any]:
        """`because`, sentences, and `weighed`, head -> words with their weights."""
        model: object = self.model
        if not isinstance(model, Explaining):
            return {"because": []}
        said, weighed = model.because(shown, labels, claims, spam=verdict in ("spam", "uncertain"))
        words = {head: [[word, weight] for word, weight in pairs] for head, pairs in weighed.items()}
        return {"because": said, "weighed": words}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the heads found out about a mail, as far as its fate depends on it."""

    verdict: SpamVerdict
    spam: float | None
    wants_out: str
    claimed: str
    """The intent, in words."""
    faults: Mapping[str, ModelError]
    fault: str = ""
    """Why there is no verdict on spam."""
    lacking: str = ""
    """Which heads said nothing, and why."""


def ended(turn: Turn, seen: Seen) -> tuple[Decision | None, str, str]:
    """What becomes of a mail by its labels: the decision, if there is one by now, outcome and reason of the step."""
    decided = turn.decision is not None
    if decided and seen.verdict == "spam" and _rule(turn) not in _UNHELD:
        decision = decide(Facts(spam=seen.verdict, spam_score=seen.spam))
        return decision, "stop", decision.reason
    here = None if decided else _decision(seen)
    stopped = here is not None and here.kind == DecisionKind.STOP
    outcome = "stop" if stopped else "failed" if seen.lacking else "handoff" if here else "ok"
    words = (here.reason if here else seen.claimed, "" if here and seen.fault else seen.lacking)
    return here or turn.decision, outcome, "; ".join(part for part in words if part)


def spam_said(verdict: str, why: Mapping[str, Any]) -> list[str]:
    """`spam_because` in sentences, for an agent who is asked or finds a mail held."""
    if verdict not in ("spam", "uncertain"):
        return []
    like = [f"as an agent said of “{why['like']}”"] if why["like"] else []
    return [*why["reasons"], *like, f"spam decided by: {why['stage']}"]


def _decision(seen: Seen) -> Decision | None:
    """What becomes of a mail that nothing was decided about; None where it goes on."""
    if seen.fault:
        # The other heads have spoken. A person sees that this one has not, and how to mend it; nothing is sent unseen.
        words = f"{_RECORDED}; " if seen.wants_out == "recorded" else ""
        return decide(Facts(person_needed=f"{words}spam was not judged: {seen.fault}"))
    if seen.verdict in ("spam", "uncertain"):
        return decide(Facts(spam=seen.verdict, spam_score=seen.spam))
    if seen.wants_out:
        return decide(Facts(person_needed=_RECORDED if seen.wants_out == "recorded" else _PLEASE_LOOK))
    if "optout" in seen.faults:  # nothing is sent unseen to who may have asked not to be written to
        return decide(Facts(person_needed=f"nobody looked for an opt-out: {seen.faults['optout'].message}"))
    return None


def told(faults: Mapping[str, ModelError]) -> str:
    """What is missing, in a sentence: heads that lack the same are named together, each with the way to mend it."""
    heads: dict[str, list[str]] = {}
    for head, error in faults.items():
        heads.setdefault(error.message, []).append(head.replace("_", " "))
    return "; ".join(f"{', '.join(names)}: {message}" for message, names in heads.items())


def _rule(turn: Turn) -> str:
    """The rule of the screen stage that applied, or nothing."""
    return next((str(step.detail.get("rule", "")) for step in turn.trace if step.stage == "screen"), "")


_RECORDED = "asks not to be written to: recorded"
_PLEASE_LOOK = "seems to ask not to be written to: please look"


def _opt_out(labels: tuple[Label, ...], rules: Rules, sender: str) -> str:
    """`recorded`, `unsure` or nothing. An unsure one is never ignored."""
    score = next((label.score for label in labels if label.name == "optout:yes"), 0.0)
    if rules.excepted(sender, "optout", "yes"):
        return ""
    if score >= rules.threshold("optout", "yes", default=OPT_OUT_SURE):
        return "recorded"
    intent = next((label.score for label in labels if label.name == "intent:opt_out"), 0.0)
    return "unsure" if score >= OPT_OUT_UNSURE or intent >= OPT_OUT_SURE else ""


def windows(subject: str, text: str) -> list[str]:
    """What the heads are shown: the subject with the start of the text; of a long text also its middle and its end.

    An attacker who pads the front is still read at the end.
    """
    subject, text = readable(subject)[:300], readable(text)
    head = f"{subject}\n{text[:WINDOW]}".strip() or "(empty)"
    if len(text) <= WINDOW:
        return [head]
    middle = max(WINDOW, (len(text) - WINDOW) // 2)
    starts = sorted({min(middle, len(text) - WINDOW), len(text) - WINDOW})
    return [head, *(text[start : start + WINDOW] for start in starts)][:MOST_WINDOWS]


def whole_of(turn: Turn) -> str:
    """All of a mail, as it is judged for spam."""
    return f"{readable(turn.message.subject)}\n{readable(turn.new_text)}"


def merged(found: list[list[Label]]) -> tuple[Label, ...]:
    """One set of labels for all windows: the most suspicious window decides on spam and on opt-outs, the first on the rest."""
    first = list(found[0])
    for yes, no in (("spam:spam", "spam:ham"), ("optout:yes", "optout:no")):
        score = max((label.score for labels in found for label in labels if label.name == yes), default=None)
        if score is None:
            continue
        place = next(i for i, label in enumerate(first) if label.head == yes.partition(":")[0])
        rest = [label for label in first if label.head != yes.partition(":")[0]]
        pair = sorted((Label(yes, score), Label(no, 1 - score)), key=lambda label: -label.score)
        first = [*rest[:place], *pair, *rest[place:]]
    return tuple(first)
