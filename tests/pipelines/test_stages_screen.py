"""The rules before any model, as a table of what people and machines really write."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from assistant.values import DecisionKind, Turn
from pipelines.stages.screen import CONDITIONS, Screen, load_rules
from tests.pipelines.turns import turn

OWN = frozenset({"support@example.org"})
screen = Screen(own=lambda: OWN)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("bounce", "bounce"),
        ("complaint", "complaint"),
        ("auto-replied", "auto-reply"),
        ("auto-generated", "robot"),
        ("list", "list"),
        ("bulk", "list"),
        ("something-new", "robot"),
    ],
)
def test_a_robot_is_stopped_by_its_marks(kind: str, rule: str) -> None:
    done = screen(turn("Hello", auto_submitted=kind))
    assert done.decision is not None
    assert done.decision.kind == DecisionKind.STOP
    assert done.trace[-1].detail["rule"] == rule


@pytest.mark.parametrize(
    "sender",
    [
        "MAILER-DAEMON@mx.example",
        "postmaster@mx.example",
        "noreply@shop.example",
        "no-reply@shop.example",
        "do-not-reply@shop.example",
        "donotreply@shop.example",
        "owner-linux@lists.example",
        "weekly-request@lists.example",
        "bounces@lists.example",
        "Support@Example.org",
    ],
)
def test_some_senders_are_never_answered(sender: str) -> None:
    done = screen(turn("Where is my parcel?", sender=sender))
    assert done.decision is not None
    assert done.decision.kind == DecisionKind.STOP


@pytest.mark.parametrize(
    "sender", ["ana@mail.example", "norbert.reply@mail.example", "requests@mail.example", "stop@mail.example"]
)
def test_a_person_passes(sender: str) -> None:
    done = screen(turn("Where is my parcel?", sender=sender))
    assert done.decision is None
    assert done.trace[-1].outcome == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "STOP",
        " stop. ",
        "Unsubscribe",
        "unsubscribe!",
        "Opt out",
        "OPT-OUT",
        "Stop please",
        "Please unsubscribe me",
        "Please stop emailing me.",
        "stop texting me",
        "Please take me off your mailing list, thanks.",
        "Remove me from this list",
        "Do not contact me again.",
        "Don't email me anymore",
        "please unsubscribe me from your newsletter",
        "revoke",
        "QUIT",
    ],
)
def test_an_opt_out_goes_to_a_person_and_is_recorded(text: str) -> None:
    done = screen(turn(text))
    assert done.decision is not None
    assert done.decision.kind == DecisionKind.HANDOFF
    assert str(done.trace[-1].detail["rule"]).startswith("opt-out")


def test_an_empty_mail_with_unsubscribe_as_subject_is_an_opt_out() -> None:
    assert screen(turn("", subject="Unsubscribe")).trace[-1].detail["rule"] == "opt-out"


@pytest.mark.parametrize(
    "text",
    [
        "How do I stop the lamp from flickering?",
        "Can I cancel?",
        "cancel",
        "My lamp came to a full stop",
        "The end of the cable is broken",
        "I want to unsubscribe from the premium plan but keep my account",
        "Please do not email me the invoice, send it by post",
        "I quit smoking, is the lamp safe for me?",
        "Where is the stop button?",
    ],
)
def test_a_question_that_uses_the_same_words_is_not_an_opt_out(text: str) -> None:
    assert screen(turn(text)).decision is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("I want to speak to a real person, please", "human"),
        ("Can I talk with someone?", "human"),
        ("please call me today", "human"),
        ("You will hear from my lawyer", "legal"),
        ("we act for Mr Baker", "legal"),
        ("x" * 200_001, "size"),
        ("   ", "empty"),
    ],
)
def test_some_mails_need_a_person(text: str, rule: str) -> None:
    done = screen(turn(text))
    assert done.decision is not None
    assert done.decision.kind == DecisionKind.HANDOFF
    assert done.trace[-1].detail["rule"] == rule


def test_an_unreadable_mail_goes_to_a_person() -> None:
    assert screen(turn("hello", defects=("quarantine",))).trace[-1].detail["rule"] == "quarantine"


def test_urgent_words_are_labelled_and_decide_nothing() -> None:
    done = screen(turn("I need this ASAP"))
    assert done.label("urgency") is not None
    assert done.decision is None


def test_a_machine_is_never_urgent() -> None:
    assert screen(turn("In urgent cases call me", auto_submitted="auto-replied")).label("urgency") is None


APPLIES: dict[str, Turn] = {
    "bounce": turn("x", auto_submitted="bounce"),
    "complaint": turn("x", auto_submitted="complaint"),
    "auto-reply": turn("x", auto_submitted="auto-replied"),
    "list": turn("x", auto_submitted="list"),
    "robot": turn("x", auto_submitted="auto-generated"),
    "own-address": turn("x", sender="support@example.org"),
    "no-reply": turn("x", sender="no-reply@shop.example"),
    "quarantine": turn("x", defects=("quarantine",)),
    "opt-out": turn("退订。"),
    "opt-out-request": turn("Hola,\n\nno me escriban más."),
    "human": turn("may I talk to a human?"),
    "legal": turn("my lawyer will write"),
    "size": turn("x" * 200_001),
    "depth": turn(">" * 41 + " deep\nhello"),
    "empty": turn(" "),
}
"""A mail for each rule of the file."""


def test_every_rule_of_the_file_applies_to_its_own_mail_and_gives_its_reason() -> None:
    rules, _ = load_rules()
    assert [rule.name for rule in rules] == list(APPLIES)
    for rule in rules:
        done = screen(APPLIES[rule.name])
        assert (done.trace[-1].detail["rule"], done.trace[-1].reason) == (rule.name, rule.reason)
        assert len(rule.reason) > 8
    assert screen(turn("Where is my parcel?")).decision is None


def test_a_wrong_file_of_rules_is_refused_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(
        '{"urgent": "x", "rules": [{"name": "a", "kind": "robot", "reason": "r", "colour": 1},'
        ' {"name": "b", "kind": "cat", "reason": "r", "empty": true}]}'
    )
    with pytest.raises(ConfigurationError) as refused:
        load_rules(path)
    assert "there is no condition colour" in str(refused.value)
    assert "rule b: needs a kind" in str(refused.value)
    path.write_text('{"urgent": "(", "rules": []}')
    with pytest.raises(ConfigurationError, match="rules"):
        load_rules(path)
    assert set(CONDITIONS) >= {"marked", "whole", "longer", "quoted_deeper"}


@pytest.mark.parametrize(
    "text",
    ["stop " * 20_000, "a" * 100_000, "take me off " * 8_000, "speak to a " * 9_000, " \t" * 50_000, "never " * 16_000],
)
def test_hostile_text_is_screened_in_linear_time(text: str) -> None:
    whole, quarter = (_spend(text[: len(text) // part]) for part in (1, 4))
    # A machine may be slow; what grows with the square takes sixteen times as long for four times the text.
    assert whole < max(0.1, 8 * quarter), f"{whole:.2f} s, a quarter {quarter:.2f} s"
    assert whole < 1.0


def _spend(text: str) -> float:
    started = time.thread_time()
    screen(turn(text, subject=text[:100_000], sender=text[:300].strip() + "@x.example"))
    return time.thread_time() - started
