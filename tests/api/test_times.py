"""Moments as people type them, in their own time zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from api.inbox.times import PRESETS, moment, zone_of
from assistant.errors import InvalidInput

NOW = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)  # a Tuesday
NEW_YORK = zone_of("America/New_York")  # 8:00 there


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tue 9am", "2026-11-24 14:00"),
        ("wed 9am", "2026-11-25 14:00"),
        ("tomorrow", "2026-11-25 14:00"),
        ("tomorrow 14:30", "2026-11-25 19:30"),
        ("in 3 hours", "2026-11-24 16:00"),
        ("monday 9", "2026-11-30 14:00"),
        ("next monday", "2026-11-30 14:00"),
        ("friday", "2026-11-27 14:00"),
        ("1 dec", "2026-12-01 14:00"),
        ("2026-12-01 08:00", "2026-12-01 13:00"),
        ("demain 9h", "2026-11-25 14:00"),
        ("morgen 9 uhr", "2026-11-25 14:00"),
        ("9am", "2026-11-24 14:00"),
        ("7am", "2026-11-25 12:00"),
        ("in 2 days", "2026-11-26 13:00"),
    ],
)
def test_what_people_type_is_the_moment_they_mean(typed: str, meant: str) -> None:
    assert moment(typed, zone=NEW_YORK, now=NOW).strftime("%Y-%m-%d %H:%M") == meant


@pytest.mark.parametrize("typed", PRESETS)
def test_every_offered_moment_is_understood_and_lies_ahead(typed: str) -> None:
    assert moment(typed, zone=zone_of("Asia/Tokyo"), now=NOW) > NOW


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "understood"),
        ("gibberish", "understood"),
        ("2020-01-01", "past"),
        ("in 9 years", "two years"),
        ("x" * 9999, "understood"),
    ],
)
def test_what_is_no_moment_ahead_says_so(typed: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        moment(typed, zone=NEW_YORK, now=NOW)


@pytest.mark.parametrize(
    ("names", "zone"),
    [
        (("Europe/Lisbon",), "Europe/Lisbon"),
        (("", "Asia/Tokyo"), "Asia/Tokyo"),
        (("../../etc/passwd",), "UTC"),
        ((), "UTC"),
        (("Mars/Base",), "UTC"),
    ],
)
def test_a_time_zone_is_taken_from_the_first_name_that_is_one(names: tuple[str, ...], zone: str) -> None:
    assert str(zone_of(*names)) == zone
