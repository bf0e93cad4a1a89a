"""How likely a draft needs no edit, learned from what agents made of earlier ones.

The stages give a score, not a probability. Outcomes are counted by bins of that score; a bin starts from the shipped prior,
an intent starts from its bin, and the more outcomes there are the less the start counts (beta-binomial). Neighbouring bins
are pooled until a higher score never means a lower probability (isotonic regression by pool adjacent violators).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Suggestion
from assistant.services.intervals import interval
from assistant.states import SuggestionState

__all__ = [
    "EDGES",
    "ENOUGH",
    "Bin",
    "Outcomes",
    "Reach",
    "estimate",
    "interval",
    "monotone",
    "outcomes",
    "pooled",
    "reach",
]

EDGES = (0.0, 0.45, 0.6, 0.75, 0.85, 1.01)
"""Bins of the score; 0.45 and 0.75 are where `check` and `ready` begin."""
PRIOR = (0.25, 0.4, 0.55, 0.7, 0.8)
"""Shipped start of each bin: cautious, because nobody has measured it in this house."""
WEIGHT = 10.0
"""A start counts as so many outcomes."""
ENOUGH = 20
"""Outcomes before a percentage is said at all."""
SINCE = timedelta(days=365)
_LOCAL = ("failed", "stopped", "thrown away", "not needed")
"""Ways to end a draft that say nothing about its words."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Outcomes of drafts whose score was from `low` to `high`; `clean` of `count` were sent without an edit."""

    low: float
    high: float
    clean: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Everything agents decided: per bin, and per intent and bin."""

    bins: tuple[Bin, ...]
    intents: dict[str, tuple[Bin, ...]]

    @property
    def count(self) -> int:
        return sum(one.count for one in self.bins)


def outcomes(session: Session) -> Outcomes:
    """Counts of the last year, in one query."""
    place = case(
        *((Suggestion.confidence < high, number) for number, high in enumerate(EDGES[1:])), else_=len(EDGES) - 2
    )
    clean = func.sum(case((Suggestion.state == SuggestionState.ACCEPTED, 1), else_=0))
    rows = session.execute(
        select(Suggestion.intent, place, clean, func.count())
        .where(
            Suggestion.decided_at > utcnow() - SINCE,
            Suggestion.state.in_((SuggestionState.ACCEPTED, SuggestionState.EDITED, SuggestionState.REJECTED)),
            Suggestion.reject_reason.not_in(_LOCAL),
            Suggestion.policy_id.is_(None),  # what went out by itself proves nothing about itself
        )
        .group_by(Suggestion.intent, place)
    ).all()
    intents: dict[str, list[Bin]] = {}
    for intent, number, good, count in rows:
        bins = intents.setdefault(intent or "other", _empty())
        bins[number] = _plus(bins[number], int(good), int(count))
    total = _empty()
    for bins in intents.values():
        total = [_plus(one, other.clean, other.count) for one, other in zip(total, bins, strict=True)]
    return Outcomes(tuple(total), {name: tuple(bins) for name, bins in sorted(intents.items())})


def estimate(found: Outcomes, score: float, *, intent: str = "") -> float | None:
    """The probability that a draft with this score needs no edit; None while fewer than `ENOUGH` outcomes are known."""
    if found.count < ENOUGH:
        return None
    number = next((place for place, high in enumerate(EDGES[1:]) if score < high), len(EDGES) - 2)
    general = monotone(
        [_mean(one, start) for one, start in zip(found.bins, PRIOR, strict=True)],
        [one.count + WEIGHT for one in found.bins],
    )
    own = found.intents.get(intent or "other", tuple(_empty()))
    special = monotone(
        [_mean(one, start) for one, start in zip(own, general, strict=True)], [one.count + WEIGHT for one in own]
    )
    return round(special[number], 3)


def monotone(means: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for mean, weight in zip(means, weights, strict=True):
        blocks.append((mean, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, a, m), (right, b, n) = blocks[-2:]
            blocks[-2:] = [((left * a + right * b) / (a + b), a + b, m + n)]
    return [mean for mean, _, size in blocks for _ in range(size)]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far an intent is from being trusted: `bound` is the lower end of the interval of its clean share."""

    intent: str
    clean: int
    count: int
    bound: float


def reach(found: Outcomes) -> list[Reach]:
    """Every intent with outcomes, those with most first."""
    rows = []
    for name, bins in found.intents.items():
        clean, count = sum(one.clean for one in bins), sum(one.count for one in bins)
        rows.append(Reach(name, clean, count, interval(clean, count)[0]))
    return sorted(rows, key=lambda row: (-row.count, row.intent))


def pooled(session: Session) -> list[tuple[float, float, int]]:
    """`(stated, clean share, count)` by tenths of the probability that cards stated: what the reliability chart shows."""
    stated = func.floor(Suggestion.estimate * 9.999)
    rows = session.execute(
        select(
            func.avg(Suggestion.estimate),
            func.avg(case((Suggestion.state == SuggestionState.ACCEPTED, 1.0), else_=0.0)),
            func.count(),
        )
        .where(
            Suggestion.decided_at > utcnow() - SINCE,
            Suggestion.estimate.is_not(None),
            Suggestion.state.in_((SuggestionState.ACCEPTED, SuggestionState.EDITED, SuggestionState.REJECTED)),
            Suggestion.reject_reason.not_in(_LOCAL),
            Suggestion.policy_id.is_(None),
        )
        .group_by(stated)
        .order_by(stated)
    ).all()
    return [(float(mean), float(share), int(count)) for mean, share, count in rows]


def _empty() -> list[Bin]:
    return [Bin(low, high) for low, high in itertools.pairwise(EDGES)]


def _plus(one: Bin, clean: int, count: int) -> Bin:
    return Bin(one.low, one.high, one.clean + clean, one.count + count)


def _mean(one: Bin, start: float) -> float:
    return (one.clean + WEIGHT * start) / (one.count + WEIGHT)
