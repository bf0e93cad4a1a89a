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

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMNS", "Lexicon", "columns", "folded", "may_ask_out", "optout_lexicon", "sentences"]

COLUMNS = 1 << 15
_READ = 1200
"""Characters of a text whose wording is looked at."""
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[?!]")
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
    concepts: tuple[tuple[str, re.Pattern[str]], ...]

    def found(self, text: str) -> list[tuple[str, int]]:
        """Concept and place (in words) of every mention in a folded text."""
        hits = []
        for name, pattern in self.concepts:
            for match in pattern.finditer(text):
                before = text[: match.start()]
                # Without spaces two letters count as a word.
                place = before.count(" ") + len(_UNSPACED.findall(before)) // 2
                hits.append((name, place))
        return hits


def columns(text: str, lexicon: Lexicon | None = None) -> npt.NDArray[np.int64]:
    """Columns present in a text, sorted, each once."""
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
    return made | {f"§no {name}" for name, _ in lexicon.concepts if name not in names}


def folded(text: str) -> str:
    """Lower case without accents and invisible characters, one space between words."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold().translate(_BASES))
    kept = "".join(c for c in text if unicodedata.category(c) not in {"Mn", "Cf", "Cs"})
    return " ".join(kept.replace("’", "'").split())


@cache
def optout_lexicon() -> Lexicon:
    """The words of `optout.json`."""
    found = json.loads(Path(__file__).with_name("optout.json").read_text(encoding="utf-8"))
    return Lexicon(
        whole=frozenset(folded(phrase) for phrase in found["whole"]),
        concepts=tuple((name, _pattern(phrases)) for name, phrases in sorted(found["concepts"].items())),
    )


def _pattern(phrases: list[str]) -> re.Pattern[str]:
    parts = []
    for phrase in sorted({folded(one) for one in phrases}, key=len, reverse=True):
        words = re.escape(phrase).replace(r"\*", r"\w*").replace(r"\ ", r"\s(?:\S{1,30}\s){0,3}?")
        parts.append(re.escape(phrase) if _UNSPACED.search(phrase) else rf"(?<!\w){words}(?!\w)")
    return re.compile("|".join(parts))
