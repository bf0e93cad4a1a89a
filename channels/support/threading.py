"""Headers that put an answer where it belongs (RFC 5322, section 3.6.4)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["reply_references"]

_ROOM = 900
"""Octets for all ids: a folded header line stays under 998."""


def reply_references(parent_id: str, references: Sequence[str], in_reply_to: str = "") -> tuple[str, ...]:
    """The parent's References (or its In-Reply-To when it has none), then the parent's own id, each once.

    Too many are trimmed in the middle: the first names the thread, the last ones the place in it.
    """
    chain = list(references) or ([in_reply_to] if in_reply_to else [])
    ids = [one for one in dict.fromkeys(chain) if one and one != parent_id] + [parent_id]
    while len(ids) > 2 and sum(len(one) + 1 for one in ids) > _ROOM:
        del ids[1]
    return tuple(ids)
