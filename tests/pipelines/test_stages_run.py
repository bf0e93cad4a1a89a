"""Stages are timed and traced, a failing one does not stop the others, a decision to stop does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from assistant.errors import ModelTimeout, ModelUnavailable, StorageError
from assistant.values import Decision, DecisionKind, Turn
from pipelines.stages.run import failed_stages, noted, run
from tests.pipelines.turns import turn


@dataclass(frozen=True)
class Step:
    name: str
    act: Callable[[Turn], Turn] = lambda turn: turn

    def __call__(self, turn: Turn) -> Turn:
        return self.act(turn)


def _raising(error: Exception) -> Callable[[Turn], Turn]:
    def act(turn: Turn) -> Turn:
        raise error

    return act


def test_every_stage_leaves_one_step_with_its_time() -> None:
    done = run(turn(), [Step("one"), Step("two", lambda t: noted(t, "two", "ok", "did it", score=0.5, rule="x"))])
    assert [(step.stage, step.outcome, step.reason, step.score) for step in done.trace] == [
        ("one", "ok", "", None),
        ("two", "ok", "did it", 0.5),
    ]
    assert all(step.milliseconds >= 0 for step in done.trace)
    assert done.trace[1].detail == {"rule": "x"}


@pytest.mark.parametrize("error", [ModelUnavailable("gone"), ModelTimeout("slow"), StorageError("locked")])
def test_a_failed_stage_is_named_and_the_rest_goes_on(error: Exception) -> None:
    done = run(turn(), [Step("one", _raising(error)), Step("two", lambda t: replace(t, contact_name="Ana"))])
    assert failed_stages(done) == ("one",)
    assert done.trace[0].reason == str(error)
    assert done.contact_name == "Ana"


def test_a_mistake_in_a_stage_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(turn(), [Step("one", _raising(ZeroDivisionError()))])


def test_stop_ends_early_and_handoff_does_not() -> None:
    def decided(kind: DecisionKind) -> Step:
        return Step("first", lambda t: replace(t, decision=Decision(kind, "why")))

    assert [step.stage for step in run(turn(), [decided(DecisionKind.STOP), Step("two")]).trace] == ["first"]
    assert [step.stage for step in run(turn(), [decided(DecisionKind.HANDOFF), Step("two")]).trace] == ["first", "two"]
