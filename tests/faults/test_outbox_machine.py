"""Random histories of the outbox against a model of it: hypothesis looks for the order of events that breaks a promise.

2,000 histories of up to 50 steps (`TEST_MACHINE_EXAMPLES`), or as many as `TEST_MACHINE_SECONDS` allow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import delete, select, update

from assistant.clock import utcnow
from assistant.db.contacts import Suppression
from assistant.db.messages import Message, MessageEvent
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.errors import (
    ChannelError,
    Conflict,
    CredentialsRefused,
    NotAllowed,
    PermanentChannelError,
    RecipientRefused,
    TemporaryChannelError,
    UncertainDelivery,
)
from assistant.services import attempts, contacts, outbox, profiles, screening, sweeper
from assistant.services.attempts import Claim
from assistant.services.screening import Seen
from assistant.states import Author, Delivery, ProfileState, Screening
from assistant.values import Address, MessageClass, Receipt
from tests.faults.machines import Committed, run_machine
from tests.support.figures import Tell
from tests.support.outboxes import add_thread

ADDRESSES = ("ann@example.com", "bo@example.com")
ERRORS: tuple[type[ChannelError], ...] = (
    TemporaryChannelError,
    UncertainDelivery,
    RecipientRefused,
    PermanentChannelError,
    CredentialsRefused,
)

# Made once: they are asked after every step.
_STATUSES = select(Message.id, Message.status).where(Message.direction == "outbound")
_SETTLED = select(MessageEvent.message_id).where(MessageEvent.kind == "resolved:sent")


@dataclass
class Facts:
    """What really happened outside, which the database can only believe."""

    arrived: Counter[str] = field(default_factory=Counter)
    allowed_repeats: Counter[str] = field(default_factory=Counter)
    """A person said `resend`: only then may a message arrive once more."""
    taken_back: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    held_back: set[str] = field(default_factory=set)
    """Looks like spam, and no agent has released it."""


class OutboxMachine(RuleBasedStateMachine):
    messages = Bundle("messages")
    claims = Bundle("claims")
    database: ClassVar[Database]
    committed: ClassVar[Committed]
    threads: ClassVar[dict[str, str]]

    def __init__(self) -> None:
        super().__init__()
        with self.database.transaction() as session:
            session.execute(delete(MessageEvent))
            session.execute(delete(Message).where(Message.direction == "outbound"))
            session.execute(delete(Suppression))
            session.execute(update(Profile).values(state=ProfileState.ACTIVE))
        self.facts = Facts()
        self.open: dict[str, str] = {}
        """The newest claim token by message."""
        self.made = 0

    # -- agents

    # Few messages, so that a history does much to each of them.
    @precondition(lambda self: self.made < 3)
    @rule(target=messages, address=st.sampled_from(ADDRESSES), hold=st.sampled_from([0, 10]), automatic=st.booleans())
    def queue(self, address: str, hold: int, automatic: bool) -> str:
        with self.database.transaction() as session:
            try:
                message = outbox.queue_message(
                    session,
                    thread_id=self.threads[address],
                    author=Author.AGENT,
                    text="x",
                    hold_seconds=hold,
                    message_class=MessageClass.AUTO_REPLY if automatic else MessageClass.PERSONAL,
                )
            except NotAllowed:
                assert automatic or address in self.facts.stopped
                return ""
        assert address not in self.facts.stopped
        self.made += 1
        return message.id

    @rule(message_id=messages)
    def take_back(self, message_id: str) -> None:
        if message_id:
            with self.database.transaction() as session:
                try:
                    outbox.cancel(session, message_id, agent_id=None)
                except Conflict:
                    return
            assert not self.facts.arrived[message_id], "called taken back, and it had left"
            self.facts.taken_back.add(message_id)

    @rule(message_id=messages)
    def hurry(self, message_id: str) -> None:
        self._try(message_id, lambda session: outbox.send_now(session, message_id))

    @rule(message_id=messages)
    def release(self, message_id: str) -> None:
        if self._try(message_id, lambda session: outbox.release(session, message_id, agent_id="a")):
            self.facts.held_back.discard(message_id)

    @rule(message_id=messages, outcome=st.sampled_from(["sent", "failed", "resend"]))
    def settle(self, message_id: str, outcome: str) -> None:
        if self._try(
            message_id, lambda session: outbox.resolve_unknown(session, message_id, outcome=outcome, agent_id=None)
        ):
            self.open.pop(message_id, None)
            self.facts.held_back -= {message_id} if outcome == "resend" else set()
            self.facts.allowed_repeats[message_id] += outcome != "sent"

    @rule(message_id=messages)
    def retry(self, message_id: str) -> None:
        self._try(message_id, lambda session: outbox.retry(session, message_id, agent_id=None))

    @rule()
    def unblock(self) -> None:
        with self.database.transaction() as session:
            profile = session.scalars(select(Profile)).one()
            if profile.state == ProfileState.BLOCKED:
                profiles.unblock(session, profile.id, actor="test")

    # -- the person outside

    @rule(address=st.sampled_from(ADDRESSES))
    def stop(self, address: str) -> None:
        with self.database.transaction() as session:
            contacts.suppress(session, Address("email", address), cause="opt-out")
        self.facts.stopped.add(address)

    # -- workers: they may be slow, die, and wake up again

    @rule(
        message_id=messages,
        outcome=st.sampled_from([Screening.ALLOW, Screening.WARN, Screening.HOLD, Screening.REJECT]),
    )
    def look(self, message_id: str, outcome: Screening) -> None:
        """Before the first attempt, once; an attempt without it is one of the release before."""
        with self.database.transaction() as session:
            kept = screening.keep(session, message_id, Seen(0.8), outcome)
        if kept:
            # What a person calls failed may have arrived; that it is held then sends nothing.
            assert self.facts.arrived[message_id] <= self.facts.allowed_repeats[message_id], (
                "looked at after it had left"
            )
            if outcome in (Screening.HOLD, Screening.REJECT):
                self.facts.held_back.add(message_id)

    @rule(target=claims, message_id=messages)
    def claim(self, message_id: str) -> Claim | None:
        if not message_id:
            return None
        with self.database.transaction() as session:
            found = attempts.claim(session, message_id, lease_seconds=60)
        if found is not None:
            assert message_id not in self.facts.taken_back, "taken back and yet claimed"
            assert message_id not in self.facts.held_back, "claimed without a release"
            assert found.to[0].value not in self.facts.stopped, "claimed after STOP"
            self.open[message_id] = found.token
        return found

    @rule(claim=claims, answer=st.sampled_from(["250", "died after 250", "died before"]))
    def hand_over(self, claim: Claim | None, answer: str) -> None:
        """The holder of the newest claim reaches the carrier; whatever it was told, it may die before it can say so."""
        if claim is None or self.open.get(claim.message_id) != claim.token:
            return
        if answer != "died before":
            self.facts.arrived[claim.message_id] += 1
        self.open.pop(claim.message_id)
        if answer == "250":
            with self.database.transaction() as session:
                assert attempts.record_sent(session, claim, Receipt(claim.message_id))

    @rule(claim=claims, error=st.sampled_from(ERRORS), arrived=st.booleans())
    def fail(self, claim: Claim | None, error: type[ChannelError], arrived: bool) -> None:
        if claim is None or self.open.get(claim.message_id) != claim.token:
            return
        self.open.pop(claim.message_id)
        if error is UncertainDelivery and arrived:
            self.facts.arrived[claim.message_id] += 1
        with self.database.transaction() as session:
            assert attempts.record_failure(session, claim, error("because"), max_attempts=3) is not None
        if error is RecipientRefused:
            self.facts.stopped.add(claim.to[0].value)

    @rule(claim=claims)
    def speak_late(self, claim: Claim | None) -> None:
        """A worker whose claim was replaced or settled may say what it likes."""
        if claim is None or self.open.get(claim.message_id) == claim.token:
            return
        with self.database.transaction() as session:
            status = session.get_one(Message, claim.message_id).status
            if session.get_one(Message, claim.message_id).claim_token == claim.token:
                return  # it died, and nobody decided yet: what it says is still the best that is known
            assert not attempts.record_sent(session, claim, Receipt(claim.message_id))
            assert attempts.record_failure(session, claim, TemporaryChannelError("late")) is None
            session.expire_all()
            assert session.get_one(Message, claim.message_id).status == status

    # -- time passes

    @rule(minutes=st.sampled_from([0, 2, 90]))
    def sweep(self, minutes: int) -> None:
        with self.database.transaction() as session:
            sweeper.sweep(session, now=utcnow() + timedelta(minutes=minutes))

    @rule()
    def time_passes(self) -> None:
        with self.database.transaction() as session:
            session.execute(
                update(Message)
                .where(Message.release_at.is_not(None))
                .values(release_at=utcnow() - timedelta(seconds=1))
            )

    # -- promises

    @invariant()
    def nothing_arrives_twice_without_a_person(self) -> None:
        for message_id, count in self.facts.arrived.items():
            assert count <= 1 + self.facts.allowed_repeats[message_id]

    @invariant()
    def what_is_called_sent_arrived(self) -> None:
        if not self.made:
            return
        rows = self.committed.rows(_STATUSES)
        settled = {message_id for (message_id,) in self.committed.rows(_SETTLED)}
        for message_id, status in rows:
            if status == Delivery.SENT and message_id not in settled:
                assert self.facts.arrived[message_id] >= 1
            if status == Delivery.CANCELLED:
                assert not self.facts.arrived[message_id]
            if status in (Delivery.HELD, Delivery.REJECTED):
                assert self.facts.arrived[message_id] <= self.facts.allowed_repeats[message_id]

    def _try(self, message_id: str, act: object) -> bool:
        if not message_id:
            return False
        with self.database.transaction() as session:
            try:
                act(session)  # type: ignore[operator]
            except Conflict:
                return False
        return True


@pytest.mark.timeout(1200)
def test_no_history_of_the_outbox_breaks_a_promise(tell: Tell) -> None:
    def prepare(database: Database) -> None:
        OutboxMachine.database, OutboxMachine.committed = database, Committed(database)
        OutboxMachine.threads = {address: add_thread(database, address=address) for address in ADDRESSES}

    run_machine(OutboxMachine, prepare, tell)
