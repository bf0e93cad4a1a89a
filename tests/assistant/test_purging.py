"""What was in the trash for its days is deleted for good; what the law asks for, and what is under way, stays."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.access import AuditEntry
from assistant.db.contacts import Consent, Contact, Identity, Suppression
from assistant.db.inbox import Label, Note, ThreadLabel, Upload
from assistant.db.learning import Correction
from assistant.db.messages import Attachment, DraftText, Message, MessageEvent, Suggestion, Thread
from assistant.db.session import Database
from assistant.db.timeline import ThreadEvent
from assistant.services import contacts, drafts, labels, notes, purging, threads, verdicts
from assistant.states import Author, Delivery, Direction, ThreadState
from assistant.values import Address
from tests.assistant.rows import a_proposal, a_thread, an_agent, an_inbound

DAYS = 30
ON_THREADS = (Note, ThreadLabel, Upload, Message, Suggestion, DraftText, ThreadEvent)
ON_MESSAGES = (Attachment, MessageEvent, Correction)


def _count(session: Session, table: type) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _thrown(session: Session, *, address: str = "ana@mail.example") -> tuple[Thread, Message]:
    """A thread with one message, in the trash since now."""
    thread = a_thread(session, address=address)
    message = an_inbound(session, thread)
    session.flush()
    threads.change_state(session, thread.id, state=ThreadState.TRASH)
    return thread, message


def _purge(database: Database, after: timedelta, *, now: datetime | None = None) -> int:
    with database.transaction() as session:
        return purging.purge(session, now=(now or utcnow()) + after, days=DAYS)


def _there(database: Database, thread_id: str) -> bool:
    with database.reading() as session:
        return session.get(Thread, thread_id) is not None


def test_a_thread_goes_with_all_it_has_after_its_days_and_not_before(database: Database) -> None:
    with database.transaction() as session:
        agent, other = an_agent(session).id, a_thread(session)
        an_inbound(session, other)
        kept = a_proposal(session, thread=other)
        thread, message = _thrown(session)
        a_proposal(session, thread=thread)
        notes.add(session, thread.id, agent_id=agent, text="careful", form_id="f")
        drafts.save(session, thread.id, agent_id=agent, text="words")
        for one, name in ((thread, "only-here"), (thread, "both"), (other, "both")):
            labels.add(session, one.id, name=name, agent_id=agent)
        session.add(Attachment(message_id=message.id, filename="a.txt", blob_key="parts/a", size=1))
        session.add(MessageEvent(message_id=message.id, event_id=f"received:{message.id}", kind="received"))
        file = {"filename": "b.txt", "content_type": "text/plain", "size": 1, "blob_key": "parts/b"}
        session.add(Upload(agent_id=agent, thread_id=thread.id, kind="reply", **file))
        verdicts.call_spam(session, thread.id, spam=False, agent_id=agent)
        thread_id, other_id, kept_id = thread.id, other.id, kept.id
        gone = [one.id for one in threads.messages_of(session, thread.id)]
        before = [_count(session, table) for table in ON_MESSAGES]
    assert len(gone) == 2
    assert all(before), "there is one of everything"
    assert _purge(database, timedelta(days=DAYS, minutes=-5)) == 0
    assert _there(database, thread_id)
    assert _purge(database, timedelta(days=DAYS, minutes=5)) == 1
    assert _purge(database, timedelta(days=DAYS, minutes=5)) == 0, "twice is once"
    with database.reading() as session:
        assert session.get(Thread, thread_id) is None
        for table in ON_THREADS:
            assert session.scalar(select(func.count()).where(table.thread_id == thread_id)) == 0, table
        for table in ON_MESSAGES:
            assert session.scalar(select(func.count()).where(table.message_id.in_(gone))) == 0, table
        assert session.get(Thread, other_id) is not None
        assert session.get(Suggestion, kept_id) is not None
        assert session.scalars(select(Label.name)).all() == ["both"]


def test_consents_suppressions_the_contact_and_the_audit_trail_stay(database: Database) -> None:
    with database.transaction() as session:
        thread, message = _thrown(session)
        contacts.record_consent(session, thread.contact_id, channel="email", kind="withdrawn", source="their mail")
        contacts.suppress(session, Address("email", "ana@mail.example"), cause="opt-out", message_id=message.id)
        session.add(AuditEntry(actor="somebody", action="quarantine.release", subject=thread.id, detail={}))
        session.flush()
        tables = (Consent, Suppression, Contact, Identity)
        before = [_count(session, table) for table in tables]
        thread_id = thread.id
    assert before[0] and before[1]
    assert _purge(database, timedelta(days=DAYS + 1)) == 1
    with database.reading() as session:
        assert [_count(session, table) for table in tables] == before
        trail = session.scalars(
            select(AuditEntry).where(AuditEntry.subject == thread_id).order_by(AuditEntry.created_at)
        ).all()
        assert [(one.actor, one.action) for one in trail] == [
            ("somebody", "quarantine.release"),
            ("sweeper", "thread.purged"),
        ]
        assert trail[1].detail["messages"] == 1
        assert "parcel" not in str(trail[1].detail).lower(), "the trail has no words of a mail"


@pytest.mark.parametrize("status", [Delivery.HELD, Delivery.QUEUED, Delivery.SENDING, Delivery.UNKNOWN])
def test_a_message_that_may_still_leave_keeps_its_thread(database: Database, status: Delivery) -> None:
    with database.transaction() as session:
        thread, _ = _thrown(session)
        reply = Message(
            thread_id=thread.id,
            profile_id=thread.profile_id,
            direction=Direction.OUTBOUND,
            author=Author.AGENT,
            status=status,
            external_id=f"<{new_id()}@example.org>",
            from_address="support@example.org",
        )
        session.add(reply)
        session.flush()
        thread_id, reply_id = thread.id, reply.id
    assert _purge(database, timedelta(days=400)) == 0
    assert _there(database, thread_id)
    with database.transaction() as session:
        session.get_one(Message, reply_id).status = Delivery.SENT
    assert _purge(database, timedelta(days=400)) == 1


def test_the_days_begin_anew_with_each_way_into_the_trash_and_each_new_mail(database: Database) -> None:
    with database.transaction() as session:
        back, _ = _thrown(session)
        written, _ = _thrown(session)
        again, _ = _thrown(session)
        threads.change_state(session, back.id, state=ThreadState.OPEN)
        threads.change_state(session, again.id, state=ThreadState.OPEN)
        threads.change_state(session, again.id, state=ThreadState.TRASH)
        session.flush()
        now = utcnow()
        first, second = session.scalars(
            select(ThreadEvent)
            .where(ThreadEvent.thread_id == again.id, ThreadEvent.kind == "trash")
            .order_by(ThreadEvent.created_at, ThreadEvent.id)
        ).all()
        first.created_at, second.created_at = now - timedelta(days=DAYS), now
        session.get_one(Thread, written.id).last_message_at = now + timedelta(days=10)
        ids = [back.id, written.id, again.id]
    assert _purge(database, timedelta(days=1), now=now) == 0
    assert _purge(database, timedelta(days=DAYS, minutes=1), now=now) == 1
    assert [_there(database, one) for one in ids] == [True, True, False]
    assert _purge(database, timedelta(days=DAYS + 11), now=now) == 1
    assert [_there(database, one) for one in ids] == [True, False, False]


def test_a_thread_whose_way_into_the_trash_nothing_tells_has_its_days_from_now_on(database: Database) -> None:
    with database.transaction() as session:
        thread = a_thread(session)
        thread.state = ThreadState.TRASH
        thread.last_message_at = utcnow() - timedelta(days=900)
        thread_id = thread.id
    assert _purge(database, timedelta()) == 0
    assert _purge(database, timedelta(days=DAYS, minutes=-5)) == 0
    assert _there(database, thread_id)
    assert _purge(database, timedelta(days=DAYS, minutes=5)) == 1


def test_more_than_a_batch_goes_batch_by_batch(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_BATCH", 2)
    with database.transaction() as session:
        for _ in range(3):
            _thrown(session)
    gone = [_purge(database, timedelta(days=DAYS + 1)) for _ in range(3)]
    assert gone == [2, 1, 0]
