"""Features of a wording in any language: pieces of words, words, and the concepts that a word list knows.

Columns are hashed, so no vocabulary is stored. A concept has one column in every language: what is learned from one
language about "stop" beside "mail" holds in the others.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["COLUMNS", "Lexicon", "columns", "folded", "may_ask_out", "optout_lexicon", "sentences"]

COLUMNS = 1 << 15
_READ = 1200
"""Characters of a text whose wording is looked at."""
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[?!]")
_LETTERS = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
_MOST = 40
_BASES = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"})
"""Letters that Unicode does not take apart."""
_NEAR = 6
"""Words within which two concepts belong together."""


@dataclass(frozen=True)
class Lexicon:
    """Concepts by the words and phrases that stand for them, and the messages that are nothing but an opt-out."""

    whole: frozenset[str]
    names: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    """A word and the concepts that it stands for; so are `beginnings`, of words with any ending."""
    beginnings: dict[str, tuple[str, ...]]
    phrases: dict[str, list[tuple[str, tuple[str, ...], re.Pattern[str]]]]
    """By the longest piece of a phrase: concept, all pieces without which the phrase cannot be there, and the phrase."""

    def found(self, text: str) -> list[tuple[str, int]]:
        """Concept and place (in words) of every mention in a folded text."""
        hits: list[tuple[str, int]] = []
        dense = 0
        for place, token in enumerate(text.split(" ")):
            for word in _LETTERS.findall(token):
                stands = {*self.words.get(word, ())}
                for end in range(2, len(word) + 1):
                    if word[:end] in self.beginnings:
                        stands.update(self.beginnings[word[:end]])
                hits += [(name, place + dense // 2) for name in sorted(stands)]
            dense += len(_UNSPACED.findall(token))  # without spaces two letters count as a word
        there = [phrase for piece, phrases in self.phrases.items() if piece in text for phrase in phrases]
        for name, pieces, pattern in there:
            if all(piece in text for piece in pieces):
                for match in pattern.finditer(text):
                    before = text[: match.start()]
                    hits.append((name, before.count(" ") + len(_UNSPACED.findall(before)) // 2))
        return hits


def columns(text: str, lexicon: Lexicon | None = None) -> npt.NDArray[np.int64]:
    """Columns present in a text, sorted, each once."""
    import numpy as np  # not at the top: the rules of the screen need a wording, and no model

    plain = folded(text[:_READ])
    words = _WORD.findall(plain)
    grams = {f"w {word}" for word in words}
    grams.update(f"b {a} {b}" for a, b in pairwise(words))
    for word in words:
        edged = f"<{word}>"
        grams.update(edged[i : i + n] for n in (3, 4) for i in range(len(edged) - n + 1))
        if _UNSPACED.search(word):
            grams.update(word[i : i + n] for n in (1, 2) for i in range(len(word) - n + 1))
    if lexicon is not None:
        grams |= _concepts(plain, lexicon)
    return np.unique(np.fromiter((zlib.crc32(g.encode()) % COLUMNS for g in grams), np.int64, len(grams)))


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, the first and last ones of a long text: an opt-out stands in one of them."""
    parts = [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]
    return parts if len(parts) <= _MOST else parts[: _MOST // 2] + parts[-_MOST // 2 :]


def may_ask_out(sentence: str) -> bool:
    """Whether a sentence has any of the words without which nobody asks not to be written to."""
    names = {name for name, _ in optout_lexicon().found(folded(sentence[:_READ]))}
    return bool(names & {"out", "withdraw"} or (names & {"remove", "cease", "consent"} and names & {"mail", "reach"}))


def _concepts(plain: str, lexicon: Lexicon) -> set[str]:
    hits = lexicon.found(plain)
    names = sorted({name for name, _ in hits})
    near = {
        tuple(sorted((one, other)))
        for (one, a), (other, b) in combinations(hits, 2)
        if one != other and abs(a - b) <= _NEAR
    }
    made = {f"§{name}" for name in names} | {f"§{a}+{b}" for a, b in near}
    made |= {f"§§{a}+{b}+{c}" for a, b, c in combinations(names, 3) if {(a, b), (b, c), (a, c)} & near}
    return made | {f"§no {name}" for name in lexicon.names if name not in names}


def folded(text: str) -> str:
    """Lower case without accents and invisible characters, one space between words."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold().translate(_BASES))
    kept = "".join(c for c in text if unicodedata.category(c) not in {"Mn", "Cf", "Cs"})
    return " ".join(kept.replace("’", "'").split())


@cache
def optout_lexicon() -> Lexicon:
    """The words of `optout.json`."""
    found = json.loads(Path(__file__).with_name("optout.json").read_text(encoding="utf-8"))
    words: dict[str, set[str]] = {}
    beginnings: dict[str, set[str]] = {}
    phrases: dict[str, list[tuple[str, tuple[str, ...], re.Pattern[str]]]] = {}
    for name, listed in sorted(found["concepts"].items()):
        for phrase in sorted({folded(one) for one in listed}):
            stem = phrase.removesuffix("*")
            if _UNSPACED.search(phrase):
                phrases.setdefault(phrase, []).append((name, (phrase,), re.compile(re.escape(phrase))))
            elif _LETTERS.fullmatch(stem):
                (beginnings if phrase.endswith("*") else words).setdefault(stem, set()).add(name)
            else:
                pieces = tuple(_LETTERS.findall(phrase))
                phrases.setdefault(max(pieces, key=len), []).append((name, pieces, _pattern(phrase)))
    return Lexicon(
        whole=frozenset(folded(phrase) for phrase in found["whole"]),
        names=tuple(sorted(found["concepts"])),
        words={word: tuple(sorted(names)) for word, names in words.items()},
        beginnings={word: tuple(sorted(names)) for word, names in beginnings.items()},
        phrases=phrases,
    )


def _pattern(phrase: str) -> re.Pattern[str]:
    """A phrase whose words stand near each other, in this order."""
    words = re.escape(phrase).replace(r"\*", r"\w*").replace(r"\ ", r"\s(?:\S{1,30}\s){0,3}?")
    return re.compile(rf"(?<!\w){words}(?!\w)")
