"""The crash path between a commit and the broker or the bus: the row is there, the hint may not be."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from kombu import pools
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.tables import metadata
from assistant.services import outbox, sweeper
from assistant.settings import load_settings
from assistant.states import Author, Direction
from pipelines.container import Container
from tests.faults.reconciler import reconcile
from tests.support.outboxes import add_thread
from tests.support.servers import valkey_server


class Hints:
    """One reply a round goes into the outbox; the process dies while it tells the broker or the open pages."""

    PER_THREAD = 20

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.servers = ExitStack()
        self.rounds = 0
        self.threads: list[str] = []

    def prepare(self, rounds: int) -> None:
        self.rounds = rounds + 1
        url = self.servers.enter_context(valkey_server())
        settings = load_settings(
            {}, data_dir=self.folder, database_url=self.url, mail_address="support@example.org", redis_url=url
        )
        self.container = Container(settings)
        metadata.create_all(self.container.database.engine)
        self.threads = [add_thread(self.container.database) for _ in range(0, self.rounds, self.PER_THREAD)]
        # One round without a death: children inherit compiled statements and imported modules, but no open connection.
        self.step(rounds)
        engine, reader = self.container.database.engine, self.container.database._reader
        self.container.close()
        pools.reset()
        self.container = Container(settings)
        self.container.database.engine, self.container.database._reader = engine, reader
        assert self.container.celery is not None
        assert self.container.bus is not None

    def begin(self) -> None:
        """Its Redis has begun already."""

    def step(self, number: int) -> None:
        with self.container.database.transaction() as session:
            outbox.queue_message(
                session,
                thread_id=self.threads[number // self.PER_THREAD],
                author=Author.AGENT,
                text="On its way.",
                idempotency_key=f"round:{number}",
            )

    def recover(self) -> None:
        """The callers, who got no answer, ask again under the same key; the sweeper finds what the broker never heard of."""
        for number in range(self.rounds):
            self.step(number)
        database = self.container.database
        while True:
            with database.transaction() as session:
                if not sweeper.sweep(session, now=utcnow() + timedelta(hours=1)).deliver:
                    break
        with database.reading() as session:
            ids = session.scalars(select(Message.id).where(Message.direction == Direction.OUTBOUND)).all()
        for message_id in ids:
            self.container.deliverer.deliver(message_id)

    def problems(self) -> list[str]:
        arrived = Counter(f"<{file.name}>" for file in (self.folder / "outbox" / "new").iterdir())
        found = reconcile(self.container.database, arrived=arrived)
        self.container.close()
        self.servers.close()
        wrong = [f"{found.sent} of {self.rounds} replies were sent"] if found.sent != self.rounds else []
        return found.problems + wrong
