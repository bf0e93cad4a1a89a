"""Train the judge of mails (`models.spam`): linear head, two kernel machines, and how they are mixed.

How the parts are weighed, and what their sum means, is learned from scores of mails that they had not seen, half of the weight
on mails newer than all that was learned; thresholds are chosen on that newest slice of train. Then the parts learn once more from all of it. The test part is never read here. Needs scikit-learn (`train` extra).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.features import COLUMNS, hashed
from models.spam import FILES, FORMAT, Mix, clue_columns
from models.training.corpora import Sample

__all__ = ["GAMMA", "matrix_of", "sure_between", "train_spam"]

GAMMA = 2.0
"""Of the kernel on the sentence vectors of short texts (`models.training.heads`)."""
_SEED = 7
_MEANING_GAMMA, _ENVELOPE_GAMMA = 1.0, 2.0
_SHARES = (0.6, 0.8, 1.0)
"""Of words, envelope and meaning in the sum of their standardised scores. A regression on so few late mails fits the middle,
not the tail where a filter is measured; these did best there on two later slices of train (docs/model-card.md)."""
_HARD = 6.0
"""How much more a newsletter or a receipt weighs than a mail from a list: it is what a filter gets wrong."""
_SURE = {"with_clues": (0.02, 0.98), "without": (0.02, 0.995)}
"""What words and envelope are believed at least below and above: wider cost recall on the newest slice, or on bare text."""
_FALSE_POSITIVES = 0.001


def train_spam(folder: Path, samples: Sequence[Sample], vectors: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Write the judge to `folder`; `vectors` are those of the encoder, one for each sample. Returns the manifest."""
    vectors = vectors[[one.part != "test" for one in samples]]
    known = [one for one in samples if one.part != "test"]
    old = np.array([one.part == "train" for one in known])
    truth = np.array([one.label == "spam" for one in known])
    text = matrix_of([hashed(one.text) for one in known])
    clues = matrix_of([clue_columns(one.clues) for one in known])
    mails = np.array([bool(one.clues) for one in known])
    costs = np.array([_HARD if one.source == "hard-ham" else 1.0 for one in known])
    unseen = _unseen(known, lambda rows: _Parts(text, clues, vectors, truth, mails, costs, rows), text, clues, vectors)
    early = _Parts(text, clues, vectors, truth, mails, costs, old)
    seen = {"with_clues": mails, "without": np.ones(len(known), dtype=bool)}
    mixes: dict[str, Any] = {"words": {}, "encoder": {}}
    chosen: dict[str, Any] = {}
    for name, rows in seen.items():
        newest = rows & ~old
        late = early.scores(text[newest], clues[newest] * _SIGHTS[name], vectors[newest])
        for stage, columns in (("words", 2), ("encoder", 3)):
            mixes[stage][name] = _mix(unseen[name][rows, :columns], truth[rows], late[:, :columns], truth[newest])
        first = Mix.of(mixes["words"][name]).probabilities(late[:, :2])
        whole = Mix.of(mixes["encoder"][name]).probabilities(late)
        threshold = _threshold(whole, truth[newest])
        sure = sure_between(first, truth[newest], whole > threshold, at_least=_SURE[name])
        chosen[name] = {"sure": sure, "threshold": threshold}
    final = _Parts(text, clues, vectors, truth, mails, costs, np.ones(len(known), dtype=bool))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "spam.npz", **final.arrays())
    manifest = {
        "format": FORMAT,
        "name": "notifyr-spam-2",
        "words_bias": float(final.linear.intercept_[0]),
        "kernels": {
            "meaning": {"gamma": _MEANING_GAMMA, "bias": float(final.meaning.intercept_[0])},
            "envelope": {"gamma": _ENVELOPE_GAMMA, "bias": float(final.envelope.intercept_[0])},
        },
        "texts": {"spam": int(truth.sum()), "ham": int((~truth).sum())},
        "mix": mixes,
        "mixed_on": len(known),
        "sure": {name: found["sure"] for name, found in chosen.items()},
        "threshold": {name: found["threshold"] for name, found in chosen.items()},
        "chosen_on": f"the newest slice of train, at {_FALSE_POSITIVES:.1%} false positives",
        "licence": "Apache-2.0",
        "data": "SpamAssassin public corpus (PDDL-1.0 as packaged), questions written for this project",
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


_SIGHTS = {"with_clues": 1, "without": 0}
"""A mix for mails whose envelope is known and one for bare text."""


class _Parts:
    """What was learned from some of the texts. Each mail is shown to the linear head with its clues and without."""

    def __init__(self, text: Any, clues: Any, vectors: Any, truth: Any, mails: Any, costs: Any, rows: Any) -> None:
        from scipy.sparse import vstack
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import SVC

        both = rows & mails
        shown = vstack([(text + clues)[rows], text[both]])
        self.linear = LogisticRegression(C=30.0, max_iter=300, solver="liblinear", random_state=_SEED)
        self.linear.fit(
            shown, np.concatenate([truth[rows], truth[both]]), sample_weight=np.concatenate([costs[rows], costs[both]])
        )
        self.meaning = SVC(C=3.0, gamma=_MEANING_GAMMA).fit(vectors[rows], truth[rows], sample_weight=costs[rows])
        self.envelope = SVC(C=3.0, gamma=_ENVELOPE_GAMMA).fit(clues[both], truth[both])

    def cheap(self, text: Any, clues: Any) -> npt.NDArray[np.float32]:
        linear = self.linear.decision_function(text + clues)
        built = np.where(np.asarray(clues.sum(axis=1)).ravel() > 0, self.envelope.decision_function(clues), 0)
        return np.stack([linear, built], axis=1).astype(np.float32)

    def scores(self, text: Any, clues: Any, vectors: Any) -> npt.NDArray[np.float32]:
        """Of words, envelope and meaning: shape `(mails, 3)`."""
        meaning = self.meaning.decision_function(vectors).astype(np.float32)
        return np.concatenate([self.cheap(text, clues), meaning[:, None]], axis=1)

    def arrays(self) -> dict[str, Any]:
        support = self.envelope.support_vectors_
        vocabulary = np.unique(support.indices)
        return {
            "words": self.linear.coef_[0].astype(np.float16),
            "meaning.support": self.meaning.support_vectors_.astype(np.float16),
            "meaning.duals": self.meaning.dual_coef_[0].astype(np.float32),
            "vocabulary": vocabulary.astype(np.int32),
            "envelope.support": support[:, vocabulary].toarray().astype(np.float16),
            "envelope.duals": np.asarray(self.envelope.dual_coef_.todense())[0].astype(np.float32),
        }


def _unseen(
    known: Sequence[Sample], learn: Callable[[npt.NDArray[np.bool_]], _Parts], text: Any, clues: Any, vectors: Any
) -> dict[str, npt.NDArray[np.float32]]:
    """The three scores of each mail by parts that learned from the others, whole groups only: shape `(mails, 3)`.

    Scores spread further with every mail that is learned from: what half of them gave says little of the judge that has
    learned from all, neither how its parts weigh nor what their sum means.
    """
    from sklearn.model_selection import GroupKFold

    scores = {name: np.zeros((len(known), 3), dtype=np.float32) for name in _SIGHTS}
    for learned, other in GroupKFold(5).split(known, groups=[one.group for one in known]):
        rows = np.zeros(len(known), dtype=bool)
        rows[learned] = True
        parts = learn(rows)
        for name, sight in _SIGHTS.items():
            scores[name][other] = parts.scores(text[other], clues[other] * sight, vectors[other])
    return scores


def _mix(
    unseen: npt.NDArray[np.float32],
    truth: npt.NDArray[np.bool_],
    late: npt.NDArray[np.float32],
    late_truth: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """The weighed sum of the parts, and the slope and intercept that make it a probability.

    These come half from mails like those that were learned from (`unseen`), half from newer ones than any that was (`late`):
    a judge meets both, and on newer mail it is less sure of spam than it should be.
    """
    from sklearn.linear_model import LogisticRegression

    center, scale = unseen.mean(axis=0), unseen.std(axis=0)
    scale[scale == 0] = 1  # bare text has no envelope
    shares = np.array(_SHARES[: unseen.shape[1]])
    sums = (np.concatenate([unseen, late]) - center) / scale @ shares
    weights = np.repeat([1.0, len(unseen) / len(late)], [len(unseen), len(late)])
    fitted = LogisticRegression(C=1.0, random_state=_SEED)
    fitted.fit(sums[:, None], np.concatenate([truth, late_truth]), sample_weight=weights)
    return {
        "center": [round(float(one), 6) for one in center],
        "scale": [round(float(one), 6) for one in scale],
        "weights": [round(float(one * fitted.coef_[0][0]), 6) for one in shares],
        "bias": round(float(fitted.intercept_[0]), 6),
    }


def _threshold(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> float:
    return round(float(np.sort(scores[~truth])[::-1][int((~truth).sum() * _FALSE_POSITIVES)]), 6)


def matrix_of(columns: Sequence[npt.NDArray[np.int64]]) -> Any:
    from scipy.sparse import csr_matrix

    lengths = np.array([len(c) for c in columns])
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    values = np.concatenate([np.full(n, 1 / np.sqrt(max(1, n)), dtype=np.float32) for n in lengths])
    return csr_matrix((values, np.concatenate(columns), pointers), shape=(len(columns), COLUMNS))


def sure_between(
    scores: npt.NDArray[Any],
    truth: npt.NDArray[np.bool_],
    whole: npt.NDArray[np.bool_],
    *,
    at_least: tuple[float, float],
) -> tuple[float, float]:
    """Probabilities of a first stage that need no second one, given what both together take for spam.

    No spam that both find lies below the first, no ham that both pass lies above the second: an error that the second stage
    makes as well is no reason to ask it.
    """
    low, high = at_least
    found, passed = scores[truth & whole], scores[~truth & ~whole]
    return round(min(float(found.min()), low), 6), round(max(float(passed.max()), high), 6)
