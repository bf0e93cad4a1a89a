"""The faults of PostgreSQL and RabbitMQ under the listener and the outbox: committed stays, nothing is answered too early."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import select

from assistant.backends.blobs import Blobs
from assistant.clock import monotonic
from assistant.db.messages import Message
from assistant.db.migrate import migrate
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import profiles
from assistant.settings import Settings
from assistant.states import Delivery, Direction
from channels.support import mime
from pipelines.inbound import Receiver
from pipelines.outbound import Deliverer, Portal, open_channels
from tests.faults.house import sync_fails
from tests.faults.reconciler import reconcile
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue
from tests.support.servers import SmtpSink, wait_until
from tests.support.stores import PostgresStore, in_memory, paused

pytestmark = pytest.mark.timeout(120)
MAIL = "From: c{0}@example.com\r\nTo: support@example.org\r\nMessage-ID: <p{0}@example.com>\r\n\r\nHello {0}\r\n"


@pytest.fixture(scope="module")
def store() -> Iterator[PostgresStore]:
    with in_memory("pg", owner="postgres") as folder:
        made = PostgresStore(folder).start()
        migrate(made.url)
        yield made
        made.stop()


class _Parser:
    parse = staticmethod(mime.parse)


class Office:
    """A listener's and a worker's half on one PostgreSQL."""

    numbers = iter(range(1_000_000))

    def __init__(self, settings: Settings, sink: SmtpSink) -> None:
        self.sink = sink
        self.database = Database(settings.sql_url, pool_size=2)
        self.blobs = Blobs.open(settings)
        self.receiver = Receiver(self.database, self.blobs, _Parser())
        self.portal = Portal()
        self.deliverer = Deliverer(self.database, open_channels(settings), self.portal, self.blobs, settings=settings)
        with self.database.transaction() as session:
            self.profile_id = profiles.ensure_default(session, settings).id
        self.accepted: list[str] = []
        self.queued: list[str] = []
        self.refused = 0

    def close(self) -> None:
        self.deliverer.close()
        self.portal.close()
        self.database.close()

    def mail(self) -> bool:
        number = next(self.numbers)
        try:
            self.receiver.receive(MAIL.format(number).encode(), profile_id=self.profile_id)
        except StorageError:
            self.refused += 1
            return False
        self.accepted.append(f"<p{number}@example.com>")
        return True

    def reply(self) -> bool:
        try:
            self.queued.append(queue(self.database, add_thread(self.database)))
        except StorageError:
            self.refused += 1
            return False
        return True

    def send(self) -> None:
        for message_id in self.queued:
            with contextlib.suppress(StorageError):
                self.deliverer.deliver(message_id)


@pytest.fixture
def office(store: PostgresStore, make_settings: Callable[..., Settings], smtp_sink: SmtpSink) -> Iterator[Office]:
    made = Office(make_settings(database_url=store.url, relay_url=smtp_sink.url), smtp_sink)
    yield made
    made.close()


def backend(store: PostgresStore) -> Iterator[None]:
    for one in store.backends():
        one.kill()
    yield


def postmaster(store: PostgresStore) -> Iterator[None]:
    store.kill()
    try:
        yield
    finally:
        store.start()


def restart(store: PostgresStore) -> Iterator[None]:
    store.restart()
    yield


def read_only(store: PostgresStore) -> Iterator[None]:
    store.execute("ALTER DATABASE notifyr SET default_transaction_read_only = on")
    store.disconnect()
    try:
        yield
    finally:
        with store.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE notifyr RESET default_transaction_read_only")
        store.disconnect()


def no_connections(store: PostgresStore) -> Iterator[None]:
    store.disconnect()
    with ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(store.connect())
        yield


def dying_disk(store: PostgresStore) -> Iterator[None]:
    import psutil

    parent = psutil.Process(store.pid)
    with sync_fails(parent, *parent.children(recursive=True)):
        yield


def stopped(store: PostgresStore) -> Iterator[None]:
    with paused(*store.backends()):
        time.sleep(1)
    yield


FAULTS: dict[str, tuple[Callable[[PostgresStore], Iterator[None]], bool]] = {
    # fault, and whether everything must be refused while it lasts
    "SIGKILL backend": (backend, False),
    "SIGKILL postmaster": (postmaster, True),
    "restart": (restart, False),
    "read-only": (read_only, True),
    "no connection left": (no_connections, True),
    "EIO on fsync": (dying_disk, True),
    "SIGSTOP": (stopped, False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_postgresql_committed_stays_and_what_it_refused_was_never_promised(
    fault: str, store: PostgresStore, office: Office, tell: Tell
) -> None:
    began = monotonic()
    act, closed = FAULTS[fault]
    for _ in range(3):
        assert office.mail()
        assert office.reply()
    with contextlib.contextmanager(act)(store):
        kept = [office.mail() for _ in range(3)] + [office.reply()]
        office.send()
        assert not (closed and any(kept)), "it said yes while nothing could be kept"
    wait_until(office.mail, seconds=20, what="a mail after the fault")
    wait_until(office.reply, seconds=20, what="a reply after the fault")
    office.send()
    office.send()
    arrived = Counter(str(one.message["Message-ID"]) for one in office.sink.mails)
    with office.database.reading() as session:
        rows = {row.id: row for row in session.scalars(select(Message).where(Message.direction == Direction.OUTBOUND))}
        stored = set(session.scalars(select(Message.external_id).where(Message.direction == Direction.INBOUND)))
    ours = [rows[one] for one in office.queued]
    statuses = Counter(str(row.status) for row in ours)
    tell(
        f"{fault}: {monotonic() - began:.1f} s, {len(office.accepted)} kept, {office.refused} refused, {dict(statuses)}"
    )
    assert set(office.accepted) <= stored
    assert len(rows) >= len(office.queued)
    for row in ours:
        assert row.status in (Delivery.SENT, Delivery.SENDING), row.status
        # A claim whose record did not go through is swept into `unknown` when its lease ends.
        assert arrived[row.external_id] == 1 or row.status == Delivery.SENDING
        assert arrived[row.external_id] <= 1
    found = reconcile(office.database, arrived=Counter(), backlog=False)
    assert not [one for one in found.problems if "stored twice" in one or "leased" in one]


def test_a_pool_without_a_free_connection_is_a_refusal_that_can_be_tried_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it was a failure of ours (500), not a busy database (503)."""
    monkeypatch.setattr(office.database.engine.pool, "_timeout", 0.2)
    with ExitStack() as stack:
        for _ in range(12):  # the pool of two, and what it may open beyond
            stack.enter_context(office.database.engine.connect())
        assert not office.mail()
        with pytest.raises(StorageError, match="in use"), office.database.reading() as session:
            session.scalars(select(Message)).all()
    assert office.mail()
