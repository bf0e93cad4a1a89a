"""What becomes of the message: gathers the facts and asks `autopilot.decide`, which is pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from assistant.services.autopilot import Facts, Mode, decide
from assistant.values import DecisionKind, Turn
from pipelines.stages.run import noted

__all__ = ["Decide"]

_OUTCOMES = {DecisionKind.STOP: "stop", DecisionKind.HANDOFF: "handoff"}


@dataclass(frozen=True, slots=True)
class Decide:
    policy: Mode = "suggest"
    name: str = "decide"

    def __call__(self, turn: Turn) -> Turn:
        decision = turn.decision or decide(facts_of(turn), policy=self.policy)
        outcome = _OUTCOMES.get(decision.kind, "ok")
        return noted(replace(turn, decision=decision), self.name, outcome, decision.reason, kind=decision.kind.value)


def facts_of(turn: Turn) -> Facts:
    """What no earlier stage has decided on: only whether there is a source."""
    outcome = next((step.outcome for step in turn.trace if step.stage == "retrieve"), "ok")
    retrieval: Literal["ok", "failed", "off"] = (
        "failed" if outcome == "failed" else "off" if outcome == "skipped" else "ok"
    )
    return Facts(passages=len(turn.passages), retrieval=retrieval)
