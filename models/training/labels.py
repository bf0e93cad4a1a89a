"""Train what the heads beside spam need ahead of time: seconds on two cores, from files of this folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bert import Encoder
from models.heads.intents import OTHER
from models.heads.linear import calibrated
from models.heads.weights import keep

__all__ = ["train_labels"]

HERE = Path(__file__).resolve().parent


def train_labels(folder: Path, *, outside: Sequence[str] = ()) -> dict[str, Any]:
    """Write the heads of the encoder in `folder`; returns their manifest. `outside` are texts of no intent (CLINC150's)."""
    encoder = Encoder(folder)
    manifest: dict[str, Any] = {"name": "labels-1", "licence": "Apache-2.0"}
    spec, arrays = _intents(encoder, outside)
    manifest["intent"] = spec
    keep(folder, manifest, arrays)
    return manifest


def _intents(encoder: Encoder, outside: Sequence[str]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Vectors of the shipped examples: the head itself is trained where it is used, together with an operator's own."""
    examples: dict[str, list[str]] = json.loads((HERE / "intents.json").read_text(encoding="utf-8"))["examples"]
    pairs = [(text, label) for label, texts in examples.items() for text in texts]
    names = sorted(examples)
    vectors = encoder.embed([*[text for text, _ in pairs], *outside])
    truth = np.array([names.index(label) for _, label in pairs] + [names.index(OTHER)] * len(outside))
    _, left_out = calibrated(vectors, truth, len(names))
    spec = {
        "labels": names,
        "texts": [text for text, _ in pairs],
        "left_out_accuracy": round(float((left_out.argmax(1) == truth).mean()), 4),
        "trained_on": len(truth),
        "data": "written for this project; out-of-scope texts of CLINC150 (CC BY 3.0), as vectors only",
    }
    return spec, {"intent.vectors": vectors.astype(np.float16), "intent.truth": truth.astype(np.int16)}
