"""Random histories of a mailbox: every mail is stored once, in a thread that its sender has a right to be in."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import delete, func, select

from assistant.clock import utcnow
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Message, MessageEvent, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.services import inbox
from assistant.states import ThreadState
from assistant.values import Address, InboundMessage
from tests.faults.machines import Committed, run_machine
from tests.support.figures import Tell

PEOPLE = ("ann@example.com", "bo@example.com", "eve@example.net")
SUBJECTS = ("Parcel", "Re: Parcel", "AW: Parcel", "Fwd: Parcel", "Invoice")
IDS = tuple(f"<m{number}@example.com>" for number in range(8))
# Made once: after every step they are asked again, and making them costs more than the answers.
_MESSAGES = select(Message.id, Message.thread_id)
_COUNTS = select(Thread.id, Thread.message_count)
_PER_ADDRESS = select(Identity.address, func.count()).group_by(Identity.address)


class ThreadsMachine(RuleBasedStateMachine):
    database: ClassVar[Database]
    committed: ClassVar[Committed]
    profile_id: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        with self.database.transaction() as session:
            for table in (MessageEvent, Suggestion, Message, Thread, Identity, Contact):
                session.execute(delete(table))
        self.stored: dict[tuple[str, str], tuple[str, str]] = {}
        """Message-ID and content -> the row and its thread."""
        self.members: dict[str, set[str]] = {}
        """Thread -> who wrote into it."""

    @rule(
        sender=st.sampled_from(PEOPLE),
        message_id=st.sampled_from(IDS),
        parent=st.sampled_from(("", *IDS)),
        references=st.lists(st.sampled_from(IDS), max_size=2, unique=True),
        subject=st.sampled_from(SUBJECTS),
        body=st.sampled_from(("one", "two")),
    )
    def receive(
        self, sender: str, message_id: str, parent: str, references: list[str], subject: str, body: str
    ) -> None:
        """Any mail: new, repeated, an answer to one that is not there yet, or one that claims somebody's Message-ID."""
        digest = hashlib.sha256(f"{sender}{message_id}{parent}{references}{subject}{body}".encode()).hexdigest()
        message = InboundMessage(
            channel="email",
            external_id=message_id,
            sender=Address("email", sender),
            recipients=(Address("email", "support@example.org"),),
            subject=subject,
            text=body,
            reply_to_id=parent,
            references=tuple(references),
            content_hash=digest,
            received_at=utcnow(),
        )
        known = self.stored.get((message_id, digest))
        with self.database.transaction() as session:
            open_before = set(session.scalars(select(Thread.id)))
            got = inbox.receive(session, profile_id=self.profile_id, message=message, new_text=body, size=len(body))
        if known is not None:
            assert (got.message_id, got.thread_id, got.created) == (*known, False)
            return
        assert got.created
        if got.thread_id in self.members:
            assert sender in self.members[got.thread_id], "a stranger got into somebody else's thread"
            assert not subject.startswith("Fwd"), "a forward starts a thread of its own"
            assert got.thread_id in open_before
        self.members.setdefault(got.thread_id, set()).add(sender)
        self.stored[message_id, digest] = (got.message_id, got.thread_id)
        with self.database.reading() as session:
            assert session.get_one(Thread, got.thread_id).state == ThreadState.OPEN

    @rule(data=st.data(), state=st.sampled_from([ThreadState.CLOSED, ThreadState.PENDING, ThreadState.SNOOZED]))
    def put_away(self, data: st.DataObject, state: ThreadState) -> None:
        if self.members:
            thread_id = data.draw(st.sampled_from(sorted(self.members)))
            with self.database.transaction() as session:
                session.get_one(Thread, thread_id).state = state

    @invariant()
    def every_mail_is_there_once_and_counted(self) -> None:
        rows = self.committed.rows(_MESSAGES)
        counts = dict(self.committed.rows(_COUNTS))
        per_address = self.committed.rows(_PER_ADDRESS)
        assert sorted(rows) == sorted(self.stored.values())
        assert counts == Counter(thread for _, thread in self.stored.values())
        assert all(count == 1 for _, count in per_address), "one identity a person"


@pytest.mark.timeout(1200)
def test_no_history_of_a_mailbox_loses_a_mail_or_lets_a_stranger_in(tell: Tell) -> None:
    def prepare(database: Database) -> None:
        ThreadsMachine.database, ThreadsMachine.committed = database, Committed(database)
        with database.transaction() as session:
            profile = Profile(channel="email", name="Support", address="support@example.org")
            session.add(profile)
            session.flush()
            ThreadsMachine.profile_id = profile.id

    run_machine(ThreadsMachine, prepare, tell)
