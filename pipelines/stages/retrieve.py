"""Find the approved answers that a reply may be made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from assistant.errors import ModelUnavailable
from assistant.values import Turn
from models.reading import readable
from pipelines.library import Library
from pipelines.stages.run import noted

__all__ = ["Retrieve", "query_of"]

QUERY = 1000
"""Characters: the question is in the first lines, a long tail only blurs the vector."""
PASSAGES = 3


@dataclass(frozen=True, slots=True)
class Retrieve:
    library: Callable[[], Library | None]
    floor: float
    switched_off: bool = False
    name: str = "retrieve"

    def __call__(self, turn: Turn) -> Turn:
        if turn.decision is not None:
            return noted(turn, self.name, "skipped", "a person takes over")
        if self.switched_off:
            return noted(turn, self.name, "skipped", "the encoder is off")
        library = self.library()
        if library is None:
            raise ModelUnavailable("the encoder is not loaded")
        found = library.search(query_of(turn), limit=PASSAGES, floor=self.floor)
        if not found:
            return noted(turn, self.name, "ok", "no passage found")
        best = found[0]
        return noted(
            replace(turn, passages=found),
            self.name,
            "ok",
            f"{len(found)} found, best: {best.source}",
            score=best.score,
            passages=[{"source": passage.source, "score": passage.score} for passage in found],
        )


def query_of(turn: Turn) -> str:
    """The subject and the new text. An answer like "yes please" says little: the question before it is added."""
    subject, text = readable(turn.message.subject), readable(turn.new_text).strip()
    if len(text) < 40 and turn.history:
        text = f"{readable(turn.history[-1].text)[:300]}\n{text}"
    return f"{subject}\n{text}".strip()[:QUERY] or "(empty)"
