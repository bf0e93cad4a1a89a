"""The crash path of a program that replies over HTTP and repeats its request, with its key, until it gets an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import time_machine
from kombu import pools
from redis import Redis
from sqlalchemy import select

from api.main import create_app
from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.tables import metadata
from assistant.services import access, answers
from assistant.settings import load_settings
from assistant.states import Direction
from pipelines.container import Container
from tests.faults.reconciler import reconcile
from tests.support.outboxes import add_thread
from tests.support.servers import valkey_server


class ReplyByApi:
    """`POST /api/v1/threads/{id}/messages` a round, with an Idempotency-Key; the process dies at one of its commits."""

    PER_THREAD = 20

    def __init__(self, folder: Path, url: str) -> None:
        self.servers = ExitStack()
        self.settings = load_settings(
            {},
            data_dir=folder,
            database_url=url,
            redis_url=self.servers.enter_context(valkey_server()),
            mail_address="support@example.org",
            encoder="off",
            generator="off",
            undo_send_seconds=0,
        )
        self.container = Container(self.settings)
        self.rounds = 0
        self.threads: list[str] = []
        self.secret = ""

    def prepare(self, rounds: int) -> None:
        self.rounds = rounds + 1
        database = self.container.database
        metadata.create_all(database.engine)
        self.threads = [add_thread(database) for _ in range(0, self.rounds, self.PER_THREAD)]
        with database.transaction() as session:
            agent = access.create_agent(session, "bo@example.org", name="Bo", role="agent")
            _, self.secret = access.create_key(
                session, "program", scopes=access.SCOPES, actor="test", agent_id=agent.id
            )
        # One round without a death: children inherit compiled statements and imported modules, but no open connection.
        self.app = create_app(self.container)
        assert self._ask(rounds) == httpx.codes.CREATED
        engine, reader = database.engine, database._reader
        self.container.close()
        pools.reset()
        self.container = Container(self.settings)
        self.container.database.engine, self.container.database._reader = engine, reader
        assert self.container.celery is not None
        assert self.container.bus is not None
        self.app = create_app(self.container)

    def step(self, number: int) -> None:
        self._ask(number)
        self.container.database.close()

    def recover(self) -> None:
        """The program asks again at once, and once more when a dead request no longer holds its key."""
        with Redis.from_url(self.container.redis_url) as client:
            client.flushall()  # the counters of requests a minute
        first = [self._ask(number) for number in range(self.rounds)]
        assert set(first) <= {httpx.codes.CREATED, httpx.codes.CONFLICT}
        with time_machine.travel(utcnow() + answers.LEASE + timedelta(seconds=1)):
            again = [self._ask(number) for number in range(self.rounds)]
        assert set(again) == {httpx.codes.CREATED}
        with self.container.database.reading() as session:
            ids = session.scalars(select(Message.id).where(Message.direction == Direction.OUTBOUND)).all()
        for message_id in [*ids, *ids]:
            self.container.deliverer.deliver(message_id)

    def problems(self) -> list[str]:
        database = self.container.database
        with database.reading() as session:
            texts = Counter(session.scalars(select(Message.text).where(Message.direction == Direction.OUTBOUND)))
        wanted = Counter(f"Reply {number}" for number in range(self.rounds))
        arrived = Counter(f"<{file.name}>" for file in (self.settings.data_dir / "outbox" / "new").iterdir())
        found = reconcile(database, arrived=arrived, now=utcnow()).problems
        self.container.close()
        self.servers.close()
        return found + ([f"replies lost or twice: {wanted - texts} {texts - wanted}"] if texts != wanted else [])

    def _ask(self, number: int) -> int:
        async def ask() -> int:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
                answer = await client.post(
                    f"/api/v1/threads/{self.threads[number // self.PER_THREAD]}/messages",
                    json={"text": f"Reply {number}"},
                    headers={"authorization": f"Bearer {self.secret}", "idempotency-key": f"round-{number}"},
                )
            return answer.status_code

        return asyncio.run(ask())
