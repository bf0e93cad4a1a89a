"""Nothing is sent after a STOP, whoever's thread it is in; and what may have left is never called taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.errors import Conflict, NotAllowed, UncertainDelivery
from assistant.services import attempts, contacts, outbox, sweeper
from assistant.services.triage import save
from assistant.states import Author, Delivery, TriageState
from assistant.values import Address, Receipt, Refusal, TraceStep
from tests.pipelines.turns import turn as message_turn
from tests.support.outboxes import add_thread, queue, status_of

ANN, BO = Address("email", "ann@example.com"), Address("email", "bo@example.com")


def withdraw(database: Database, address: Address, kind: str = "withdrawn") -> None:
    with database.transaction() as session:
        contact = contacts.resolve(session, address)
        contacts.record_consent(session, contact.id, channel="email", kind=kind, source="test")


def in_thread_of_ann(database: Database, **values: Any) -> str:
    thread_id = add_thread(database, address=ANN.value)
    with database.transaction() as session:
        return outbox.queue_message(session, thread_id=thread_id, author=Author.AGENT, text="x", **values).id


@pytest.mark.parametrize("place", ["to", "cc", "bcc"])
def test_who_said_stop_in_their_own_thread_gets_no_copy_of_another_one(database: Database, place: str) -> None:
    add_thread(database, address=BO.value)
    message_id = in_thread_of_ann(database, **{place: [BO]})
    withdraw(database, BO)
    with database.transaction() as session, pytest.raises(NotAllowed, match="asked not to be written to"):
        thread_id = session.get_one(Message, message_id).thread_id
        outbox.queue_message(session, thread_id=thread_id, author=Author.AGENT, text="x", **{place: [BO]})
    with database.transaction() as session:
        assert attempts.claim(session, message_id, lease_seconds=60) is None
    assert status_of(database, message_id) is Delivery.CANCELLED


def test_the_stop_of_somebody_who_takes_part_is_theirs_and_not_the_threads(database: Database) -> None:
    thread_id = add_thread(database, address=ANN.value)
    add_thread(database, address=BO.value)
    with database.transaction() as session:
        first = session.query(Message).filter_by(thread_id=thread_id).one()
        stop = Message(
            thread_id=thread_id,
            profile_id=first.profile_id,
            direction=first.direction,
            author=Author.CONTACT,
            status=Delivery.RECEIVED,
            triage=TriageState.WAITING,
            external_id="<stop@example.com>",
            subject="Re: parcel",
            text="STOP",
            from_address=BO.value,
        )
        session.add(stop)
        session.flush()
        step = TraceStep("screen", "stop", 0.1, "the whole mail is an opt-out word", detail={"rule": "opt-out"})
        turn = replace(message_turn("STOP"), message_id=stop.id, thread_id=thread_id, trace=(step,))
        assert save(session, turn, state=TriageState.DONE)
    with database.reading() as session:
        assert contacts.may_write(session, channel="email", address=BO.value) is not None
        assert contacts.may_write(session, channel="email", address=ANN.value, thread_id=thread_id) is None


def test_who_asked_for_answers_elsewhere_is_not_written_to_there_either(database: Database) -> None:
    thread_id = add_thread(database, address=ANN.value, reply_to_address="ann.private@example.net")
    withdraw(database, ANN)
    with database.reading() as session:
        facts = {"channel": "email", "address": "ann.private@example.net"}
        assert contacts.may_write(session, **facts, thread_id=thread_id) is not None
        assert contacts.may_write(session, **facts) is None  # a stranger may name any address


def test_a_clock_that_is_set_back_changes_nothing_in_the_order_of_what_was_said(database: Database) -> None:
    add_thread(database, address=ANN.value)
    now = datetime.fromisoformat("2026-11-29T12:00:00+00:00")
    with time_machine.travel(now + timedelta(hours=3), tick=False):
        withdraw(database, ANN, "granted")
    with time_machine.travel(now, tick=False):
        withdraw(database, ANN)
    with database.reading() as session:
        assert contacts.may_write(session, channel="email", address=ANN.value) is not None


def to_resend(database: Database) -> str:
    """A message whose first attempt has no known outcome, and that a person sends again."""
    message_id = queue(database, add_thread(database, address=ANN.value))
    with database.transaction() as session:
        claim = attempts.claim(session, message_id, lease_seconds=60)
        assert claim is not None
        attempts.record_failure(session, claim, UncertainDelivery("no answer"))
    with database.transaction() as session:
        outbox.resolve_unknown(session, message_id, outcome="resend", agent_id=None)
    return message_id


def test_what_may_have_left_cannot_be_taken_back(database: Database) -> None:
    message_id = to_resend(database)
    with database.transaction() as session, pytest.raises(Conflict, match="somebody may have it"):
        outbox.cancel(session, message_id, agent_id=None)
    assert status_of(database, message_id) is Delivery.QUEUED


def test_what_some_recipients_have_cannot_be_taken_back(database: Database) -> None:
    message_id = in_thread_of_ann(database, cc=[BO])
    with database.transaction() as session:
        claim = attempts.claim(session, message_id, lease_seconds=60)
        assert claim is not None
        later = Refusal(BO.value, "451 later", later=True)
        assert attempts.record_sent(session, claim, Receipt(message_id, refused=(later,))) is Delivery.QUEUED
    with database.transaction() as session, pytest.raises(Conflict):
        outbox.cancel(session, message_id, agent_id=None)


def test_a_stop_before_a_message_is_sent_again_leaves_it_unknown_and_sends_nothing(database: Database) -> None:
    message_id = to_resend(database)
    withdraw(database, ANN)
    with database.transaction() as session:
        assert attempts.claim(session, message_id, lease_seconds=60) is None
    with database.reading() as session:
        row = session.get_one(Message, message_id)
        assert (row.status, row.error_code) == (Delivery.UNKNOWN, "not-allowed")
        assert "may have reached" in row.error_detail


def test_a_message_that_ends_its_worker_each_time_is_left_to_a_person(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    for attempt in (1, 2, 3):
        with database.transaction() as session:
            claim = attempts.claim(session, message_id, lease_seconds=1)
            assert claim is not None
            assert claim.attempt == attempt
        with database.transaction() as session:
            swept = sweeper.sweep(session, now=utcnow() + timedelta(seconds=2), repeatable={"email"}, max_attempts=3)
            assert (swept.retried, swept.unknown) == ((1, 0) if attempt < 3 else (0, 1))
    assert status_of(database, message_id) is Delivery.UNKNOWN
