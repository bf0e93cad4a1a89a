"""A partition: the worker stands in a network of its own, whose only wire goes down while replies leave, and comes up again.

Nothing is closed and nothing is refused: what is on the way is simply not answered, as when a switch loses its power.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from assistant.clock import monotonic, utcnow
from assistant.db.messages import Message
from assistant.db.migrate import migrate
from assistant.services import profiles, sweeper
from assistant.settings import ROOT, Settings
from assistant.states import TriageState
from pipelines.container import Container
from tests.faults.proxy import FaultProxy
from tests.faults.reconciler import Reconciliation, reconcile
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue
from tests.support.servers import SmtpSink, clean_environment, find_binary, running, smtp_sink_server, wait_until
from tests.support.stores import PostgresStore, RedisStore, in_memory

SECONDS = float(os.environ.get("TEST_PARTITION_SECONDS", "60"))
LEASE = 20
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 2 * int(SECONDS))]
HERE, THERE = "10.231.67.1", "10.231.67.2"


@dataclass
class Wire:
    """The one connection of a network of its own (`name`) with this machine."""

    name: str

    def command(self, *words: str) -> list[str]:
        """What runs `words` in it."""
        return [find_binary("ip", "iproute2"), "netns", "exec", self.name, *words]

    def set(self, state: str) -> None:
        _ip("link", "set", _END, state)


_END = f"ntf{os.getpid() % 100_000}"


def _ip(*words: str, check: bool = True) -> None:
    done = subprocess.run([find_binary("ip", "iproute2"), *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(
            f"no network of its own can be made (ip {' '.join(words)}: {done.stderr.strip()}): run this test as root, "
            "outside an unprivileged container"
        )


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire(f"notifyr-{os.getpid()}")
    try:
        _ip("netns", "add", made.name)
        _ip("link", "add", _END, "type", "veth", "peer", "name", "outside", "netns", made.name)
        _ip("addr", "add", f"{HERE}/30", "dev", _END)
        _ip("-n", made.name, "addr", "add", f"{THERE}/30", "dev", "outside")
        for device in ("lo", "outside"):
            _ip("-n", made.name, "link", "set", device, "up")
        made.set("up")
        yield made
    finally:
        _ip("link", "del", _END, check=False)
        _ip("netns", "del", made.name, check=False)


@dataclass
class Office:
    """This side of the wire: who queues replies and receives mail, and the relay."""

    container: Container
    sink: SmtpSink
    profile_id: str
    numbers: Iterator[int]
    queued: int = 0
    received: int = 0

    def reply(self) -> None:
        queue(self.container.database, add_thread(self.container.database))
        self.queued += 1

    def mail(self) -> None:
        raw = f"From: c{next(self.numbers)}@example.com\r\nTo: support@example.org\r\n\r\nHello\r\n".encode()
        self.container.receiver.receive(raw, profile_id=self.profile_id)
        self.received += 1

    def reconcile(self) -> Reconciliation:
        arrived = Counter(str(one.message["Message-ID"]) for one in self.sink.mails)
        return reconcile(self.container.database, arrived=arrived, files=self.container.blobs)

    def settle(self, seconds: float) -> Reconciliation:
        """What the beat would hint at, until nothing waits."""

        def rest() -> Reconciliation | None:
            with self.container.database.transaction() as session:
                sweeper.sweep(session, now=utcnow())
            time.sleep(1)
            found = self.reconcile()
            return found if found.sent + found.unknown == self.queued and not found.problems else None

        found: Reconciliation = wait_until(rest, seconds=seconds, what="everything at rest")
        return found


@pytest.fixture
def office(make_settings: Callable[..., Settings]) -> Iterator[Office]:
    with in_memory("partition", owner="postgres") as folder, smtp_sink_server() as sink:
        (folder / "redis").mkdir()
        redis, postgres = RedisStore(folder / "redis").start(), PostgresStore(folder).start()
        try:
            migrate(postgres.url)
            settings = make_settings(
                database_url=postgres.url, redis_url=redis.url, encoder="off", generator="off", lease_seconds=LEASE
            )
            with contextlib.closing(Container(settings)) as container:
                with container.database.transaction() as session:
                    profile_id = profiles.ensure_default(session, settings).id
                yield Office(container, sink, profile_id, itertools.count())
        finally:
            postgres.stop()
            redis.stop()


@contextlib.contextmanager
def worker(wire: Wire, office: Office, log: Path) -> Iterator[None]:
    """A real worker on the other side. All that it reaches is PostgreSQL, Redis and the relay, over the wire."""
    settings = office.container.settings
    with contextlib.ExitStack() as stack:
        stores = (str(settings.sql_url), office.container.redis_url, office.sink.url)
        ports = [int(url.rpartition(":")[2].partition("/")[0]) for url in stores]
        database, redis, relay = (
            url.replace(f"127.0.0.1:{port}", f"{HERE}:{stack.enter_context(FaultProxy(port, host=HERE)).port}")
            for url, port in zip(stores, ports, strict=True)
        )
        environment = clean_environment(
            NOTIFYR_DATA_DIR=str(settings.data_dir),
            NOTIFYR_MAIL_ADDRESS="support@example.org",
            NOTIFYR_ENCODER="off",
            NOTIFYR_GENERATOR="off",
            NOTIFYR_LEASE_SECONDS=str(LEASE),
            NOTIFYR_DATABASE_URL=database,
            NOTIFYR_REDIS_URL=redis,
            NOTIFYR_RELAY_URL=relay,
            PYTHONPATH=str(ROOT),
        )
        command = [sys.executable, "-m", "api.cli", "worker", "--queues", "inbound,outbound", "--name", "worker"]
        stack.enter_context(
            running(
                wire.command(*command), log=log, ready=lambda: "ready." in log.read_text(), seconds=60, env=environment
            )
        )
        yield


def test_a_worker_that_nothing_reaches_for_a_minute_goes_on_by_itself_and_sends_nothing_twice(
    wire: Wire, office: Office, tmp_path: Path, tell: Tell
) -> None:
    log = tmp_path / "worker.log"
    with worker(wire, office, log):
        for _ in range(5):
            office.reply()
            office.mail()
        office.sink.wait(5, seconds=60)
        office.sink.delay = 0.3  # the wire is cut while a reply is on its way
        for number in range(30):
            office.reply()
            office.mail()
            if number == 10:
                wire.set("down")
        arrived, began = len(office.sink.mails), monotonic()
        time.sleep(SECONDS)
        assert len(office.sink.mails) <= arrived + 1, "something got through"
        office.sink.delay = 0.0
        wire.set("up")
        healed = monotonic()
        try:
            found = office.settle(150)
        except BaseException as error:
            error.add_note(f"{office.reconcile()}\n{log.read_text(errors='replace')[-8000:]}")
            raise
        took = monotonic() - healed
        office.reply()
        again = office.settle(60)
    tell(f"partition of {healed - began:.0f} s: at rest {took:.1f} s after it; {found}")
    with office.container.database.reading() as session:
        inbound = select(Message.triage).where(Message.raw_key != "")
        triaged = Counter(session.scalars(inbound))
    assert triaged == {TriageState.DONE: office.received}
    assert found.unknown <= 4, "what was on its way, and nothing else"
    assert again.sent == found.sent + 1
