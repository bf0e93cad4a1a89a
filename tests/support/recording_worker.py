"""A worker on our broker settings whose tasks only write down their ids. Usage: BROKER_URL FOLDER [PLACES].

A task with the id `slow` takes 30 s, or until the folder holds a file named `quick`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from celery import signals

from assistant.settings import load_settings
from pipelines.broker import ROUTES, create_celery


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    places = (*sys.argv[3:], "2")[0]
    app = create_celery(load_settings({}, data_dir=folder / "var"), url)

    def body(name: str, slow: float) -> None:
        def record(*ids: str) -> None:
            with (folder / "started").open("a") as file:
                file.write(f"{name} {os.getpid()} {' '.join(ids)}\n")
            end = time.monotonic() + (slow if "slow" in ids else 0)
            while time.monotonic() < end and not (folder / "quick").exists():
                time.sleep(0.05)
            with (folder / "done").open("a") as file:
                file.write(f"{name} {' '.join(ids)}\n")

        app.task(name=name)(record)

    def ready(**_: object) -> None:
        sys.stdout.write("ready.\n")
        sys.stdout.flush()

    for name in ROUTES:
        body(name, 30.0)
    signals.worker_ready.connect(ready, weak=False)
    app.worker_main(["worker", "--pool=threads", f"--concurrency={places}", "--without-gossip", "--without-mingle"])


if __name__ == "__main__":
    main()
