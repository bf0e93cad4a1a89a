"""Random histories of leases: three workers, a clock and a sweeper, on a channel that may repeat and on one that may not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import delete, select, update

from assistant.clock import utcnow
from assistant.db.messages import Message, MessageEvent
from assistant.db.session import Database
from assistant.errors import TemporaryChannelError
from assistant.services import attempts, outbox, sweeper
from assistant.services.attempts import Claim
from assistant.states import Author, Delivery
from assistant.values import Receipt
from tests.faults.machines import Committed, run_machine
from tests.support.figures import Tell
from tests.support.outboxes import add_thread

WORKERS = ("one", "two", "three")
LEASE = 60
# Made once: after every step it is asked again, and making it costs more than the answer.
_ROWS = select(Message.id, Message.status, Message.lease_until, Message.claim_token, Message.attempts).where(
    Message.direction == "outbound"
)
MOST = 3
"""Attempts after which what kills its worker each time is for a person, on any channel."""


@dataclass
class Held:
    """What a worker believes it holds, and when its lease ends."""

    claim: Claim
    until: datetime


class LeaseMachine(RuleBasedStateMachine):
    database: ClassVar[Database]
    committed: ClassVar[Committed]
    thread: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        with self.database.transaction() as session:
            session.execute(delete(MessageEvent))
            session.execute(delete(Message).where(Message.direction == "outbound"))
            self.ids = [
                outbox.queue_message(session, thread_id=self.thread, author=Author.AGENT, text="x").id for _ in range(2)
            ]
        self.now = utcnow()
        self.holding: dict[str, Held] = {}
        self.newest: dict[str, str] = {}
        """Message -> the token that still counts."""
        self.repeatable: tuple[str, ...] = ()

    @initialize(repeatable=st.booleans())
    def choose(self, repeatable: bool) -> None:
        self.repeatable = ("email",) if repeatable else ()

    @rule(worker=st.sampled_from(WORKERS), number=st.integers(0, 1))
    def claim(self, worker: str, number: int) -> None:
        message_id = self.ids[number]
        with self.database.transaction() as session:
            found = attempts.claim(session, message_id, lease_seconds=LEASE)
        if found is None:
            return
        others = [held for held in self.holding.values() if held.claim.message_id == message_id]
        for held in others:
            assert self.newest.get(message_id) != held.claim.token or held.until <= self.now, "two leases at once"
        self.holding[worker] = Held(found, self.now + timedelta(seconds=LEASE))
        self.newest[message_id] = found.token

    @rule(worker=st.sampled_from(WORKERS), fails=st.booleans())
    def record(self, worker: str, fails: bool) -> None:
        """A worker says what became of its attempt, in time or long after it was given up."""
        held = self.holding.pop(worker, None)
        if held is None:
            return
        counts = self.newest.get(held.claim.message_id) == held.claim.token
        with self.database.transaction() as session:
            if fails:
                recorded = attempts.record_failure(session, held.claim, TemporaryChannelError("busy")) is not None
            else:
                recorded = attempts.record_sent(session, held.claim, Receipt(held.claim.message_id)) is not None
        assert recorded == counts, "a stale token recorded, or the newest could not"
        if counts:
            del self.newest[held.claim.message_id]

    @rule(worker=st.sampled_from(WORKERS))
    def die(self, worker: str) -> None:
        self.holding.pop(worker, None)

    @rule(seconds=st.sampled_from([1, 20, 61]))
    def sweep(self, seconds: int) -> None:
        """Time passes: the sweeper's clock goes on, and what waits becomes due."""
        self.now += timedelta(seconds=seconds)
        with self.database.transaction() as session:
            expired = set(
                session.scalars(
                    select(Message.id).where(
                        Message.status == Delivery.SENDING,
                        Message.lease_until <= self.now,
                        Message.attempts < MOST,
                    )
                )
            )
            sweeper.sweep(session, now=self.now, repeatable=self.repeatable, max_attempts=MOST)
            session.execute(update(Message).where(Message.status == Delivery.QUEUED).values(release_at=None))
        if self.repeatable:
            for message_id in expired:
                self.newest.pop(message_id, None)

    @invariant()
    def whoever_sends_has_a_lease_and_nobody_else(self) -> None:
        rows = self.committed.rows(_ROWS)
        assert {row[0] for row in rows} == set(self.ids)
        for message_id, word, lease_until, token, attempts_made in rows:
            status = Delivery(word)
            assert (status is Delivery.SENDING) == (lease_until is not None)
            assert token == self.newest.get(message_id), "the row and the world disagree about who may speak"
            if self.repeatable:
                assert status is not Delivery.UNKNOWN or attempts_made >= MOST


@pytest.mark.timeout(1200)
def test_no_history_of_leases_lets_two_workers_hold_one_message(tell: Tell) -> None:
    def prepare(database: Database) -> None:
        LeaseMachine.database, LeaseMachine.committed = database, Committed(database)
        LeaseMachine.thread = add_thread(database)

    run_machine(LeaseMachine, prepare, tell)
