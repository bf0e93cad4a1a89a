"""Train the heads on the frozen encoder: spam (long and short texts) and intents. Needs scikit-learn (`train` extra).

Minutes on two cores: the encoder runs once over the texts, then everything is logistic regression. Base models see
`train`, the mix of encoder and words and the temperature see `recent` only, `test` is only reported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bert import Encoder, pack
from models.features import COLUMNS, hashed
from models.training.corpora import Sample

__all__ = ["SHORT_BELOW", "train_heads"]

SHORT_BELOW = 240
"""Characters below which a text is judged as a short one (SMS, a line of chat, a terse mail)."""
_SEED = 7


def _matrix(columns: Sequence[npt.NDArray[np.int64]]) -> Any:
    from scipy.sparse import csr_matrix

    lengths = np.array([len(c) for c in columns])
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    values = np.concatenate([np.full(n, 1 / np.sqrt(max(1, n)), dtype=np.float32) for n in lengths])
    return csr_matrix((values, np.concatenate(columns), pointers), shape=(len(columns), COLUMNS))


def _spam_part(encoder: Encoder, samples: list[Sample], *, short: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    from sklearn.linear_model import LogisticRegression

    vectors = encoder.embed([sample.text for sample in samples])
    columns = [hashed(sample.text, short=short) for sample in samples]
    truth = np.array([sample.label == "spam" for sample in samples], dtype=int)
    old = np.array([sample.part == "train" for sample in samples])
    recent = np.array([sample.part == "recent" for sample in samples])
    matrix = _matrix(columns)
    words = LogisticRegression(C=30.0, max_iter=400, random_state=_SEED).fit(matrix[old], truth[old])
    meaning = LogisticRegression(C=10.0, max_iter=1000, random_state=_SEED).fit(vectors[old], truth[old])
    pair = np.stack([meaning.decision_function(vectors), words.decision_function(matrix)], axis=1)
    mix = LogisticRegression(C=1.0, random_state=_SEED).fit(pair[recent], truth[recent])
    arrays = {
        "words": words.coef_[0].astype(np.float16),
        "encoder": meaning.coef_[0].astype(np.float32),
    }
    spec = {
        "words_bias": float(words.intercept_[0]),
        "encoder_bias": float(meaning.intercept_[0]),
        "mix": [float(mix.coef_[0][0]), float(mix.coef_[0][1]), float(mix.intercept_[0])],
        "trained_on": int(old.sum()),
        "calibrated_on": int(recent.sum()),
    }
    return spec, arrays


def _intent_head(encoder: Encoder, examples: dict[str, list[str]], extra: Sequence[str]) -> tuple[Any, Any]:
    """A linear head; `extra` are texts outside every intent and join `other`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    pairs = [(text, label) for label, texts in examples.items() for text in texts]
    pairs += [(text, "other") for text in extra]
    vectors = encoder.embed([text for text, _ in pairs])
    labels = sorted(examples)
    truth = np.array([labels.index(label) for _, label in pairs])
    model = LogisticRegression(C=20.0, max_iter=2000, class_weight="balanced", random_state=_SEED)
    folds = StratifiedKFold(5, shuffle=True, random_state=_SEED)
    held_out = cross_val_predict(model, vectors, truth, cv=folds, method="decision_function")
    temperature = _temperature(held_out, truth)
    accuracy = float((held_out.argmax(1) == truth).mean())
    model.fit(vectors, truth)
    spec = {
        "labels": labels,
        "temperature": temperature,
        "cross_validated_accuracy": round(accuracy, 4),
        "trained_on": len(pairs),
    }
    return spec, {"weights": model.coef_.T.astype(np.float32), "bias": model.intercept_.astype(np.float32)}


def _temperature(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    """The softmax temperature with the least log loss on held-out scores."""
    best, found = np.inf, 1.0
    for temperature in np.geomspace(0.2, 5.0, 60):
        scaled = scores / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        loss = -float(log[np.arange(len(truth)), truth].mean())
        if loss < best:
            best, found = loss, float(temperature)
    return found


def train_heads(
    folder: Path, samples: list[Sample], *, version: str, intents: Path, outside: Sequence[str] = ()
) -> dict[str, Any]:
    """Train every head on the encoder in `folder` (model.onnx, tokenizer.json) and write heads and manifest there."""
    manifest: dict[str, Any] = {
        "format": 1,
        "architecture": "bert",
        "name": f"notifyr-encoder-{version}",
        "base": "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0",
        "engine": "ONNX int8, per channel, reduced range",
        "dimensions": 384,
        "max_tokens": 256,
        "heads": {},
        "licence": "Apache-2.0 (weights of the base and of the heads)",
        "data": {
            "spam": "SpamAssassin public corpus (PDDL-1.0 as packaged), SMS Spam Collection v1 (CC BY 4.0)",
            "intent": "written for this project; out-of-scope texts of CLINC150 (CC BY 3.0)",
        },
        "files": {},
    }
    (folder / "heads.npz").unlink(missing_ok=True)
    pack(folder, manifest, {"empty": np.zeros(1)})
    encoder = _bare(folder)
    arrays: dict[str, npt.NDArray[Any]] = {}
    parts: dict[str, Any] = {}
    for kind, short in (("mail", False), ("short", True)):
        chosen = [s for s in samples if (len(s.text) < SHORT_BELOW) == short and s.part != "test"]
        parts[kind], found = _spam_part(encoder, chosen, short=short)
        arrays |= {f"spam.{kind}.{name}": value for name, value in found.items()}
    manifest["heads"]["spam"] = {"labels": ["ham", "spam"], "short_below": SHORT_BELOW, "parts": parts}
    examples = json.loads(intents.read_text(encoding="utf-8"))["examples"]
    spec, found = _intent_head(encoder, examples, outside)
    manifest["heads"]["intent"] = spec
    arrays |= {f"intent.{name}": value for name, value in found.items()}
    pack(folder, manifest, arrays)
    return manifest


def _bare(folder: Path) -> Encoder:
    """The encoder without heads, for embedding while they are trained."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["heads"] = {"spam": {"parts": {}, "short_below": SHORT_BELOW}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Encoder(folder)
