"""Files that are missing, cut or of something else: what is whole goes on, and what is not says how to mend it."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assistant.errors import ModelUnavailable
from assistant.settings import ROOT
from models.bert import Encoder
from models.heads.labeller import HEADS, Labeller
from models.parts import Part, arrays_in

FOLDER = ROOT / "deploy/weights/encoder"
SPAM = "Make money fast, guaranteed\nEarn $5000 a week from home! Click here to order now, 100% risk free."
QUESTION = "Order 48213\nHello, my parcel should have been here on Monday. Where is it? Kind regards, Ada"
OPEN = "Your account\nPlease confirm your details within a week, so that we can go on sending you our offers."
MESSAGE = "Hi, are you at home tonight? I would bring the drill back."
NEEDING_VECTORS = {"intent", "reply_intent", "urgency", "sentiment", "optout"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(FOLDER, tmp_path / "encoder"))


def seal(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def missing(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def truncated(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])


def something_else(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"GIF89a" * 100)
    seal(folder, "model.onnx")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def another_architecture(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"architecture": "t5"}))


def heads_of(labeller: Labeller, text: str) -> set[str]:
    return {label.head for label in labeller.classify([text])[0]}


def of_spam(labeller: Labeller, text: str) -> float:
    return next(label.score for label in labeller.classify([text])[0] if label.name == "spam:spam")


@pytest.mark.parametrize("harm", [missing, truncated, something_else, no_tokenizer, another_architecture])
def test_without_the_network_mails_are_judged_by_their_words(folder: Path, harm: Callable[[Path], None]) -> None:
    harm(folder)
    labeller = Labeller(Encoder(folder))
    assert of_spam(labeller, SPAM) > 0.8
    assert of_spam(labeller, QUESTION) < 0.1
    assert heads_of(labeller, QUESTION) == {"spam", "language"}
    assert [label.name for label in labeller.spam_only([SPAM])[0]] == ["spam:spam", "spam:ham"]
    assert labeller.name.startswith("notifyr-")
    faults = labeller.faults()
    assert set(faults) == {"spam", *NEEDING_VECTORS}
    assert all(isinstance(fault, ModelUnavailable) and "notifyr train" in fault.message for fault in faults.values())
    assert "by its words alone" in faults["spam"].message


def test_what_words_leave_open_has_their_own_probability_and_says_so(folder: Path) -> None:
    whole = Encoder(FOLDER)
    assert whole.spam_stage(OPEN) == "encoder", "the text of this test must be one that words leave open"
    missing(folder)
    labeller = Labeller(Encoder(folder))
    (alone,) = labeller.encoder.spam([OPEN])
    judge = whole.judge
    (by_words,) = judge.finish(judge.begin(judge.read([OPEN], [()])), None)
    assert (alone.stage, alone.score) == ("words alone", by_words.score)
    assert 0.02 < alone.score < 0.995, "words that are not sure do not become so because nobody else is asked"
    assert labeller.spam_because(OPEN)["stage"] == "words alone"
    assert labeller.spam_because(QUESTION)["stage"] == whole.spam_stage(QUESTION) == "words"
    (message,) = labeller.encoder.spam([MESSAGE])
    assert message.stage in {"words", "words alone"} and message.score < 0.5


def test_text_messages_lose_their_judge_alone(folder: Path) -> None:
    (folder / "heads.npz").write_bytes((folder / "heads.npz").read_bytes()[:-50])
    labeller = Labeller(Encoder(folder))
    assert set(labeller.faults()) == {"spam"} and "no text message is judged" in labeller.faults()["spam"].message
    assert heads_of(labeller, QUESTION) == set(HEADS) | {"scope"}
    assert heads_of(labeller, MESSAGE) == (set(HEADS) | {"scope"}) - {"spam"}
    assert "heads.npz is not the file" in labeller.spam_fault(MESSAGE) and not labeller.spam_fault(QUESTION)
    together = labeller.classify([MESSAGE, SPAM, MESSAGE])
    assert ["spam" in {label.head for label in row} for row in together] == [False, True, False]


def test_mails_lose_their_judge_alone(folder: Path) -> None:
    shutil.rmtree(folder / "spam")
    labeller = Labeller(Encoder(folder))
    assert set(labeller.faults()) == {"spam"} and "no mail is judged" in labeller.faults()["spam"].message
    assert "spam" in heads_of(labeller, MESSAGE) and "spam" not in heads_of(labeller, QUESTION)
    assert labeller.spam_only([QUESTION]) == [[]]


def test_damaged_labels_leave_spam_and_language(folder: Path) -> None:
    path = folder / "labels" / "labels.npz"
    path.write_bytes(path.read_bytes()[:1000])
    labeller = Labeller(Encoder(folder))
    assert heads_of(labeller, QUESTION) == {"spam", "language"}
    assert of_spam(labeller, SPAM) == pytest.approx(of_spam(Labeller(Encoder(FOLDER)), SPAM), abs=1e-5)
    assert set(labeller.faults()) == NEEDING_VECTORS
    assert "--only labels" in labeller.faults()["intent"].message


CUTS = {
    # the array in whose middle labels.npz ends -> the heads whose arrays are before the cut
    "reply_intent.wording": {"intent", "optout"},
    "urgency.wording": {"intent", "optout", "reply_intent"},
    "": NEEDING_VECTORS,  # it ends in the list of what is in it
}


def middle_of(path: Path, array: str) -> int:
    with zipfile.ZipFile(path) as packed:
        found = packed.getinfo(f"{array}.npy")
        return found.header_offset + found.compress_size // 2


@pytest.mark.parametrize("array", CUTS)
def test_heads_before_the_cut_of_a_truncated_file_go_on(folder: Path, array: str) -> None:
    path = folder / "labels" / "labels.npz"
    path.write_bytes(path.read_bytes()[: middle_of(path, array) if array else -10])
    labeller, whole = Labeller(Encoder(folder)), Labeller(Encoder(FOLDER))
    lost = NEEDING_VECTORS - CUTS[array]
    assert set(labeller.faults()) == lost
    assert all("--only labels" in fault.message for fault in labeller.faults().values())
    kept = set(HEADS) | {"scope"} - lost
    assert heads_of(labeller, QUESTION) == kept - lost
    for text in (QUESTION, OPEN):
        before, after = whole.classify([text])[0], labeller.classify([text])[0]
        assert [(one.name, one.score) for one in after] == [
            (one.name, one.score) for one in before if one.head not in lost
        ]


def test_a_bit_that_flipped_before_the_cut_is_noticed(folder: Path) -> None:
    path = folder / "labels" / "labels.npz"
    content = bytearray(path.read_bytes()[: middle_of(path, "urgency.wording")])
    content[middle_of(path, "optout.wording")] ^= 4
    path.write_bytes(content)
    assert set(Labeller(Encoder(folder)).faults()) == {"optout", "urgency", "sentiment"}


@pytest.mark.parametrize("head", sorted(NEEDING_VECTORS))
def test_one_damaged_head_takes_only_itself(folder: Path, head: str) -> None:
    manifest = json.loads((folder / "labels" / "manifest.json").read_text(encoding="utf-8"))
    manifest["sums"][head] = "0" * 64
    (folder / "labels" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    labeller = Labeller(Encoder(folder))
    lost = {"intent", "scope"} if head == "intent" else {head}
    assert heads_of(labeller, QUESTION) == (set(HEADS) | {"scope"}) - lost
    assert set(labeller.faults()) == {head}


def test_parts_that_are_read_side_by_side_are_all_whole() -> None:
    for _ in range(10):
        labeller = Labeller(Encoder(FOLDER))
        assert heads_of(labeller, QUESTION) == set(HEADS) | {"scope"}, labeller.faults()


def test_with_nothing_left_it_raises_instead_of_answering_with_a_language(folder: Path) -> None:
    missing(folder)
    shutil.rmtree(folder / "spam")
    with pytest.raises(ModelUnavailable, match=r"model\.onnx is missing.*notifyr train"):
        Labeller(Encoder(folder)).classify([QUESTION])
    (labels,) = Labeller(Encoder(folder)).classify([QUESTION], heads=["language"])
    assert [label.name for label in labels] == ["language:en"]


def test_a_restored_file_heals_without_a_restart_and_a_loaded_one_stays_when_its_file_is_damaged(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    truncated(folder)
    labeller = Labeller(Encoder(folder))
    assert heads_of(labeller, QUESTION) == {"spam", "language"}
    (folder / "model.onnx").write_bytes(content)
    assert heads_of(labeller, QUESTION) == set(HEADS) | {"scope"} and labeller.faults() == {}
    before = labeller.classify([QUESTION, OPEN])
    shutil.rmtree(folder)
    assert labeller.classify([QUESTION, OPEN]) == before and labeller.faults() == {}


def test_a_file_that_stays_damaged_is_not_read_again_for_every_mail(tmp_path: Path) -> None:
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise ModelUnavailable("cut: restore it")

    (tmp_path / "x").write_bytes(b"1")
    part = Part(read, [tmp_path / "x", tmp_path / "never there"])
    assert [str(part.fault()) for _ in range(3)] == ["cut: restore it"] * 3 and len(tries) == 1
    (tmp_path / "x").write_bytes(b"22")
    assert part.fault() is not None and len(tries) == 2


def test_a_failure_that_may_pass_is_tried_again(tmp_path: Path) -> None:
    """Memory that ran short, or Python's own fault with two threads in `ast`, is no damage of a file."""
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ModelUnavailable("not now") from MemoryError()

    part = Part(read, [tmp_path / "x"])
    assert [part.fault() is None for _ in range(4)] == [False, False, True, True] and len(tries) == 3


def test_arrays_are_read_by_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a good file is taken for a damaged one now and then (Python 3.11)."""
    np.savez(tmp_path / "a.npz", one=np.arange(3), two=np.arange(4))
    inside, most = 0, 0
    whole = np.load

    def load(*given: Any, **named: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        found = whole(*given, **named)
        inside -= 1
        return found

    monkeypatch.setattr(np, "load", load)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: arrays_in(tmp_path / "a.npz", {"two", "three"}), range(8)))
    assert most == 1 and [list(one) for one in found] == [["two"]] * 8
