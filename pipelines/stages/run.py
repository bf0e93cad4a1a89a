"""Run a turn through stages: each is timed and traced, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import structlog

from assistant.clock import monotonic
from assistant.errors import ModelError, StorageError
from assistant.telemetry import METRICS
from assistant.values import DecisionKind, TraceStep, Turn

__all__ = ["LooksOn", "Stage", "failed_stages", "noted", "run"]

_log = structlog.get_logger(__name__)


class Stage(Protocol):
    """A callable that holds its model and fills in its part of the turn."""

    @property
    def name(self) -> str: ...

    def __call__(self, turn: Turn) -> Turn: ...


@runtime_checkable
class LooksOn(Protocol):
    """A stage that may look at a mail that was stopped, for its labels only."""

    def looks_on(self, turn: Turn) -> bool: ...


def noted(turn: Turn, stage: str, outcome: str, reason: str, *, score: float | None = None, **detail: object) -> Turn:
    """The turn with one more step in its trace. The stage says what it did; `run` fills in the time."""
    return replace(turn, trace=(*turn.trace, TraceStep(stage, outcome, 0.0, reason, score, detail)))


def run(turn: Turn, stages: Sequence[Stage]) -> Turn:
    """The turn after every stage; after one that decided to stop, only those that look on are asked.

    A stage that raises `ModelError` or `StorageError` is traced `failed` and leaves the turn as it was.
    """
    for stage in stages:
        if _stopped(turn) and not (isinstance(stage, LooksOn) and stage.looks_on(turn)):
            continue
        before, started = turn, monotonic()
        try:
            turn = stage(before)
        except (ModelError, StorageError) as error:
            _log.warning("stage_failed", stage=stage.name, code=error.code, reason=error.message)
            turn = noted(before, stage.name, "failed", error.message, code=error.code)
        if len(turn.trace) == len(before.trace):
            turn = noted(turn, stage.name, "ok", "")
        seconds = monotonic() - started
        METRICS.stage_seconds.labels(stage=stage.name).observe(seconds)
        turn = replace(turn, trace=(*turn.trace[:-1], replace(turn.trace[-1], milliseconds=round(seconds * 1000, 2))))
    return turn


def _stopped(turn: Turn) -> bool:
    return turn.decision is not None and turn.decision.kind == DecisionKind.STOP


def failed_stages(turn: Turn) -> tuple[str, ...]:
    """The stages that were not available for this turn."""
    return tuple(step.stage for step in turn.trace if step.outcome == "failed")
