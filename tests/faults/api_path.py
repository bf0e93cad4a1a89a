"""The crash path of a program that replies over HTTP and repeats its request, with its key, until it gets an answer."""

from __future__ import annotations

import asyncio
import email
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import time_machine
from kombu import pools
from redis import Redis
from sqlalchemy import func, select

from api.main import create_app
from assistant.clock import utcnow
from assistant.db.inbox import Upload
from assistant.db.messages import Attachment, Message
from assistant.db.tables import metadata
from assistant.services import access, answers
from assistant.settings import load_settings
from assistant.states import Direction
from pipelines.container import Container
from tests.faults.paths import Plain
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
        self.container.__dict__["blobs"] = Plain(self.settings.path("blobs"))
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

    def begin(self) -> None:
        """Its Redis has begun already."""

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
                return await self._requests(client, number)

        return asyncio.run(ask())

    async def _requests(self, client: httpx.AsyncClient, number: int) -> int:
        return await self._reply(client, number)

    async def _reply(self, client: httpx.AsyncClient, number: int, **more: object) -> int:
        answer = await client.post(
            f"/api/v1/threads/{self.threads[number // self.PER_THREAD]}/messages",
            json={"text": f"Reply {number}", **more},
            headers=self._headers(f"round-{number}"),
        )
        return answer.status_code

    def _headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secret}", "idempotency-key": key}


class ReplyWithFile(ReplyByApi):
    """As above, with a file that is uploaded first. Each reply has its own file, once, with the bytes that were sent."""

    async def _requests(self, client: httpx.AsyncClient, number: int) -> int:
        content = b"file %d" % number
        made = await client.post(
            "/api/v1/uploads",
            files={"file": (f"{number}.txt", content, "text/plain")},
            headers=self._headers(f"file-{number}"),
        )
        if made.status_code != httpx.codes.CREATED:
            return made.status_code
        return await self._reply(client, number, upload_ids=[made.json()["id"]])

    def problems(self) -> list[str]:
        database, blobs = self.container.database, self.container.blobs
        with database.reading() as session:
            rows = session.execute(
                select(Message.text, Attachment.filename, Attachment.blob_key)
                .join(Attachment, Attachment.message_id == Message.id)
                .where(Message.direction == Direction.OUTBOUND)
            ).all()
            waiting = session.scalar(select(func.count()).select_from(Upload))
        found = Counter((text, name, blobs.get(key)) for text, name, key in rows)
        wanted = Counter((f"Reply {one}", f"{one}.txt", b"file %d" % one) for one in range(self.rounds))
        wrong = [f"files lost or twice: {wanted - found} {found - wanted}"] if found != wanted else []
        wrong += [f"{waiting} files still wait for a message that is sent"] * bool(waiting)
        # Each as it left: the mail carries the bytes of its file.
        for file in (self.settings.data_dir / "outbox" / "new").iterdir():
            mail = email.message_from_bytes(file.read_bytes())
            number = str(mail.get_payload(0)).rpartition("Reply ")[2].split()[0]  # the text is the first part
            if mail.get_payload(1).get_payload(decode=True) != b"file " + number.encode():  # type: ignore[union-attr]
                wrong.append(f"reply {number} left with another file")
        unnamed = reconcile(database, arrived=Counter(), files=blobs, orphans=False, backlog=False)
        wrong += [one for one in unnamed.problems if "file" in one]
        return super().problems() + wrong
