"""What the heads beside spam are worth on texts they did not see. The public sets stay outside the project: a path is given.

Each report has the counts, the figures, the calibration error of the best label and the pairs that are confused most.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import InvalidInput
from models.base import Embedder, Vectors
from models.bert import Encoder
from models.heads.intents import Intents, Lessons, Shipped
from models.heads.language import Languages
from models.heads.linear import blend, calibrated
from models.heads.weights import Weights
from models.training.labels import TESTED, measure, optout_phrases, reply_phrases
from models.training.report import calibration_error

__all__ = ["area_under_roc", "banking", "clinc", "confused", "further", "intents", "language", "optout", "refuse_twins"]

SURE, UNSURE = 0.9, 0.12
"""As the classify stage: recorded from the first on, a person asked from the second on."""
_SHOTS, _DRAWS, _FOLDS = 10, 5, 5


def intents(folder: Path) -> dict[str, Any]:
    """The shipped intents on their own examples, four parts left out in turn. Texts without words are those of `other`."""
    shipped = Weights(folder).shipped()
    own = np.array([bool(text) for text in shipped.texts])
    names = sorted(set(shipped.labels))
    truth = np.array([names.index(label) for label in shipped.labels])
    head, left_out = calibrated(shipped.vectors, truth, len(names))
    table = _softmax(left_out[own] / head.temperature)
    return {"texts": int(own.sum()), "classes": len(names), **_best(table, truth[own], names)}


def banking(encoder: Embedder, path: Path, test: Path | None = None) -> dict[str, Any]:
    """BANKING77 (`text,category`): accuracy from ten examples a class, and in five-fold cross-validation on everything.

    With its test part the head learns from all of the train part and is asked once. Raises `InvalidInput` when a text is
    in both parts.
    """
    pairs = _read(path)
    labels = np.array([label for _, label in pairs])
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() <= _SHOTS:
        rare = names[counts.argmin()]
        raise InvalidInput(
            f"{path.name}: {rare} has {counts.min()} texts; measuring needs more than {_SHOTS} of every label"
        )
    vectors = encoder.embed([text for text, _ in pairs])
    chance = np.random.default_rng(7)
    order = chance.permutation(len(labels))
    fold = np.empty(len(labels), dtype=np.int64)
    seen: dict[str, int] = defaultdict(int)
    for row in order:
        fold[row] = seen[labels[row]] % _FOLDS
        seen[labels[row]] += 1
    full = [_accuracy(vectors, labels, fold != part, fold == part) for part in range(_FOLDS)]
    few = []
    for _ in range(_DRAWS):
        learned = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            learned[chance.choice(np.flatnonzero(labels == label), _SHOTS, replace=False)] = True
        few.append(_accuracy(vectors, labels, learned, ~learned))
    report: dict[str, Any] = {
        "texts": len(pairs),
        "classes": len(set(labels)),
        "accuracy_cross_validated": round(float(np.mean(full)), 4),
        "accuracy_at_10_examples": round(float(np.mean(few)), 4),
    }
    if test is not None:
        asked = _read(test)
        refuse_twins(pairs, asked)
        report["test"] = _asked(encoder, vectors, labels.tolist(), asked)
    return report


def clinc(encoder: Embedder, path: Path) -> dict[str, Any]:
    """CLINC150: accuracy, and the area under ROC of familiarity inside against outside. No outside text is learned.

    The set has the same text in several parts: what was learned is not asked, and `twins` says how many that were. Measured on `test` and `oos_test` where the file has them (data_full.json), else on `val` and `oos_val`.
    """
    parts = json.loads(path.read_text(encoding="utf-8"))
    part = "test" if "test" in parts and "oos_test" in parts else "val"
    known = [(text, label) for text, label in parts["train"]]
    before = {_plain(text) for text, _ in known}
    asked = [(text, label) for text, label in parts[part] if _plain(text) not in before]
    vectors = encoder.embed([text for text, _ in known])
    head = _head(encoder, vectors, [label for _, label in known])
    inside = encoder.embed([text for text, _ in asked])
    outside = encoder.embed([text for text, _ in parts[f"oos_{part}"]])
    return {
        "part": part,
        "classes": len({label for _, label in known}),
        "out_of_scope_auroc": round(area_under_roc(head.familiarity(inside), head.familiarity(outside)), 4),
        "inside": len(inside),
        "outside": len(outside),
        "twins": len(parts[part]) - len(asked),
        **_of_head(head, inside, [label for _, label in asked]),
    }


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def refuse_twins(known: Sequence[Sequence[str]], asked: Sequence[Sequence[str]]) -> None:
    """Raise `InvalidInput` with the pair when a text of the test part is a text of the train part."""
    before = {_plain(text): label for text, label in known}
    for text, label in asked:
        if (key := _plain(text)) in before:
            raise InvalidInput(f"the same text is in train ({before[key]}) and in test ({label}): {text[:80]!r}")


def optout(encoder: Encoder) -> dict[str, Any]:
    """Opt-outs and near misses of wording families that were left out of training."""
    found = measure(encoder, "optout", optout_phrases(), apart=TESTED)
    yes = found.truth == found.labels.index("yes")
    score = found.probabilities[:, found.labels.index("yes")]
    kept = np.array([score < UNSURE, (score >= UNSURE) & (score < SURE), score >= SURE])
    ways = ("passed", "shown to a person", "recorded")
    return {
        "languages": len({one.language for one in optout_phrases()}),
        "opt_outs": int(yes.sum()),
        "heard": round(float((score[yes] >= UNSURE).mean()), 4),
        "recorded_at_once": round(float((score[yes] >= SURE).mean()), 4),
        "near_misses": int((~yes).sum()),
        "near_misses_recorded": round(float((score[~yes] >= SURE).mean()), 4),
        "near_misses_shown_to_a_person": round(float((score[~yes] >= UNSURE).mean()), 4),
        "calibration_error": round(calibration_error(score.astype(np.float64), yes), 4),
        "confusion": {
            name: {way: int((one & side).sum()) for way, one in zip(ways, kept, strict=True)}
            for name, side in (("opt-out", yes), ("near miss", ~yes))
        },
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
            "calibration_error": round(
                calibration_error(found.probabilities.max(axis=1).astype(np.float64), said == found.truth), 4
            ),
            "confusion": {
                label: {
                    found.labels[other]: int(((found.truth == row) & (said == other)).sum())
                    for other in np.unique(said[found.truth == row])
                }
                for row, label in enumerate(found.labels)
            },
        }
    return report


def language() -> dict[str, Any]:
    """Languages of the short lines of the opt-out set."""
    phrases = [one for one in optout_phrases() if one.part[0] in "+-" and one.part not in {"-intents", "-replies"}]
    found = [one.value if one else "none" for one in Languages().label([one.text for one in phrases])]
    truth = [one.language for one in phrases]
    return {
        "texts": len(phrases),
        "languages": len(set(truth)),
        "accuracy": round(sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth), 4),
        "confused": confused(truth, found),
    }


def confused(truth: Sequence[str], said: Sequence[str], *, most: int = 8) -> list[list[Any]]:
    """The pairs that are taken for each other most: what it was, what was said, how often."""
    wrong = Counter(pair for pair in zip(truth, said, strict=True) if pair[0] != pair[1])
    return [
        [was, claimed, count]
        for (was, claimed), count in sorted(wrong.items(), key=lambda one: (-one[1], one[0]))[:most]
    ]


def area_under_roc(inside: npt.NDArray[np.floating], outside: npt.NDArray[np.floating]) -> float:
    """How often a text inside scores above one outside; equal scores count half."""
    both = np.concatenate([inside, outside])
    values, place, count = np.unique(both, return_inverse=True, return_counts=True)
    assert len(values) == len(count)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    most = len(inside) * len(outside)
    return float((rank[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2) / most)


def _read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"text", "category"} <= set(rows[0]):
        raise InvalidInput(f"{path.name} is no BANKING77 part: it needs the columns text and category")
    return [(row["text"], row["category"]) for row in rows]


def _asked(
    encoder: Embedder, vectors: Vectors, labels: Sequence[str], asked: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    head = _head(encoder, vectors, labels)
    found = _of_head(head, encoder.embed([text for text, _ in asked]), [label for _, label in asked])
    return {"texts": len(asked), **found}


def _of_head(head: Intents, vectors: Vectors, truth: Sequence[str]) -> dict[str, Any]:
    best = [row[0] for row in head.label(vectors)]
    said, right = [one.value for one in best], np.array([one.value for one in best]) == np.array(truth)
    stated = np.array([one.score for one in best], dtype=np.float64)
    return {
        "accuracy": round(float(right.mean()), 4),
        "calibration_error": round(calibration_error(stated, right), 4),
        "confused": confused(truth, said),
    }


def _best(table: npt.NDArray[np.floating], truth: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    said = table.argmax(axis=1)
    return {
        "accuracy": round(float((said == truth).mean()), 4),
        "calibration_error": round(calibration_error(table.max(axis=1).astype(np.float64), said == truth), 4),
        "confused": confused([names[i] for i in truth], [names[i] for i in said]),
    }


def _softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _head(encoder: Embedder, vectors: Vectors, labels: Sequence[str]) -> Intents:
    shipped = Shipped(vectors, tuple(labels), ("",) * len(labels))
    return Intents(encoder, lambda: shipped, lambda version: None if version else Lessons("measured"))


def _accuracy(
    vectors: Vectors,
    labels: npt.NDArray[np.str_],
    learned: npt.NDArray[np.bool_],
    asked: npt.NDArray[np.bool_],
) -> float:
    """Of the head that `Intents` trains; its temperature changes no ranking, so it is left out."""
    names, truth = np.unique(labels, return_inverse=True)
    said = blend(vectors[learned], truth[learned], len(names)).scores(vectors[asked]).argmax(axis=1)
    return float((said == truth[asked]).mean())
