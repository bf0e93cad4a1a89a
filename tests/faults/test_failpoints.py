"""Crash tests at every named failpoint of every path: nothing lost, nothing twice, nothing stuck.

Rounds: 2,000 a path (`TEST_CRASH_ROUNDS`), as many as the time allows. The seed is printed; `TEST_SEED` sets it.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import Counter
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import pytest

from assistant.clock import utcnow
from assistant.db.session import Database
from assistant.db.tables import metadata
from assistant.failpoints import FAILPOINTS
from assistant.services import outbox, sweeper
from assistant.settings import ROOT, Settings, load_settings
from channels.twins.smtp_receiver import SmtpReceiver
from pipelines.outbound import Deliverer, Portal, open_channels
from tests.faults.api_path import ReplyByApi, ReplyWithFile
from tests.faults.broker_path import Hints
from tests.faults.crashes import CrashPath, crash
from tests.faults.paths import Receive, Review, Suggest, TriageRun
from tests.faults.reconciler import reconcile
from tests.faults.store_paths import Remember, Search, Tidy
from tests.faults.visit_path import Visit
from tests.support.figures import Tell
from tests.support.outboxes import add_thread
from tests.support.servers import PostgresServer, free_port
from tests.support.stores import in_memory

ROUNDS = int(os.environ.get("TEST_CRASH_ROUNDS", "2000"))
SECONDS = float(os.environ.get("TEST_CRASH_SECONDS", "10"))
"""For each path. On a slow machine the time ends before the rounds do."""
SEED = int(os.environ.get("TEST_SEED", "20261124"))


class Send:
    """One queued message a round, delivered by a real child to a mail server in another process' thread."""

    PER_THREAD = 20

    def __init__(self, folder: Path, url: str, *, relay: bool) -> None:
        self.folder = folder
        self.url = url
        self.relay = relay
        self.journal = folder / "journal.jsonl"
        self.receiver: SmtpReceiver | None = None
        self.messages: list[str] = []
        # Children inherit the engine with its compiled statements, but never an open connection.
        self.database = Database(url)
        self.port = 0

    @cached_property
    def settings(self) -> Settings:
        relay = {"relay_url": f"smtp://127.0.0.1:{self.port}"} if self.relay else {}
        own = {"data_dir": self.folder, "database_url": self.url, "mail_address": "support@example.org"}
        return load_settings({}, lease_seconds=60, **own, **relay)

    def prepare(self, rounds: int) -> None:
        if self.relay:
            self.receiver = SmtpReceiver(port=free_port(), journal=self.journal).start()
            self.port = self.receiver.port
        metadata.create_all(self.database.engine)
        for start in range(0, rounds + 1, self.PER_THREAD):
            thread_id = add_thread(self.database)
            with self.database.transaction() as session:
                for _ in range(start, min(start + self.PER_THREAD, rounds + 1)):
                    self.messages.append(_queue(session, thread_id))
        self._deliver(self.messages[-1:])

    def step(self, number: int) -> None:
        self._deliver([self.messages[number]])

    def _deliver(self, ids: list[str]) -> None:
        portal, channels = Portal(), open_channels(self.settings)
        deliverer = Deliverer(self.database, channels, portal, _NoFiles(), settings=self.settings)
        for message_id in ids:
            deliverer.deliver(message_id)
        deliverer.close()
        portal.close()
        self.database.close()

    def recover(self) -> None:
        repeatable = () if self.relay else ("email",)
        with self.database.transaction() as session:
            # In passes, because one sweep takes a bounded number of rows.
            while (
                swept := sweeper.sweep(session, now=utcnow() + timedelta(hours=1), repeatable=repeatable)
            ).unknown or (swept.retried):
                pass
        # Every task twice, as a broker may do.
        self._deliver([*self.messages, *self.messages])
        if self.receiver is not None:
            self.receiver.stop()

    def problems(self) -> list[str]:
        found = reconcile(self.database, arrived=self._arrived(), now=utcnow())
        self.database.close()
        sys.stdout.write(f"{found}\n")
        total = found.sent + found.unknown
        lost = [f"{len(self.messages) - total} of {len(self.messages)} messages are neither sent nor unknown"]
        return found.problems + (lost if total != len(self.messages) else [])

    def _arrived(self) -> Counter[str]:
        if self.receiver is not None:
            return self.receiver.counts()
        return Counter(f"<{file.name}>" for file in (self.folder / "outbox" / "new").iterdir())


def _queue(session: object, thread_id: str) -> str:
    from assistant.states import Author

    message = outbox.queue_message(session, thread_id=thread_id, author=Author.AGENT, text="On its way.")  # type: ignore[arg-type]
    return message.id


class _NoFiles:
    def get(self, key: str) -> bytes:
        raise KeyError(key)


def _of(prefix: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in FAILPOINTS if name.startswith(prefix)))


_SEND = _of("send.")
# The first commit of a request with a key reserves the key, the second is the act with its answer.
_COMMITS = tuple(f"commit.{side}:{number}" for number in (1, 2) for side in ("before", "after"))


def _blobs(*acts: str) -> tuple[str, ...]:
    return tuple(f"blob.{side}_{act}" for act in acts for side in ("before", "after"))


PATHS = [
    CrashPath("send by relay", (*_SEND, *_of("smtp.")), lambda *at: Send(*at, relay=True)),
    CrashPath("send into the outbox folder", (*_SEND, *_of("folder.")), lambda *at: Send(*at, relay=False)),
    CrashPath("receive", _of("receive."), Receive),
    CrashPath("triage", _of("triage."), TriageRun),
    CrashPath("suggest", _of("suggest."), Suggest),
    CrashPath("review", _of("review."), Review),
    CrashPath("reply by the API", _COMMITS, ReplyByApi),
    CrashPath("broker and bus", (*_of("dispatch."), *_of("publish.")), Hints),
]
STORES = [
    CrashPath("reply with a file", _blobs("read", "put", "sync"), ReplyWithFile, 0.02),
    CrashPath("search", _of("index."), Search, 0.02),
    CrashPath("generations in Redis", _of("cache."), Remember, 0.02),
    CrashPath("visit", (*_of("limit."), *_of("presence."), *_of("draft."), *_of("fetch.")), Visit, 0.0085),
    CrashPath("tidying", _blobs("read", "move", "delete"), Tidy, 0.02),
]
"""What a death leaves in them is the same beside any database."""


def test_every_failpoint_belongs_to_a_path_that_dies_there() -> None:
    assert {name.partition(":")[0] for path in PATHS + STORES for name in path.failpoints} == FAILPOINTS


EXTERNAL = {
    "pipelines": r"\.(keep|send|publish|dispatch)$|^run$",
    "assistant/backends/blobs.py": r"^obstore\.(put|get|head|list|delete|rename)$|^_fsync$",
    "assistant/backends/bus.py": r"^(self\._redis|pipe)\.(hdel|set)$",
    "assistant/backends/coordination.py": r"^self\._(limiter\.(hit|clear)|redis\.set)$",
    "channels/support/http.py": r"^client\.(stream|get|post)$",
    "assistant/backends/cache.py": r"^self\._redis\.(set|eval)$|^self\._wait_or_lead$",
    "assistant/backends/vectors.py": r"^(store|self\._store)\.(numbers|upsert|delete|search)$|^self\._open$",
}
"""Calls that change or ask something outside our process, or run the models. A commit has its pair from `committing`."""
WITHIN = {"_wait_or_lead"}
"""Functions whose only caller has the pair round its call of them."""


def test_every_external_call_has_a_failpoint_before_it_and_one_after_it() -> None:
    seen, bare = Counter[str](), []
    for where, pattern in EXTERNAL.items():
        path = ROOT / where
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for function in ast.walk(ast.parse(file.read_text())):
                if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name in WITHIN:
                    continue
                calls = [
                    (node.lineno, ast.unparse(node.func)) for node in ast.walk(function) if isinstance(node, ast.Call)
                ]
                points = [line for line, name in calls if name in {"failpoint", "committing"}]
                for line, name in calls:
                    if re.search(pattern, name):
                        seen[where] += 1
                        if min(points, default=line) >= line or max(points, default=line) <= line:
                            bare.append(f"{file.relative_to(ROOT)}:{line} {name}")
    assert seen["pipelines"] >= 7 and set(seen) == set(EXTERNAL)
    assert bare == []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", PATHS + STORES, ids=lambda path: path.name)
def test_a_crash_at_any_failpoint_loses_nothing_and_sends_nothing_twice(path: CrashPath, tell: Tell) -> None:
    # In memory: a killed process leaves what it wrote in the system's cache, so no disk has to be waited for.
    with in_memory("crash") as folder:
        result = crash(path, folder, rounds=int(ROUNDS * path.share), seed=SEED, seconds=SECONDS)
        tell(f"{result}")
    assert result.problems == []
    assert set(result.killed) == set(path.failpoints), "every name was hit"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_crash_on_postgresql_loses_nothing_and_sends_nothing_twice(
    path: CrashPath, postgres: PostgresServer, tell: Tell
) -> None:
    """Another engine, another way to die: a server sees the connection of a dead process end, and takes its locks away."""

    def database(folder: Path) -> str:
        name = f"crash_{uuid4().hex}"
        postgres.execute(f"CREATE DATABASE {name}")
        return postgres.url(name)

    with in_memory("crash") as folder:
        result = crash(path, folder, rounds=int(ROUNDS * path.share), seed=SEED, seconds=SECONDS / 3, database=database)
        tell(f"{result}")
    assert result.problems == []
    assert set(result.killed) == set(path.failpoints), "every name was hit"
