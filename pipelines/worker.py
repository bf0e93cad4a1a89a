"""The worker and the beat: `celery -A pipelines.worker worker --without-heartbeat` does what `notifyr worker` does.

The application is made when it is first asked for, never at import.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from socket import gethostname
from typing import Any

import structlog
from celery import Celery, Task, signals

from assistant.errors import NotifyrError
from assistant.telemetry import configure_logging
from pipelines.container import Container, build
from pipelines.tasks import TASKS

__all__ = ["NotifyrTask", "create_worker", "run_beat", "run_worker"]

_log = structlog.get_logger(__name__)
DRAIN_SECONDS = 30
"""For what a worker has begun, once it is asked to end: as long as `notifyr run` waits for its processes."""


class NotifyrTask(Task[Any, Any]):
    """What all tasks share: ids in the log context, and an expected failure that is logged and left to the sweeper.

    A task is a hint: the row decides what is left to do, so a failed one is not kept in the broker.
    """

    container: Container
    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _bound(task=self.name, task_id=self.request.id or "", ids=list(args)):
            try:
                return self.run(self.container, *args, **kwargs)
            except NotifyrError as error:
                _log.warning("task_failed", code=error.code, retryable=error.retryable, reason=error.message)
                return None


@contextlib.contextmanager
def _bound(**values: Any) -> Iterator[None]:
    with structlog.contextvars.bound_contextvars(**values):
        yield


def create_worker(container: Container) -> Celery:
    """The container's Celery application with every task registered on it."""
    app = container.celery
    signals.worker_shutting_down.connect(_end_in_time, weak=False)
    for name, body in TASKS.items():
        # celery calls run() bound to the task; the container is handed in explicitly by NotifyrTask.
        made = type(
            f"{name.title()}Task",
            (NotifyrTask,),
            {"name": f"notifyr.{name}", "run": staticmethod(body), "container": container, "__module__": __name__},
        )
        app.register_task(made())
    return app


def _quiet_logging(container: Container) -> None:
    def setup(**_: object) -> None:
        configure_logging(container.settings.log_level, container.settings.log_format)

    signals.setup_logging.connect(setup, weak=False)


def run_worker(container: Container, *, queues: tuple[str, ...], threads: int, name: str) -> int:
    """Work until SIGTERM: running tasks are finished first, for `DRAIN_SECONDS`. Returns the exit code."""
    _quiet_logging(container)
    app = create_worker(container)
    if "models" in queues or "inbound" in queues:
        signals.worker_ready.connect(lambda **_: container.triage.warm(queues), weak=False)
    # What `celery worker` does with these options, without its command line, which takes 8 MiB of prompts and menus.
    worker = app.Worker(
        hostname=f"{name}@{gethostname()}",
        pool_cls="threads",
        concurrency=threads,
        queues=",".join(queues),
        loglevel=container.settings.log_level,
        # Nobody listens to events. Where Redis has gone, the first one was tried for ever, and SIGTERM not heard.
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    container.close()
    return int(worker.exitcode or 0)


def _end_in_time(**_: object) -> None:
    """What hangs longer ends as by SIGKILL: the rows say what it left undone. Nobody else may be there to kill it."""
    signal.alarm(DRAIN_SECONDS)


def run_beat(container: Container) -> int:
    """Send the periodic tasks until SIGTERM. Two of them are harmless: a sweep is idempotent."""
    _quiet_logging(container)
    container.settings.path("run").mkdir(parents=True, exist_ok=True)
    app = create_worker(container)
    app.Beat(loglevel=container.settings.log_level, quiet=True).run()
    return 0


def __getattr__(name: str) -> Any:
    if name in {"app", "celery"}:
        container = build()
        _quiet_logging(container)
        return create_worker(container)
    raise AttributeError(name)
