"""Two workers, an agent and a sweeper on one row, in every order a seeded scheduler can think of.

Each actor is a list of steps; a step is one transaction or one call to the carrier, and between two steps anybody else may
act. A landing plays 5,000 of each of the two casts; `TEST_INTERLEAVINGS` is for more. A failure names the seed of its round.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import bindparam, event, update

from assistant.clock import monotonic, new_id, utcnow
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.db.tables import metadata
from assistant.errors import Conflict
from assistant.services import attempts, outbox, sweeper
from assistant.services.attempts import Claim
from assistant.states import Author, Delivery
from assistant.values import Receipt
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue

ROUNDS = int(os.environ.get("TEST_INTERLEAVINGS", "5000"))
SECONDS = float(os.environ.get("TEST_INTERLEAVING_SECONDS", "300"))
"""For each cast. On a slow machine the time ends before the rounds do; a thousand are played in any case."""
_LEAST = 1000
SEED = int(os.environ.get("TEST_SEED", "20261124"))

_AGAIN = (
    update(Message)
    .where(Message.id == bindparam("message_id"))
    .values(
        status=bindparam("state"),
        release_at=bindparam("due"),
        attempts=0,
        claim_token=None,
        lease_until=None,
        hinted_at=None,
    )
)


@dataclass
class Scene:
    """One message, and what became of it in the world outside."""

    database: Database
    message_id: str
    arrived: int = 0
    taken_back: bool = False
    claims: list[Claim | None] = field(default_factory=list)


Step = Callable[[Scene], None]


def worker(*, dies: str = "") -> Iterator[Step]:
    """Claim, hand over, record; it may die before or after the hand-over."""
    claim: list[Claim | None] = []

    def take(scene: Scene) -> None:
        with scene.database.transaction() as session:
            claim.append(attempts.claim(session, scene.message_id, lease_seconds=60))
        scene.claims.append(claim[0])

    def hand_over(scene: Scene) -> None:
        if claim[0] is not None and dies != "before":
            scene.arrived += 1

    def record(scene: Scene) -> None:
        if claim[0] is not None and not dies:
            with scene.database.transaction() as session:
                attempts.record_sent(session, claim[0], Receipt(scene.message_id))

    yield from (take, hand_over, record)


def agent() -> Iterator[Step]:
    def take_back(scene: Scene) -> None:
        with scene.database.transaction() as session:
            try:
                outbox.cancel(session, scene.message_id, agent_id=None)
            except Conflict:
                return
        scene.taken_back = True

    yield take_back


def sweeping() -> Iterator[Step]:
    def sweep(scene: Scene) -> None:
        with scene.database.transaction() as session:
            sweeper.sweep(session, now=utcnow() + timedelta(hours=1))

    yield sweep


def play(scene: Scene, actors: list[Iterator[Step]], dice: random.Random) -> None:
    while actors:
        actor = dice.choice(actors)
        step = next(actor, None)
        if step is None:
            actors.remove(actor)
        else:
            step(scene)


def rounds(tell: Tell) -> Iterator[int]:
    began, number = monotonic(), 0
    for number in range(ROUNDS):
        if number >= _LEAST and monotonic() - began > SECONDS:
            break
        yield number
    tell(f"{number + 1} interleavings, seed {SEED}, {monotonic() - began:.0f} s")


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Database]:
    """SQLite as in production, only without waiting for the disk: here nobody pulls the plug."""
    database = Database(f"sqlite:///{tmp_path / 'rows.db'}", pool_size=3)
    event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    metadata.create_all(database.engine)
    yield database
    database.close()


def again(database: Database, message_id: str, *, held: bool) -> Scene:
    """The same row as if it were new: making thousands of threads would cost more than the test."""
    status, release_at = (Delivery.HELD, utcnow() - timedelta(seconds=1)) if held else (Delivery.QUEUED, None)
    with database.transaction() as session:
        session.execute(_AGAIN, {"message_id": message_id, "state": status, "due": release_at})
    return Scene(database, message_id)


def fresh_row(database: Database) -> str:
    thread_id = add_thread(database)
    with database.transaction() as session:
        return outbox.queue_message(session, thread_id=thread_id, author=Author.AGENT, text="x").id


@pytest.mark.timeout(1200)
def test_two_workers_a_sweeper_and_death_hand_a_message_over_at_most_once(fast: Database, tell: Tell) -> None:
    fresh, counts = fresh_row(fast), dict.fromkeys(("sent", "unknown", "queued"), 0)
    for number in rounds(tell):
        if number % 200 == 0:
            fresh = fresh_row(fast)
        dice = random.Random(f"{SEED}/workers/{number}")
        scene = again(fast, fresh, held=False)
        actors = [worker(dies=dice.choice(["", "", "before", "after"])), worker()]
        if dice.random() < 0.3:
            actors.append(sweeping())
        play(scene, actors, dice)
        with fast.reading() as session:
            status = Delivery(session.get_one(Message, fresh).status)
        winners = [claim for claim in scene.claims if claim is not None]
        where = f"round {number} of seed {SEED}"
        assert len(winners) == 1, where
        assert scene.arrived <= 1, where
        assert status in (Delivery.SENT, Delivery.UNKNOWN, Delivery.SENDING), where
        assert status is not Delivery.SENT or scene.arrived == 1, where
        counts["sent" if status is Delivery.SENT else "unknown"] += 1
    assert counts["sent"] and counts["unknown"], counts


@pytest.mark.timeout(1200)
def test_undo_and_sending_never_both_win(fast: Database, tell: Tell) -> None:
    fresh, undone, sent = fresh_row(fast), 0, 0
    for number in rounds(tell):
        if number % 200 == 0:
            fresh = fresh_row(fast)
        dice = random.Random(f"{SEED}/undo/{number}")
        scene = again(fast, fresh, held=dice.random() < 0.5)
        play(scene, [worker(), agent()], dice)
        with fast.reading() as session:
            status = Delivery(session.get_one(Message, fresh).status)
        where = f"round {number} of seed {SEED}"
        assert scene.taken_back == (status is Delivery.CANCELLED), where
        assert scene.arrived == (status is Delivery.SENT), where
        assert scene.taken_back != bool(scene.arrived), where
        undone, sent = undone + scene.taken_back, sent + scene.arrived
    assert undone
    assert sent


@pytest.mark.timeout(300)
def test_undo_against_sending_in_real_threads(database: Database) -> None:
    """The same race with two threads and a real database: the row decides, not luck."""
    from concurrent.futures import ThreadPoolExecutor

    outcomes = {"undone": 0, "sent": 0}

    def send(message_id: str) -> bool:
        with database.transaction() as session:
            return attempts.claim(session, message_id, lease_seconds=60) is not None

    def undo(message_id: str) -> bool:
        with database.transaction() as session:
            try:
                outbox.cancel(session, message_id, agent_id=new_id())
            except Conflict:
                return False
        return True

    thread_id = add_thread(database)
    with ThreadPoolExecutor(3) as pool:
        for number in range(60):
            message_id = queue(database, thread_id)
            acts = [pool.submit(act, message_id) for act in ([send, undo, send] if number % 2 else [undo, send, send])]
            first, second, third = (act.result() for act in acts)
            sent = [second, third] if number % 2 == 0 else [first, third]
            taken_back = first if number % 2 == 0 else second
            assert sum(sent) + taken_back == 1
            outcomes["undone" if taken_back else "sent"] += 1
    assert sum(outcomes.values()) == 60
