"""What the shipped artefacts must keep, on a small fixed slice (tests/data/gate): each gate fails with its figure and its bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from api.cli import create_app
from api.commands.classify import items_in
from assistant.settings import ROOT, Settings
from models.catalog import load_classifier
from models.heads.labeller import Labeller
from models.training import figures, labels
from models.training.report import calibration_error
from pipelines.stages.classify import FURTHER, OPT_OUT_SURE, OPT_OUT_UNSURE

FOLDER = ROOT / "deploy/weights/encoder"
SLICE = Path(__file__).resolve().parents[1] / "data" / "gate"
Classified = Callable[[Path, str], list[dict[str, Any]]]
Scores = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    loaded = load_classifier(f"onnx:{FOLDER}", threads=2)
    assert loaded is not None
    loaded.load()
    return loaded


@pytest.fixture
def classified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Classified:
    """What `notifyr classify PATH --labels NAME` writes, line by line."""
    monkeypatch.setenv("NOTIFYR_DATA_DIR", str(tmp_path / "var"))

    def call(path: Path, name: str) -> list[dict[str, Any]]:
        output = tmp_path / "labels.jsonl"
        done = CliRunner().invoke(create_app(), ["classify", str(path), "--labels", name, "--output", str(output)])
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]

    return call


def rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (SLICE / name).read_text(encoding="utf-8").splitlines()]


def gate(what: str, figure: float, bound: float, *, most: bool = False) -> None:
    kept = figure <= bound if most else figure >= bound
    assert kept, f"{what} is {figure:.4f}, the bound is {'at most' if most else 'at least'} {bound}"


def spam(labeller: Labeller) -> tuple[Scores, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    found = rows("spam.tsv")
    answers = labeller.spam_only([text.replace(" / ", "\n") for _, _, text in found])
    scores = np.array([next(one.score for one in answer if one.name == "spam:spam") for answer in answers])
    return scores, np.array([row[0] == "spam" for row in found]), np.array([row[1] == "mail" for row in found])


def test_a_gate_fails_with_the_figure_and_the_bound() -> None:
    with pytest.raises(AssertionError, match=r"recall is 0\.8000, the bound is at least 0\.9"):
        gate("recall", 0.8, 0.9)
    with pytest.raises(AssertionError, match=r"error is 0\.0800, the bound is at most 0\.05"):
        gate("error", 0.08, 0.05, most=True)


def test_nothing_of_the_slice_was_trained_on() -> None:
    trained = [*labels.optout_phrases(), *(one for column in range(3) for one in labels.reply_phrases(column))]
    known = {" ".join(one.text.casefold().split()) for one in trained}
    asked = {
        " ".join(row[-1].casefold().split())
        for name in ("intents.tsv", "spam.tsv", "replies.tsv")
        for row in rows(name)
    }
    assert asked & known == set()
    assert len(asked) >= 130


def test_spam_is_found_and_ham_passes(labeller: Labeller) -> None:
    scores, truth, mails = spam(labeller)
    assert truth.sum() >= 20 and (~truth).sum() >= 20
    for name, kind in (("mails", mails), ("text messages", ~mails)):
        gate(f"recall of spam {name} at one half", float((scores[truth & kind] > 0.5).mean()), 0.9)
        # One of the ten mails, an application for a job, lies just above: a person is asked, nothing is held.
        allowed = 0.1 if name == "mails" else 0.0
        gate(f"share of ham {name} above one half", float((scores[~truth & kind] > 0.5).mean()), allowed, most=True)
    held = Settings.model_fields["spam_threshold"].default
    gate("share of ham that would be held", float((scores[~truth] >= held).mean()), 0.0, most=True)
    gate("calibration error of spam", calibration_error(scores, truth), 0.06, most=True)


def test_intents_are_found_on_questions_nobody_trained_on(labeller: Labeller) -> None:
    found = rows("intents.tsv")
    best = [
        next(one for one in answer if one.head == "intent")
        for answer in labeller.classify([text for _, _, text in found])
    ]
    right = np.array([one.value == row[0] for one, row in zip(best, found, strict=True)])
    assert len({row[0] for row in found}) == 15
    gate("accuracy of intents", float(right.mean()), 0.92)
    gate(
        "calibration error of intents",
        calibration_error(np.array([one.score for one in best]), right, bins=5),
        0.15,
        most=True,
    )


def test_mails_with_their_envelope_are_judged_as_the_command_judges_them(
    labeller: Labeller, classified: Classified
) -> None:
    """Whole .eml files through `notifyr classify`: their headers and how they are built must reach the judge, and help it."""
    lines = classified(SLICE / "mails", "spam")
    scores = np.array([line["labels"]["spam"]["score"] for line in lines])
    truth = np.array([line["id"].startswith("spam-") for line in lines])
    assert truth.sum() >= 12 and (~truth).sum() >= 14
    gate("recall of spam mails at one half", float((scores[truth] > 0.5).mean()), 1.0)
    gate("share of ham mails above a tenth", float((scores[~truth] > 0.1).mean()), 0.0, most=True)
    fixed = labeller.encoder.judge.facts["threshold"]["with_clues"]
    gate("recall of spam mails at the fixed threshold", float((scores[truth] > fixed).mean()), 0.9)
    gate("calibration error of mails", calibration_error(scores, truth), 0.04, most=True)
    bare = labeller.spam_only([item.text for item in items_in([SLICE / "mails"])])
    without = np.array([next(one.score for one in row if one.name == "spam:spam") for row in bare])
    gate("doubt that the envelope takes of ham", float((without - scores)[~truth].max()), 0.5)


def test_opt_outs_are_heard_beside_their_near_misses(
    labeller: Labeller, classified: Classified, tmp_path: Path
) -> None:
    """The committed set, which the shipped head was trained on: what fails here was broken since. `..._of_wording_left_out` is stricter."""
    phrases = [
        one for one in labels.optout_phrases() if one.part[0] in "+-" and one.part not in {"-intents", "-replies"}
    ]
    (tmp_path / "phrases.jsonl").write_text("\n".join(json.dumps({"text": one.text}) for one in phrases))
    found = [line["labels"]["optout"] for line in classified(tmp_path / "phrases.jsonl", "optout")]
    scores, said = np.array([one["score"] for one in found]), np.array([one["label"] == "yes" for one in found])
    yes = np.array([one.label == "yes" for one in phrases])
    assert yes.sum() >= 300 and (~yes).sum() >= 200 and len({one.language for one in phrases}) >= 15
    gate("recall of opt-outs, shown or recorded", float((scores[yes] >= OPT_OUT_UNSURE).mean()), 0.999)
    gate("recall of opt-outs, recorded at once", float((scores[yes] >= OPT_OUT_SURE).mean()), 0.99)
    gate("share of near misses that would be shown", float((scores[~yes] >= OPT_OUT_UNSURE).mean()), 0.04, most=True)
    gate("share of near misses that would be recorded", float((scores[~yes] >= OPT_OUT_SURE).mean()), 0.0, most=True)
    gate("calibration error of opt-outs", calibration_error(scores, yes), 0.12, most=True)
    assert np.array_equal(said, scores > 0.5), "the command calls an opt-out what is likelier one than not"
    gate("recall of what the command calls an opt-out", float(said[yes].mean()), 0.999)
    gate("share of near misses that the command calls one", float(said[~yes].mean()), 0.0, most=True)


def test_opt_outs_are_heard_in_families_of_wording_left_out(labeller: Labeller) -> None:
    """Trained here, as what ships is, without eight families, and asked of these."""
    found = figures.optout(labeller.encoder)
    assert found["opt_outs"] >= 120 and found["near_misses"] >= 60
    gate("recall of opt-outs left out", found["heard"], 0.999)
    gate("share of opt-outs left out that is recorded at once", found["recorded_at_once"], 0.65)
    gate("share of near misses left out that is recorded", found["near_misses_recorded"], 0.08, most=True)
    gate("share of near misses left out that is shown", found["near_misses_shown_to_a_person"], 0.7, most=True)


def test_languages_are_told() -> None:
    found = figures.language()
    gate("accuracy of languages", found["accuracy"], 0.975)


@pytest.mark.parametrize(
    ("column", "head", "bound"), [(0, "reply_intent", 0.9), (1, "urgency", 0.77), (2, "sentiment", 0.9)]
)
def test_further_heads_tell_replies_that_nobody_trained_on(
    labeller: Labeller, column: int, head: str, bound: float
) -> None:
    found = rows("replies.tsv")
    answers = labeller.classify([row[3] for row in found])
    best = [max((one for one in row if one.head == head), key=lambda one: one.score) for row in answers]
    right = np.array([one.value == row[column] for one, row in zip(best, found, strict=True)])
    claimed = np.array([one.score >= FURTHER for one in best])
    gate(f"accuracy of {head}", float(right.mean()), bound)
    gate(f"share of {head} that is claimed", float(claimed.mean()), 0.75)
    gate(f"accuracy of {head} where it is claimed", float(right[claimed].mean()), bound + 0.05)
