"""What a browser must not meet in cleaned HTML, and what a reader sees of it."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

from api.inbox import mailhtml

__all__ = ["words_of", "wrong_in"]

ALLOWED = set(mailhtml._TAGS)


class Walker(HTMLParser):
    """Notes whatever a browser must not meet."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALLOWED:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            known = name in mailhtml._ATTRIBUTES.get(tag, set()) | {"rel", "target"}
            if not known and (tag, name) != ("span", "class"):
                self.wrong.append(f"{tag} {name}")
            if name == "href" and not re.match(r"(https?|mailto|tel):", value or "", re.I):
                self.wrong.append(f"{tag} {name}={value}")
            if name == "src" and not (value or "").startswith("/inbox/parts/"):
                self.wrong.append(f"{tag} {name}={value}")

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"<!--{data}-->")


def wrong_in(html: str) -> list[str]:
    walker = Walker()
    walker.feed(html)
    walker.close()
    return walker.wrong


def words_of(html: str) -> str:
    """What a reader sees, without our own remarks."""
    return " ".join(re.sub(r"goes to [^ <]+|image not loaded", "", unescape(re.sub(r"<[^<>]*>", "", html))).split())
