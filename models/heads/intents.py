"""Intents on the sentence vector: the ones that ship, an operator's own and agents' corrections in one head.

The head is trained where it is used, from cached vectors, in a fraction of a second. So a new intent works at the next
message, without a restart, and every process comes to the same head from the same examples.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from assistant.values import Label
from models.base import OTHER, OUTSIDE, Embedder, Vectors
from models.heads.linear import Blend, calibrated

__all__ = ["OTHER", "OUTSIDE", "Intents", "Lessons", "Nearest", "Shipped"]

_SHOWN = 5
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Shipped:
    """Examples that come with the project, as vectors of the encoder that the head reads."""

    vectors: Vectors
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    """Shown as evidence; empty for examples whose text is not shipped."""
    fitted: tuple[Blend, npt.NDArray[np.float32]] | None = None
    """What `calibrated` makes of these examples alone, with their labels in alphabetical order: half of a cold start else."""


@dataclass(frozen=True)
class Lessons:
    """What people taught. `version` changes exactly when the rest does; `since` is the row's own label."""

    version: str
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nearest:
    """The example that is closest to a text: why an intent was claimed."""

    text: str
    label: str
    similarity: float


@dataclass(frozen=True)
class _Scope:
    """How familiar a text is: the energy of its scores (Liu et al. 2020) and how near the nearest examples are, each
    against what is usual for examples that were left out.
    """

    examples: Vectors
    energy: tuple[float, float]
    """Mean and spread for examples inside the intents; so is `nearness`."""
    nearness: tuple[float, float]
    usual: npt.NDArray[np.float32]
    """What the examples themselves reach, ascending."""

    def familiarity(self, vectors: Vectors, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        near = _nearness(vectors @ self.examples.T)
        return _standard(_energy(scores), self.energy) + _standard(near, self.nearness)

    def share(self, familiarity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The share of examples that are no more familiar: near 0 for what is outside every intent."""
        return np.asarray(np.searchsorted(self.usual, familiarity, side="right") / len(self.usual), dtype=np.float32)


@dataclass(frozen=True)
class _Trained:
    version: str
    names: tuple[str, ...]
    head: Blend
    vectors: Vectors
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    accuracy: float
    """Share of texts whose label was found while they were left out of training."""
    scope: _Scope
    left_out: npt.NDArray[np.float32]
    """Scores of each text by a head that was trained without it."""

    def familiarity(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        return self.scope.familiarity(vectors, self.head.scores(vectors))


@dataclass
class Intents:
    """Labels `intent:NAME` for vectors. Safe to call from several threads; one of them trains, the others wait.

    `taught` gives the newest lessons and is asked before every answer: it must be quick.
    """

    embedder: Embedder
    shipped: Callable[[], Shipped]
    taught: Callable[[str], Lessons | None]
    """Lessons newer than the version named, or None when that one is the newest."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _trained: _Trained | None = None
    _known: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """What the head was last trained on; empty before."""
        return self._trained.version if self._trained is not None else ""

    def label(self, vectors: Vectors) -> list[list[Label]]:
        """The best intents of each vector, best first and `other` always among them, and `scope:in`: the share of examples no
        more familiar than it.
        """
        trained = self.trained()
        table = trained.head.probabilities(vectors)
        scope = trained.scope.share(trained.familiarity(vectors))
        none = trained.names.index(OTHER) if OTHER in trained.names else -1
        return [
            [
                *[Label(f"intent:{trained.names[i]}", float(row[i])) for i in _best(row, none)],
                Label("scope:in", float(inside)),
            ]
            for row, inside in zip(table, scope, strict=True)
        ]

    def familiarity(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """A score that is low for texts outside every intent; its scale is the head's own."""
        return self.trained().familiarity(vectors)

    def nearest(self, vector: Vectors, label: str) -> Nearest | None:
        """The example of `label` that is most like a vector, if its text is known."""
        trained = self.trained()
        rows = [i for i, name in enumerate(trained.labels) if name == label and trained.texts[i]]
        if not rows:
            return None
        alike = trained.vectors[rows] @ vector.reshape(-1)
        best = int(alike.argmax())
        return Nearest(trained.texts[rows[best]], label, float(alike[best]))

    def names(self) -> tuple[str, ...]:
        """Every intent that the head knows, in alphabetical order."""
        return self.trained().names

    def accuracy(self) -> float:
        """Share of the examples whose intent was found while they were left out of training."""
        return self.trained().accuracy

    def unclear(self, threshold: float) -> list[tuple[str, dict[str, float], str]]:
        """The examples whose best intent is less probable than `threshold` while they are left out of training: the text, the
        probability of each intent, and the intent it is an example of. Examples whose text is not shipped are left out.
        """
        trained = self.trained()
        scaled = trained.left_out / trained.head.temperature
        table = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        table /= table.sum(axis=1, keepdims=True)
        return [
            (text, dict(zip(trained.names, row.tolist(), strict=True)), label)
            for text, label, row in zip(trained.texts, trained.labels, table, strict=True)
            if text and row.max() < threshold
        ]

    def examples(self) -> int:
        """How many texts the head learned from."""
        return len(self.trained().labels)

    def trained(self) -> _Trained:
        """The head on the newest lessons."""
        with self._lock:
            lessons = self.taught(self.version)
            if self._trained is None or lessons is not None:
                self._trained = self._train(lessons or Lessons(""))
            return self._trained

    def _train(self, lessons: Lessons) -> _Trained:
        shipped = self.shipped()
        fresh = [text for text in dict.fromkeys(lessons.texts) if text not in self._known]
        if fresh:
            self._known |= dict(zip(fresh, self.embedder.embed(fresh), strict=True))
        self._known = {text: self._known[text] for text in lessons.texts}
        own = [self._known[text] for text in lessons.texts]
        vectors = np.concatenate([shipped.vectors, np.stack(own)]) if own else shipped.vectors
        labels = (*shipped.labels, *lessons.labels)
        names = tuple(sorted(set(labels)))
        truth = np.array([names.index(label) for label in labels])
        head, left_out = (
            shipped.fitted
            if shipped.fitted is not None and not own
            else calibrated(vectors.astype(np.float32), truth, len(names))
        )
        return _Trained(
            version=lessons.version,
            names=names,
            head=head,
            vectors=vectors,
            labels=labels,
            texts=(*shipped.texts, *lessons.texts),
            accuracy=float((left_out.argmax(axis=1) == truth).mean()),
            scope=_scope(vectors, left_out, np.array([label != OTHER for label in labels])),
            left_out=left_out,
        )


def _best(row: npt.NDArray[np.float32], always: int) -> list[int]:
    best: list[int] = np.argsort(-row, kind="stable")[:_SHOWN].tolist()
    return best if always < 0 or always in best else [*best, always]


def _scope(vectors: Vectors, left_out: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]) -> _Scope:
    examples = vectors[inside]
    alike = examples @ examples.T
    np.fill_diagonal(alike, -1)  # a text is not its own neighbour
    energy, near = _energy(left_out[inside]), _nearness(alike)
    of_energy, of_near = ((float(one.mean()), float(one.std()) or 1.0) for one in (energy, near))
    usual = np.sort(_standard(energy, of_energy) + _standard(near, of_near))
    return _Scope(examples, of_energy, of_near, usual)


def _energy(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    top = scores.max(axis=1)
    return np.asarray(top + np.log(np.exp(scores - top[:, None]).sum(axis=1)), dtype=np.float32)


def _nearness(alike: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean similarity to the nearest examples."""
    count = min(_NEIGHBOURS, alike.shape[1])
    return np.asarray(np.partition(alike, -count, axis=1)[:, -count:].mean(axis=1), dtype=np.float32)


def _standard(values: npt.NDArray[np.float32], usual: tuple[float, float]) -> npt.NDArray[np.float32]:
    return np.asarray((values - usual[0]) / usual[1], dtype=np.float32)
