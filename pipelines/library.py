"""Search in the approved answers: the encoder, the vector index and the rows behind it, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assistant.backends.vectors import Vectors as Index
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import knowledge
from assistant.values import Passage
from models.base import Embedder, Vectors

__all__ = ["Library"]


@dataclass(frozen=True, slots=True)
class Library:
    database: Database
    vectors: Index
    embedder: Embedder

    def search(self, text: str, *, limit: int, floor: float) -> tuple[Passage, ...]:
        """The passages nearest to `text`, best first, none below `floor` (cosine). Raises `StorageError`, `ModelError`."""
        vector = self.embedder.embed([text])[0]
        self.refresh()
        try:
            hits = self.vectors.nearest(vector, limit=limit)
        except StorageError:
            # The index was damaged under our feet: it is made anew from the rows, once.
            self.refresh()
            hits = self.vectors.nearest(vector, limit=limit)
        near = [(number, score) for number, score in hits if score >= floor]
        if not near:
            return ()
        with self.database.reading() as session:
            return knowledge.passages(session, near)

    def refresh(self) -> None:
        """Bring the index in line with the rows; one small query when nothing changed."""
        with self.database.reading() as session:
            version = knowledge.knowledge_version(session)
        self.vectors.sync(
            encoder=self.embedder.name,
            dimensions=self.embedder.dimensions,
            version=version,
            texts=self._texts,
            embed=self._embed,
        )

    def _embed(self, texts: Sequence[str]) -> Vectors:
        # The mean of title and whole: a title is near to the question, a text to the matter; alone either misleads.
        titles = self.embedder.embed([text.partition("\n")[0] for text in texts])
        return titles + self.embedder.embed(texts)

    def _texts(self) -> dict[int, str]:
        with self.database.reading() as session:
            return {chunk.number: chunk.searchable for chunk in knowledge.live_chunks(session)}
