"""A text as the models read it: what nobody sees is left out, and letters that pose as Latin ones are taken for these.

`lookalikes.json` holds the letters, from the data of UTS #39. The packages that carry that data (confusable-homoglyphs,
confusables) answer whether two strings look alike, with a megabyte of JSON read at the start; none says which words to fold.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

__all__ = ["ends", "posing", "readable", "seen", "unmasked"]

_MOST = (256_000, 64_000)
"""Characters that are looked at of a text: of its front, and of its end."""

_LETTERS: dict[str, str] = json.loads(Path(__file__).with_name("lookalikes.json").read_text(encoding="utf-8"))[
    "letters"
]
_LATIN = {ord(one): latin for latin, others in _LETTERS.items() for one in others}
_POSING = "".join(map(chr, _LATIN))
_LATIN_LETTERS = "A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff"
_SEAM = re.compile(f"[{_LATIN_LETTERS}][\u0300-\u036f]*[{_POSING}]|[{_POSING}][\u0300-\u036f]*[{_LATIN_LETTERS}]")
"""A Latin letter beside one that looks like one. Without it no word mixes the two: most texts are only scanned for it."""
_POSED = re.compile(f"[{_POSING}]")
_FOREIGN = re.compile(f"[^\\W\\d_{_LATIN_LETTERS}{_POSING}]")
"""A letter of another alphabet that looks like no Latin one: what stands beside it is meant as what it is."""
_DISGUISE = re.compile(f"[{_POSING}\u0300-\u036f]{{2,}}")
_WORD = re.compile("(?:[^\\W\\d_]|[\u0300-\u036f])+")
_IN_LATIN = re.compile(f"[{_LATIN_LETTERS}\u0300-\u036f]+")
_ABBREVIATION = re.compile(f"[A-Z]{{2,}}([^{_LATIN_LETTERS}]+)")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e007f]"
)
"""Characters without a look of their own (category Cf), and letters that are blank."""


class Legible(str):
    """A text as `readable` gives it: whoever reads it again gets it as it is."""

    __slots__ = ()


def readable(text: str) -> str:
    """`text` in compatibility form without invisible characters and disguised letters, which would hide words from the models.

    Of one with more characters than anybody reads (`_MOST`) its front and its end. Half of a character is a question mark.
    """
    if isinstance(text, Legible):
        return text
    text = ends(text, *_MOST)
    if text.isascii():
        return text
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return Legible(unmasked(unicodedata.normalize("NFKC", seen(whole))))


def ends(text: str, front: int, back: int) -> str:
    """The front and the end of a text that is longer than both, in characters."""
    return text if len(text) <= front + back else text[:front] + "\n" + text[-back:]


def seen(text: str) -> str:
    """`text` without characters that nobody sees."""
    return text if text.isascii() else _UNSEEN.sub("", text)


def unmasked(text: str) -> str:
    """`text` with letters that look like Latin ones (UTS #39) as these, in words that are Latin otherwise: `vіаgrа` is `viagra`.

    A word of another alphabet is left alone, and so is one whose other letters look like no Latin ones. Where most of a word is
    foreign, so must be most of the text for it to stay: there a Latin letter in it is a slip of the keyboard. A word without any
    Latin letter is a disguise where most of the text is Latin and the line has no foreign letter but such as look Latin.
    """
    if text.isascii() or not _POSED.search(text):
        return text
    if _SEAM.search(text):
        text = _WORD.sub(lambda match: _plain(match[0], least=0.5), text)
    if _POSED.search(text) and _share(text) > 0.5:
        text = _WORD.sub(lambda match: _plain(match[0], least=0.0), text)
        text = "\n".join(line if line.isascii() else _wholly(line) for line in text.split("\n"))
    return text


def posing(text: str) -> bool:
    """Whether whole words of a Latin text are made of letters of another alphabet that look like Latin ones."""
    if text.isascii() or not _POSED.search(text) or _share(text) <= 0.5:
        return False
    return any(_wholly(line) != line for line in text.split("\n") if not line.isascii())


def _wholly(line: str) -> str:
    """`line` with words that are all disguise in Latin letters. One letter by itself is a sign: of a variable, of a unit."""
    if not _POSED.search(line) or _FOREIGN.search(line):
        return line
    return _WORD.sub(lambda match: _in_latin(match[0]) if _DISGUISE.fullmatch(match[0]) else match[0], line)


def _plain(word: str, *, least: float) -> str:
    """`word` in Latin letters, where that is all it pretends to have and `least` of it has already."""
    if word.isascii() or not _SEAM.search(word) or _share(word) < least:
        return word
    ending = _ABBREVIATION.fullmatch(word)
    if ending and ending[1].islower():  # as in SMSка or IFNγ: nobody is deceived
        return word
    return _in_latin(word)


def _in_latin(word: str) -> str:
    plain = unicodedata.normalize("NFC", word.translate(_LATIN))
    return plain if _IN_LATIN.fullmatch(plain) else word


def _share(text: str) -> float:
    """Latin letters among all letters."""
    latin = sum(map(len, _IN_LATIN.findall(text)))
    return latin / max(1, latin + sum(map(str.isalpha, _IN_LATIN.sub("", text))))
