"""What a command prints: lines for people, or one JSON document for programs. Plain text, so NO_COLOR always holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["emit", "error", "line", "progress", "without_secrets"]


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


def without_secrets(text: str) -> str:
    """A URL with its host but without password, lone token and query; anything else not at all."""
    scheme, colon, rest = text.partition("://")
    if not colon:
        return "***"
    rest, query, _ = rest.partition("?")
    authority, slash, path = rest.partition("/")
    account, at, host = authority.rpartition("@")
    user, has_password, _ = account.partition(":")
    name = f"{user}:***" if has_password else "***"
    return f"{scheme}://{name if at else ''}{at}{host}{slash}{path}{'?***' if query else ''}"


def progress(*, quiet: bool = False) -> Progress:
    """A bar on standard error; it draws nothing where that is no terminal, or one that cannot move its cursor."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=screen, disable=quiet or not screen.is_terminal or screen.is_dumb_terminal)
