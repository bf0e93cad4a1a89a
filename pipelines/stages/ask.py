"""Ask the generator for an intent that the encoder left open. It chooses among names of ours; its words go nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from assistant.telemetry import METRICS
from assistant.values import Label, TraceStep, Turn
from models.asked import CHOICES, LIMIT, Gain, chosen, prompt_of, weighed
from models.base import OTHER, OUTSIDE, Generator
from pipelines.stages.draft import data_only, generated
from pipelines.stages.run import noted

__all__ = ["Ask", "left_open", "question"]

_CHARACTERS = 600
"""Of the subject and the new text together."""


@dataclass(frozen=True, slots=True)
class Ask:
    """`sure` says whether an intent may be claimed with a probability, as it is said of the encoder's own claims."""

    model: Generator
    gain: Gain
    sure: Callable[[str, float], bool]
    name: str = "ask"

    def __call__(self, turn: Turn) -> Turn:
        scores = {label.value: label.score for label in turn.labels if label.head == "intent"}
        names = sorted(sorted(scores, key=lambda name: (-scores[name], name))[:CHOICES])
        prompt = prompt_of(question(turn.message.subject, turn.new_text), names)
        answer, cached = generated(self.model, prompt, LIMIT)
        choice = chosen(answer, names)
        found = weighed({name: scores[name] for name in names}, choice, self.gain.weight)
        best = max(found, key=lambda name: found[name])
        sure = best != OTHER and self.sure(best, found[best])
        METRICS.asked.labels(outcome="claimed" if sure else "open" if choice else "no answer").inc()
        said = f"the generator chose {choice}" if choice else "the generator named none of them"
        reason = (
            f"{said} of {', '.join(names)}; {f'intent {best} {found[best]:.2f}' if sure else 'still no clear intent'}"
        )
        others = [label for label in turn.labels if label.head != "intent" or label.value not in found]
        labels = [Label(f"intent:{name}", score) for name, score in sorted(found.items(), key=lambda one: -one[1])]
        trace = tuple(
            _claimed(step, best, reason) if sure and step.stage == "classify" else step for step in turn.trace
        )
        turn = replace(turn, labels=(*labels, *others), trace=trace)
        return noted(turn, self.name, "ok", reason, score=found[best], cached=cached, choice=choice)


def question(subject: str, text: str) -> str:
    """What is shown of a message: as a draft's prompt shows it, without marks of chat templates."""
    return data_only(f"{subject}\n{text}", _CHARACTERS)


def left_open(turn: Turn) -> bool:
    """Whether the encoder saw a message that nothing stopped and claimed no intent of it, though it is not outside all of them."""
    seen = [step for step in turn.trace if step.stage == "classify" and step.outcome in {"ok", "handoff"}]
    outside = any(label.name == "scope:in" and label.score < OUTSIDE for label in turn.labels)
    stopped = any(step.outcome == "stop" for step in turn.trace)
    return bool(seen) and not outside and not stopped and "intent" in _list_of(seen[-1], "abstained")


def _list_of(step: TraceStep, name: str) -> list[str]:
    found = step.detail.get(name)
    return list(found) if isinstance(found, list | tuple) else []


def _claimed(step: TraceStep, intent: str, reason: str) -> TraceStep:
    detail: dict[str, Any] = dict(step.detail)
    detail["intent"] = intent
    detail["claims"] = dict(detail.get("claims") or {}) | {"intent": intent}
    detail["abstained"] = [head for head in _list_of(step, "abstained") if head != "intent"]
    detail["because"] = [*_list_of(step, "because"), reason]
    return replace(step, detail=detail)
