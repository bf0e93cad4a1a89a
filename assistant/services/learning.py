"""Which messages teach most, how good the heads are on what people said, and whether the mail has changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.learning import Correction
from assistant.db.messages import Message
from assistant.states import Direction, TriageState

__all__ = [
    "Asked",
    "Bin",
    "Point",
    "StageShare",
    "Week",
    "abstentions",
    "calibration",
    "curve",
    "decided",
    "drift",
    "queue",
    "reached",
    "stability",
    "stages",
]

QUEUE = 20
_POOL = 400
_BINS = 10
_WEEKS = 8
_PER_WEEK = 2000
_FEW = 1e-3


@dataclass(frozen=True, slots=True)
class Asked:
    """A message whose intent a person should name; the better its worth, the more is learned."""

    message: Message
    best: tuple[tuple[str, float], ...]
    worth: float
    alike: int
    """Recent messages with the same two best intents: what the answer would help."""


@dataclass(frozen=True, slots=True)
class Point:
    """How often the head was right among the answers up to here."""

    answers: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Claims of about this probability, and how many of them people left standing."""

    low: float
    high: float
    count: int
    claimed: float
    right: float


@dataclass(frozen=True, slots=True)
class Week:
    """Labels of one week: shares, abstentions, and how far its scores are from the weeks before (PSI)."""

    start: datetime
    messages: int
    shares: tuple[tuple[str, float], ...]
    abstained: float
    scores: float | None
    labels: float | None


def queue(session: Session, *, head: str = "intent", limit: int = QUEUE) -> list[Asked]:
    """The messages whose label teaches most: unsure ones, of many alike, each of another kind than those before it.

    Uncertainty is the entropy of the probabilities; the worth of each further message of one pair of intents is halved.
    """
    answered = select(Correction.message_id).where(Correction.head == head, Correction.undone_at.is_(None))
    recent = session.scalars(
        select(Message)
        .where(
            Message.direction == Direction.INBOUND,
            Message.triage.in_((TriageState.DONE, TriageState.PARTIAL)),
            Message.auto_submitted == "",
            Message.id.not_in(answered),
        )
        .order_by(Message.created_at.desc(), Message.id.desc())
        .limit(_POOL)
    ).all()
    ranked = [(message, _best(message.labels, head)) for message in recent]
    ranked = [(message, best) for message, best in ranked if best]
    kinds = Counter(_kind(best) for _, best in ranked)
    pool = [Asked(message, best, _worth(best, kinds[_kind(best)]), kinds[_kind(best)]) for message, best in ranked]
    taken: list[Asked] = []
    seen: Counter[tuple[str, ...]] = Counter()
    texts: set[str] = set()
    while pool and len(taken) < limit:
        best_one = max(pool, key=lambda one: one.worth / 2 ** seen[_kind(one.best)])
        pool.remove(best_one)
        text = " ".join(best_one.message.new_text.casefold().split())[:500]
        if text in texts:
            continue
        texts.add(text)
        seen[_kind(best_one.best)] += 1
        taken.append(best_one)
    return taken


def curve(session: Session, head: str = "intent") -> list[Point]:
    """Accuracy against answers, on the messages held out from learning, oldest first."""
    rows = session.execute(
        select(Correction.old_label, Correction.new_label)
        .where(Correction.head == head, Correction.undone_at.is_(None), Correction.held_out.is_(True))
        .order_by(Correction.created_at, Correction.id)
    ).all()
    right = 0
    points = []
    for number, (old, new) in enumerate(rows, 1):
        right += old == new
        points.append(Point(number, right / number))
    return points


def reached(session: Session, head: str = "intent") -> dict[str, int]:
    """Answers so far: learned, held out, over the cap, undone."""
    row = session.execute(
        select(
            func.count(Correction.id),
            func.count(Correction.undone_at),
            func.count(case((Correction.held_out, 1))),
            func.count(case((Correction.over_cap, 1))),
        ).where(Correction.head == head)
    ).one()
    given, undone, held, over = (int(value or 0) for value in row)
    return {"given": given, "held_out": held, "over_cap": over, "undone": undone}


def calibration(session: Session, head: str = "intent") -> list[Bin]:
    """Stated probability against the share people left standing, from corrections and confirmations; empty bins are left out."""
    rows = session.execute(
        select(Correction.old_score, Correction.old_label, Correction.new_label).where(
            Correction.head == head, Correction.undone_at.is_(None), Correction.old_score.is_not(None)
        )
    ).all()
    found: dict[int, list[tuple[float, bool]]] = {}
    for given, old, new in rows:
        score = float(given or 0)
        found.setdefault(min(int(score * _BINS), _BINS - 1), []).append((score, old == new))
    return [
        Bin(
            place / _BINS,
            (place + 1) / _BINS,
            len(pairs),
            sum(score for score, _ in pairs) / len(pairs),
            sum(right for _, right in pairs) / len(pairs),
        )
        for place, pairs in sorted(found.items())
    ]


def drift(session: Session, head: str = "intent", *, now: datetime | None = None) -> list[Week]:
    """Label shares, abstentions and population stability of each of the last weeks against the weeks before it."""
    now = now or utcnow()
    start = (now - timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    weeks: list[Week] = []
    shares: Counter[str] = Counter()
    scores: Counter[int] = Counter()
    for back in reversed(range(_WEEKS)):
        begin = start - timedelta(weeks=back)
        rows = session.execute(
            select(Message.labels, Message.trace)
            .where(
                Message.direction == Direction.INBOUND,
                Message.created_at >= begin,
                Message.created_at < begin + timedelta(weeks=1),
                Message.triage == TriageState.DONE,
            )
            .order_by(Message.created_at)
            .limit(_PER_WEEK)
        ).all()
        best = [(found, trace) for labels, trace in rows if (found := _best(labels, head))]
        if not best:
            continue
        of_labels = Counter(found[0][0] for found, _ in best)
        of_scores = Counter(min(int(found[0][1] * _BINS), _BINS - 1) for found, _ in best)
        weeks.append(
            Week(
                begin,
                len(best),
                tuple((label, count / len(best)) for label, count in of_labels.most_common()),
                sum(_abstained(trace, head) for _, trace in best) / len(best),
                stability(scores, of_scores) if scores else None,
                stability(shares, of_labels) if shares else None,
            )
        )
        shares += of_labels
        scores += of_scores
    return weeks


def stability(before: Counter[Any], after: Counter[Any]) -> float:
    """Population stability index: below 0.1 the same mail, above 0.25 another one."""
    first, second = before.total(), after.total()
    total = 0.0
    for key in before.keys() | after.keys():
        a, b = max(before[key] / first, _FEW), max(after[key] / second, _FEW)
        total += (b - a) * math.log(b / a)
    return total


def _best(labels: Sequence[dict[str, Any]], head: str) -> tuple[tuple[str, float], ...]:
    found = [
        (str(one["name"]).partition(":")[2], float(one["score"]))
        for one in labels
        if str(one["name"]).startswith(head + ":")
    ]
    return tuple(sorted(found, key=lambda pair: -pair[1])[:9])


def _kind(best: tuple[tuple[str, float], ...]) -> tuple[str, ...]:
    return tuple(sorted(label for label, _ in best[:2]))


def _worth(best: tuple[tuple[str, float], ...], alike: int) -> float:
    rest = max(0.0, 1 - sum(score for _, score in best))
    entropy = -sum(p * math.log(p) for p in (*[score for _, score in best], rest) if p > 0)
    return entropy * (1 + math.log(alike))


def _abstained(trace: Sequence[dict[str, Any]], head: str) -> bool:
    detail: dict[str, Any] = next((one.get("detail") or {} for one in trace if one.get("stage") == "classify"), {})
    return head in (detail.get("abstained") or [])


@dataclass(frozen=True, slots=True)
class StageShare:
    """What one stage did with the recent mail."""

    stage: str
    outcomes: tuple[tuple[str, float], ...]
    """Outcome and its share, the most frequent first."""
    median: float
    """Milliseconds, also `slowest_tenth`."""
    slowest_tenth: float


def stages(session: Session, *, limit: int = 1000) -> list[StageShare]:
    """Share of outcomes and time of each stage over the newest messages, in the order in which they run."""
    traces = session.scalars(
        select(Message.trace)
        .where(Message.direction == Direction.INBOUND, Message.triage.is_not(None))
        .order_by(Message.created_at.desc())
        .limit(limit)
    ).all()
    found: dict[str, list[tuple[str, float]]] = {}
    for trace in traces:
        for step in trace:
            found.setdefault(str(step["stage"]), []).append((str(step["outcome"]), float(step["milliseconds"])))
    made = []
    for stage, seen in found.items():
        times = sorted(milliseconds for _, milliseconds in seen)
        outcomes = Counter(outcome for outcome, _ in seen)
        made.append(
            StageShare(
                stage,
                tuple((outcome, count / len(seen)) for outcome, count in outcomes.most_common()),
                times[len(times) // 2],
                times[min(len(times) - 1, len(times) * 9 // 10)],
            )
        )
    return made


def abstentions(session: Session, *, limit: int = 1000) -> list[tuple[str, float]]:
    """Head and the share of the newest messages on which it claimed nothing."""
    traces = session.scalars(
        select(Message.trace)
        .where(Message.direction == Direction.INBOUND, Message.triage == TriageState.DONE)
        .order_by(Message.created_at.desc())
        .limit(limit)
    ).all()
    claimed: Counter[str] = Counter()
    silent: Counter[str] = Counter()
    for trace in traces:
        detail: dict[str, Any] = next((one.get("detail") or {} for one in trace if one.get("stage") == "classify"), {})
        claimed.update((detail.get("claims") or {}).keys())
        silent.update(detail.get("abstained") or [])
    return [(head, silent[head] / (silent[head] + claimed[head])) for head in sorted(claimed | silent)]


def decided(session: Session, *, limit: int = 1000) -> list[tuple[str, float]]:
    """Stage of the cascade and its share of the spam verdicts on the newest messages, the most frequent first."""
    traces = session.scalars(
        select(Message.trace)
        .where(Message.direction == Direction.INBOUND, Message.triage.is_not(None))
        .order_by(Message.created_at.desc())
        .limit(limit)
    ).all()
    found = Counter(
        str(why["stage"])
        for trace in traces
        for step in trace
        if step.get("stage") == "classify" and (why := (step.get("detail") or {}).get("spam_because"))
    )
    return [(stage, count / found.total()) for stage, count in found.most_common()]
