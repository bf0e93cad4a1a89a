"""Receiving: one row however often a message comes, in the thread where it belongs, whoever races."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Attachment, Message, MessageEvent, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import Database, Event, Job
from assistant.errors import NotFound
from assistant.services import inbox
from assistant.services.inbox import Received
from assistant.states import Author, Delivery, Direction, SuggestionState, ThreadState, TriageState
from assistant.values import Address, InboundMessage, StoredAttachment

START = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def message(number: str = "1", **values: Any) -> InboundMessage:
    """A mail from Ann; everything that is not said is like in her first one."""
    defaults: dict[str, Any] = {
        "channel": "email",
        "external_id": f"<{number}@example.com>",
        "sender": Address("email", "ann@example.com", "Ann"),
        "recipients": (Address("email", "support@example.org"),),
        "subject": "Where is my parcel?",
        "text": f"Hello {number}",
        "received_at": START,
        "content_hash": hashlib.sha256(repr((number, sorted(values))).encode()).hexdigest(),
    }
    return InboundMessage(**(defaults | values))


@pytest.fixture
def profile(database: Database) -> str:
    with database.transaction() as session:
        one = Profile(channel="email", name="Support", address="support@example.org")
        session.add(one)
        session.flush()
        return one.id


def receive(database: Database, profile: str, one: InboundMessage, **values: Any) -> Received:
    with database.transaction() as session:
        return inbox.receive(
            session, profile_id=profile, message=one, new_text=one.text, size=100, **({"attachments": ()} | values)
        )


def count(database: Database, table: Any) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def thread_of(database: Database, found: Received) -> Thread:
    with database.reading() as session:
        return session.get_one(Thread, found.thread_id)


def test_a_first_message_makes_a_contact_a_thread_and_a_task(database: Database, profile: str) -> None:
    jobs: list[Job] = []
    events: list[Event] = []
    database.dispatch, database.announce = jobs.append, events.append
    part = StoredAttachment("a.png", "image/png", 3, "parts/aa/aa", content_id="c", inline=True)
    found = receive(database, profile, message(), attachments=[part])
    assert found.created
    with database.reading() as session:
        row = session.get_one(Message, found.message_id)
        assert (row.direction, row.author, row.status) == (Direction.INBOUND, Author.CONTACT, Delivery.RECEIVED)
        assert (row.triage, row.text, row.from_name, row.occurred_at) == (TriageState.WAITING, "Hello 1", "Ann", START)
        thread = session.get_one(Thread, found.thread_id)
        assert (thread.unread, thread.message_count, thread.attachment_count) == (True, 1, 1)
        assert (thread.snippet, thread.base_subject) == ("Hello 1", "where is my parcel?")
        assert session.get_one(Contact, thread.contact_id).display_name == "Ann"
        assert session.scalars(select(MessageEvent.kind)).all() == ["received"]
        stored = session.scalars(select(Attachment)).one()
        assert (stored.filename, stored.content_type, stored.inline, stored.content_id) == (
            "a.png",
            "image/png",
            True,
            "c",
        )
    assert jobs == [Job("triage", (found.message_id,))]
    assert Event("thread.changed", {"thread_id": found.thread_id, "reason": "received"}) in events


def test_the_same_message_again_changes_nothing(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    version = thread_of(database, first).version
    jobs: list[Job] = []
    database.dispatch = jobs.append
    for _ in range(3):
        again = receive(database, profile, message())
        assert again == Received(first.message_id, first.thread_id, created=False)
    assert (count(database, Message), count(database, Thread), jobs) == (1, 1, [])
    assert thread_of(database, first).version == version


def test_another_content_under_the_same_id_is_another_message(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    other = message(content_hash="f" * 64, text="Something else")
    second, third = receive(database, profile, other), receive(database, profile, other)
    assert second.created
    assert second.message_id != first.message_id
    assert third == Received(second.message_id, second.thread_id, created=False)
    assert receive(database, profile, message()).message_id == first.message_id


def test_a_profile_that_is_not_there_is_told(database: Database) -> None:
    with pytest.raises(NotFound):
        receive(database, "nobody", message())


# -- threads


def reply(number: str = "2", parent: str = "1", **values: Any) -> InboundMessage:
    defaults = {"reply_to_id": f"<{parent}@example.com>", "subject": "Re: Where is my parcel?"}
    return message(number, **(defaults | values))


def test_a_reply_joins_its_parent_also_under_another_subject(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    assert receive(database, profile, reply()).thread_id == first.thread_id
    assert receive(database, profile, reply("3", subject="By the way")).thread_id == first.thread_id
    thread = thread_of(database, first)
    assert (thread.message_count, thread.subject) == (3, "Where is my parcel?")


def test_references_join_under_the_same_base_subject_only(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    known = ("<1@example.com>", "<unknown@example.net>")
    kept = message("2", references=known, reply_to_id=known[1], subject="AW: Where is my parcel?")
    recycled = message("3", references=known, reply_to_id=known[1], subject="A new question")
    assert receive(database, profile, kept).thread_id == first.thread_id
    assert receive(database, profile, recycled).thread_id != first.thread_id


def test_no_reference_is_no_reason_to_join(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    assert receive(database, profile, message("2", subject="Re: Where is my parcel?")).thread_id != first.thread_id


@pytest.mark.parametrize("subject", ["Fwd: Where is my parcel?", "WG: Where is my parcel?", "[x] FW: y", "转发：y"])
def test_a_forward_starts_a_thread_of_its_own(database: Database, profile: str, subject: str) -> None:
    first = receive(database, profile, message())
    assert receive(database, profile, reply(subject=subject)).thread_id != first.thread_id


@pytest.mark.checklist(42)
def test_a_stranger_who_knows_an_id_gets_a_thread_of_his_own_and_a_mark(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    eve = Address("email", "eve@example.net", "Ann")
    found = receive(database, profile, reply(sender=eve))
    assert found.thread_id != first.thread_id
    with database.reading() as session:
        assert "stranger-reply" in session.get_one(Message, found.message_id).defects
        assert (
            session.get_one(Thread, found.thread_id).contact_id != session.get_one(Thread, first.thread_id).contact_id
        )
        assert session.get_one(Thread, first.thread_id).message_count == 1


def test_somebody_who_was_in_copy_takes_part(database: Database, profile: str) -> None:
    bob = Address("email", "bob@example.com", "Bob")
    first = receive(database, profile, message(cc=(bob,)))
    found = receive(database, profile, reply(sender=bob))
    assert found.thread_id == first.thread_id
    with database.reading() as session:
        assert "stranger-reply" not in session.get_one(Message, found.message_id).defects


def test_somebody_who_names_no_sender_joins_nothing(database: Database, profile: str) -> None:
    nobody = {"sender": Address("email", "unreadable@invalid"), "defects": ("sender unreadable",)}
    first = receive(database, profile, message(**nobody))
    assert receive(database, profile, reply(**nobody)).thread_id != first.thread_id


def test_an_answer_that_comes_before_its_question_is_joined_by_it(database: Database, profile: str) -> None:
    answer = receive(database, profile, reply(received_at=START + timedelta(minutes=5)))
    question = receive(database, profile, message())
    assert question.thread_id == answer.thread_id
    thread = thread_of(database, question)
    assert (thread.message_count, thread.snippet) == (2, "Hello 2")
    assert thread.last_message_at == START + timedelta(minutes=5)


def test_two_answers_to_a_missing_question_are_one_thread(database: Database, profile: str) -> None:
    first = receive(database, profile, reply("2", "missing"))
    assert receive(database, profile, reply("3", "missing")).thread_id == first.thread_id


def test_ids_that_point_at_each_other_are_no_obstacle(database: Database, profile: str) -> None:
    one = message("1", reply_to_id="<2@example.com>", references=("<2@example.com>", "<1@example.com>"))
    two = message("2", reply_to_id="<1@example.com>", references=("<1@example.com>", "<2@example.com>"))
    assert receive(database, profile, one).thread_id == receive(database, profile, two).thread_id


def test_another_profile_has_threads_of_its_own(database: Database, profile: str) -> None:
    with database.transaction() as session:
        session.add(other := Profile(channel="email", name="Sales", address="sales@example.org"))
        session.flush()
    first = receive(database, profile, message())
    assert receive(database, other.id, reply()).thread_id != first.thread_id
    assert receive(database, other.id, message()).created


# -- what a new message does to its thread


@pytest.mark.parametrize("state", [ThreadState.CLOSED, ThreadState.SNOOZED, ThreadState.PENDING])
def test_a_person_reopens_a_thread_and_a_machine_does_not(database: Database, profile: str, state: ThreadState) -> None:
    first = receive(database, profile, message())
    for number, robot, expected in (("2", "auto-replied", state), ("3", "", ThreadState.OPEN)):
        with database.transaction() as session:
            session.get_one(Thread, first.thread_id).state = state
        receive(database, profile, reply(number, auto_submitted=robot))
        assert thread_of(database, first).state == expected


@pytest.mark.parametrize("state", [ThreadState.SPAM, ThreadState.TRASH])
def test_spam_and_trash_stay_where_they_are(database: Database, profile: str, state: ThreadState) -> None:
    first = receive(database, profile, message())
    with database.transaction() as session:
        session.get_one(Thread, first.thread_id).state = state
    receive(database, profile, reply())
    assert thread_of(database, first).state == state


def test_a_new_message_makes_open_suggestions_stale(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    with database.transaction() as session:
        for state in (SuggestionState.PROPOSED, SuggestionState.ACCEPTED):
            session.add(Suggestion(thread_id=first.thread_id, message_id=first.message_id, state=state, text="Hi"))
    receive(database, profile, reply())
    with database.reading() as session:
        states = set(session.scalars(select(Suggestion.state)).all())
    assert states == {SuggestionState.EXPIRED, SuggestionState.ACCEPTED}


def test_a_message_of_yesterday_does_not_become_the_newest(database: Database, profile: str) -> None:
    first = receive(database, profile, message())
    receive(database, profile, reply(received_at=START - timedelta(days=1)))
    thread = thread_of(database, first)
    assert (thread.last_message_at, thread.snippet, thread.message_count) == (START, "Hello 1", 2)


def test_imported_mail_is_not_shown_as_new(database: Database, profile: str) -> None:
    found = receive(database, profile, message(), backfill=True)
    assert not thread_of(database, found).unread
    receive(database, profile, reply())
    assert thread_of(database, found).unread
    receive(database, profile, reply("3"), backfill=True)
    assert thread_of(database, found).unread


# -- races


def _at_once(count_: int, work: Any) -> list[Any]:
    gate = threading.Barrier(count_)

    def one(number: int) -> Any:
        gate.wait(20)
        return work(number)

    with ThreadPoolExecutor(count_) as pool:
        return list(pool.map(one, range(count_)))


def test_one_message_delivered_eight_times_at_once_is_one_row(database: Database, profile: str) -> None:
    for round_ in range(5):
        one = message(f"race-{round_}", sender=Address("email", f"r{round_}@example.com"))
        found = _at_once(8, lambda _, one=one: receive(database, profile, one))
        assert len({each.message_id for each in found}) == 1
        assert [each.created for each in found].count(True) == 1
        assert thread_of(database, found[0]).message_count == 1
    assert (count(database, Message), count(database, Contact), count(database, Identity)) == (5, 5, 5)
    assert (count(database, Thread), count(database, MessageEvent)) == (5, 5)


def test_eight_first_messages_of_one_contact_at_once_make_one_contact(database: Database, profile: str) -> None:
    found = _at_once(8, lambda number: receive(database, profile, message(f"m{number}")))
    assert len({each.thread_id for each in found}) == 8
    assert (count(database, Contact), count(database, Identity), count(database, Message)) == (1, 1, 8)


def test_eight_replies_at_once_are_all_counted(database: Database, profile: str) -> None:
    people = tuple(Address("email", f"p{number}@example.com") for number in range(8))
    first = receive(database, profile, message(cc=people))
    found = _at_once(8, lambda number: receive(database, profile, reply(f"r{number}", sender=people[number])))
    assert {each.thread_id for each in found} == {first.thread_id}
    assert thread_of(database, first).message_count == 9


def test_a_question_and_its_answer_at_once_are_one_thread(database: Database, profile: str) -> None:
    for round_ in range(5):
        ann = Address("email", f"ann{round_}@example.com")
        receive(database, profile, message(f"known-{round_}", sender=ann))
        pair = (message(f"q{round_}", sender=ann), reply(f"a{round_}", f"q{round_}", sender=ann))
        found = _at_once(2, lambda number, pair=pair: receive(database, profile, pair[number]))
        assert found[0].thread_id == found[1].thread_id
