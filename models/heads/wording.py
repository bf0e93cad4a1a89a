"""Features of a wording in any language: pieces of words, words, and the concepts that a word list knows.

Columns are hashed, so no vocabulary is stored. A concept has one column in every language: what is learned from one
language about "stop" beside "mail" holds in the others.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from models.reading import readable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["COLUMNS", "READ", "Lexicon", "columns", "folded", "may_ask_out", "optout_lexicon", "owners", "sentences"]

COLUMNS = 1 << 15
READ = 1200
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
_DROPPED = frozenset({"Mn", "Cf", "Cs"})
"""Accents, invisible characters and halves of characters."""
_REMEMBERED = 1 << 14
"""Words, and characters, whose part in a wording is worked out once: most texts are made of the same few thousand."""
_USUAL = 40
"""Longest word that is remembered."""
_ENDS, _OF_WHAT = frozenset({"remove", "cease", "consent"}), frozenset({"mail", "reach"})
"""Concepts that ask for an end where they stand together."""


class _Kept(dict[int, int | None]):
    """For `str.translate`: what is dropped becomes None."""

    def __missing__(self, code: int) -> int | None:
        kept = None if unicodedata.category(chr(code)) in _DROPPED else code
        if len(self) < _REMEMBERED:
            self[code] = kept
        return kept


_KEPT = _Kept()


@dataclass(frozen=True, eq=False)
class Phrase:
    """Words that stand near each other and what they stand for."""

    name: str
    pieces: tuple[str, ...]
    """Without all of these the phrase cannot be there."""
    pattern: re.Pattern[str]


@dataclass(frozen=True, eq=False)  # what its words stand for is remembered for each lexicon
class Lexicon:
    """Concepts by the words and phrases that stand for them, and the messages that are nothing but an opt-out."""

    whole: frozenset[str]
    names: tuple[str, ...]
    words: dict[str, tuple[str, ...]]
    """A word and the concepts that it stands for; so are `beginnings`, of words with any ending."""
    beginnings: dict[str, tuple[str, ...]]
    phrases: dict[str, list[Phrase]]
    """By the longest word of a phrase; so are `begun`, where that is the beginning of a word, and `unspaced`."""
    begun: dict[str, list[Phrase]]
    unspaced: dict[str, list[Phrase]]

    def found(self, text: str) -> list[tuple[str, int]]:
        """Concept and place (in words) of every mention in a folded text."""
        return [(name, place) for name, place, _ in self.mentions(text)]

    def mentions(self, text: str) -> list[tuple[str, int, str]]:
        """The same with the words that stand for the concept there."""
        hits: list[tuple[str, int, str]] = []
        there: dict[Phrase, None] = {}
        dense = 0
        plain = text.isascii()
        for place, token in enumerate(text.split(" ")):
            for word in _LETTERS.findall(token):
                names, phrases = (_stands if len(word) <= _USUAL else _stands.__wrapped__)(self, word)
                hits += [(name, place + dense // 2, word) for name in names]
                there |= dict.fromkeys(phrases)
            if not plain:
                dense += len(_UNSPACED.findall(token))  # without spaces two letters count as a word
        if dense:
            there |= {one: None for piece, phrases in self.unspaced.items() if piece in text for one in phrases}
        for phrase in there:
            if all(piece in text for piece in phrase.pieces):
                for match in phrase.pattern.finditer(text):
                    before = text[: match.start()]
                    place = before.count(" ") + len(_UNSPACED.findall(before)) // 2
                    hits.append((phrase.name, place, match.group()))
        return hits


@lru_cache(_REMEMBERED)
def _stands(lexicon: Lexicon, word: str) -> tuple[tuple[str, ...], tuple[Phrase, ...]]:
    """Concepts that a word stands for, and the phrases that it may be a part of."""
    names, phrases = {*lexicon.words.get(word, ())}, [*lexicon.phrases.get(word, ())]
    for end in range(1, min(len(word), _USUAL) + 1):
        names.update(lexicon.beginnings.get(word[:end], ()))
        phrases += lexicon.begun.get(word[:end], ())
    return tuple(sorted(names)), tuple(phrases)


def columns(text: str, lexicon: Lexicon | None = None) -> npt.NDArray[np.int64]:
    """Columns present in a text, sorted, each once."""
    import numpy as np  # not at the top: the rules of the screen need a wording, and no model

    plain = folded(text[:READ])
    words = _WORD.findall(plain)
    found: set[int] = set()
    for word in set(words):
        found.update((_pieces if len(word) <= _USUAL else _pieces.__wrapped__)(word))
    grams = {f"b {a} {b}" for a, b in pairwise(words)}
    if lexicon is not None:
        grams |= _concepts(plain, lexicon)
    found.update(_hashed(grams))
    return np.array(sorted(found), dtype=np.int64)


@lru_cache(_REMEMBERED)
def _pieces(word: str) -> tuple[int, ...]:
    """Columns of a word and its pieces."""
    edged = f"<{word}>"
    grams = {f"w {word}", *(edged[i : i + n] for n in (3, 4) for i in range(len(edged) - n + 1))}
    if _UNSPACED.search(word):
        grams.update(word[i : i + n] for n in (1, 2) for i in range(len(word) - n + 1))
    return tuple(_hashed(grams))


def _hashed(grams: set[str]) -> list[int]:
    """A column for each; none of them has a line break."""
    if not grams:
        return []
    return [found % COLUMNS for found in map(zlib.crc32, "\n".join(grams).encode().split(b"\n"))]


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, the first and last ones of a long text: an opt-out stands in one of them."""
    parts = [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]
    return parts if len(parts) <= _MOST else parts[: _MOST // 2] + parts[-_MOST // 2 :]


def may_ask_out(sentence: str) -> bool:
    """Whether a sentence has any of the words without which nobody asks not to be written to."""
    names = {name for name, _ in _of_asking().found(folded(sentence[:READ]))}
    return bool(names & {"out", "withdraw"} or (names & _ENDS and names & _OF_WHAT))


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


def owners(text: str, lexicon: Lexicon) -> dict[int, list[str]]:
    """Columns of `columns` and the folded words of the text that each is there for, as often as they are in it.

    Columns for a concept that is missing belong to no word. Where words stand without spaces only mentions of concepts are
    named: the rest is one word to these features, and as long as the sentence.
    """
    plain = folded(text[:READ])
    words = _WORD.findall(plain)
    found: dict[int, list[str]] = defaultdict(list)
    whole = {word for word in words if not _UNSPACED.search(word)}
    for word in sorted(whole):
        for column in _pieces(word) if len(word) <= _USUAL else _pieces.__wrapped__(word):
            found[column].append(word)
    grams: dict[str, list[str]] = defaultdict(list)
    for a, b in sorted(set(pairwise(words))):
        grams[f"b {a} {b}"] += [word for word in (a, b) if word in whole]
    said: dict[str, list[str]] = defaultdict(list)
    near: set[tuple[str, str]] = set()
    hits = lexicon.mentions(plain)
    for name, _, mention in hits:
        said[name].append(mention)
        grams[f"§{name}"].append(mention)
    for (one, a, mine), (other, b, yours) in combinations(sorted(hits), 2):
        if one != other and abs(a - b) <= _NEAR:
            near.add((one, other))
            grams[f"§{one}+{other}"] += [mine, yours]
    for a, b, c in combinations(sorted(said), 3):
        if {(a, b), (b, c), (a, c)} & near:
            grams[f"§§{a}+{b}+{c}"] += [*said[a], *said[b], *said[c]]
    for gram, mentions in grams.items():
        found[_hashed({gram})[0]] += mentions
    return {column: mentions for column, mentions in found.items() if mentions}


def folded(text: str) -> str:
    """Lower case without accents, invisible characters and disguised letters (`models.reading`), one space between words."""
    if text.isascii():
        return " ".join(text.lower().split())
    text = unicodedata.normalize("NFKD", readable(text).casefold().translate(_BASES))
    return " ".join(text.translate(_KEPT).replace("’", "'").split())


@cache
def optout_lexicon() -> Lexicon:
    """The words of `optout.json`."""
    found = json.loads(Path(__file__).with_name("optout.json").read_text(encoding="utf-8"))
    return _lexicon(found["concepts"], frozenset(folded(phrase) for phrase in found["whole"]))


@cache
def _of_asking() -> Lexicon:
    """The part of it that `may_ask_out` asks for: every sentence of every mail is looked through."""
    found = json.loads(Path(__file__).with_name("optout.json").read_text(encoding="utf-8"))["concepts"]
    return _lexicon({name: found[name] for name in sorted({"out", "withdraw", *_ENDS, *_OF_WHAT})}, frozenset())


def _lexicon(concepts: dict[str, list[str]], whole: frozenset[str]) -> Lexicon:
    words: dict[str, set[str]] = {}
    beginnings: dict[str, set[str]] = {}
    phrases: dict[str, list[Phrase]] = {}
    begun: dict[str, list[Phrase]] = {}
    unspaced: dict[str, list[Phrase]] = {}
    for name, listed in sorted(concepts.items()):
        for phrase in sorted({folded(one) for one in listed}):
            stem = phrase.removesuffix("*")
            if _UNSPACED.search(phrase):
                unspaced.setdefault(phrase, []).append(Phrase(name, (phrase,), re.compile(re.escape(phrase))))
            elif _LETTERS.fullmatch(stem):
                (beginnings if phrase.endswith("*") else words).setdefault(stem, set()).add(name)
            else:
                pieces = tuple(_LETTERS.findall(phrase))
                longest = max(pieces, key=len)
                open_ended = re.search(rf"(?<!\w){re.escape(longest)}\*", phrase)
                (begun if open_ended else phrases).setdefault(longest, []).append(
                    Phrase(name, pieces, _pattern(phrase))
                )
    return Lexicon(
        whole=whole,
        names=tuple(sorted(concepts)),
        words={word: tuple(sorted(names)) for word, names in words.items()},
        beginnings={word: tuple(sorted(names)) for word, names in beginnings.items()},
        phrases=phrases,
        begun=begun,
        unspaced=unspaced,
    )


def _pattern(phrase: str) -> re.Pattern[str]:
    """A phrase whose words stand near each other, in this order."""
    words = re.escape(phrase).replace(r"\*", r"\w*").replace(r"\ ", r"\s(?:\S{1,30}\s){0,3}?")
    return re.compile(rf"(?<!\w){words}(?!\w)")
