"""What the heads beside spam are worth on texts they did not see. The public sets stay outside the project: a path is given."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Embedder, Vectors
from models.bert import Encoder
from models.heads.intents import Intents, Lessons, Shipped
from models.training.labels import TESTED, measure, optout_phrases, reply_phrases

__all__ = ["area_under_roc", "banking", "clinc", "further", "optout"]

SURE, UNSURE = 0.9, 0.12
"""As the classify stage: recorded from the first on, a person asked from the second on."""
_SHOTS, _DRAWS, _FOLDS = 10, 5, 5


def banking(encoder: Embedder, path: Path) -> dict[str, Any]:
    """BANKING77 (`text,category`): accuracy from ten examples a class, and in five-fold cross-validation on everything."""
    with path.open(encoding="utf-8", newline="") as lines:
        pairs = [(row["text"], row["category"]) for row in csv.DictReader(lines)]
    vectors = encoder.embed([text for text, _ in pairs])
    labels = np.array([label for _, label in pairs])
    chance = np.random.default_rng(7)
    order = chance.permutation(len(labels))
    fold = np.empty(len(labels), dtype=np.int64)
    seen: dict[str, int] = defaultdict(int)
    for row in order:
        fold[row] = seen[labels[row]] % _FOLDS
        seen[labels[row]] += 1
    full = [_accuracy(encoder, vectors, labels, fold != part, fold == part) for part in range(_FOLDS)]
    few = []
    for _ in range(_DRAWS):
        learned = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            learned[chance.choice(np.flatnonzero(labels == label), _SHOTS, replace=False)] = True
        few.append(_accuracy(encoder, vectors, labels, learned, ~learned))
    return {
        "texts": len(pairs),
        "classes": len(set(labels)),
        "accuracy_cross_validated": round(float(np.mean(full)), 4),
        "accuracy_at_10_examples": round(float(np.mean(few)), 4),
    }


def clinc(encoder: Embedder, path: Path) -> dict[str, Any]:
    """CLINC150: accuracy on `val` and the area under ROC of familiarity, `val` against `oos_val`. No outside text is learned."""
    parts = json.loads(path.read_text(encoding="utf-8"))
    head = _head(encoder, encoder.embed([text for text, _ in parts["train"]]), [label for _, label in parts["train"]])
    inside = encoder.embed([text for text, _ in parts["val"]])
    outside = encoder.embed([text for text, _ in parts["oos_val"]])
    said = [row[0].value for row in head.label(inside)]
    right = np.array([label for _, label in parts["val"]]) == np.array(said)
    return {
        "classes": len({label for _, label in parts["train"]}),
        "accuracy": round(float(right.mean()), 4),
        "out_of_scope_auroc": round(area_under_roc(head.familiarity(inside), head.familiarity(outside)), 4),
        "inside": len(inside),
        "outside": len(outside),
    }


def optout(encoder: Encoder) -> dict[str, Any]:
    """Opt-outs and near misses of wording families that were left out of training."""
    found = measure(encoder, "optout", optout_phrases(), apart=TESTED)
    yes = found.truth == found.labels.index("yes")
    score = found.probabilities[:, found.labels.index("yes")]
    return {
        "languages": len({one.language for one in optout_phrases()}),
        "opt_outs": int(yes.sum()),
        "heard": round(float((score[yes] >= UNSURE).mean()), 4),
        "recorded_at_once": round(float((score[yes] >= SURE).mean()), 4),
        "near_misses": int((~yes).sum()),
        "near_misses_recorded": round(float((score[~yes] >= SURE).mean()), 4),
        "near_misses_shown_to_a_person": round(float((score[~yes] >= UNSURE).mean()), 4),
    }


def further(encoder: Encoder) -> dict[str, Any]:
    """Kind of reply, urgency and sentiment in five-fold cross-validation, with the confusion of each."""
    report: dict[str, Any] = {}
    for column, name in enumerate(("reply_intent", "urgency", "sentiment")):
        found = measure(encoder, name, reply_phrases(column))
        said = found.probabilities.argmax(axis=1)
        sure = found.probabilities.max(axis=1) >= 0.6
        report[name] = {
            "texts": len(said),
            "accuracy": round(found.accuracy, 4),
            "claimed": round(float(sure.mean()), 4),
            "accuracy_where_claimed": round(float((said == found.truth)[sure].mean()), 4),
            "confusion": {
                label: {
                    found.labels[other]: int(((found.truth == row) & (said == other)).sum())
                    for other in np.unique(said[found.truth == row])
                }
                for row, label in enumerate(found.labels)
            },
        }
    return report


def area_under_roc(inside: npt.NDArray[np.floating], outside: npt.NDArray[np.floating]) -> float:
    """How often a text inside scores above one outside; equal scores count half."""
    both = np.concatenate([inside, outside])
    values, place, count = np.unique(both, return_inverse=True, return_counts=True)
    assert len(values) == len(count)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    most = len(inside) * len(outside)
    return float((rank[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2) / most)


def _head(encoder: Embedder, vectors: Vectors, labels: Sequence[str]) -> Intents:
    shipped = Shipped(vectors, tuple(labels), ("",) * len(labels))
    return Intents(encoder, lambda: shipped, lambda version: None if version else Lessons("measured"))


def _accuracy(
    encoder: Embedder,
    vectors: Vectors,
    labels: npt.NDArray[np.str_],
    learned: npt.NDArray[np.bool_],
    asked: npt.NDArray[np.bool_],
) -> float:
    head = _head(encoder, vectors[learned], labels[learned].tolist())
    said = np.array([row[0].value for row in head.label(vectors[asked])])
    return float((said == labels[asked]).mean())
