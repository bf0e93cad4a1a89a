"""The search box: every kind of term, alone and together; what is no term stays a word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from assistant.clock import utcnow
from assistant.services.searching import EXAMPLES, read
from assistant.services.threads import Filters


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("refund order", Filters(search="refund order")),
        ("from:ana refund", Filters(search="refund", sender="ana")),
        ('subject:"late parcel" FROM:Bo', Filters(subject="late parcel", sender="bo")),
        ("is:unread has:attachment", Filters(unread=True, attachments=True)),
        ("is:read is:starred", Filters(unread=False, starred=True)),
        ("channel:mail is:read", Filters(unread=False, channel="email")),
        ("channel:SMS", Filters(channel="sms")),
        ("channel:<b>", Filters(search="channel:<b>")),
        ("is:unassigned", Filters(assignee="none")),
        ("is:mine", Filters(assignee="agent-1")),
        ("label:vip x", Filters(search="label:vip x")),
        ("is:odd has:wings before:soon", Filters(search="is:odd has:wings before:soon")),
        ("http://shop.example", Filters(search="http://shop.example")),
    ],
)
def test_terms_are_read(text: str, means: Filters) -> None:
    assert read(text, agent_id="agent-1") == means


def test_days_are_those_of_the_reader_and_before_includes_its_day() -> None:
    zone = ZoneInfo("Asia/Tokyo")
    found = read("after:2026-01-01 before:2026-01-31", zone=zone)
    assert found.after == datetime(2025, 12, 31, 15, tzinfo=UTC)
    assert found.before == datetime(2026, 1, 31, 15, tzinfo=UTC)
    week = read("after:7d").after
    assert week is not None
    assert abs(utcnow() - week - timedelta(days=7)) < timedelta(minutes=1)


def test_every_example_is_understood() -> None:
    for text, _ in EXAMPLES:
        assert ":" not in read(text).search


@pytest.mark.parametrize("text", ["before:9999-12-31", "after:" + "9" * 90, "from:", 'subject:"', "is:" * 60, "\0:%_"])
def test_odd_searches_are_words_or_nothing(text: str) -> None:
    assert isinstance(read(text), Filters)
