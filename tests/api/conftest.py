"""The API as it runs: uvicorn on a socket, a database with one of everything, clients for each kind of caller."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from redis import Redis
from sqlalchemy import event

from api.main import create_app
from assistant.clock import new_id, utcnow
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Attachment, Message, Suggestion, Thread
from assistant.db.moves import ThreadMove
from assistant.db.profiles import Profile
from assistant.services import access, labels, notes, saved_replies, uploads
from assistant.settings import Settings
from assistant.states import Author, Delivery, Direction, SuggestionState, TriageState
from assistant.values import StoredAttachment
from pipelines.container import Container

PASSWORD = "correct horse battery"
BOTH = ("sqlite", "postgresql")


EVERYWHERE = os.environ.get("TEST_API_ENGINES") == "both"
ONE_ENGINE = {"test_an_answer_is_not_given_for_what_was_not_kept"}
"""Makes its fault in SQLAlchemy before the driver is asked to commit, which leaves PostgreSQL's transaction open: no fault of it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a module with `ENGINES = BOTH` runs once on each; `TEST_API_ENGINES=both` says so for all that name none."""
    engines = getattr(metafunc.module, "ENGINES", BOTH if EVERYWHERE else None)
    if engines and "engine" in metafunc.fixturenames and metafunc.definition.name not in ONE_ENGINE:
        metafunc.parametrize("engine", engines, indirect=True)


@dataclass
class World:
    """The API on a socket, and the ids of one of everything in its database."""

    container: Container
    app: FastAPI
    url: str
    ids: dict[str, str] = field(default_factory=dict)
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, **headers: str) -> httpx.Client:
        """Nobody in particular."""
        # Plain HTTP: without `verify=False` each client would read the certificates of all authorities first.
        client = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=90, verify=False)
        self.clients.append(client)
        return client

    def browser(self, email: str = "admin@example.org", password: str = PASSWORD) -> httpx.Client:
        """A signed-in browser that sends its CSRF token."""
        client = self.client()
        answer = client.post("/api/v1/auth/sign-in", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        client.headers["x-csrf-token"] = answer.json()["csrf_token"]
        return client

    def program(self, *scopes: str, agent: str = "admin") -> httpx.Client:
        """A program with a key of its own."""
        with self.container.database.transaction() as session:
            _, secret = access.create_key(
                session, "test", scopes=scopes or access.SCOPES, actor="test", agent_id=self.ids[agent]
            )
        return self.client(authorization=f"Bearer {secret}")

    def clear_limits(self) -> None:
        with Redis.from_url(self.container.redis_url) as client:
            client.flushall()

    def thread(self, **values: Any) -> str:
        """Another thread with one inbound message."""
        with self.container.database.transaction() as session:
            thread = Thread(
                id=new_id(),
                profile_id=self.ids["profile"],
                contact_id=self.ids["contact"],
                **(
                    {
                        "channel": "email",
                        "subject": "Where is my refund?",
                        "message_count": 1,
                        "last_inbound_at": utcnow(),
                    }
                    | values
                ),
            )
            session.add(thread)
            session.flush()
            session.add(self._message(thread.id))
        return thread.id

    def suggestion(self, thread_id: str = "", **values: Any) -> tuple[str, str]:
        """A proposed reply to a new thread: its id and the thread's."""
        thread_id = thread_id or self.thread()
        with self.container.database.transaction() as session:
            message = session.query(Message).filter_by(thread_id=thread_id, direction=Direction.INBOUND).one()
            suggestion = Suggestion(
                id=new_id(),
                thread_id=thread_id,
                message_id=message.id,
                **(
                    {
                        "state": SuggestionState.PROPOSED,
                        "text": "Hello Ana, your refund was sent on 12 March.",
                        "word": "ready",
                        "confidence": 0.91,
                        "reasons": ["knows the order"],
                        "citations": [
                            {"source": "Refunds", "text": "Refunds ...", "document_id": "d", "version": 1, "score": 0.8}
                        ],
                        "checks": [{"name": "numbers", "passed": True, "detail": ""}],
                    }
                    | values
                ),
            )
            session.add(suggestion)
        return suggestion.id, thread_id

    def _message(self, thread_id: str) -> Message:
        identity = new_id()
        return Message(
            id=identity,
            thread_id=thread_id,
            profile_id=self.ids["profile"],
            direction=Direction.INBOUND,
            author=Author.CONTACT,
            status=Delivery.RECEIVED,
            external_id=f"<{identity}@example.net>",
            subject="Where is my refund?",
            text="Hello, where is my refund?",
            new_text="Hello, where is my refund?",
            from_address="ana@example.net",
            from_name="Ana",
            to_addresses=[{"address": "support@example.org", "name": "Support"}],
            triage=TriageState.DONE,
            labels=[{"name": "intent:refund_status", "score": 0.94}],
        )

    def fill(self) -> None:
        """One of everything."""
        with self.container.database.transaction() as session:
            for name, role in (("admin", "admin"), ("agent", "agent")):
                agent = access.create_agent(session, f"{name}@example.org", name=name.title(), role=role)
                access.set_password(session, agent.id, password=PASSWORD, actor="test")
                self.ids[name] = agent.id
            profile = Profile(id=new_id(), channel="email", name="Support", address="support@example.org")
            contact = Contact(id=new_id(), display_name="Ana Silva")
            session.add_all([profile, contact])
            session.flush()
            session.add(Identity(contact_id=contact.id, channel="email", address="ana@example.net", display_name="Ana"))
            key, _ = access.create_key(session, "k", scopes=["threads:read"], actor="test", agent_id=self.ids["admin"])
            self.ids |= {"profile": profile.id, "contact": contact.id, "key": key.id}
        self.ids["suggestion"], self.ids["thread"] = self.suggestion()
        with self.container.database.transaction() as session:
            message = session.query(Message).filter_by(thread_id=self.ids["thread"]).one()
            blob = Attachment(
                id=new_id(),
                message_id=message.id,
                filename="note.html",
                content_type="text/html",
                size=31,
                blob_key="att/1",
            )
            session.add(blob)
            self.ids |= {"message": message.id, "attachment": blob.id}
        self.container.blobs.put("att/1", b"<script>alert(document.domain)</script>")

    def add(self) -> None:
        """What agents add to threads: one of each, and a merge that was taken back."""
        by, thread = self.ids["admin"], self.ids["thread"]
        file = StoredAttachment("a.txt", "text/plain", 5, "parts/seed")
        with self.container.database.transaction() as session:
            made = {
                "note": notes.add(session, thread, agent_id=by, text="Call her.", form_id="seed"),
                "label": labels.put(session, thread, name="refund", agent_id=by),
                "reply": saved_replies.save(session, name="Seen", text="We saw it.", agent_id=by),
                "upload": uploads.add(session, file, agent_id=by, thread_id=None, kind=uploads.PROGRAM),
                "move": ThreadMove(id=new_id(), kind="merge", from_id=new_id(), into_id=thread, undone_at=utcnow()),
            }
            session.add(made["move"])
            self.ids |= {name: one.id for name, one in made.items()}


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket on a free port."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        ws="websockets-sansio",
        ws_max_size=65_536,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """structlog's own default draws every local variable of a traceback, which takes seconds and shows secrets."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ]
    )


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Which database: SQLite, unless the module says `ENGINES = BOTH`."""
    found: str = getattr(request, "param", "sqlite")
    return found


@pytest.fixture
def full_settings(
    request: pytest.FixtureRequest, engine: str, make_settings: Callable[..., Settings], valkey_url: str
) -> Settings:
    """Settings of a whole installation on `engine`: the embedded Valkey, no models."""
    url = request.getfixturevalue(f"{engine}_url")
    return make_settings(redis_url=valkey_url, database_url=url, encoder="off", generator="off")


def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id at its lowest cost, for a known address and an unknown one: a sign-in is no part of most tests."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    nobody = hasher.hash("nobody")
    monkeypatch.setattr(access, "_hasher", hasher)
    monkeypatch.setattr(access, "_nobody", lambda: nobody)


@pytest.fixture
def world(request: pytest.FixtureRequest, container: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The API on a socket with one of everything in it. `REAL_PASSWORDS` in a module keeps argon2id at its full cost."""
    if not getattr(request.module, "REAL_PASSWORDS", False):
        cheap_passwords(monkeypatch)
    app = create_app(container)
    with serve(app) as url:
        made = World(container, app, url)
        made.fill()
        yield made
        for client in made.clients:
            client.close()


@pytest.fixture
def statements(world: World) -> Iterator[Callable[[], list[str]]]:
    """Every SQL statement since the last call, without the marks of a transaction."""
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "PRAGMA", "ROLLBACK")):
            seen.append(statement)

    event.listen(world.container.database.engine, "before_cursor_execute", note)

    def take() -> list[str]:
        found = seen[:]
        seen.clear()
        return found

    yield take
    event.remove(world.container.database.engine, "before_cursor_execute", note)
