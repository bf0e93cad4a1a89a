"""The same tasks travel over the embedded Valkey, Debian's Redis and RabbitMQ; a broker that is down costs seconds."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from assistant.db.session import Job
from assistant.services import attempts, outbox
from assistant.settings import ROOT, Settings
from pipelines.broker import QUEUES, ROUTES, create_celery, dispatch
from tests.support.servers import bound, clean_environment, free_port, notifyr, running, temporary_folder, wait_until
from tests.support.stores import RabbitStore, RedisStore

Start = Callable[[], Popen[bytes]]


@pytest.fixture(params=["valkey", "redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker we support, empty."""
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("rabbitmq_url")
        return url
    from redis import Redis

    url = request.getfixturevalue(f"{request.param}_session_url")
    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def start_worker(broker_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts real worker processes on the broker, stopped at the end."""
    with ExitStack() as stack:

        def start() -> Popen[bytes]:
            log = tmp_path / f"worker-{time.monotonic_ns()}.log"
            return stack.enter_context(
                running(
                    [sys.executable, "-m", "tests.support.recording_worker", broker_url, str(tmp_path)],
                    log=log,
                    ready=lambda: "ready." in log.read_text(),
                    seconds=30,
                    env=clean_environment(PYTHONPATH=str(ROOT)),
                )
            )

        yield start


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_every_task_reaches_a_worker_once(
    broker_url: str, start_worker: Start, settings: Settings, tmp_path: Path
) -> None:
    app = create_celery(settings, broker_url)
    jobs = [Job(name.removeprefix("notifyr."), (f"id-{i}",)) for name in ROUTES for i in range(10)]
    for job in jobs:
        dispatch(app, job)  # queued before anybody listens: a durable queue keeps them
    start_worker()
    wait_until(lambda: len(lines(tmp_path / "done")) >= len(jobs), seconds=20, what="all tasks")
    time.sleep(0.5)
    assert sorted(lines(tmp_path / "done")) == sorted(f"notifyr.{job.task} {job.args[0]}" for job in jobs)
    app.close()


def test_a_short_delay_is_kept(broker_url: str, start_worker: Start, settings: Settings, tmp_path: Path) -> None:
    app = create_celery(settings, broker_url)
    start_worker()
    began = time.monotonic()
    dispatch(app, Job("deliver", ("later",), delay=1.5))
    wait_until(lambda: lines(tmp_path / "done"), what="the delayed task")
    assert time.monotonic() - began > 1.4
    app.close()


def test_a_worker_that_is_asked_to_stop_finishes_what_it_has(
    broker_url: str, start_worker: Start, settings: Settings, tmp_path: Path
) -> None:
    app = create_celery(settings, broker_url)
    worker = start_worker()
    dispatch(app, Job("deliver", ("one",)))
    wait_until(lambda: lines(tmp_path / "started"), what="the task")
    worker.terminate()
    assert worker.wait(20) == 0
    assert lines(tmp_path / "done") == ["notifyr.deliver one"]
    app.close()


def test_rabbitmq_gives_a_killed_workers_task_to_the_next_one(
    rabbitmq_url: str, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    app = create_celery(settings, rabbitmq_url)
    command = [sys.executable, "-m", "tests.support.recording_worker", rabbitmq_url, str(tmp_path)]
    env = clean_environment(PYTHONPATH=str(ROOT))
    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    with running(command, log=first_log, ready=lambda: "ready." in first_log.read_text(), seconds=30, env=env) as first:
        dispatch(app, Job("draft", ("slow",)))
        wait_until(lambda: lines(tmp_path / "started"), what="the task")
        first.kill()
        first.wait()
    (tmp_path / "quick").touch()
    with running(command, log=second_log, ready=lambda: "ready." in second_log.read_text(), seconds=30, env=env):
        wait_until(lambda: lines(tmp_path / "done") == ["notifyr.draft slow"], what="the redelivery")
    app.close()


def test_a_worker_that_ends_its_task_while_redis_is_away_takes_the_next_one(settings: Settings, tmp_path: Path) -> None:
    """It is busy in its only place, so it listens to nothing, and what fails is its acknowledgement."""
    log = tmp_path / "worker.log"
    with temporary_folder("broker") as folder:
        store = RedisStore(folder).start()
        app = create_celery(settings, store.url)
        command = [sys.executable, "-m", "tests.support.recording_worker", store.url, str(tmp_path), "1"]
        env = clean_environment(PYTHONPATH=str(ROOT))
        try:
            with running(command, log=log, ready=lambda: "ready." in log.read_text(), seconds=30, env=env):
                dispatch(app, Job("draft", ("slow",)))
                wait_until(lambda: lines(tmp_path / "started"), seconds=20, what="the task")
                store.kill()
                (tmp_path / "quick").touch()
                wait_until(lambda: lines(tmp_path / "done"), seconds=20, what="the end of the task")
                wait_until(lambda: "Couldn't ack" in log.read_text(), seconds=20, what="the acknowledgement that fails")
                store.start()
                wait_until(lambda: _taken(app), seconds=30, what="a job for the Redis that came back")
                wait_until(lambda: "notifyr.triage after" in lines(tmp_path / "done"), seconds=30, what="the next task")
        finally:
            app.close()
            store.stop()


@pytest.mark.parametrize(
    ("place", "seconds", "code"),
    [*[(place, (), 0) for place in range(5)], (1, ("2",), -signal.SIGALRM)],
    ids=[*map(str, range(5)), "and hangs"],
)
def test_a_worker_that_is_asked_to_end_while_it_starts_ends_without_its_redis(
    tmp_path: Path, place: int, seconds: tuple[str, ...], code: int
) -> None:
    """Celery told that the worker is there before it consumed, and told it again for ever where nobody heard it."""
    env = {"NOTIFYR_DATA_DIR": str(tmp_path / "var"), "NOTIFYR_ENCODER": "off", "NOTIFYR_GENERATOR": "off"}
    log = tmp_path / "worker.log"
    with temporary_folder("broker") as folder:
        store = RedisStore(folder).start()
        env |= {"NOTIFYR_REDIS_URL": store.url}
        try:
            assert notifyr("prepare", env=env).returncode == 0
            command = [sys.executable, "-m", "tests.support.orphaned_worker", str(store.pid), str(place), *seconds]
            with log.open("wb") as said:
                worker = Popen(
                    [*bound(signal.SIGKILL), *command],
                    cwd=ROOT,
                    env=clean_environment(**env),
                    stdout=said,
                    stderr=said,
                )
            try:
                assert worker.wait(timeout=60) == code, log.read_text()
            finally:
                worker.kill()
                worker.wait()
            assert "Warm shutdown" in log.read_text()
        finally:
            store.stop()


@pytest.mark.parametrize("scheme", ["redis://127.0.0.1:{}/0", "amqp://guest:guest@127.0.0.1:{}//"])
def test_a_broker_that_is_down_fails_at_once(scheme: str, settings: Settings) -> None:
    app = create_celery(settings, scheme.format(free_port()))
    began = time.monotonic()
    with pytest.raises((OperationalError, OSError)):
        dispatch(app, Job("triage", ("x",)))
    assert time.monotonic() - began < 15
    app.close()


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_broker_that_is_down_for_many_jobs_takes_the_next_one_when_it_is_back(
    kind: str, settings: Settings, tmp_path: Path
) -> None:
    """Each failed job once cost the pools a place for good, and the one after the last place waited for ever."""
    with temporary_folder("broker") as folder:
        store = RedisStore(folder) if kind == "redis" else RabbitStore(folder)
        store.start()
        app = create_celery(settings, store.url)
        try:
            dispatch(app, Job("triage", ("before",)))
            store.kill()
            for number in range(3 * app.pool.limit):
                began = time.monotonic()
                with pytest.raises(OperationalError):
                    dispatch(app, Job("triage", (str(number),)))
                assert time.monotonic() - began < 20
            store.start()
            wait_until(lambda: _taken(app), seconds=60, what="a job after the broker is back")
        finally:
            app.close()
            store.stop()


def _taken(app: Celery) -> bool:
    """A server that has just started may refuse a first try."""
    try:
        dispatch(app, Job("triage", ("after",)))
    except OperationalError:
        return False
    return True


@pytest.mark.parametrize("values", [{}, {"lease_seconds": 900}, {"draft_timeout": 400.0}], ids=str)
def test_no_task_comes_back_while_it_is_worked_on_or_waits_for_its_time(
    make_settings: Callable[..., Settings], values: dict[str, float]
) -> None:
    """Redis hands a task out again after the visibility timeout: it has to outlast every lease, draft and countdown."""
    settings = make_settings(**values)
    app = create_celery(settings, "redis://127.0.0.1:1/0")
    again = app.conf.broker_transport_options["visibility_timeout"]
    assert again > max(settings.lease_seconds, settings.draft_timeout, settings.relay_timeout)
    assert again > 2 * max(outbox._LONGEST_COUNTDOWN, attempts._LONGEST_COUNTDOWN)
    assert app.conf.task_acks_late and app.conf.task_reject_on_worker_lost and app.conf.worker_prefetch_multiplier == 1
    for entry in app.conf.beat_schedule.values():
        assert 0 < entry["options"]["expires"] <= entry["schedule"], "the next turn makes it needless"


def test_every_route_leads_to_a_queue_that_workers_know() -> None:
    assert set(ROUTES.values()) <= set(QUEUES)
