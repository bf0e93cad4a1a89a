"""Pages of a long list. A cursor names a place in a total order, so that what is inserted meanwhile moves nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, false, literal, or_, true

from assistant.db.base import UtcDateTime
from assistant.errors import InvalidInput

__all__ = [
    "MAX_PAGE",
    "InvalidCursor",
    "Key",
    "Page",
    "after",
    "bounded",
    "order_by",
    "read_cursor",
    "words",
    "write_cursor",
]

Item = TypeVar("Item")


class InvalidCursor(InvalidInput):
    code, status, title = "invalid-cursor", 400, "The cursor is not valid"


MAX_PAGE = 100
_MAX_WORDS = 8


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: Sequence[Item]
    next_cursor: str | None
    last_cursor: str | None = None
    """The place of the last item, where there is one: what a list that is read again reaches to."""


@dataclass(frozen=True, slots=True)
class Key:
    """One column of a sort order, never null. `kind` is `number`, `moment` or `id`: what a cursor may carry for it."""

    column: Callable[[], ColumnElement[Any]]
    kind: str = "number"
    descending: bool = False


def bounded(limit: int) -> int:
    """`limit` when it is allowed, else `InvalidInput`."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"a page has 1 to {MAX_PAGE} items")
    return limit


def words(search: str) -> list[str]:
    """The words of a search; more than eight are not looked for."""
    return search.split()[:_MAX_WORDS]


def order_by(keys: Sequence[Key]) -> list[ColumnElement[Any]]:
    return [key.column().desc() if key.descending else key.column().asc() for key in keys]


def after(keys: Sequence[Key], values: Sequence[Any]) -> ColumnElement[bool]:
    """Rows behind `values` in a mixed-direction order: (a > x) or (a = x and (b > y or ...))."""
    behind: ColumnElement[bool] = false()
    same: ColumnElement[bool] = true()
    for key, value in zip(keys, values, strict=True):
        column = key.column()
        bound = literal(value, UtcDateTime) if key.kind == "moment" else literal(value)
        behind = or_(behind, and_(same, column < bound if key.descending else column > bound))
        same = and_(same, column == bound)
    return behind


def write_cursor(order: str, values: Sequence[Any]) -> str:
    """The place of a row, opaque; `order` names the list, so that a cursor of another list is refused."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([order, *plain]).encode()).decode().rstrip("=")


def read_cursor(cursor: str, order: str, keys: Sequence[Key]) -> list[Any]:
    """The values in a cursor, each checked for its kind. Raises `InvalidCursor`."""
    try:
        if len(cursor) > 500:
            raise ValueError
        decoded = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(decoded, list) or len(decoded) != len(keys) + 1 or decoded[0] != order:
            raise ValueError
        return [_value(value, key.kind) for value, key in zip(decoded[1:], keys, strict=True)]
    except (ValueError, OverflowError, binascii.Error, RecursionError):
        raise InvalidCursor("that cursor is not one of this list; start from the first page") from None


def _value(value: Any, kind: str) -> Any:
    if kind == "moment":
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    if kind == "id":
        if not isinstance(value, str) or len(value) > 36 or not value.isascii() or not value.isprintable():
            raise ValueError
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1_000:
        raise ValueError
    return value
