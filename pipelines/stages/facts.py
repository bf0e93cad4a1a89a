"""What a text states that must not change when it is said in other words: pure functions over strings, all linear."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Facts", "Token", "facts", "placed", "sentences", "stems", "tokens"]

_URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"'()\[\]]+"
    r"|\b[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,4}\.[a-z]{2,12}\b(?:/[^\s<>\"'()\[\]]*)?",
    re.IGNORECASE,
)
_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}")
_NUMBER = re.compile(r"[+-]?\d(?:[\d.,:/]*\d)?(?:\s?(?:%|€|\$|£))?|[€$£]\s?\d(?:[\d.,]*\d)?")
_IDENTIFIER = re.compile(r"(?<![\w@.-])(?:#[\w-]+|(?=[\w-]*\d)(?=[\w-]*[A-Za-z])\w[\w-]+|[A-Z][A-Z0-9]+(?![\w@]))")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n+")
_NUMBER_WORDS = dict(
    zip(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen twenty thirty forty fifty"
        " sixty seventy eighty ninety hundred thousand half twice double".split(),
        "2 3 4 5 6 7 8 9 10 11 12 13 14 15 20 30 40 50 60 70 80 90 100 1000 0.5 x2 x2".split(),
        strict=True,
    )
)
_DATES = frozenset(
    "january february march april june july august september october november december monday tuesday wednesday thursday"
    " friday saturday sunday today tomorrow yesterday tonight weekend".split()
)
_LIMITS = frozenset(
    "before after until within only always least most minimum maximum more less free never must may might except unless"
    " without every any all both either refuse refused impossible forbidden optional required".split()
)
_NEGATIONS = frozenset("not no never none neither nor cannot without unable nothing nobody nowhere".split())
_SMALL = frozenset(
    "a an and are as at be been being but by can could do does did for from had has have he her his i if in into is it its"
    " me my of on or our ours she should so than that the their them then there these they this those to us was we were"
    " what when where which who will with would you your yours please just also very am here how about up out over".split()
)
_STARTERS = _SMALL | frozenset(
    "hello hi dear thank thanks sorry note once while since because however therefore otherwise unfortunately regarding"
    " kind best regards let feel simply see find use open after before until within only every any all both each no not"
    " yes never now".split()
)


@dataclass(frozen=True, slots=True)
class Facts:
    """In the order of the text, so that two swapped amounts are a difference."""

    numbers: tuple[str, ...]
    dates: tuple[str, ...]
    links: tuple[str, ...]
    addresses: tuple[str, ...]
    identifiers: tuple[str, ...]
    names: tuple[str, ...]
    negations: tuple[str, ...]
    """The stem of what each negation denies."""
    limits: tuple[str, ...]
    """Words that bound a promise: before, within, only, free ..., sorted."""


@dataclass(frozen=True, slots=True)
class Token:
    """One checkable thing of a text and where it stands: `link`, `address`, `identifier`, `number`, `date` or `name`."""

    kind: str
    start: int
    end: int
    value: str


def facts(text: str, *, known: Sequence[str] = ()) -> Facts:
    """Everything in `text` that a rephrasing must keep. `known` are words (lower case) that are no names."""
    addresses, rest = _taken(_MAIL, text)
    links, rest = _taken(_URL, rest)
    identifiers = tuple(_IDENTIFIER.findall(rest))
    rest = _IDENTIFIER.sub(" ", rest)
    words = [word.casefold().replace("’", "'") for word in _WORD.findall(rest)]
    return Facts(
        numbers=_numbers(rest),
        dates=tuple(word for word in words if word in _DATES),
        links=links,
        addresses=addresses,
        identifiers=identifiers,
        names=_names(rest, known),
        negations=_negations(words),
        limits=tuple(sorted(word for word in words if word in _LIMITS)),
    )


def _taken(pattern: re.Pattern[str], text: str) -> tuple[tuple[str, ...], str]:
    """What the pattern finds, and the text without it. A full stop behind an address ends the sentence, it stays."""
    found = [match.rstrip(".,;:!?") for match in pattern.findall(text)]
    rest = pattern.sub(lambda match: " " + match.group()[len(match.group().rstrip(".,;:!?")) :], text)
    return tuple(found), rest


def sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def placed(text: str) -> list[tuple[int, str]]:
    """Every sentence with its place in the text."""
    found, start = [], 0
    for gap in (*_SENTENCE_END.finditer(text), None):
        end = gap.start() if gap else len(text)
        sentence = text[start:end]
        if sentence.strip():
            found.append((start + len(sentence) - len(sentence.lstrip()), sentence.strip()))
        start = gap.end() if gap else end
    return found


def tokens(text: str) -> tuple[Token, ...]:
    """What can be looked up in a source, with places. A name is a capital inside a sentence: the first word has one anyway."""
    found: list[Token] = []
    rest = text
    for kind, pattern in (("address", _MAIL), ("link", _URL), ("identifier", _IDENTIFIER)):
        for match in pattern.finditer(rest):
            value = match.group().rstrip(".,;:!?")
            found.append(Token(kind, match.start(), match.start() + len(value), value))
        rest = pattern.sub(lambda match: " " * len(match.group()), rest)
    for match in re.finditer(rf"{_NUMBER.pattern}|[A-Za-z]+", rest):
        word = _NUMBER_WORDS.get(match.group().casefold())
        if word is not None or not match.group().isalpha():
            found.append(Token("number", match.start(), match.end(), word or "".join(match.group().split())))
    for start, sentence in placed(rest):
        for position, match in enumerate(_WORD.finditer(sentence)):
            word, at = match.group(), start + match.start()
            plain = word.casefold().replace("’", "'")
            if plain in _DATES:
                found.append(Token("date", at, at + len(word), plain))
            elif position and word[0].isupper() and plain.partition("'")[0] not in _STARTERS | {"i"}:
                found.append(Token("name", at, at + len(word), plain))
    return tuple(sorted(found, key=lambda token: token.start))


def stems(text: str) -> frozenset[str]:
    """The content words of a text, cut to six letters so that `refunded` and `refunds` are one."""
    words = (word.casefold() for word in _WORD.findall(text))
    return frozenset(word[:6].rstrip("es") or word for word in words if word not in _SMALL and len(word) > 2)


def _numbers(text: str) -> tuple[str, ...]:
    tokens = re.finditer(rf"{_NUMBER.pattern}|[A-Za-z]+", text)
    found = ((token.group(), _NUMBER_WORDS.get(token.group().casefold())) for token in tokens)
    return tuple(word or "".join(token.split()) for token, word in found if word is not None or not token.isalpha())


def _names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for sentence in sentences(text):
        for position, match in enumerate(_WORD.finditer(sentence)):
            word = match.group()
            plain = word.casefold()
            if not word[0].isupper() or plain in _DATES or plain.partition("'")[0] == "i":
                continue
            if position == 0 and (plain in _STARTERS or plain in known):
                continue
            found.append(plain)
    return tuple(sorted(set(found)))


def _negations(words: Sequence[str]) -> tuple[str, ...]:
    denied = []
    for position, word in enumerate(words):
        if word in _NEGATIONS or word.endswith("n't"):
            target = next((later for later in words[position + 1 : position + 6] if later not in _SMALL), "")
            denied.append(target[:5])
    return tuple(sorted(denied))
