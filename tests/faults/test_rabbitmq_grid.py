"""The faults of RabbitMQ under flow: what it has not confirmed was not accepted, and the sweeper hands it over again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest
from amqp.exceptions import AMQPError
from kombu.exceptions import KombuError

from assistant.clock import monotonic
from assistant.db.session import Job
from assistant.settings import Settings
from pipelines.broker import create_celery, dispatch
from tests.faults.house import House, Wire
from tests.faults.proxy import Toxic
from tests.support.figures import Tell
from tests.support.servers import smtp_sink_server
from tests.support.stores import RabbitStore, RedisStore, in_memory, paused

MAILS = 12
NOT_TAKEN = (KombuError, AMQPError, OSError)
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitStore]:
    with in_memory("rabbit") as folder:
        made = RabbitStore(folder).start()
        yield made
        made.stop()


@pytest.fixture(scope="module")
def house(rabbit: RabbitStore) -> Iterator[House]:
    with ExitStack() as stack:
        folder = stack.enter_context(in_memory("house"))
        sink = stack.enter_context(smtp_sink_server())
        redis = RedisStore(folder).start()
        stack.callback(redis.stop)
        relay, cache = stack.enter_context(Wire(sink.port)), stack.enter_context(Wire(redis.port))
        made = House(folder, sink, redis, relay, cache, NOTIFYR_BROKER_URL=rabbit.url)
        made.patience = 15.0
        yield stack.enter_context(made)


def killed(rabbit: RabbitStore) -> Iterator[None]:
    rabbit.kill()
    try:
        yield
    finally:
        rabbit.start()


def stopped(rabbit: RabbitStore) -> Iterator[None]:
    """It takes the bytes and confirms nothing."""
    with paused(*[one for one in _tree(rabbit) if one.name().startswith("beam")]):
        yield


def alarmed(rabbit: RabbitStore) -> Iterator[None]:
    """It says that its disk is full, and takes nothing from anybody who publishes."""
    rabbit.control("set_disk_free_limit", "1000000GB")
    try:
        yield
    finally:
        rabbit.control("set_disk_free_limit", "1MB")


def _tree(rabbit: RabbitStore) -> list[psutil.Process]:
    return [psutil.Process(rabbit.pid), *psutil.Process(rabbit.pid).children(recursive=True)]


FAULTS: dict[str, Callable[[RabbitStore], Iterator[None]]] = {"kill -9": killed, "SIGSTOP": stopped, "alarm": alarmed}


@pytest.mark.parametrize("fault", FAULTS)
def test_mail_that_flows_while_the_broker_fails_is_kept_and_answered_once(
    house: House, rabbit: RabbitStore, fault: str, tell: Tell
) -> None:
    began, before = monotonic(), house.settle()
    stop = threading.Event()

    def review() -> None:
        while not stop.is_set():
            with contextlib.suppress(Exception):
                house.reviewer.once()
            time.sleep(0.2)

    worker = threading.Thread(target=review)
    worker.start()
    try:
        assert house.mail(MAILS // 3, seconds=20) == MAILS // 3
        with contextlib.contextmanager(FAULTS[fault])(rabbit):
            assert house.mail(2, seconds=20) == 2, "a mail is kept whatever the broker does"
        assert house.mail(MAILS // 3, seconds=20) == MAILS // 3
    finally:
        stop.set()
        worker.join(60)
    after = house.settle(seconds=90)
    tell(f"RabbitMQ {fault}: {monotonic() - began:.0f} s; {house.restarts} restarts; {after}")
    assert after.received == before.received + 2 * (MAILS // 3) + 2
    assert after.sent == before.sent + 2 * (MAILS // 3) + 2
    assert (after.unknown, after.problems) == (before.unknown, [])
    statuses, house.reviewer.statuses = set(house.reviewer.statuses), []
    assert statuses <= {200, 201, 409, 412, 429, 503}


def test_what_is_not_confirmed_is_not_accepted_and_no_late_word_counts_for_another(
    rabbit: RabbitStore, settings: Settings
) -> None:
    with Wire(rabbit.port) as wire:
        app = create_celery(settings, f"amqp://guest:guest@127.0.0.1:{wire.port}//")
        dispatch(app, Job("triage", ("first",)))
        with wire.toxic(Toxic("stall", towards="client", seconds=4.0)):
            wire.drop()
            time.sleep(0.2)
            began = monotonic()
            with pytest.raises(NOT_TAKEN):
                dispatch(app, Job("triage", ("unconfirmed",)))
            assert monotonic() - began < 9
        dispatch(app, Job("triage", ("second",)))
        with paused(*_tree(rabbit)), pytest.raises(NOT_TAKEN):
            dispatch(app, Job("triage", ("into the void",)))
        dispatch(app, Job("triage", ("third",)))
        app.close()
