"""The faults of PostgreSQL and RabbitMQ under the listener and the outbox: committed stays, nothing is answered too early."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import psutil
import psycopg
import pytest
from aiosmtpd.smtp import Envelope
from sqlalchemy import select, text

from api.main import create_app
from assistant.backends.blobs import Blobs
from assistant.clock import monotonic, utcnow
from assistant.db import postgresql
from assistant.db.messages import Message
from assistant.db.migrate import migrate
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import profiles
from assistant.services.sweeper import sweep
from assistant.settings import Settings
from assistant.states import Delivery, Direction
from channels.support import mime
from pipelines.container import Container
from pipelines.inbound import Receiver
from pipelines.mailboxes import Listener
from pipelines.outbound import Deliverer, Portal, open_channels
from tests.api.conftest import World, serve
from tests.faults.house import sync_fails
from tests.faults.reconciler import reconcile
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue
from tests.support.servers import SmtpSink, wait_until
from tests.support.stores import PostgresStore, in_memory, paused

pytestmark = pytest.mark.timeout(300)
MAIL = "From: c{0}@example.com\r\nTo: support@example.org\r\nMessage-ID: <p{0}@example.com>\r\n\r\nHello {0}\r\n"


@pytest.fixture(scope="module")
def store() -> Iterator[PostgresStore]:
    with in_memory("pg", owner="postgres") as folder:
        made = PostgresStore(folder).start()
        migrate(made.url)
        made.execute("CREATE DATABASE clean TEMPLATE notifyr")
        yield made
        made.stop()


@pytest.fixture
def empty(store: PostgresStore) -> PostgresStore:
    """With nothing in it of the faults before."""
    store.execute("DROP DATABASE notifyr WITH (FORCE)")
    store.execute("CREATE DATABASE notifyr TEMPLATE clean")
    return store


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that says nothing is given up after two seconds instead of thirty and ten."""
    monkeypatch.setattr(postgresql, "SILENT_SECONDS", 2.0)
    monkeypatch.setitem(postgresql._OPTIONS, "connect_timeout", 2)


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
        self.listener = Listener(settings, self.database, self.receiver)
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
        envelope = Envelope()
        envelope.mail_from, envelope.rcpt_tos = f"c{number}@example.com", ["support@example.org"]
        envelope.original_content = MAIL.format(number).encode()
        answer = asyncio.run(self.listener.handle_DATA(None, None, envelope))  # type: ignore[arg-type]  # not looked at
        if not answer.startswith("250"):
            assert answer.startswith("451"), answer
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
def office(
    empty: PostgresStore, impatient: None, make_settings: Callable[..., Settings], smtp_sink: SmtpSink
) -> Iterator[Office]:
    made = Office(make_settings(database_url=empty.url, relay_url=smtp_sink.url), smtp_sink)
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
    parent = psutil.Process(store.pid)
    with sync_fails(parent, *parent.children(recursive=True)):
        yield


def stopped(store: PostgresStore) -> Iterator[None]:
    parent = psutil.Process(store.pid)
    with paused(parent, *parent.children(recursive=True)):
        yield


def stopped_backends(store: PostgresStore) -> Iterator[None]:
    with paused(*store.backends()):
        yield


FAULTS: dict[str, tuple[Callable[[PostgresStore], Iterator[None]], bool]] = {
    # fault, and whether everything must be refused while it lasts
    "SIGKILL backend": (backend, False),
    "SIGKILL postmaster": (postmaster, True),
    "restart": (restart, False),
    "read-only": (read_only, True),
    "no connection left": (no_connections, True),
    "EIO on fsync": (dying_disk, True),
    "SIGSTOP": (stopped, True),
    "SIGSTOP backends": (stopped_backends, False),
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
        fell = monotonic()
        kept = [office.mail() for _ in range(3)] + [office.reply()]
        office.send()
        assert monotonic() - fell < 40, "each try has an end"
        assert not (closed and any(kept)), "it said yes while nothing could be kept"
    wait_until(office.mail, seconds=20, what="a mail after the fault")
    wait_until(office.reply, seconds=20, what="a reply after the fault")
    office.send()
    office.send()
    with office.database.transaction() as session:
        # A claim whose record did not go through is swept into `unknown` when its lease ends.
        sweep(session, now=utcnow() + timedelta(hours=1))
    arrived = Counter(str(one.message["Message-ID"]) for one in office.sink.mails)
    with office.database.reading() as session:
        rows = {row.id: row for row in session.scalars(select(Message).where(Message.direction == Direction.OUTBOUND))}
    ours = [rows[one] for one in office.queued]
    statuses = Counter(str(row.status) for row in ours)
    tell(
        f"{fault}: {monotonic() - began:.1f} s, {len(office.accepted)} kept, {office.refused} refused, {dict(statuses)}"
    )
    assert set(statuses) <= {Delivery.SENT, Delivery.UNKNOWN}
    # Nothing is triaged here, so the mails wait for it.
    found = reconcile(office.database, arrived=arrived, source=office.accepted, files=office.blobs, backlog=False)
    assert not found.problems, found
    assert found.files >= len(office.accepted)


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


def test_a_page_that_asks_a_database_which_stands_still_is_answered_with_503_in_time(
    empty: PostgresStore, impatient: None, make_settings: Callable[..., Settings], valkey_url: str
) -> None:
    """Regression: it hung for as long as the database did."""
    settings = make_settings(redis_url=valkey_url, database_url=empty.url, encoder="off", generator="off")
    with contextlib.closing(Container(settings)) as container, serve(app := create_app(container)) as url:
        world = World(container, app, url)
        world.fill()
        program = world.program()
        assert program.get("/api/v1/threads").status_code == 200
        with contextlib.contextmanager(stopped)(empty):
            began = monotonic()
            answer = program.get("/api/v1/threads")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:notifyr:problem:storage")
            assert monotonic() - began < 15
        wait_until(lambda: program.get("/api/v1/threads").status_code == 200, seconds=20, what="the page")
        program.close()


def test_a_row_that_somebody_holds_is_a_refusal_after_a_while(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_LOCK", "300ms")
    office.database.engine.dispose()
    with office.database.engine.connect() as holder:
        holder.execute(text("UPDATE profiles SET name = name"))
        with pytest.raises(StorageError, match="LockNotAvailable"), office.database.transaction() as session:
            session.execute(text("UPDATE profiles SET name = name"))
        holder.rollback()
    assert office.mail()


def test_a_process_that_was_stopped_in_a_transaction_frees_its_locks_and_is_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_IDLE", "200ms")
    office.database.engine.dispose()
    with pytest.raises(StorageError), office.database.transaction() as session:
        session.execute(text("UPDATE profiles SET name = name"))
        time.sleep(1)
        with psycopg.connect(office.database.engine.url.set(drivername="postgresql").render_as_string()) as other:
            other.execute("SET lock_timeout TO '5s'")
            other.execute("UPDATE profiles SET name = name")
        session.execute(text("UPDATE profiles SET name = name"))
    assert office.mail()


def test_a_patient_database_waits_as_long_as_it_takes(empty: PostgresStore, impatient: None) -> None:
    """Migrations of large tables."""
    with contextlib.closing(Database(empty.url, pool_size=1, patient=True)) as database, database.reading() as session:
        session.execute(text("SELECT pg_sleep(3)"))
    with (
        contextlib.closing(Database(empty.url, pool_size=1)) as database,
        pytest.raises(StorageError, match="said nothing"),
        database.reading() as session,
    ):
        session.execute(text("SELECT pg_sleep(30)"))
