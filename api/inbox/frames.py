"""How messages with HTML are shown in a thread: the heights of their frames, their quoted end, what their pictures are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy.orm import Session

from api.inbox import mailhtml
from api.inbox.mailheight import heights
from assistant.db.messages import Message
from assistant.services import images

__all__ = ["Shown", "shown"]

_RECKONED = 100_000
"""Characters that are counted into lines; a longer mail is as high as its length in proportion."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How a message with HTML is shown: heights of its frame by width, of the quoted end, and what its pictures are."""

    high: Mapping[int, int]
    quoted: Mapping[int, int] = field(default_factory=dict)
    quoted_words: int = 0
    remote: int = 0
    loaded: int = 0
    failed: int = 0
    asked: bool = False


def shown(session: Session, messages: Sequence[Message]) -> dict[str, Shown]:
    """For each message that has HTML."""
    known = images.loaded(session, [message.id for message in messages if message.html])
    return {m.id: _reckon(m.html, m.id in known, *known.get(m.id, (0, 0))) for m in messages if m.html}


@lru_cache(maxsize=256)
def _reckon(html: str, asked: bool, loaded: int, failed: int) -> Shown:
    named: list[str] = []
    stand_ins = dict.fromkeys(mailhtml.remote_images(html), "data:,") if loaded else {}
    body, quote = mailhtml.split_quote(mailhtml.sanitise(html, _Any(), stand_ins, named))
    words = len(mailhtml.words_of(quote).split())
    return Shown(_high(body), _high(quote) if quote else {}, words, len(named), loaded, failed, asked)


class _Any(dict[str, str]):
    """Every `cid:` is there: for reckoning heights only."""

    def get(self, key: str, default: Any = None) -> Any:  # the signature of a dictionary
        return "data:,"


def _high(body: str) -> dict[int, int]:
    share = max(1.0, len(body) / _RECKONED)
    return {width: min(int(height * share), 6_000) for width, height in heights(body[:_RECKONED]).items()}
