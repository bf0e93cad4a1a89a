"""The crash path of an agent who signs in, looks, stops a draft and loads a picture: what a visit leaves in Redis and elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import httpx
from argon2 import PasswordHasher
from redis import Redis
from sqlalchemy import func, select

from assistant.clock import utcnow
from assistant.db.inbox import MessageImage
from assistant.db.messages import Message, Suggestion
from assistant.services import access
from assistant.states import SuggestionState
from channels.support.http import SafeClient
from pipelines.container import Container
from tests.faults.api_path import ReplyByApi
from tests.faults.reconciler import reconcile
from tests.support.outboxes import add_thread
from tests.support.servers import answers, free_port, running

GIF = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
PASSWORD = "correct horse battery"


class Visit(ReplyByApi):
    """One agent a round. Dying in Redis or while a picture is fetched keeps nobody out, and leaves nothing there for ever."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        pictures, self.port = folder / "pictures", free_port()
        pictures.mkdir(parents=True)
        (pictures / "a.gif").write_bytes(GIF)
        # In a process of its own: a thread here would not survive the fork.
        command = [sys.executable, "-m", "http.server", str(self.port), "--bind", "127.0.0.1", "-d", str(pictures)]
        self.servers.enter_context(running(command, log=folder / "log", ready=lambda: answers(self.port)))
        self.rows: list[tuple[str, str, str]] = []
        """Thread, inbound message, suggestion that is being written."""

    def prepare(self, rounds: int) -> None:
        super().prepare(rounds)
        self._fetch(self.container)
        known = PasswordHasher().hash(PASSWORD)
        with self.container.database.transaction() as session:
            for number in range(self.rounds):
                agent = access.create_agent(session, self._who(number), name=f"Agent {number}")
                agent.password_hash = known
        for number in range(self.rounds):
            html = f'<p>Look</p><img src="http://pictures.example:{self.port}/a.gif?{number}">'
            thread_id = add_thread(self.container.database, html=html)
            with self.container.database.transaction() as session:
                message_id = session.scalars(select(Message.id).where(Message.thread_id == thread_id)).one()
                suggestion = Suggestion(
                    thread_id=thread_id, message_id=message_id, state=SuggestionState.DRAFTING, text=""
                )
                session.add(suggestion)
                session.flush()
                self.rows.append((thread_id, message_id, suggestion.id))

    def _fetch(self, container: Container) -> None:
        container.__dict__["fetcher"] = SafeClient(
            ports=[self.port], resolve=lambda _host, _port: ["127.0.0.1"], may_connect=lambda _: True
        )

    def recover(self) -> None:
        """The agents come again: whoever died while counting is not kept out, and everything can be done once more."""
        assert {self._ask(number) for number in range(self.rounds)} <= {httpx.codes.SEE_OTHER, httpx.codes.CONFLICT}

    def problems(self) -> list[str]:
        database, blobs = self.container.database, self.container.blobs
        with database.reading() as session:
            kept = Counter(session.scalars(select(MessageImage.message_id).where(MessageImage.blob_key != "")))
            keys = set(session.scalars(select(MessageImage.blob_key)))
            writing = session.scalar(
                select(func.count()).select_from(Suggestion).where(Suggestion.state == SuggestionState.DRAFTING)
            )
        wanted = Counter(message_id for _, message_id, _ in self.rows)
        wrong = [f"pictures lost or twice: {wanted - kept} {kept - wanted}"] if kept != wanted else []
        wrong += ["a picture is not what came"] * any(blobs.get(key) != GIF for key in keys)
        wrong += [f"{writing} drafts that were stopped are still being written"] * bool(writing)
        with Redis.from_url(self.container.redis_url) as client:
            lasting = {b"notifyr:live", b"notifyr:models"}
            endless = [
                key for key in client.scan_iter("notifyr:*") if b":celery:" not in key and int(str(client.ttl(key))) < 0
            ]
        wrong += [f"{key!r} would stay for ever" for key in endless if key not in lasting]
        wrong += reconcile(database, arrived=Counter(), now=utcnow(), backlog=False).problems
        self.container.close()
        self.servers.close()
        return wrong

    def _who(self, number: int) -> str:
        return f"agent{number}@example.org"

    async def _requests(self, client: httpx.AsyncClient, number: int) -> int:
        if not self.rows:  # the rehearsal
            return await self._reply(client, number)
        thread_id, message_id, suggestion_id = self.rows[number]
        made = await client.post("/api/v1/auth/sign-in", json={"email": self._who(number), "password": PASSWORD})
        assert made.status_code == httpx.codes.OK, made.text
        client.headers["x-csrf-token"] = made.json()["csrf_token"]
        bus = self.container.bus
        bus.present(thread_id, made.json()["agent"]["id"], name="Agent", state="viewing")
        bus.write_draft(suggestion_id, "It is on its")
        stopped = await client.post(f"/suggestions/{suggestion_id}/stop", data={"thread_id": thread_id})
        assert stopped.status_code in {httpx.codes.SEE_OTHER, httpx.codes.CONFLICT}, stopped.text
        loaded = await client.post(f"/messages/{message_id}/images", data={"view": "all", "thread_id": thread_id})
        bus.keep_removed(message_id, {"text": "what was written"})
        bus.absent(thread_id, made.json()["agent"]["id"])
        return loaded.status_code
