"""The Celery application: queues, delivery rules, beat table. Rows are the truth; a task is a hint that carries ids."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from celery import Celery
from kombu import Connection, Exchange, Queue

from assistant.db.session import Job
from assistant.settings import Settings
from assistant.telemetry import METRICS
from pipelines.redis_broker import Transport

__all__ = ["QUEUES", "ROUTES", "broker_url", "create_celery", "dispatch", "try_broker"]

QUEUES = ("inbound", "outbound", "models", "batch")
ROUTES = {
    "notifyr.triage": "inbound",
    "notifyr.rejudge": "inbound",
    "notifyr.sweep": "inbound",
    "notifyr.tidy": "inbound",
    "notifyr.deliver": "outbound",
    "notifyr.draft": "models",
    "notifyr.ask": "models",
}
_TIDY_SECONDS = 6 * 3600.0
_NETWORK_SECONDS = 3
"""A broker that is down must cost a request no more than this: the sweeper finds the row."""


def broker_url(settings: Settings, redis_url: str) -> str:
    return settings.broker_url.get_secret_value() if settings.broker_url is not None else redis_url


def create_celery(settings: Settings, url: str) -> Celery:
    """An application on the broker at `url`. Nothing is connected yet."""
    app = Celery("notifyr", broker=url, set_as_current=False)
    # One try at connecting a producer: kombu's own default waits between several.
    options: dict[str, object] = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    if url.startswith("amqp"):
        options["confirm_publish"] = True
    if url.startswith(("redis", "unix", "valkey")):
        longest = max(300.0, settings.lease_seconds * 2, settings.draft_timeout * 4)
        options |= {
            # A killed worker's task comes back after the visibility timeout; kombu looks every second (not every 100).
            "visibility_timeout": longest,
            "unacked_restore_interval": 1,
            # A server that stands still, too: whoever was answered 250 or 201 may not wait half a minute for it.
            "socket_timeout": _NETWORK_SECONDS,
            "socket_connect_timeout": _NETWORK_SECONDS,
            "socket_keepalive": True,
            "global_keyprefix": "notifyr:celery:",
        }
        app.conf.broker_transport = Transport
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue="inbound",
        # A key of its own each: queues that share one would all get a copy of every task.
        task_queues=[Queue(name, Exchange("notifyr", type="direct"), routing_key=name) for name in QUEUES],
        task_default_exchange="notifyr",
        task_default_routing_key="inbound",
        task_routes={name: {"queue": queue} for name, queue in ROUTES.items()},
        task_create_missing_queues=False,
        broker_transport_options=options,
        broker_connection_timeout=_NETWORK_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Its way back to the full count is `basic.qos` from a pool's thread, which reads the loop's socket: both then wait.
        worker_enable_prefetch_count_reduction=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        timezone="UTC",
        enable_utc=True,
        beat_schedule={
            "sweep": {
                "task": "notifyr.sweep",
                "schedule": float(settings.sweep_seconds),
                "options": {"expires": float(settings.sweep_seconds)},
            },
            "tidy": {"task": "notifyr.tidy", "schedule": _TIDY_SECONDS, "options": {"expires": _TIDY_SECONDS}},
        },
        beat_schedule_filename=str(settings.path("run", "beat-schedule")),
        beat_max_loop_interval=min(5, settings.sweep_seconds),
    )
    return app


def try_broker(url: str, *, seconds: float) -> None:
    """Connect once and close. Raises whatever kombu raises for a broker that is not there or refuses us."""
    with Connection(url, connect_timeout=seconds) as connection:
        connection.connect()


def dispatch(app: Celery, job: Job) -> None:
    """Hand one job to the broker, once, without waiting for a broker that is down. Raises kombu's `OperationalError` and kin.

    RabbitMQ confirms what it has taken; what it does not confirm in time was not accepted.
    """
    name = f"notifyr.{job.task}"
    pool = app.amqp.producer_pool
    try:
        producer = pool.acquire(block=True, timeout=_NETWORK_SECONDS)
        try:
            app.send_task(
                name,
                args=list(job.args),
                countdown=job.delay or None,
                queue=ROUTES[name],
                retry=False,
                producer=producer,
                confirm_timeout=_NETWORK_SECONDS,
            )
        except BaseException:
            # A late confirmation on its connection would be taken for the next message's.
            _throw_away(app, producer)
            raise
        producer.release()
    except Exception:
        METRICS.dispatch_failures.labels(task=job.task).inc()
        raise


def _throw_away(app: Celery, producer: Any) -> None:
    """A producer's connection, without a word to a broker that may not answer. Both pools keep their full number of places:
    `replace` alone takes one away each time, and with none left the next to come would wait for ever.
    """
    producers: Any = app.amqp.producer_pool
    connections: Any = app.pool
    connection = producer.__connection__
    producer.__connection__ = None  # it is not given back together with its producer
    producers.release(producer)
    if connection is not None:
        # A goodbye over AMQP would wait for its answer. Not the properties, which would connect.
        wire = getattr(connection._connection, "_transport", None)  # noqa: SLF001
        if wire is not None and wire.sock is not None:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        connections.replace(connection)
        connections.resize(connections.limit)
