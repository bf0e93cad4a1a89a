"""The difference between two texts in words, for people: what stays, what goes, what comes."""

from __future__ import annotations

import difflib
import re

__all__ = ["word_diff"]

_WORDS = re.compile(r"\s+|[^\s]+")
_LONGEST = 4_000


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """Parts in order: (`same` | `del` | `ins`, text)."""
    old, new = _WORDS.findall(before)[:_LONGEST], _WORDS.findall(after)[:_LONGEST]
    parts: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("same", "".join(old[a:b])))
            continue
        if b > a:
            parts.append(("del", "".join(old[a:b])))
        if d > c:
            parts.append(("ins", "".join(new[c:d])))
    return parts
