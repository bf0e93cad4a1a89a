"""Requests that meet in one process are worked on together: one batch at a time keeps every core busy and none waiting.

Nobody waits for company: an idle model starts at once, and what arrives meanwhile makes up the next batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.base import Vectors

__all__ = ["Batches"]


@dataclass(eq=False)  # two callers may ask for the same text
class _Request:
    texts: tuple[str, ...]
    result: Vectors | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None


class Batches:
    """Calls `work` with the texts of several callers at once. Safe from any thread.

    `characters` bounds a batch, and with it how long a caller waits for the one before its own. A text that `work` refuses
    fails its own caller only. `observe` is told of how many texts each batch is.
    """

    def __init__(
        self,
        work: Callable[[Sequence[str]], Vectors],
        *,
        characters: int = 16_000,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self._work = work
        self._observe = observe
        self._characters = characters
        self._turn = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._busy = False

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The rows of `work` for these texts, in their order."""
        mine = _Request(tuple(texts))
        with self._turn:
            self._waiting.append(mine)
            self._turn.wait_for(lambda: mine.done or not self._busy)
            batch = [] if mine.done else self._take(mine)
            self._busy = self._busy or bool(batch)
        if batch:
            try:
                self._run(batch)
            finally:
                with self._turn:
                    self._busy = False
                    self._turn.notify_all()
        if mine.error is not None:
            raise mine.error
        assert mine.result is not None
        return mine.result

    def _take(self, mine: _Request) -> list[_Request]:
        """The caller's own request and, in their order, the others that fit beside it."""
        self._waiting.remove(mine)
        batch, room = [mine], self._characters - sum(map(len, mine.texts))
        for other in list(self._waiting):
            room -= sum(map(len, other.texts))
            if room < 0:
                break
            self._waiting.remove(other)
            batch.append(other)
        return batch

    def _run(self, batch: list[_Request]) -> None:
        texts = [text for request in batch for text in request.texts]
        if self._observe is not None:
            self._observe(len(texts))
        try:
            rows = self._work(texts)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised again in the thread of its own caller
            if len(batch) == 1:
                batch[0].error = error
                return
            for request in batch:
                self._run([request])
            return
        ends = np.cumsum([len(request.texts) for request in batch])
        for request, part in zip(batch, np.split(rows, ends[:-1]), strict=True):
            request.result = part
