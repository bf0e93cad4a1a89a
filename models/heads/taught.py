"""What agents said of kind of reply, urgency, sentiment, language and opt-outs, kept beside the shipped heads.

A text like a corrected one gets the agent's label: at once where it says the same, the more the nearer it is. Everything is
made anew from the corrections that stand, so taking one back leaves no trace of it.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from assistant.values import Label
from models.base import Embedder, Vectors
from models.features import hashed
from models.heads.intents import Lessons
from models.heads.wording import folded

__all__ = ["HEADS", "HeadLessons", "HeadMemory", "Recalled"]

HEADS = ("reply_intent", "urgency", "sentiment", "language", "optout")
"""Heads whose corrections are remembered here; intents and spam have ways of their own."""
_MEANING = (0.7, 0.85)
"""Cosine from which a correction has a say, and from which it alone decides (the model card says how that was found)."""
_WORDS = (0.3, 0.55)
"""The same for the share of words and pairs of words that agree."""
_SURE = 0.98
_ASKED = (0.15, 0.85)
"""Where an opt-out is neither recorded nor passed over: all that a text which is only like a corrected one can do."""
_FEWEST = 5
"""Columns below which a text has too little in it to be like another one; it can still be the same."""
_LATIN = 0x250
_LONGEST = 2000


@dataclass(frozen=True)
class HeadLessons:
    """Corrections by head, newest first. `version` changes exactly when they do."""

    version: str
    by_head: Mapping[str, Lessons]
    held_out: Mapping[str, Lessons] = field(default_factory=dict)
    """Known again where the same text comes, and likened to no other: the heads are measured with these."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The correction that a text is most like: its text and label, and how much it counts (1: it decides)."""

    text: str
    label: str
    weight: float
    same: bool
    """The same words, whatever the numbers."""

    def applied(self, head: str, found: Sequence[Label]) -> list[Label]:
        """The labels of the head with the correction taken into account, best first."""
        given = {one.value: one.score for one in found}
        if head == "optout" and not self.same:
            return self._asked(given.get("yes", 0.0))
        others = sum(score for name, score in given.items() if name != self.label)
        made = []
        for name in dict.fromkeys((*given, self.label)):
            rest = (1 - _SURE) * given.get(name, 0.0) / others if others else 0.0
            aim = _SURE if name == self.label else rest
            made.append(Label(f"{head}:{name}", (1 - self.weight) * given.get(name, 0.0) + self.weight * aim))
        return sorted(made, key=lambda label: -label.score)

    def _asked(self, yes: float) -> list[Label]:
        """One word more can turn an opt-out round, so likeness alone records none and passes none over."""
        low, high = _ASKED
        moved = (1 - self.weight) * yes + self.weight * (high if self.label == "yes" else low)
        yes = max(yes, moved) if self.label == "yes" else min(yes, moved)
        return sorted((Label("optout:yes", yes), Label("optout:no", 1 - yes)), key=lambda label: -label.score)


@dataclass(frozen=True)
class _Known:
    """The lessons of one head in the forms in which they are compared."""

    lessons: Lessons
    keys: dict[str, int]
    vectors: Vectors
    columns: tuple[npt.NDArray[np.int64], ...]
    places: Mapping[int, Sequence[int]]


class HeadMemory:
    """`taught` gives the lessons when their version is not the given one, else None. Safe from any thread."""

    def __init__(self, embedder: Embedder, taught: Callable[[str], HeadLessons | None]) -> None:
        self._embedder = embedder
        self._taught = taught
        self._lock = threading.Lock()
        self._version = ""
        self._known: dict[str, _Known] = {}
        self._repeats: dict[str, dict[str, Recalled]] = {}
        self._vectors: dict[str, Vectors] = {}

    def recall(self, texts: Sequence[str], vectors: Vectors) -> list[dict[str, Recalled]]:
        """For each text, by head, the correction that it is like; `vectors` are those of the texts."""
        with self._lock:
            self._refresh()
            known, repeats = self._known, self._repeats
        if not known and not repeats:
            return [{} for _ in texts]
        found = []
        for text, vector in zip(texts, vectors, strict=True):
            row = {
                head: near
                for head, one in known.items()
                if (near := _nearest(text, vector, one, meaning=head != "optout" and _latin(text))) is not None
            }
            key = _key(text) if repeats else ""
            again = {head: same[key] for head, same in repeats.items() if key in same}
            found.append(row | {head: one for head, one in again.items() if head not in row or not row[head].same})
        return found

    def _refresh(self) -> None:
        fresh = self._taught(self._version)
        if fresh is None:
            return
        every = list(dict.fromkeys(text for lessons in fresh.by_head.values() for text in lessons.texts))
        if new := [text for text in every if text not in self._vectors]:
            self._vectors |= dict(zip(new, self._embedder.embed(new), strict=True))
        self._vectors = {text: self._vectors[text] for text in every}
        self._known = {head: self._prepared(lessons) for head, lessons in fresh.by_head.items() if lessons.texts}
        self._repeats = {head: _repeats(lessons) for head, lessons in fresh.held_out.items() if lessons.texts}
        self._version = fresh.version

    def _prepared(self, lessons: Lessons) -> _Known:
        columns = tuple(hashed(text) for text in lessons.texts)
        places: dict[int, list[int]] = defaultdict(list)
        for place, found in enumerate(columns):
            for column in found.tolist():
                places[column].append(place)
        keys = {_key(text): place for place, text in reversed(list(enumerate(lessons.texts)))}  # the newest counts
        keys.pop("", None)  # signs alone are no text to know again
        vectors = np.stack([self._vectors[text] for text in lessons.texts])
        return _Known(lessons, keys, vectors, columns, dict(places))


def _repeats(lessons: Lessons) -> dict[str, Recalled]:
    pairs = reversed(list(zip(lessons.texts, lessons.labels, strict=True)))  # the newest counts
    return {key: Recalled(text, label, 1.0, same=True) for text, label in pairs if (key := _key(text))}


def _nearest(text: str, vector: Vectors, known: _Known, *, meaning: bool) -> Recalled | None:
    texts, labels = known.lessons.texts, known.lessons.labels
    if (place := known.keys.get(_key(text))) is not None:
        return Recalled(texts[place], labels[place], 1.0, same=True)
    best, found = 0.0, 0
    own = hashed(text)
    shared = Counter(place for column in own.tolist() for place in known.places.get(column, ()))
    for place, count in sorted(shared.items()):
        if min(len(own), len(known.columns[place])) >= _FEWEST:
            weight = _weight(count / (len(own) + len(known.columns[place]) - count), _WORDS)
            best, found = max((best, found), (weight, place), key=lambda pair: pair[0])
    if meaning:
        alike = known.vectors @ vector
        place = int(alike.argmax())
        best, found = max((best, found), (_weight(float(alike[place]), _MEANING), place), key=lambda pair: pair[0])
    return Recalled(texts[found], labels[found], best, same=False) if best > 0 else None


def _weight(similarity: float, ends: tuple[float, float]) -> float:
    return min(1.0, max(0.0, (similarity - ends[0]) / (ends[1] - ends[0])))


def _key(text: str) -> str:
    """A text without what changes from one mail of a campaign to the next: numbers, signs, case."""
    return re.sub(r"\W+", " ", re.sub(r"\d+", "0", folded(text[:_LONGEST]))).strip()


def _latin(text: str) -> bool:
    """Whether the encoder can read it: in other scripts its vectors of opposites are alike (measured)."""
    letters = [c for c in unicodedata.normalize("NFKC", text[:_LONGEST]) if c.isalpha()]
    return sum(ord(c) < _LATIN for c in letters) >= 0.9 * len(letters)
