"""Hashed words of a text: the cheap half of the spam decision, and what tells an agent which words weighed.

No vocabulary is stored. Each feature is a CRC-32 into 2**18 columns, so training and serving need only the text.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import numpy.typing as npt

from models.reading import ends, readable

__all__ = ["COLUMNS", "HEAD", "TAIL", "hashed", "tokens"]

COLUMNS = 1 << 18
HEAD, TAIL = 6000, 1500
"""Characters read at the front and at the end: padding in front must not hide what follows."""
_PIECE = zlib.crc32(b"~")
_WORD = re.compile(r"(?i:https?)://[^\s<>\"']{1,200}|[\w.+-]{1,64}@[\w.-]{1,100}|[^\W\d_]{1,40}|\d{1,20}|[$£€!%]{1,8}")


def tokens(text: str) -> list[str]:
    """Words of a text in order: lower case, numbers by length, links by host, shouting marked.

    They are those of `models.reading`: what nobody sees neither parts a word nor fills what is read of a text.
    """
    text = ends(readable(text), HEAD, TAIL)
    found: list[str] = []
    for word in _WORD.findall(text):
        if word[0].isdigit():
            found.append(f"#{len(word)}")
        elif "://" in word:
            host = word.split("/")[2].rpartition("@")[2].partition(":")[0].lower()
            found += ["#link", "#host:" + host[-40:]]
        elif "@" in word:
            found.append("#address")
        elif len(word) > 3 and word.isupper():
            found += [word.lower(), "#caps"]
        else:
            found.append(word.lower())
    return found


def hashed(text: str, *, short: bool = False) -> npt.NDArray[np.int64]:
    """Columns present in a text, sorted, each once: words and pairs of words; for short texts pieces of 3 to 5 letters too.

    A pair is `one two`, a piece `~abc`. Their sums are carried on from those of their beginnings: none of them is put together.
    """
    words = tokens(text)
    found = list(map(zlib.crc32, _encoded(words)))
    found += list(map(zlib.crc32, _encoded([" " + word for word in words[1:]]), found))
    if short:
        squeezed = " ".join(readable(text).lower().split())[:400]
        letters = [letter.encode("utf-8", "replace") for letter in squeezed]
        sums = [_PIECE] * len(letters)
        for size in range(1, 6):
            sums = list(map(zlib.crc32, letters[size - 1 :], sums))
            found += sums if size > 2 else []
    return np.unique(np.array(found, dtype=np.int64) % COLUMNS)


def _encoded(words: list[str]) -> list[bytes]:
    """In one go. None of them has a line break."""
    return "\n".join(words).encode("utf-8", "replace").split(b"\n") if words else []
