"""How high a cleaned mail will be, reckoned on the server: its frame is sandboxed, so no script could measure it.

The frame's own style is known (15 px system font, 1.5 lines, 12 px round it), so text is counted into lines block by block.
A little too high is a blank strip; too low would be a scroll bar within a scroll bar. So the reckoning leans to the high side.
"""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

__all__ = ["WIDTHS", "heights"]

WIDTHS = (300, 480, 640, 780)
"""Widths in px that a frame is reckoned for; the page takes the widest one that fits."""
_LOWEST, _HIGHEST = 56, 6_000
_LINE, _LETTER, _AROUND = 22.5, 8.3, 24
_SIZES = {"h1": 2.0, "h2": 1.5, "h3": 1.17, "h5": 0.83, "h6": 0.67, "small": 0.83}
_GAPS = {
    "p": 15,
    "h1": 21,
    "h2": 19,
    "h3": 18,
    "h4": 20,
    "h5": 21,
    "h6": 24,
    "ul": 15,
    "ol": 15,
    "dl": 15,
    "pre": 15,
    "blockquote": 8,
    "hr": 8,
}
_INDENT = {"ul": 40, "ol": 40, "dd": 40, "blockquote": 55}
_BREAKS = {*_GAPS, "div", "li", "dt", "dd", "tr", "table", "hr", "center", "figure", "figcaption", "caption", "tbody"}
_PICTURE = 150
"""Height of a picture that does not say its own."""


class _Layout(HTMLParser):
    """Walks cleaned HTML and adds up lines. Cells of a row stand side by side: together they are as high as their words ask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.height = 0.0
        self._widths = [float(width - _AROUND)]
        self._sizes = [1.0]
        self._run = 0.0
        self._tall = 0.0
        self._gap = 0.0
        self._rows: list[tuple[float, float, float]] = []
        """Of each open row: its top, its highest cell, and all its cells one under the other."""
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            return self._picture(dict(attrs))
        if tag == "br":
            return self._end_line(at_least=1)
        if tag == "tr":
            self._end_line()
            self._rows.append((self.height, 0.0, 0.0))
        elif tag in {"td", "th"}:
            return self._next_cell()
        elif tag in _BREAKS:
            self._end_line()
            self._gap = max(self._gap, _GAPS.get(tag, 0))
        self._pre += tag == "pre"
        self._widths.append(max(80.0, self._widths[-1] - _INDENT.get(tag, 0)))
        self._sizes.append(self._sizes[-1] * _SIZES.get(tag, 1.0))
        if tag in {"hr", "br"}:
            self.handle_endtag(tag)
        return None

    def handle_endtag(self, tag: str) -> None:
        if len(self._widths) > 1 and tag not in {"img", "br", "td", "th"}:
            self._widths.pop()
            self._sizes.pop()
        if tag == "tr" and self._rows:
            self._next_cell()
            top, highest, together = self._rows.pop()
            self.height = top + (highest if together <= 3 * _LINE or highest == together else together) + 7
        elif tag in _BREAKS:
            self._end_line()
            self._gap = max(self._gap, _GAPS.get(tag, 0))
            self._pre -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if self._pre:
            for line in data.split("\n"):
                self._run += len(line) * 8.5
                self._end_line(at_least=1)
            return
        text = re.sub(r"\s+", " ", data)
        if text.strip():
            # Letters outside Latin are wide; a word that does not fit leaves the end of its line empty.
            wide = sum(1 for letter in text if ord(letter) > 0x1100)
            self._run += (len(text) + wide) * _LETTER * self._sizes[-1] * 1.03
            self._tall = max(self._tall, self._sizes[-1])

    def _next_cell(self) -> None:
        self._end_line()
        if self._rows:
            top, highest, together = self._rows[-1]
            high = self.height - top
            self._rows[-1] = (top, max(highest, high), together + high)
            self.height = top

    def _picture(self, attrs: dict[str, str | None]) -> None:
        told = re.fullmatch(r"(\d+)", attrs.get("height") or "")
        across = re.fullmatch(r"(\d+)", attrs.get("width") or "")
        high = min(float(told.group(1)) if told else _PICTURE, 2_000.0)
        if told and across and int(across.group(1)) > self._widths[-1]:
            high *= self._widths[-1] / int(across.group(1))
        self._end_line()
        self.height += self._gap + high + 10
        self._gap = 0.0

    def _end_line(self, at_least: int = 0) -> None:
        lines = max(math.ceil(self._run / self._widths[-1]), at_least)
        if lines:
            self.height += self._gap + lines * _LINE * (self._tall or self._sizes[-1])
            self._gap = 0.0
        self._run = self._tall = 0.0


def heights(body: str) -> dict[int, int]:
    """Width in px -> height in px of the page that `mailhtml.document` makes of cleaned HTML; bounded both ways."""
    found = {}
    for width in WIDTHS:
        layout = _Layout(width)
        layout.feed(body)
        layout.close()
        layout.handle_endtag("div")
        found[width] = int(min(max(layout.height * 1.06 + _AROUND + 30, _LOWEST), _HIGHEST))
    return found
