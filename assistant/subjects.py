"""The base subject of a mail: what is left without reply and forward marks (RFC 5256, section 2.1, and their translations)."""

from __future__ import annotations

import re

__all__ = ["base_subject", "is_forward"]

_REPLY = r"re|aw|antw|antwort|sv|vs|rv|res|r|odp|ynt|atb|bls|hl|回复|回覆|答复|ответ|отв"
_FORWARD = r"fwd?|wg|tr|rv|enc|i|vl|doorst|vb|pd|ilt|yml|转发|轉寄|пересл"
_MARK = re.compile(
    rf"\s*(?:(?:{_REPLY}|{_FORWARD})\s*(?:\[\d{{1,3}}\]|\(\d{{1,3}}\))?\s*[:：]|\[[^\[\]]{{1,60}}\](?=.))\s*", re.I
)
_TRAILER = re.compile(r" ?\((?:fwd|fw)\) ?$", re.I)
_WRAPPED = re.compile(r"^\[\s*(?:fwd?|wg|tr)\s*:\s*(.*)\]$", re.I)
_FORWARDED = re.compile(rf"^\s*(?:\[[^\[\]]{{1,60}}\]\s*)?(?:{_FORWARD})\s*(?:\[\d{{1,3}}\])?\s*[:：]", re.I)


def base_subject(subject: str) -> str:
    """`Re: AW: [list] Fwd: Order 7 (fwd)` -> `order 7`. Folded to lower case with single spaces; may be empty."""
    text = " ".join(subject.split())[:1000]
    while True:
        before = text
        text = _TRAILER.sub("", text)
        while (match := _MARK.match(text)) and match.end():
            text = text[match.end() :]
        if wrapped := _WRAPPED.match(text):
            text = wrapped.group(1)
        if text == before:
            return text.strip().casefold()


def is_forward(subject: str) -> bool:
    """Whether the newest mark says that this is a forward: it starts a conversation of its own."""
    first = _FORWARDED.match(subject)
    # `RV:` and `I:` are replies in some languages: only marks that are forwards everywhere count.
    return bool(first) and not re.match(r"\s*(?:rv|r|i)\s*:", subject, re.I)
