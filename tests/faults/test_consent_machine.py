"""Random histories of consent, suppression and sending: nobody is written to after a STOP, and the ledger never changes."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import delete, select

from assistant.db.contacts import Consent, Suppression
from assistant.db.messages import Message, MessageEvent, Thread
from assistant.db.session import Database
from assistant.errors import NotAllowed
from assistant.services import attempts, contacts, outbox
from assistant.states import Author, Delivery
from assistant.values import Address
from tests.faults.machines import Committed, run_machine
from tests.support.figures import Tell
from tests.support.outboxes import add_thread

ADDRESSES = ("ann@example.com", "bo@example.com")
CAUSES = ("opt-out", "hard-bounce", "complaint", "refused", "manual")
KINDS = ("granted", "withdrawn")

# Made once: they are asked after every step.
_LEDGER = select(Consent.contact_id, Consent.kind).order_by(Consent.created_at, Consent.id)
_SUPPRESSED = select(Suppression.address, Suppression.cause)


class ConsentMachine(RuleBasedStateMachine):
    messages = Bundle("messages")
    database: ClassVar[Database]
    committed: ClassVar[Committed]
    threads: ClassVar[dict[str, tuple[str, str]]]
    """Address -> its thread and contact."""

    def __init__(self) -> None:
        super().__init__()
        with self.database.transaction() as session:
            for table in (MessageEvent, Consent, Suppression):
                session.execute(delete(table))
            session.execute(delete(Message).where(Message.direction == "outbound"))
        self.suppressed: dict[str, str] = {}
        self.ledger: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
        self.claimed: set[str] = set()
        self.sent_to: dict[str, list[str]] = {}
        self.made = self.statements = 0
        self.answered: tuple[object, ...] = ()
        """What the ledger was last asked about: the commits seen, and what everybody allowed."""

    def allowed(self, address: str) -> bool:
        withdrawn = bool(self.ledger[address]) and self.ledger[address][-1][0] == "withdrawn"
        return not withdrawn and address not in self.suppressed

    @rule(address=st.sampled_from(ADDRESSES), cause=st.sampled_from(CAUSES))
    def suppress(self, address: str, cause: str) -> None:
        with self.database.transaction() as session:
            contacts.suppress(session, Address("email", address), cause=cause)
        if cause == "opt-out" or address not in self.suppressed:
            self.suppressed[address] = cause

    @rule(address=st.sampled_from(ADDRESSES), kind=st.sampled_from(KINDS), again=st.booleans())
    def state(self, address: str, kind: str, again: bool) -> None:
        """A statement of consent; `again`: the mail that carries it is read a second time."""
        repeated = [one for one in self.ledger[address] if one[0] == kind and one[1] is not None]
        self.statements += 1
        source = repeated[0][1] if again and repeated else None
        with self.database.transaction() as session:
            if source is None:
                row = session.scalars(select(Message).where(Message.thread_id == self.threads[address][0])).first()
                assert row is not None
                source = row.id if not repeated else None
            contacts.record_consent(
                session, self.threads[address][1], channel="email", kind=kind, source="mail", message_id=source
            )
        if not (source is not None and repeated):
            self.ledger[address].append((kind, source))

    @precondition(lambda self: self.made < 4)
    @rule(target=messages, address=st.sampled_from(ADDRESSES), copied=st.booleans())
    def queue(self, address: str, copied: bool) -> str:
        """An answer in the thread of `address`; `copied`: the other one, who has said what they said elsewhere, gets it too."""
        everybody = [address, *[other for other in ADDRESSES if copied and other != address]]
        with self.database.transaction() as session:
            try:
                message = outbox.queue_message(
                    session,
                    thread_id=self.threads[address][0],
                    author=Author.AGENT,
                    text="x",
                    cc=[Address("email", other) for other in everybody[1:]],
                )
            except NotAllowed:
                assert not all(map(self.allowed, everybody))
                return ""
        assert all(map(self.allowed, everybody)), "queued to somebody who must not be written to"
        self.made += 1
        self.sent_to[message.id] = everybody
        return message.id

    @rule(message_id=messages)
    def claim(self, message_id: str) -> None:
        if not message_id:
            return
        allowed = all(map(self.allowed, self.sent_to[message_id]))
        with self.database.transaction() as session:
            before = Delivery(session.get_one(Message, message_id).status)
            found = attempts.claim(session, message_id, lease_seconds=60)
            session.expire_all()
            after = Delivery(session.get_one(Message, message_id).status)
        if before is not Delivery.QUEUED:
            assert found is None
        elif allowed:
            assert found is not None
            self.claimed.add(message_id)
        else:
            assert found is None
            assert after is Delivery.CANCELLED

    @invariant()
    def the_answer_is_the_ledgers(self) -> None:
        asked = (self.committed.version(), *map(self.allowed, self.threads))
        if asked == self.answered:  # nothing was committed since, and the same is expected
            return
        self.answered = asked
        with self.database.reading() as session:
            for address, (thread_id, _) in self.threads.items():
                reason = contacts.may_write(session, channel="email", address=address, thread_id=thread_id)
                assert (reason is None) == self.allowed(address), (address, reason)

    @invariant()
    def the_ledger_only_grows(self) -> None:
        rows = self.committed.rows(_LEDGER)
        causes = dict(self.committed.rows(_SUPPRESSED))
        for address, (_, contact_id) in self.threads.items():
            assert [kind for whose, kind in rows if whose == contact_id] == [kind for kind, _ in self.ledger[address]]
        assert causes == self.suppressed


@pytest.mark.timeout(1200)
def test_no_history_of_consent_writes_to_somebody_who_said_stop(tell: Tell) -> None:
    def prepare(database: Database) -> None:
        ConsentMachine.database, ConsentMachine.committed = database, Committed(database)
        made = {address: add_thread(database, address=address) for address in ADDRESSES}
        with database.reading() as session:
            ConsentMachine.threads = {
                address: (thread_id, session.get_one(Thread, thread_id).contact_id)
                for address, thread_id in made.items()
            }

    run_machine(ConsentMachine, prepare, tell)
