"""Moments as people type them ("tue 9am", "tomorrow", "in 3 hours"), in the time zone of who types."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from assistant.clock import utcnow
from assistant.errors import InvalidInput

__all__ = ["PRESETS", "moment", "snoozes", "zone_of"]

PRESETS = ("in 3 hours", "tomorrow 9:00", "monday 9:00", "in 1 week")
_MORNING = 9
_FURTHEST = timedelta(days=2 * 365)
_LANGUAGES = ["en", "fr", "de", "es", "it", "pt", "nl"]
_HOUR = re.compile(r"\b(\d{1,2})\s*(?:h|uhr)\b(\d{2})?", re.I)
_BARE_HOUR = re.compile(r"(?<![a-z])([a-z]{3,20}\.?)\s{1,3}(?:at\s{1,3})?(\d{1,2})\s*$", re.I)
_CLOCK = re.compile(r"\d\s*(?::|am\b|pm\b|h\b)|\b(?:in|dans|en)\s+\d|noon|midnight|hour|minute", re.I)
_ONLY_CLOCK = re.compile(r"(?:at\s+)?\d{1,2}(?::\d{2})?\s*(?:am|pm)?", re.I)
_MONTHS = re.compile(r"^(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)", re.I)


def zone_of(*names: str) -> ZoneInfo:
    """The first name that is a time zone (IANA, as browsers say it); else UTC."""
    for name in names:
        if re.fullmatch(r"[A-Za-z_+0-9/-]{1,60}", name):
            try:
                return ZoneInfo(name)
            except (KeyError, ValueError, OSError):
                continue
    return ZoneInfo("UTC")


def snoozes(zone: ZoneInfo, now: datetime | None = None) -> list[tuple[str, datetime]]:
    """What the snooze picker offers, soonest first: words and the moment that they mean."""
    here = (now or utcnow()).astimezone(zone)
    later = (here + timedelta(hours=3)).replace(second=0, microsecond=0)
    morning = here.replace(hour=_MORNING, minute=0, second=0, microsecond=0)
    offers = [("Later today" if later.date() == here.date() else "In 3 hours", later)]
    offers += [("Tomorrow", morning + timedelta(days=1)), ("Monday", morning + timedelta(days=7 - here.weekday()))]
    offers += [("In a week", morning + timedelta(days=7))]
    return [(name, at.astimezone(UTC)) for name, at in offers]


def moment(text: str, *, zone: ZoneInfo, now: datetime | None = None) -> datetime:
    """The moment that is meant, in UTC; a day without a clock time is its morning. Raises `InvalidInput`."""
    import dateparser

    now = now or utcnow()
    words = _HOUR.sub(lambda m: f"{m[1]}:{m[2] or '00'}", " ".join(text.split())[:60])
    bare = _BARE_HOUR.search(words)
    if bare and not _MONTHS.match(bare[1]) and bare[1].lower() not in {"in", "day", "days"}:
        words = f"{words[: bare.start(2)]}{bare[2]}:00"
    found: datetime | None = dateparser.parse(
        words,
        languages=_LANGUAGES,
        settings={
            "PREFER_DATES_FROM": "future",
            "RELATIVE_BASE": now.astimezone(zone).replace(tzinfo=None),
            "TIMEZONE": str(zone),
            "RETURN_AS_TIMEZONE_AWARE": True,
        },
    )
    if found is None:
        raise InvalidInput(f"“{text[:60]}” is no moment that is understood: try “tomorrow 9:00” or “in 3 hours”")
    if not _CLOCK.search(words):
        found = found.replace(hour=_MORNING, minute=0, second=0, microsecond=0)
    found = found.astimezone(UTC)
    week = timedelta(days=7)
    if found - week > now and words.lower().startswith(now.astimezone(zone).strftime("%a").lower()):
        found -= week  # the library takes today's name for the day in a week, also while the hour is ahead
    if now - timedelta(days=1) < found <= now and _ONLY_CLOCK.fullmatch(words):
        found += timedelta(days=1)
    if found <= now:
        raise InvalidInput(f"“{text[:60]}” lies in the past")
    if found > now + _FURTHEST:
        raise InvalidInput("that is more than two years away")
    return found
