"""What a command prints: lines for people, or one JSON document for programs. Plain text, so NO_COLOR always holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

__all__ = ["emit", "error", "line"]


def line(text: str = "") -> None:
    """One line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def error(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def emit(document: object, lines: Iterable[str], *, as_json: bool) -> None:
    """The same facts, as one JSON document or as lines."""
    if as_json:
        line(json.dumps(document, default=str, ensure_ascii=False))
        return
    for text in lines:
        line(text)
