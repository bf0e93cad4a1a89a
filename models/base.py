"""The seams to machine learning: what a model must do, whatever runs it. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from assistant.values import Label, Prompt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["OTHER", "OUTSIDE", "Classifier", "Embedder", "Generator", "Vectors"]

Vectors: TypeAlias = "npt.NDArray[np.float32]"
OTHER = "other"
"""The label of what is outside every intent: no intent is claimed."""
OUTSIDE = 0.02
"""A text less familiar than all but this share of the examples is outside every intent."""


@runtime_checkable
class Classifier(Protocol):
    """Labels for texts. Each text gets its labels of every head, best first within a head; scores are probabilities."""

    @property
    def name(self) -> str:
        """Model id with version, stored beside every label."""

    def classify(self, texts: Sequence[str]) -> list[list[Label]]: ...


@runtime_checkable
class Embedder(Protocol):
    """Unit vectors of texts, shape `(len(texts), dimensions)`. Never mix vectors of two `name`s in one index."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors: ...


@runtime_checkable
class Generator(Protocol):
    """Text from a prompt, piece by piece; the pieces joined are the answer.

    `limit` is the most tokens to generate. Closing the iterator stops the work. Raises `ModelTimeout`,
    `ModelUnavailable` or `InvalidInput` (the prompt does not fit the context).
    """

    @property
    def name(self) -> str: ...

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]: ...

    def count(self, text: str) -> int:
        """Tokens of a text, for the budget and the trace."""

    def parameters(self) -> dict[str, Any]:
        """Everything besides the prompt that decides the answer (weights checksum, sampling): part of the cache key."""
