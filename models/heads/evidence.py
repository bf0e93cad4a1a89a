"""The words that weighed most for a label of a head on wording and meaning: what an agent is shown of its reasons."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.heads.mixed import Mixed
from models.heads.wording import READ, columns, folded, optout_lexicon, owners

__all__ = ["Evidence"]

_LEAST = 0.1
"""Of the log odds, under which a word says nothing."""
_SHARE = 0.25
"""Of the strongest word's weight, under which another one is not named beside it."""
_LONGEST = 60


@dataclass(frozen=True)
class Evidence:
    """A text as the heads read its wording, once for all of them."""

    text: str
    owners: Mapping[int, Sequence[str]]
    """Columns and the folded words that each is there for."""
    columns: int
    """How many columns it has, those for what is missing among them."""

    @classmethod
    def of(cls, text: str) -> Evidence:
        lexicon = optout_lexicon()
        return cls(text, owners(text, lexicon), len(columns(text, lexicon)))

    def words(
        self, head: Mixed, label: str, rest: Mapping[str, float] | None = None, *, limit: int = 4
    ) -> list[tuple[str, float]]:
        """Words, as the text has them, that speak for a label; the strongest first.

        A weight is the word's part of the label's log odds to first order: the other labels count as probable as `rest` says
        (without it all alike), and a column that several words share is divided among them. What the vector says is in none.
        """
        if not self.owners:
            return []
        place = head.labels.index(label)
        rivals = np.array([(rest or {}).get(name, 0.0) if name != label else 0.0 for name in head.labels], np.float32)
        if not rivals.any():
            rivals = np.array([name != label for name in head.labels], np.float32)
        rows = head.wording[list(self.owners)]
        gains = rows[:, place] - rows @ (rivals / rivals.sum())
        scale = head.temperature * float(np.sqrt(self.columns))
        sums: dict[str, float] = defaultdict(float)
        for words, gain in zip(self.owners.values(), gains, strict=True):
            for word in words:
                sums[word] += float(gain) / len(words) / scale
        ranked = sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))
        found: list[tuple[str, float]] = []
        for word, weight in ranked:
            if len(found) == limit or weight < max(_LEAST, _SHARE * ranked[0][1]):
                break
            if not any(_within(word, named) for named, _ in found):
                found.append((word, weight))
        written = _written(self.text, [word for word, _ in found])
        return [(written[word][:_LONGEST], round(weight, 2)) for word, weight in found]


def _within(word: str, named: str) -> bool:
    """Whether one is a part of the other: `me` beside `leave me alone` tells nobody more."""
    return word in named if not word.isascii() else set(word.split()) <= set(named.split())


def _written(text: str, words: Sequence[str]) -> dict[str, str]:
    """How a text writes each of the folded words, with its capitals and accents."""
    plain = unicodedata.normalize("NFKC", text[:READ])
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(plain):
        parts = folded(character) or (" " if character.isspace() and letters and letters[-1] != " " else "")
        letters += parts
        places += [place] * len(parts)
    joined = "".join(letters)
    found = {}
    for word in words:
        match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", joined) or re.search(re.escape(word), joined)
        end = match.end() - 1 if match else 0
        found[word] = " ".join(plain[places[match.start()] : places[end] + 1].split()) if match else word
    return found
