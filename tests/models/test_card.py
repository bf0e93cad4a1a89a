"""The model card's tables come from the figures beside the weights, and say so when the weights are others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from assistant.settings import ROOT
from models.training import card, figures
from tests.support.goals import GOALS, missed

SHIPPED = ROOT / "deploy" / "weights" / "encoder"
PAGE = f"# Card\n\n{card.BEGIN}\nthe table of last year\n{card.END}\n\nrest\n"
URGENCY = {
    "texts": 243,
    "accuracy": 0.757,
    "claimed": 0.774,
    "accuracy_where_claimed": 0.803,
    "calibration_error": 0.042,
    "confusion": {"high": {"high": 16, "normal": 11}, "low": {"low": 72}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.onnx", "labels/labels.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_tables_are_what_was_measured(folder: Path) -> None:
    card.keep(folder, {"model": "m", "urgency": URGENCY})
    made = card.put_into(PAGE, folder)
    assert made.startswith("# Card\n") and made.endswith("\n\nrest\n") and "last year" not in made
    assert "| urgency | 243 own texts, five-fold | 0.76; 0.80 where it is claimed (77%) | 0.042 |" in made
    assert "urgency: high → normal 11" in made
    assert card.put_into(made, folder) == made


def test_a_part_measured_later_leaves_the_others_where_they_are(folder: Path) -> None:
    card.keep(folder, {"urgency": URGENCY})
    kept = card.keep(folder, {"language": {"texts": 5, "languages": 2, "accuracy": 1.0, "confused": []}})
    assert set(kept) == {"urgency", "language"}


def test_figures_of_other_weights_are_shown_as_such(folder: Path) -> None:
    card.keep(folder, {"urgency": URGENCY})
    assert card.stale(folder) == []
    (folder / "labels" / "labels.npz").write_bytes(b"retrained")
    assert card.stale(folder) == ["urgency"]
    assert "of earlier weights: measure again" in card.block(folder)


def test_a_page_without_a_place_for_the_figures_is_refused(folder: Path) -> None:
    card.keep(folder, {"urgency": URGENCY})
    with pytest.raises(InvalidInput, match="no place for the figures"):
        card.put_into("# Card\n", folder)


def test_a_text_in_both_parts_is_refused_with_the_pair() -> None:
    with pytest.raises(
        InvalidInput, match=r"in train \(card_lost\) and in test \(card_arrival\): 'Where is my  CARD\?'"
    ):
        figures.refuse_twins([("where is my card?", "card_lost")], [("Where is my  CARD?", "card_arrival")])


def test_what_is_confused_most_comes_first() -> None:
    truth, said = ["a", "a", "a", "b", "c"], ["b", "b", "a", "c", "c"]
    assert figures.confused(truth, said) == [["a", "b", 2], ["b", "c", 1]]


# -- what ships


@pytest.mark.parametrize("part", GOALS)
def test_the_figures_beside_the_shipped_weights_reach_their_goals(part: str) -> None:
    """`notifyr evaluate --write` measured them on the public sets, which are not here, and the card is made of them."""
    kept = json.loads((SHIPPED / card.FIGURES).read_text(encoding="utf-8"))
    assert missed(part, kept[part]["figures"]) == []


def test_the_figures_beside_the_shipped_weights_are_of_these_weights() -> None:
    assert card.stale(SHIPPED) == []


def test_a_figure_below_its_goal_is_told_with_both() -> None:
    good = {
        "recall_at_0.1_percent": 0.91,
        "pr_auc": 0.998,
        "hard_ham_false_positives": 0.02,
        "calibration_error": 0.01,
    }
    assert missed("mail", good) == []
    assert missed("mail", good | {"calibration_error": 0.03, "pr_auc": 0.99}) == [
        "mail: pr_auc is 0.9900, the goal is at least 0.997",
        "mail: calibration_error is 0.0300, the goal is at most 0.02",
    ]
    assert missed("sms", {}) == ["sms: recall_at_0.1_percent was not measured"]
