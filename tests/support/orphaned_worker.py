"""A worker of ours whose Redis is killed, and which is asked to end, before one of the steps in which it starts to consume.

    python -m tests.support.orphaned_worker PID-OF-REDIS PLACE-OF-THE-STEP [SECONDS]

Both come at once when `notifyr run` is killed: Redis and the workers hear of it together. With SECONDS, which it has to end, it
hangs in the step.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from celery.worker.consumer import Consumer

import pipelines.worker
from pipelines.container import build

_start = Consumer.Blueprint.start


def _lose(blueprint: Any, consumer: Any) -> None:
    step = consumer.steps[int(sys.argv[2]) % len(consumer.steps)]
    begin = step.start

    def alone(parent: Any) -> None:
        os.kill(int(sys.argv[1]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGTERM)
        while len(sys.argv) > 3:
            signal.pause()
        begin(parent)

    step.start = alone
    _start(blueprint, consumer)


if __name__ == "__main__":
    Consumer.Blueprint.start = _lose
    if len(sys.argv) > 3:
        pipelines.worker.DRAIN_SECONDS = int(sys.argv[3])
    sys.exit(pipelines.worker.run_worker(build(), queues=("inbound", "outbound"), threads=1, name="worker"))
