"""What agents said of spam, kept beside the shipped weights: a corrected mail decides over the rest of its campaign at once.

Two texts belong to one campaign when their words and pairs of words largely agree, whatever name or number is put in.
Everything is made anew from the corrections that stand, so taking one back leaves no trace of it.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.features import hashed
from models.heads.intents import Lessons

__all__ = ["HEARD", "Columns", "Likeness", "SpamMemory", "likeness"]

Columns = npt.NDArray[np.int64]
_ALIKE = (0.3, 0.55)
"""Shared share of columns from which a correction has a say, and from which it alone decides."""
HEARD = _ALIKE[0]
"""The first of these: mails that are less alike are nothing to a correction."""
_SURE = 0.98
_FEWEST = 5
"""Columns below which a text has too little in it to be known again."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """The correction most like a text: its text, what the agent said, and how much of the words agree (0 to 1)."""

    text: str
    spam: bool
    similarity: float

    def applied(self, score: float) -> float:
        """A probability of spam with the correction taken into account."""
        start, full = _ALIKE
        weight = min(1.0, max(0.0, (self.similarity - start) / (full - start)))
        return (1 - weight) * score + weight * (_SURE if self.spam else 1 - _SURE)

    @property
    def decides(self) -> bool:
        return self.similarity >= _ALIKE[1]


def likeness(own: Columns, others: Sequence[Columns]) -> list[float]:
    """How much each of some texts shares with one (0 to 1), all as their hashed words: a correction of it is heard above `HEARD`."""
    return [_share(np.intersect1d(own, one, assume_unique=True).size, own, one) for one in others]


def _share(shared: int, one: Columns, other: Columns) -> float:
    return shared / (len(one) + len(other) - shared) if min(len(one), len(other)) >= _FEWEST else 0.0


class SpamMemory:
    """`taught` gives the lessons when their version is not the given one, newest first, else None. Safe from any thread."""

    def __init__(self, taught: Callable[[str], Lessons | None]) -> None:
        self._taught = taught
        self._lock = threading.Lock()
        self._lessons = Lessons("")
        self._columns: list[Columns] = []
        self._places: dict[int, list[int]] = {}

    def like(self, texts: Sequence[str]) -> list[Likeness | None]:
        """For each text the correction that it repeats, or None. Of equally alike ones the newest counts."""
        with self._lock:
            self._refresh()
            lessons, columns, places = self._lessons, self._columns, self._places
        return [self._nearest(hashed(text), lessons, columns, places) if columns else None for text in texts]

    @staticmethod
    def _nearest(
        own: Columns, lessons: Lessons, columns: Sequence[Columns], places: dict[int, list[int]]
    ) -> Likeness | None:
        shared = Counter(place for column in own.tolist() for place in places.get(column, ()))
        best, found = _ALIKE[0], None
        for place, count in sorted(shared.items()):
            alike = _share(count, own, columns[place])
            if alike > best:
                best, found = alike, place
        return None if found is None else Likeness(lessons.texts[found], lessons.labels[found] == "spam", best)

    def _refresh(self) -> None:
        fresh = self._taught(self._lessons.version)
        if fresh is None:
            return
        known = dict(zip(self._lessons.texts, self._columns, strict=True))
        self._columns = [known[text] if text in known else hashed(text) for text in fresh.texts]
        places: dict[int, list[int]] = defaultdict(list)
        for place, columns in enumerate(self._columns):
            for column in columns.tolist():
                places[column].append(place)
        self._places, self._lessons = dict(places), fresh
