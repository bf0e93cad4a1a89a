"""A linear head on wording (hashed columns) and meaning (the sentence vector) together, trained in plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import Vectors
from models.heads.linear import one_thread, temperature_of
from models.heads.wording import COLUMNS

__all__ = ["Mixed", "fit_mixed", "left_out"]

Floats = npt.NDArray[np.float32]
Columns = Sequence[npt.NDArray[np.int64]]
_ITERATIONS = 400
_MEANING = 0.7
"""How much the vector weighs against the wording, whose features have length 1."""


@dataclass(frozen=True)
class Mixed:
    """Probabilities are softmax((wording + meaning + bias) / temperature) over `labels`."""

    name: str
    labels: tuple[str, ...]
    wording: Floats
    """Shape `(COLUMNS, classes)`."""
    meaning: Floats
    """Shape `(dimensions, classes)`."""
    bias: Floats
    temperature: float = 1.0

    def scores(self, columns: Columns, vectors: Vectors) -> Floats:
        worded = np.stack([self.wording[c].sum(axis=0, dtype=np.float32) / np.sqrt(max(1, len(c))) for c in columns])
        return np.asarray(worded + _MEANING * (vectors @ self.meaning) + self.bias, dtype=np.float32)

    def probabilities(self, columns: Columns, vectors: Vectors) -> Floats:
        """Shape `(texts, classes)`; each row sums to 1."""
        return _softmax(self.scores(columns, vectors) / self.temperature)


def fit_mixed(
    name: str,
    labels: tuple[str, ...],
    columns: Columns,
    vectors: Vectors,
    truth: npt.NDArray[np.int64],
    *,
    strength: float = 30.0,
) -> Mixed:
    """Least log loss with classes weighted alike (accelerated gradient, the same answer each time). Every text has a column."""
    one_thread()
    places = np.concatenate(columns)
    lengths = np.array([len(c) for c in columns])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    scale = (1 / np.sqrt(lengths)).astype(np.float32)[:, None]
    counts = np.bincount(truth, minlength=len(labels))
    share = (len(truth) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[truth].astype(np.float32)[:, None]
    wanted = np.eye(len(labels), dtype=np.float32)[truth]
    dense = np.concatenate([_MEANING * vectors, np.ones((len(truth), 1))], axis=1).astype(np.float32)

    def forward(words: Floats, rest: Floats) -> Floats:
        return np.asarray(np.add.reduceat(words[places], starts, axis=0) * scale + dense @ rest)

    def backward(errors: Floats) -> tuple[Floats, Floats]:
        spread = np.repeat(errors * scale, lengths, axis=0)
        words = np.stack(
            [np.bincount(places, weights=spread[:, k], minlength=COLUMNS) for k in range(errors.shape[1])], axis=1
        ).astype(np.float32)
        return words, np.asarray(dense.T @ errors)

    step = np.float32(1 / (0.5 * _largest(forward, backward, share, dense.shape[1]) + 1 / strength))
    weaker = np.float32(1 / strength)
    words: Any = np.zeros((COLUMNS, len(labels)), np.float32)  # numpy's stubs widen float32 by a scalar
    rest: Any = np.zeros((dense.shape[1], len(labels)), np.float32)
    ahead, pace = (words, rest), 1.0
    keep = np.full((dense.shape[1], 1), 1 / strength, np.float32)
    keep[-1] = 1e-4
    for _ in range(_ITERATIONS):
        slope_words, slope_rest = backward((_softmax(forward(*ahead)) - wanted) * share)
        moved = (
            ahead[0] - step * (slope_words + ahead[0] * weaker),
            ahead[1] - step * (slope_rest + keep * ahead[1]),
        )
        faster = (1 + np.sqrt(1 + 4 * pace * pace)) / 2
        further = np.float32((pace - 1) / faster)
        ahead = (moved[0] + further * (moved[0] - words), moved[1] + further * (moved[1] - rest))
        (words, rest), pace = moved, faster
    return Mixed(name, labels, words, rest[:-1], rest[-1])


def left_out(
    name: str,
    labels: tuple[str, ...],
    columns: Columns,
    vectors: Vectors,
    truth: npt.NDArray[np.int64],
    part: npt.NDArray[np.int64],
    *,
    always: int = -1,
) -> tuple[Floats, float]:
    """Scores of each text by a head that saw no text of its part, and the temperature they ask for.

    Texts of the part `always` are trained with every time and get no scores.
    """
    scores = np.zeros((len(truth), len(labels)), np.float32)
    for one in np.unique(part[part != always]):
        seen = np.flatnonzero(part != one).tolist()
        rest = np.flatnonzero(part == one).tolist()
        head = fit_mixed(name, labels, [columns[i] for i in seen], vectors[seen], truth[seen])
        scores[rest] = head.scores([columns[i] for i in rest], vectors[rest])
    measured = part != always
    return scores, temperature_of(scores[measured], truth[measured])


def _largest(forward: object, backward: object, share: Floats, width: int) -> float:
    """The largest eigenvalue of the weighted Gram matrix, by power iteration."""
    assert callable(forward)
    assert callable(backward)
    words, rest = np.full((COLUMNS, 1), 1e-2, np.float32), np.full((width, 1), 1e-2, np.float32)
    value = 1.0
    for _ in range(30):
        words, rest = backward(forward(words, rest) * share)
        value = float(np.sqrt((words**2).sum() + (rest**2).sum()))
        words, rest = words / value, rest / value
    return value


def _softmax(scores: Floats) -> Floats:
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True), dtype=np.float32)
