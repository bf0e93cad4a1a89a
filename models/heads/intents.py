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
from models.base import Embedder, Vectors
from models.heads.linear import Linear, calibrated

__all__ = ["OTHER", "Intents", "Lessons", "Nearest", "Shipped"]

OTHER = "other"
"""What is outside every intent: no intent is claimed."""
_SHOWN = 5


@dataclass(frozen=True)
class Shipped:
    """Examples that come with the project, as vectors of the encoder that the head reads."""

    vectors: Vectors
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    """Shown as evidence; empty for examples whose text is not shipped."""


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
class _Trained:
    version: str
    names: tuple[str, ...]
    head: Linear
    vectors: Vectors
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    accuracy: float
    """Share of texts whose label was found while they were left out of training."""


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
        """The best intents of each vector, best first."""
        trained = self.trained()
        table = trained.head.probabilities(vectors)
        return [
            [Label(f"intent:{trained.names[i]}", float(row[i])) for i in np.argsort(-row, kind="stable")[:_SHOWN]]
            for row in table
        ]

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
        head, left_out = calibrated(vectors.astype(np.float32), truth, len(names))
        return _Trained(
            version=lessons.version,
            names=names,
            head=head,
            vectors=vectors,
            labels=labels,
            texts=(*shipped.texts, *lessons.texts),
            accuracy=float((left_out.argmax(axis=1) == truth).mean()),
        )
