"""What may become of a message, as a table; and properties that hold for every combination of facts."""

from __future__ import annotations

from itertools import product

import pytest

from assistant.services.autopilot import Facts, confidence_of, decide, spam_verdict, word_of
from assistant.values import DecisionKind

TABLE = [
    (Facts(robot="a delivery report"), DecisionKind.STOP, "a delivery report"),
    (Facts(robot="an automatic reply", passages=3), DecisionKind.STOP, "an automatic reply"),
    (Facts(robot="an automatic reply", person_needed="opt-out"), DecisionKind.STOP, "an automatic reply"),
    (Facts(person_needed="asks not to be written to"), DecisionKind.HANDOFF, "asks not to be written to"),
    (Facts(person_needed="unreadable", spam="spam", spam_score=0.99), DecisionKind.HANDOFF, "unreadable"),
    (Facts(spam="spam", spam_score=0.97, passages=1), DecisionKind.STOP, "spam with 97%: held back"),
    (Facts(spam="uncertain", spam_score=0.62, passages=1), DecisionKind.HANDOFF, "perhaps spam (62%): please look"),
    (Facts(retrieval="failed"), DecisionKind.HANDOFF, "approved answers could not be searched: no source"),
    (Facts(retrieval="off"), DecisionKind.HANDOFF, "the encoder is off: no source"),
    (Facts(spam="ham"), DecisionKind.HANDOFF, "no passage found"),
    (Facts(), DecisionKind.HANDOFF, "no passage found"),
    (Facts(spam="ham", passages=2), DecisionKind.SUGGEST, "policy: suggest only"),
    (Facts(spam="unknown", passages=1), DecisionKind.SUGGEST, "policy: suggest only"),
]


@pytest.mark.parametrize(("facts", "kind", "reason"), TABLE)
def test_the_first_rule_that_fits_decides(facts: Facts, kind: DecisionKind, reason: str) -> None:
    decision = decide(facts)
    assert (decision.kind, decision.reason) == (kind, reason)


def _every_facts() -> list[Facts]:
    return [
        Facts(robot=robot, person_needed=person, spam=spam, spam_score=0.7, passages=passages, retrieval=retrieval)
        for robot, person, spam, passages, retrieval in product(
            ("", "robot"), ("", "person"), ("spam", "uncertain", "ham", "unknown"), (0, 2), ("ok", "failed", "off")
        )
    ]


def test_under_suggest_nothing_is_ever_sent_without_a_person() -> None:
    assert DecisionKind.REPLY not in {decide(facts).kind for facts in _every_facts()}


def test_a_robot_or_spam_never_gets_even_a_suggestion() -> None:
    for facts in _every_facts():
        if facts.robot or facts.spam in ("spam", "uncertain"):
            assert decide(facts).kind != DecisionKind.SUGGEST


def test_nothing_is_suggested_without_a_source() -> None:
    for facts in _every_facts():
        if not facts.passages or facts.retrieval != "ok":
            assert decide(facts).kind != DecisionKind.SUGGEST


@pytest.mark.parametrize(
    ("score", "known", "verdict"),
    [
        (None, False, "unknown"),
        (0.0, False, "ham"),
        (0.4999, False, "ham"),
        (0.5, False, "uncertain"),
        (0.8999, False, "uncertain"),
        (0.9, False, "spam"),
        (1.0, False, "spam"),
        (1.0, True, "uncertain"),
        (0.6, True, "uncertain"),
        (0.1, True, "ham"),
    ],
)
def test_spam_thresholds(score: float | None, known: bool, verdict: str) -> None:
    assert spam_verdict(score, threshold=0.9, band=0.5, known_sender=known) == verdict


def test_confidence_grows_with_similarity_and_falls_with_a_rival() -> None:
    alone = [confidence_of(score / 100, rival=None, floor=0.35) for score in range(35, 100)]
    assert alone == sorted(alone)
    assert 0.29 < alone[0] < 0.31
    assert max(alone) == 0.95
    assert confidence_of(0.7, rival=0.69, floor=0.35) < confidence_of(0.7, rival=0.4, floor=0.35)
    assert confidence_of(0.7, rival=0.1, floor=0.35) == confidence_of(0.7, rival=None, floor=0.35)


def test_the_word_follows_the_confidence() -> None:
    assert [word_of(value) for value in (0.0, 0.44, 0.45, 0.74, 0.75, 1.0)] == [
        "weak", "weak", "check", "check", "ready", "ready",
    ]  # fmt: skip
