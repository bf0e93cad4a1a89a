"""The search box: every kind of term, alone and together; what is no term stays a word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.contacts import Contact, Identity
from assistant.db.session import Database
from assistant.services import directory, threads
from assistant.services.searching import EXAMPLES, read
from assistant.services.threads import Filters
from tests.assistant.rows import a_thread


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


@pytest.mark.checklist(24)
def test_no_sign_of_a_search_means_more_than_itself(database: Database) -> None:
    """Not in a search, not in `from:` and `subject:`, not among contacts, not while somebody types a name."""
    with database.transaction() as session:
        for name, address, subject in (
            ("Ana 100%", "ana_b@mail.example", "50% off/on"),
            ("Ana 1000", "anaxb@mail.example", "500 off on"),
        ):
            thread = a_thread(session, address=address)
            thread.subject = subject
            session.get_one(Contact, thread.contact_id).display_name = name
    with database.reading() as session:
        (wanted,) = session.scalars(select(Identity.contact_id).where(Identity.address == "ana_b@mail.example"))
        for sign, found in (("100%", 1), ("ana_b", 1), ("%", 1), ("_", 1), ("\\", 0), ("a%a", 0), ("ana", 2)):
            by_name = [one.id for one in directory.list_contacts(session, search=sign).items]
            typed = [one.id for one in directory.find(session, sign, limit=9)]
            sender = threads.list_threads(session, "all", filters=Filters(sender=sign)).items
            searched = threads.list_threads(session, "all", filters=Filters(search=sign)).items
            senders = [one.contact_id for one in sender]
            for way in (by_name, typed, senders, [one.contact_id for one in searched]):
                assert len(way) == found and (found != 1 or way == [wanted]), (sign, way)
        for sign, found in (("50%", 1), ("%", 1), ("f/o", 1), ("f_o", 0), ("5%f", 0), ("off", 2)):
            subjects = threads.list_threads(session, "all", filters=Filters(subject=sign)).items
            assert len(subjects) == found and (found != 1 or subjects[0].contact_id == wanted), sign
