"""The verdict on an outgoing message: what follows from a score, kept once, and what is held leaves by a release only."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from assistant.clock import utcnow
from assistant.db.access import AuditEntry
from assistant.db.messages import Message, MessageEvent
from assistant.db.session import Database
from assistant.errors import Conflict, NotFound
from assistant.services import attempts, outbox, profiles, restoring, screening, sweeper
from assistant.services.screening import Limits, Outgoing, Part, Seen, decide
from assistant.states import Delivery, Screening
from assistant.values import MessageClass
from tests.assistant.rows import an_agent
from tests.support.outboxes import add_thread, queue, status_of

FOUND = (Part("prize", "it tells of a prize", 0.65), Part("exclaims", "it has many exclamation marks", 0.3))
SPAM = Seen(0.755, FOUND)
CLEAN = Seen(0.0)


def row(database: Database, message_id: str) -> Message:
    with database.reading() as session:
        return session.get_one(Message, message_id)


def trail(database: Database, message_id: str) -> dict[str, str]:
    with database.reading() as session:
        found = session.scalars(select(MessageEvent).where(MessageEvent.message_id == message_id)).all()
        return {one.kind: one.detail for one in found}


def keep(database: Database, message_id: str, outcome: Screening, seen: Seen = SPAM) -> bool:
    with database.transaction() as session:
        return screening.keep(session, message_id, seen, outcome)


def look(database: Database, message_id: str) -> Outgoing | None:
    with database.reading() as session:
        return screening.unseen(session, message_id)


def claim(database: Database, message_id: str) -> attempts.Claim | None:
    with database.transaction() as session:
        return attempts.claim(session, message_id, lease_seconds=60)


def release(database: Database, message_id: str) -> str:
    with database.transaction() as session:
        agent = an_agent(session).id
        outbox.release(session, message_id, agent_id=agent)
    return agent


# -- what follows from a score


@pytest.mark.parametrize(
    ("score", "machine", "outcome"),
    [
        (0.0, True, Screening.ALLOW),
        (0.49, True, Screening.ALLOW),
        (0.5, True, Screening.WARN),
        (0.7, True, Screening.HOLD),
        (0.99, True, Screening.HOLD),
        (0.49, False, Screening.ALLOW),
        (0.5, False, Screening.WARN),
        (0.99, False, Screening.WARN),
    ],
)
def test_by_default_a_machine_is_held_and_a_person_is_only_warned(
    score: float, machine: bool, outcome: Screening
) -> None:
    assert decide(Seen(score), Limits(), machine=machine) is outcome


@pytest.mark.parametrize(
    ("limits", "machine", "outcome"),
    [
        (Limits(reject=0.9), True, Screening.REJECT),
        (Limits(reject=0.9), False, Screening.WARN),
        (Limits(hold_agents=0.9), False, Screening.HOLD),
        (Limits(hold_agents=0.9, reject_agents=0.9), False, Screening.REJECT),
        (Limits(warn=1.0, hold=1.0), True, Screening.ALLOW),
        # The strongest that is reached, in whatever order the limits stand.
        (Limits(warn=1.0, hold=0.3), True, Screening.HOLD),
    ],
)
def test_each_limit_is_of_its_author_and_one_means_never(limits: Limits, machine: bool, outcome: Screening) -> None:
    assert decide(Seen(0.95), limits, machine=machine) is outcome


@pytest.mark.parametrize("default", [Screening.ALLOW, Screening.WARN, Screening.HOLD])
def test_what_could_not_be_scored_has_a_declared_default_and_what_was_found_still_counts(default: Screening) -> None:
    limits = Limits(unscored=default)
    assert decide(Seen(None, missing=("words",)), limits, machine=False) is default
    assert decide(Seen(0.0), limits, machine=True) is Screening.ALLOW, "nothing was missing"
    assert decide(Seen(0.8, missing=("words",)), limits, machine=True) is Screening.HOLD


def test_the_label_and_the_reasons_say_what_weighed_most_first() -> None:
    assert (SPAM.label, CLEAN.label, Seen(None).label) == ("spam", "ham", "")
    assert SPAM.reasons == "it tells of a prize (0.65); it has many exclamation marks (0.30)"
    assert CLEAN.reasons == "nothing was found"
    assert Seen(None, missing=("words",)).reasons == "not scored by its words"


# -- what is looked at


def test_a_due_message_is_looked_at_once_before_its_first_attempt(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    found = look(database, message_id)
    assert found is not None
    assert (found.text, found.subject, found.machine) == (
        "Dear Ann, it is on its way.",
        "Re: Where is my parcel?",
        False,
    )
    assert keep(database, message_id, Screening.ALLOW, CLEAN)
    assert look(database, message_id) is None
    assert not keep(database, message_id, Screening.HOLD), "the first verdict stands"
    assert row(database, message_id).screening is Screening.ALLOW


def test_what_waits_for_undo_or_was_tried_or_is_gone_is_not_looked_at(database: Database) -> None:
    thread_id = add_thread(database)
    held, tried = queue(database, thread_id, hold=10), queue(database, thread_id)
    assert claim(database, tried) is not None
    assert [look(database, one) for one in (held, tried, "nothing")] == [None] * 3
    assert not keep(database, held, Screening.ALLOW)
    with database.reading() as session:
        inbound = session.scalar(select(Message.id).where(Message.direction == "inbound"))
    assert look(database, str(inbound)) is None


@pytest.mark.parametrize("kind", [MessageClass.AUTO_REPLY, MessageClass.AUTO_GENERATED])
def test_automatic_mail_is_a_machines(database: Database, kind: MessageClass) -> None:
    found = look(database, queue(database, add_thread(database), message_class=kind))
    assert found is not None
    assert found.machine


def test_recipients_without_a_part_in_the_thread_are_counted(database: Database) -> None:
    thread_id = add_thread(
        database, address="ann@example.com", cc_addresses=[{"address": "Kim@example.com", "name": "Kim"}]
    )
    message_id = queue(database, thread_id)
    with database.transaction() as session:
        message = session.get_one(Message, message_id)
        message.cc_addresses = [{"address": one, "name": ""} for one in ("kim@example.com", "support@example.org")]
        message.bcc_addresses = [{"address": f"x{number}@example.net", "name": ""} for number in range(12)]
    found = look(database, message_id)
    assert found is not None
    assert (found.recipients, found.strangers) == (15, 12)


# -- each outcome


@pytest.mark.parametrize("outcome", [Screening.ALLOW, Screening.WARN])
def test_what_is_allowed_or_warned_of_leaves_with_its_verdict(database: Database, outcome: Screening) -> None:
    message_id = queue(database, add_thread(database))
    assert keep(database, message_id, outcome)
    assert claim(database, message_id) is not None
    message = row(database, message_id)
    assert (message.screening, message.spam_label, message.spam_score) == (outcome, "spam", 0.755)
    assert trail(database, message_id)[f"screened:{outcome}"] == f"spam, 0.76: {SPAM.reasons}"
    assert message.error_code == ""


def test_a_held_message_is_sent_by_no_claim_sweep_retry_unblocking_or_passing_of_time(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    assert keep(database, message_id, Screening.HOLD)
    message = row(database, message_id)
    assert (message.status, message.release_at, message.error_code) == (Delivery.HELD, None, "looks-like-spam")
    assert message.error_detail.startswith("it looks like spam: it tells of a prize")
    assert message.error_detail.endswith("Send it anyway, or take it back and write it in other words.")
    hinted: list[str] = []
    database.dispatch = lambda job: hinted.append(job.task)
    for days in (0, 1, 400):
        with database.transaction() as session:
            assert sweeper.sweep(session, now=utcnow() + timedelta(days=days)).deliver == 0
        assert claim(database, message_id) is None
    for act in (outbox.retry, outbox.send_now):
        with database.transaction() as session, pytest.raises(Conflict):
            act(session, message_id, agent_id=None)
    with database.transaction() as session:
        profiles.block(session, message.profile_id, code="x", text="y")
        profiles.unblock(session, message.profile_id, actor="test")
    assert hinted == []
    # Whatever else somebody writes into its row.
    for values in ({"status": Delivery.QUEUED}, {"status": Delivery.HELD, "release_at": utcnow()}):
        with database.transaction() as session:
            session.execute(update(Message).where(Message.id == message_id).values(**values))
        assert claim(database, message_id) is None


def test_a_release_sends_once_says_who_and_is_not_scored_again(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    keep(database, message_id, Screening.HOLD)
    jobs: list[tuple[str, ...]] = []
    database.dispatch = lambda job: jobs.append((job.task, *job.args))
    agent = release(database, message_id)
    assert jobs == [("deliver", message_id)]
    with pytest.raises(Conflict, match="is not held back as spam: it is queued"):
        release(database, message_id)
    assert look(database, message_id) is None
    assert claim(database, message_id) is not None
    assert claim(database, message_id) is None
    message = row(database, message_id)
    assert (message.screening, message.spam_label, message.error_code) == (Screening.RELEASED, "spam", "")
    with database.reading() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "outgoing.release")).one()
        event = session.scalars(select(MessageEvent).where(MessageEvent.kind == "released")).one()
    assert (entry.actor, entry.subject, event.actor) == (agent, message_id, f"agent:{agent}")


def test_only_what_is_held_back_can_be_released(database: Database) -> None:
    thread_id = add_thread(database)
    for message_id in (queue(database, thread_id), queue(database, thread_id, hold=10)):
        with pytest.raises(Conflict):
            release(database, message_id)
    with pytest.raises(NotFound):
        release(database, "nothing")


def test_a_held_message_can_be_taken_back_for_good(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    keep(database, message_id, Screening.HOLD)
    with database.transaction() as session:
        outbox.cancel(session, message_id, agent_id=None)
    with pytest.raises(Conflict):
        release(database, message_id)
    assert claim(database, message_id) is None
    assert (status_of(database, message_id), row(database, message_id).error_code) == (Delivery.CANCELLED, "undone")


def test_a_refused_message_ends_with_words_and_cannot_be_sent_any_more(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    assert keep(database, message_id, Screening.REJECT)
    message = row(database, message_id)
    assert (message.status, message.error_code) == (Delivery.REJECTED, "looks-like-spam")
    assert message.error_detail.endswith("Write the reply again in other words.")
    assert claim(database, message_id) is None
    for act in (outbox.retry, outbox.send_now, outbox.cancel):
        with database.transaction() as session, pytest.raises(Conflict):
            act(session, message_id, agent_id=None)
    with pytest.raises(Conflict):
        release(database, message_id)


def test_what_a_backup_held_back_is_sent_again_only_when_a_person_says_so(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    keep(database, message_id, Screening.HOLD)
    with database.transaction() as session:
        restoring.fence(session, taken_at=utcnow())
    assert claim(database, message_id) is None
    with database.transaction() as session:
        outbox.resolve_unknown(session, message_id, outcome="resend", agent_id=None)
    assert row(database, message_id).screening is Screening.RELEASED
    assert claim(database, message_id) is not None


def test_sending_an_unknown_message_again_leaves_its_verdict(database: Database) -> None:
    message_id = queue(database, add_thread(database))
    keep(database, message_id, Screening.WARN)
    with database.transaction() as session:
        restoring.fence(session, taken_at=utcnow())
        outbox.resolve_unknown(session, message_id, outcome="resend", agent_id=None)
    assert row(database, message_id).screening is Screening.WARN
