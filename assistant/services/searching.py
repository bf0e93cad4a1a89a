"""What people type into the search box: plain words, and `from:`, `subject:`, `is:`, `has:`, `channel:`, `label:`, `before:`, `after:`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from assistant.clock import utcnow
from assistant.services.threads import Filters

__all__ = ["EXAMPLES", "read"]

EXAMPLES = (
    ("from:ana refund", "refund, written by Ana"),
    ("subject:order is:unread", "unread, with order in the subject"),
    ("has:attachment after:7d", "with files, of the last week"),
    ("channel:email is:starred", "starred, come by mail"),
    ("is:unassigned before:2026-01-31", "nobody's, until the end of January"),
)
"""Searches that work, and what they find."""
_TERM = re.compile(r'(from|subject|is|has|channel|before|after):(?:"([^"]{1,100})"|(\S{1,100}))', re.I)
_DAYS = re.compile(r"(\d{1,4})([dwmy])", re.I)
_UNIT = {"d": 1, "w": 7, "m": 30, "y": 365}
_CHANNELS = {"mail": "email"}
"""What people also call a channel."""
_IS: dict[str, dict[str, Any]] = {
    "unread": {"unread": True},
    "read": {"unread": False},
    "starred": {"starred": True},
    "unassigned": {"assignee": "none"},
}


def read(text: str, *, zone: tzinfo = UTC, agent_id: str = "") -> Filters:
    """The filters that a search means. What is not understood is looked for as words, so nothing is dropped in silence."""
    found: dict[str, Any] = {}

    def term(match: re.Match[str]) -> str:
        name, value = match.group(1).lower(), match.group(2) or match.group(3)
        known = _READ[name](value.lower(), zone)
        if name == "is" and value.lower() == "mine" and agent_id:
            known = {"assignee": agent_id}
        if known is None:
            return match.group(0)
        found.update(known)
        return ""

    rest = " ".join(_TERM.sub(term, text[:200]).split())
    return Filters(search=rest, **found)


def _day(value: str, zone: tzinfo, *, end: bool) -> datetime | None:
    if ago := _DAYS.fullmatch(value):
        return utcnow() - timedelta(days=int(ago.group(1)) * _UNIT[ago.group(2).lower()])
    try:
        day = datetime.fromisoformat(value).replace(tzinfo=zone)
        return day + timedelta(days=1) if end and len(value) == 10 else day
    except (ValueError, OverflowError):
        return None


def _moment(name: str, *, end: bool) -> Callable[[str, tzinfo], dict[str, Any] | None]:
    def read_it(value: str, zone: tzinfo) -> dict[str, Any] | None:
        at = _day(value, zone, end=end)
        return None if at is None else {name: at}

    return read_it


_READ: dict[str, Callable[[str, tzinfo], dict[str, Any] | None]] = {
    "from": lambda value, _: {"sender": value},
    "subject": lambda value, _: {"subject": value},
    "is": lambda value, _: _IS.get(value),
    "has": lambda value, _: {"attachments": True} if value in {"attachment", "attachments", "file"} else None,
    "channel": lambda value, _: {"channel": _CHANNELS.get(value, value)} if value.isalpha() else None,
    "before": _moment("before", end=True),
    "after": _moment("after", end=False),
}
