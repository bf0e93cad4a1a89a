"""What the state machines share: a quick database, and as many histories of 50 steps as the release asks for.

The histories are divided among the cores, each with a database and a seed of its own.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import Select, event

from assistant.clock import monotonic
from assistant.db.session import Database
from assistant.db.tables import metadata
from tests.support.figures import Tell
from tests.support.stores import in_memory

__all__ = ["Committed", "run_machine"]

HISTORIES = int(os.environ.get("TEST_MACHINE_EXAMPLES", "500"))
"""For each machine: a landing plays 2,000 with the four of them."""
SECONDS = float(os.environ.get("TEST_MACHINE_SECONDS", "300"))
"""For each machine. On a very slow computer the time ends before the histories do; a share of them is played in any case."""
_SHARE = 50
STEPS = 50
SEED = int(os.environ.get("TEST_SEED", "20261124"))
WIDTH = min(4, os.cpu_count() or 1)


@contextmanager
def machine_database(folder: Path) -> Iterator[Database]:
    """SQLite as in production, only that it does not wait for a disk: here nobody pulls the plug."""
    database = Database(f"sqlite:///{folder / 'rows.db'}", pool_size=2)
    event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    metadata.create_all(database.engine)
    try:
        yield database
    finally:
        database.close()


class Committed:
    """What is committed, through a connection of its own: it is asked after every step, where a session costs more than a step."""

    def __init__(self, database: Database) -> None:
        self._connection = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
        self._dialect = database.engine.dialect
        self._words: dict[Select[Any], str] = {}

    def rows(self, statement: Select[Any]) -> list[tuple[Any, ...]]:
        """Values as SQLite has them. `statement` is one that is made once."""
        if statement not in self._words:
            compiled = statement.compile(dialect=self._dialect, compile_kwargs={"literal_binds": True})
            self._words[statement] = str(compiled)
        return self._connection.execute(self._words[statement]).fetchall()

    def version(self) -> int:
        """Another number after every commit that changed something."""
        ((version,),) = self._connection.execute("PRAGMA data_version")
        return int(version)


def run_machine(machine: type[RuleBasedStateMachine], prepare: Callable[[Database], None], tell: Tell) -> None:
    """Play the histories. A broken promise fails with the shortest history that breaks it, and the way to replay it."""
    began = monotonic()
    with in_memory("machine") as folder:
        children = {}
        for number in range(WIDTH):
            own = folder / str(number)
            own.mkdir()
            children[_play(machine, prepare, own, SEED + number)] = own
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        failures = [file.read_text() for own in children.values() if (file := own / "failed.txt").exists()]
        played = sum(int(file.read_text()) for own in children.values() if (file := own / "played.txt").exists())
    tell(
        f"{machine.__name__}: {played} histories of up to {STEPS} steps, seeds {SEED} to {SEED + WIDTH - 1}, "
        f"{monotonic() - began:.0f} s"
    )
    assert failures == [], "\n\n".join(failures)
    assert codes == [0] * WIDTH


def _play(machine: type[RuleBasedStateMachine], prepare: Callable[[Database], None], folder: Path, number: int) -> int:
    """Start one share of the histories in a child; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        # Left to itself the collector takes a third of the time: sessions and histories make a million objects a minute.
        gc.disable()
        gc.freeze()
        wanted, played, began = max(1, HISTORIES // WIDTH), 0, monotonic()
        with machine_database(folder) as database:
            prepare(database)
            while played < wanted and (not played or monotonic() - began < SECONDS):
                share = min(_SHARE, wanted - played)
                case = machine.TestCase
                case.settings = settings(
                    max_examples=share,
                    stateful_step_count=STEPS,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    print_blob=True,
                )
                seed(number + played * WIDTH)(case)("runTest").runTest()
                played += share
                gc.collect()
        (folder / "played.txt").write_text(str(played))
    except BaseException:  # noqa: BLE001  # a child of pytest must never go on as pytest
        (folder / "failed.txt").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)
