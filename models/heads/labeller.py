"""Every label of a text from one pass of the encoder: spam by the encoder itself, the rest by the heads of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assistant.values import Label
from models.base import Vectors
from models.bert import Encoder
from models.heads.intents import Intents, Lessons, Nearest
from models.heads.linear import one_thread
from models.heads.weights import Weights

__all__ = ["Labeller"]


def _nothing(version: str) -> Lessons | None:
    return None if version else Lessons("shipped")


class Labeller:
    """Classifier and embedder in one, as the encoder it stands on. `taught` gives what people taught (`Intents`)."""

    def __init__(self, encoder: Encoder, taught: Callable[[str], Lessons | None] | None = None) -> None:
        self.encoder = encoder
        self.weights = Weights(encoder.folder)
        self.intents = Intents(encoder, self.weights.shipped, taught or _nothing)

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def dimensions(self) -> int:
        return self.encoder.dimensions

    @property
    def ready(self) -> bool:
        return self.encoder.ready

    def load(self) -> None:
        """Read everything now instead of on first use."""
        one_thread()
        self.encoder.load()
        self.intents.trained()

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self.encoder.embed(texts)

    def classify(self, texts: Sequence[str]) -> list[list[Label]]:
        """Labels of every head for each text, best first within a head."""
        vectors = self.embed(texts)
        return [
            [*[label for label in found if label.head == "spam"], *intents]
            for found, intents in zip(self.encoder.label(texts, vectors), self.intents.label(vectors), strict=True)
        ]

    def nearest(self, text: str, intent: str) -> Nearest | None:
        """The example of an intent that is most like a text: the reason that an agent is shown."""
        return self.intents.nearest(self.embed([text]), intent)

    def evidence(self, text: str, *, limit: int = 5) -> list[tuple[str, float]]:
        return self.encoder.evidence(text, limit=limit)
