"""What the routers share: the documented failures of an operation, entity tags, and the query parameters of a list."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Query

from api.schemas import Problem
from assistant.services.paging import MAX_PAGE

__all__ = [
    "CHANGED",
    "FAILS",
    "FOUND",
    "MOVED",
    "Cursor",
    "IdempotencyKey",
    "IfMatch",
    "IfWords",
    "Limit",
    "Search",
    "etag",
    "version_of",
]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


FAILS = _problems(400, 401, 403, 413, 415, 421, 422, 429, 500, 503)
"""Any operation may answer these."""
FOUND = _problems(404)
"""Operations on one thing: absent and not yours look the same."""
CHANGED = _problems(404, 409, 412)
"""Operations that change one thing: somebody was faster, or it changed since it was read."""
MOVED: dict[int | str, dict[str, Any]] = {
    308: {
        "model": Problem,
        "description": "The thread was merged: repeat the request at `Location`. `thread_id` is the one it was merged into.",
    }
}
"""Operations below one thread. Taking the merge back ends it, so the answer is not to be kept."""

Cursor = Annotated[str, Query(max_length=500, description="`next_cursor` of the page before; empty: the first page.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items of one page.")]
Search = Annotated[
    str, Query(max_length=200, description="Words that must all occur; upper and lower case are the same.")
]
IfMatch = Annotated[
    str, Header(alias="If-Match", pattern=r'^"[0-9]{1,9}"$', description="The ETag you read.", examples=['"1"'])
]
IfWords = Annotated[
    str,
    Header(
        alias="If-Match", pattern=r'^"[0-9a-f]{16}"$', description="The ETag you read.", examples=['"0123456789abcdef"']
    ),
]
"""Of a thing whose ETag is made from its words."""
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Makes repeating safe: the same key and body get the first answer, byte for byte, for 48 hours.",
    ),
]


def etag(version: int | str) -> str:
    return f'"{version}"'


def version_of(if_match: str) -> int:
    """The version in an `If-Match` that the pattern let through."""
    return int(if_match.strip('"'))
