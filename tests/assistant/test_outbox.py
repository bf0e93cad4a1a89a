"""The outbox: every move it allows, every one it refuses, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.contacts import Consent, Suppression
from assistant.db.messages import Message, MessageEvent, Thread
from assistant.db.profiles import Profile, ProfileError
from assistant.db.session import Database, Event, Job
from assistant.errors import (
    Conflict,
    CredentialsRefused,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotifyrError,
    PermanentChannelError,
    RecipientRefused,
    StorageError,
    TemporaryChannelError,
    UncertainDelivery,
)
from assistant.events import DeliveryEvent, EventKind
from assistant.services import attempts, contacts, outbox, profiles, sweeper, threads
from assistant.services.attempts import Claim
from assistant.states import Author, Delivery, Direction, ProfileState, ThreadState
from assistant.values import Address, MessageClass, Receipt, Refusal
from tests.support.outboxes import add_thread, queue, status_of


@pytest.fixture
def jobs(database: Database) -> Iterator[list[Job | Event]]:
    found: list[Job | Event] = []
    database.dispatch = found.append
    database.announce = found.append
    yield found


def claim(database: Database, message_id: str, *, lease: float = 60) -> Claim | None:
    with database.transaction() as session:
        return attempts.claim(session, message_id, lease_seconds=lease)


def claimed(database: Database, message_id: str, *, lease: float = 60) -> Claim:
    found = claim(database, message_id, lease=lease)
    assert found is not None
    return found


def fail(database: Database, claim: Claim, error: NotifyrError, *, most: int = 8) -> Delivery | None:
    with database.transaction() as session:
        return attempts.record_failure(session, claim, error, max_attempts=most)


def row(database: Database, message_id: str) -> Message:
    with database.reading() as session:
        return session.get_one(Message, message_id)


def trail(database: Database, message_id: str) -> list[str]:
    with database.reading() as session:
        return list(
            session.scalars(
                select(MessageEvent.kind).where(MessageEvent.message_id == message_id).order_by(MessageEvent.id)
            )
        )


def make_due(database: Database, message_id: str) -> None:
    with database.transaction() as session:
        session.get_one(Message, message_id).release_at = utcnow() - timedelta(seconds=1)


# -- queueing


def test_a_reply_goes_to_the_newest_sender_and_names_its_parent(database: Database, jobs: list[Job | Event]) -> None:
    thread_id = add_thread(
        database, address="ann@example.com", external_id="<q@example.com>", references=["<p@example.com>"]
    )
    message = row(database, queue(database, thread_id))
    assert message.status == Delivery.QUEUED
    assert message.to_addresses == [{"address": "ann@example.com", "name": "Ann"}]
    assert (message.in_reply_to, message.references) == ("<q@example.com>", ["<p@example.com>", "<q@example.com>"])
    assert message.external_id == f"<{message.id}@example.org>"
    assert message.subject == "Re: Where is my parcel?"
    assert Job("deliver", (message.id,)) in jobs
    assert Event("message.changed", {"thread_id": thread_id, "message_id": message.id, "status": "queued"}) in jobs
    with database.reading() as session:
        thread = session.get_one(Thread, thread_id)
        assert (thread.last_direction, thread.has_outbound, thread.message_count) == (Direction.OUTBOUND, True, 2)
        assert thread.snippet == "Dear Ann, it is on its way."


def test_ids_that_are_not_message_ids_stay_out_of_the_headers(database: Database) -> None:
    thread_id = add_thread(
        database, external_id="<twice@example.com>#0123456789ab", references=["sha256:ab", "<a b@x>", "<ok@x>"]
    )
    message = row(database, queue(database, thread_id))
    assert (message.in_reply_to, message.references) == ("<twice@example.com>", ["<ok@x>", "<twice@example.com>"])


def test_a_long_thread_keeps_the_first_and_the_newest_ids(database: Database) -> None:
    ids = [f"<{number}@example.com>" for number in range(200)]
    message = row(database, queue(database, add_thread(database, references=ids)))
    assert message.references[0] == "<0@example.com>"
    assert message.references[-2] == "<199@example.com>"
    assert len(message.references) == 30


def test_the_reply_to_address_is_answered(database: Database) -> None:
    message = row(database, queue(database, add_thread(database, reply_to_address="desk@example.com")))
    assert message.to_addresses[0]["address"] == "desk@example.com"


def test_the_same_key_is_the_same_message(database: Database) -> None:
    thread_id = add_thread(database)
    assert queue(database, thread_id, key="k") == queue(database, thread_id, key="k", text="other")


def test_names_and_subjects_from_strangers_become_one_line(database: Database) -> None:
    thread_id = add_thread(database, subject="Hi\u2028Bcc: x@y", from_name="Ann\nBcc: x@y")
    message = row(database, queue(database, thread_id))
    assert "\n" not in message.to_addresses[0]["name"]
    assert message.subject == "Re: Hi Bcc: x@y"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_message_is_refused(database: Database, text: str) -> None:
    with pytest.raises(InvalidInput):
        queue(database, add_thread(database), text=text)


def test_a_thread_that_is_not_there_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound):
        queue(database, "nowhere")


def test_nobody_is_queued_for_who_must_not_be_written_to(database: Database) -> None:
    thread_id = add_thread(database, address="ann@example.com")
    with database.transaction() as session:
        contacts.suppress(session, Address("email", "ann@example.com"), cause="complaint")
    with pytest.raises(NotAllowed):
        queue(database, thread_id)


# -- loops


def test_a_peer_gets_two_automatic_mails_a_day_in_a_thread_and_any_number_of_personal_ones(database: Database) -> None:
    thread_id = add_thread(database)
    for _ in range(2):
        queue(database, thread_id, message_class=MessageClass.AUTO_REPLY)
    with pytest.raises(NotAllowed, match="automatic"):
        queue(database, thread_id, message_class=MessageClass.AUTO_GENERATED)
    queue(database, thread_id)


def test_automatic_mails_of_all_threads_with_one_contact_are_counted_together(database: Database) -> None:
    first = add_thread(database, address="robot@example.com")
    with database.transaction() as session:
        thread = session.get_one(Thread, first)
        others = [
            Thread(profile_id=thread.profile_id, contact_id=thread.contact_id, channel="email", subject=f"{number}")
            for number in range(6)
        ]
        session.add_all(others)
        session.flush()
        ids = [other.id for other in others]
    sent = 0
    with pytest.raises(NotAllowed, match="automatic"):
        for thread_id in ids:
            for _ in range(2):
                with database.transaction() as session:
                    outbox.queue_message(
                        session,
                        thread_id=thread_id,
                        author=Author.ASSISTANT,
                        text="Thank you",
                        to=[Address("email", "robot@example.com")],
                        message_class=MessageClass.AUTO_REPLY,
                    )
                sent += 1
    assert sent == 10


def test_automatic_mail_never_goes_to_an_address_of_our_own(database: Database) -> None:
    thread_id = add_thread(database, address="support@example.org")
    with pytest.raises(NotAllowed, match="own"):
        queue(database, thread_id, message_class=MessageClass.AUTO_REPLY)


# -- the undo window


def test_a_held_message_waits_and_can_be_taken_back(database: Database, jobs: list[Job | Event]) -> None:
    thread_id = add_thread(database)
    message_id = queue(database, thread_id, hold=10)
    assert Job("deliver", (message_id,), 10.0) in jobs
    assert claim(database, message_id) is None
    with database.transaction() as session:
        outbox.cancel(session, message_id, agent_id=None)
    assert status_of(database, message_id) is Delivery.CANCELLED
    make_due(database, message_id)
    assert claim(database, message_id) is None
    with database.reading() as session:
        thread = session.get_one(Thread, thread_id)
        assert (thread.message_count, thread.has_outbound, thread.last_direction) == (1, False, Direction.INBOUND)
        assert thread.snippet == "Hello?"


def test_a_held_message_leaves_when_its_time_has_come(database: Database) -> None:
    message_id = queue(database, add_thread(database), hold=10)
    make_due(database, message_id)
    assert claimed(database, message_id).attempt == 1


def test_send_now_ends_the_wait(database: Database, jobs: list[Job | Event]) -> None:
    message_id = queue(database, add_thread(database), hold=10)
    with database.transaction() as session:
        outbox.send_now(session, message_id)
    assert Job("deliver", (message_id,)) in jobs
    assert claim(database, message_id) is not None


@pytest.mark.parametrize("act", [outbox.cancel, outbox.send_now, outbox.retry])
def test_what_comes_too_late_is_a_conflict_that_names_the_state(database: Database, act: object) -> None:
    message_id = queue(database, add_thread(database))
    claimed(database, message_id)
    with database.transaction() as session, pytest.raises(Conflict) as caught:
        act(session, message_id, agent_id=None)  # type: ignore[operator]
    assert caught.value.detail == {"state": "sending"}


@pytest.mark.parametrize("act", [outbox.cancel, outbox.send_now, outbox.retry])
def test_a_message_that_is_not_in_the_outbox_is_not_found(database: Database, act: object) -> None:
    thread_id = add_thread(database)
    with database.reading() as session:
        inbound = session.scalars(select(Message.id).where(Message.thread_id == thread_id)).one()
    for message_id in (inbound, "nothing"):
        with database.transaction() as session, pytest.raises(NotFound):
            act(session, message_id, agent_id=None)  # type: ignore[operator]


# -- claims


def test_one_of_two_claims_wins(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    first, second = claim(database, message_id), claim(database, message_id)
    assert first is not None
    assert second is None
    assert first.to == (Address("email", first.to[0].value, "Ann"),)


@pytest.mark.parametrize("how", ["suppressed", "withdrew"])
def test_who_says_stop_after_queueing_is_not_written_to(database: Database, how: str) -> None:
    thread_id = add_thread(database, address="ann@example.com")
    message_id = queue(database, thread_id)
    with database.transaction() as session:
        contact_id = session.get_one(Thread, thread_id).contact_id
        if how == "suppressed":
            contacts.suppress(session, Address("email", "ann@example.com"), cause="opt-out")
        else:
            contacts.record_consent(session, contact_id, channel="email", kind="withdrawn", source="test")
    assert claim(database, message_id) is None
    message = row(database, message_id)
    assert (message.status, message.error_code) == (Delivery.CANCELLED, "not-allowed")
    assert message.error_detail
    assert "cancelled" in trail(database, message_id)


def test_an_accepted_message_is_sent_and_says_so(database: Database, jobs: list[Job | Event]) -> None:
    message_id = queue(database, add_thread(database))
    found = claimed(database, message_id)
    with database.transaction() as session:
        assert attempts.record_sent(session, found, Receipt(message_id, detail="250 queued as 7"))
        assert not attempts.record_sent(session, found, Receipt(message_id))
    message = row(database, message_id)
    assert (message.status, message.receipt, message.claim_token) == (Delivery.SENT, "250 queued as 7", None)
    assert trail(database, message_id) == ["queued", "claimed:1", "sent:1"]


def test_a_refused_copy_is_told_and_a_bad_address_is_suppressed(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    found = claimed(database, message_id)
    refused = (Refusal("gone@example.com", "550 5.1.1", bad_address=True), Refusal("full@example.com", "552 5.2.2"))
    with database.transaction() as session:
        attempts.record_sent(session, found, Receipt(message_id, refused=refused))
    with database.reading() as session:
        assert session.scalars(select(Suppression.address)).all() == ["gone@example.com"]


# -- failures know their fate


@pytest.mark.parametrize("error", [TemporaryChannelError("later"), StorageError("blob store is down")])
def test_a_temporary_failure_is_tried_again_later_each_time_and_given_up_at_last(
    database: Database, error: NotifyrError, jobs: list[Job | Event]
) -> None:
    message_id = queue(database, add_thread(database))
    delays = []
    for attempt in range(1, 5):
        found = claimed(database, message_id)
        assert found.attempt == attempt
        fail(database, found, error, most=4)
        message = row(database, message_id)
        if attempt == 4:
            assert message.status == Delivery.FAILED
            assert "4 tries" in message.error_detail
            break
        assert message.status == Delivery.QUEUED
        assert message.release_at is not None
        delays.append((message.release_at - utcnow()).total_seconds())
        assert claim(database, message_id) is None, "not before its time"
        make_due(database, message_id)
    assert 2 < delays[0] <= 5
    assert 7 < delays[1] <= 15
    assert 22 < delays[2] <= 45
    assert len([job for job in jobs if isinstance(job, Job) and job.delay]) == 3


def test_the_other_side_may_ask_for_more_time(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    fail(database, claimed(database, message_id), TemporaryChannelError("later", delay=900))
    release_at = row(database, message_id).release_at
    assert release_at is not None
    assert release_at > utcnow() + timedelta(seconds=890)


def test_a_refused_recipient_fails_and_is_suppressed(database: Database) -> None:
    message_id = queue(database, add_thread(database, address="gone@example.com"))
    fail(database, claimed(database, message_id), RecipientRefused("550 no such user"))
    assert status_of(database, message_id) is Delivery.FAILED
    with database.reading() as session:
        assert session.scalars(select(Suppression.address)).all() == ["gone@example.com"]


def test_a_refused_message_says_nothing_about_the_address(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    fail(database, claimed(database, message_id), PermanentChannelError("554 policy"))
    assert status_of(database, message_id) is Delivery.REJECTED
    with database.reading() as session:
        assert session.scalars(select(Suppression)).all() == []


def test_refused_credentials_block_the_profile_and_hold_its_messages(
    database: Database, jobs: list[Job | Event]
) -> None:
    first, second = (queue(database, add_thread(database)) for _ in range(2))
    fail(database, claimed(database, first), CredentialsRefused("535 no"))
    with database.reading() as session:
        profile = session.scalars(select(Profile)).one()
        assert profile.state == ProfileState.BLOCKED
        assert "535" in profile.state_reason
        assert session.scalars(select(ProfileError.code)).all() == ["credentials-refused"]
    for message_id in (first, second):
        assert claim(database, message_id) is None
        assert status_of(database, message_id) is Delivery.QUEUED
    jobs.clear()
    with database.transaction() as session:
        assert sweeper.sweep(session, now=utcnow() + timedelta(hours=1)).deliver == 0
        profiles.unblock(session, profile.id, actor="test")
    assert {job.args[0] for job in jobs if isinstance(job, Job)} == {first, second}
    assert claimed(database, first).attempt == 1, "the refused try is not counted"


def test_an_error_that_repeats_is_counted_not_listed(database: Database) -> None:
    add_thread(database)
    with database.transaction() as session:
        profile_id = session.scalars(select(Profile.id)).one()
        for _ in range(3):
            profiles.block(session, profile_id, code="x", text="same")
        assert session.scalars(select(ProfileError.count)).all() == [3]


def test_an_uncertain_hand_over_is_never_repeated_by_itself(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    fail(database, claimed(database, message_id), UncertainDelivery("no answer"))
    assert status_of(database, message_id) is Delivery.UNKNOWN
    with database.transaction() as session:
        sweeper.sweep(session, now=utcnow() + timedelta(days=30))
    assert claim(database, message_id) is None
    assert status_of(database, message_id) is Delivery.UNKNOWN


@pytest.mark.parametrize(
    ("outcome", "status"), [("sent", Delivery.SENT), ("failed", Delivery.FAILED), ("resend", Delivery.QUEUED)]
)
def test_a_person_settles_what_is_unknown_once(database: Database, outcome: str, status: Delivery) -> None:
    message_id = queue(database, add_thread(database))
    fail(database, claimed(database, message_id), UncertainDelivery("no answer"))
    with database.transaction() as session:
        outbox.resolve_unknown(session, message_id, outcome=outcome, agent_id="7")
    assert status_of(database, message_id) is status
    with database.transaction() as session, pytest.raises(Conflict):
        outbox.resolve_unknown(session, message_id, outcome=outcome, agent_id="8")
    with database.transaction() as session, pytest.raises(InvalidInput):
        outbox.resolve_unknown(session, message_id, outcome="perhaps", agent_id="8")


def test_a_failed_message_can_be_tried_again_from_the_start(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    fail(database, claimed(database, message_id), TemporaryChannelError("later"), most=1)
    with database.transaction() as session:
        outbox.retry(session, message_id, agent_id=None)
    assert claimed(database, message_id).attempt == 1


# -- leases and fences


def test_a_dead_workers_claim_becomes_unknown_and_the_living_ones_stays(database: Database) -> None:
    dead, alive = (queue(database, add_thread(database)) for _ in range(2))
    claimed(database, dead, lease=1)
    claimed(database, alive, lease=3600)
    with database.transaction() as session:
        assert sweeper.sweep(session, now=utcnow() + timedelta(seconds=2)).unknown == 1
        assert sweeper.sweep(session, now=utcnow() + timedelta(seconds=2)).unknown == 0
    assert (status_of(database, dead), status_of(database, alive)) == (Delivery.UNKNOWN, Delivery.SENDING)


def test_a_channel_that_refuses_repeats_is_simply_tried_again(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    claimed(database, message_id, lease=1)
    with database.transaction() as session:
        assert sweeper.sweep(session, now=utcnow() + timedelta(seconds=2), repeatable={"email"}).retried == 1
    assert claimed(database, message_id).attempt == 2


def test_a_worker_that_was_given_up_may_still_tell_the_truth(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    found = claimed(database, message_id, lease=1)
    with database.transaction() as session:
        sweeper.sweep(session, now=utcnow() + timedelta(seconds=2))
        assert attempts.record_sent(session, found, Receipt(message_id))
    assert status_of(database, message_id) is Delivery.SENT


def test_a_stale_token_can_record_nothing_after_a_person_decided(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    stale = claimed(database, message_id, lease=1)
    with database.transaction() as session:
        sweeper.sweep(session, now=utcnow() + timedelta(seconds=2))
        outbox.resolve_unknown(session, message_id, outcome="resend", agent_id=None)
    newest = claimed(database, message_id)
    with database.transaction() as session:
        assert not attempts.record_sent(session, stale, Receipt(message_id))
        assert attempts.record_failure(session, stale, TemporaryChannelError("x")) is None
        assert attempts.record_sent(session, newest, Receipt(message_id))


# -- the sweeper and reports


def test_the_sweeper_hints_at_forgotten_rows_and_waits_before_it_repeats(
    database: Database, jobs: list[Job | Event]
) -> None:
    thread_id = add_thread(database, triage="waiting")
    queued, held = queue(database, thread_id), queue(database, thread_id, hold=30)
    jobs.clear()
    with database.transaction() as session:
        assert sweeper.sweep(session, now=utcnow()) == sweeper.Swept()
    now = utcnow() + timedelta(minutes=5)
    with database.transaction() as session:
        swept = sweeper.sweep(session, now=now)
    assert (swept.triage, swept.deliver) == (1, 2)
    assert {job.args[0] for job in jobs if isinstance(job, Job) and job.task == "deliver"} == {queued, held}
    with database.transaction() as session:
        assert sweeper.sweep(session, now=now) == sweeper.Swept()
        assert sweeper.sweep(session, now=now + timedelta(minutes=5)).deliver == 2


def test_a_snoozed_thread_comes_back_unread_when_its_moment_has_come_and_only_once(
    database: Database, jobs: list[Job | Event]
) -> None:
    early, late = add_thread(database), add_thread(database)
    now = utcnow()
    with database.transaction() as session:
        for thread_id, hours in ((early, 1), (late, 9)):
            threads.mark_read(session, thread_id)
            threads.snooze(session, thread_id, until=now + timedelta(hours=hours))
    jobs.clear()
    for when, woken in ((now, 0), (now + timedelta(hours=2), 1), (now + timedelta(hours=2), 0)):
        with database.transaction() as session:
            assert sweeper.sweep(session, now=when).woken == woken
    told = [job.payload for job in jobs if isinstance(job, Event) and job.kind == "thread.changed"]
    assert told == [{"thread_id": early, "reason": "snooze ended"}]
    with database.reading() as session:
        back, away = threads.get_thread(session, early), threads.get_thread(session, late)
        assert (back.state, back.unread, back.snoozed_until) == (ThreadState.OPEN, True, None)
        assert (away.state, away.unread) == (ThreadState.SNOOZED, False)
        assert [one.id for one in threads.list_threads(session, "snoozed").items] == [late]


def test_reports_are_taken_in_once_and_never_move_a_message_backwards(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    found = claimed(database, message_id)
    with database.transaction() as session:
        attempts.record_sent(session, found, Receipt(message_id))

    def report(kind: EventKind) -> bool:
        with database.transaction() as session:
            return attempts.apply_event(
                session,
                DeliveryEvent(f"e-{kind}", kind, found.external_id, utcnow(), reason="bad-address", detail="550"),
            )

    assert report(EventKind.BOUNCED)
    assert not report(EventKind.BOUNCED)
    assert report(EventKind.DELIVERED)
    assert status_of(database, message_id) is Delivery.BOUNCED
    with database.transaction() as session:
        assert not attempts.apply_event(session, DeliveryEvent("e", EventKind.BOUNCED, "<not-ours@x>", utcnow()))


def test_the_default_profile_is_made_once_and_follows_its_display_name(database: Database) -> None:
    from assistant.settings import load_settings

    for name in ("Support", "Support", "Help desk"):
        with database.transaction() as session:
            profile = profiles.ensure_default(
                session, load_settings({}, mail_address="Desk@EXAMPLE.org", mail_name=name)
            )
            assert (profile.address, profile.name) == ("Desk@example.org", name)
    with database.reading() as session:
        assert len(session.scalars(select(Profile)).all()) == 1
        assert session.scalars(select(Consent)).all() == []
