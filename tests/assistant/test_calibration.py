"""The percentage on a card: a prior, outcomes, and never a higher score with a lower promise."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.clock import utcnow
from assistant.db.messages import Suggestion
from assistant.db.session import Database
from assistant.services import calibration, suggestions
from assistant.services.calibration import ENOUGH, Outcomes
from assistant.states import SuggestionState
from tests.assistant.rows import a_proposal


def decide(database: Database, *, score: float, clean: int, count: int, intent: str = "refund_status") -> None:
    with database.transaction() as session:
        proposal = a_proposal(session)
        for number in range(count):
            state = SuggestionState.ACCEPTED if number < clean else SuggestionState.EDITED
            session.add(
                Suggestion(
                    thread_id=proposal.thread_id,
                    message_id=proposal.message_id,
                    state=state,
                    confidence=score,
                    intent=intent,
                    estimate=score,
                    decided_at=utcnow(),
                )
            )


def found(database: Database) -> Outcomes:
    with database.reading() as session:
        return calibration.outcomes(session)


def test_too_few_outcomes_say_no_percentage(database: Database) -> None:
    decide(database, score=0.8, clean=ENOUGH - 1, count=ENOUGH - 1)
    assert calibration.estimate(found(database), 0.8) is None
    decide(database, score=0.8, clean=1, count=1)
    assert calibration.estimate(found(database), 0.8) is not None


def test_the_estimate_moves_from_the_prior_to_what_happened(database: Database) -> None:
    decide(database, score=0.8, clean=50, count=1000)
    few = calibration.estimate(found(database), 0.8, intent="refund_status")
    assert few is not None
    assert abs(few - 0.05) < 0.03
    high = calibration.estimate(found(database), 0.95, intent="refund_status")
    assert high is not None
    assert high > few


def test_an_intent_that_goes_better_than_the_rest_is_told_apart(database: Database) -> None:
    decide(database, score=0.8, clean=30, count=100, intent="complaint")
    decide(database, score=0.8, clean=95, count=100, intent="opening_hours")
    outcomes = found(database)
    low, high = (calibration.estimate(outcomes, 0.8, intent=name) for name in ("complaint", "opening_hours"))
    assert low is not None and high is not None
    assert low < 0.5
    assert high > 0.85
    assert [(one.intent, one.clean, one.count) for one in calibration.reach(outcomes)] == [
        ("complaint", 30, 100),
        ("opening_hours", 95, 100),
    ]


def test_a_dismissal_counts_unless_no_reply_was_needed(database: Database) -> None:
    with database.transaction() as session:
        first, second = a_proposal(session), a_proposal(session)
    with database.transaction() as session:
        suggestions.reject(session, first.id, agent_id=None, version=2, reason="wrong facts")  # type: ignore[arg-type]
        suggestions.reject(session, second.id, agent_id=None, version=2, reason="not needed")  # type: ignore[arg-type]
    assert found(database).count == 1


def test_a_new_draft_carries_the_measured_percentage_and_its_word(database: Database) -> None:
    decide(database, score=0.8, clean=2, count=200, intent="")
    with database.transaction() as session:
        stored = suggestions.get(session, a_proposal(session).id)
        session.refresh(stored)
        assert stored.estimate is not None
        assert stored.estimate < 0.1
        assert stored.word == "weak"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 100)), min_size=1, max_size=12))
def test_pooling_never_falls_and_keeps_the_mean(rows: list[tuple[float, float]]) -> None:
    means, weights = [mean for mean, _ in rows], [weight for _, weight in rows]
    pooled = calibration.monotone(means, weights)
    assert all(one <= other + 1e-12 for one, other in pairwise(pooled))
    total = sum(mean * weight for mean, weight in rows)
    assert sum(mean * weight for mean, weight in zip(pooled, weights, strict=True)) == pytest.approx(total)


def test_stated_percentages_hold_on_outcomes_drawn_from_a_known_rule(database: Database) -> None:
    draw = random.Random(7)
    truth = {0.3: 0.2, 0.5: 0.35, 0.7: 0.6, 0.8: 0.8, 0.9: 0.93}
    for score, share in truth.items():
        decide(database, score=score, clean=sum(draw.random() < share for _ in range(300)), count=300)
    outcomes = found(database)
    for score, share in truth.items():
        said = calibration.estimate(outcomes, score, intent="refund_status")
        assert said is not None
        assert abs(said - share) < 0.07, score
    with database.reading() as session:
        rows = calibration.pooled(session)
    assert sum(count for _, _, count in rows) == 1500


@pytest.mark.parametrize(
    ("clean", "count", "low", "high"), [(0, 0, 0.0, 1.0), (50, 50, 0.92, 1.0), (5, 10, 0.23, 0.77)]
)
def test_the_interval_is_honest_about_few(clean: int, count: int, low: float, high: float) -> None:
    bounds = calibration.interval(clean, count)
    assert bounds[0] == pytest.approx(low, abs=0.01)
    assert bounds[1] == pytest.approx(high, abs=0.01)
