"""The unit of work. The only module that commits; what is to be enqueued or published goes out after the commit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import uniform
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from assistant.clock import monotonic
from assistant.errors import StorageError
from assistant.failpoints import failpoint

__all__ = ["Database", "Event", "Job", "after_commit", "enqueue", "publish"]

_log = structlog.get_logger(__name__)
_OUTGOING = "notifyr.outgoing"
_BUSY_SECONDS = 30
"""How long a writer waits for the others on SQLite."""
_READ_ONLY = "25006"
"""PostgreSQL's read_only_sql_transaction, as after a failover to a standby."""
_STOOD_STILL = "25P03"
"""Its idle_in_transaction_session_timeout: we were stopped for so long that our transaction was ended."""
_UNWRITABLE = {
    _READ_ONLY: "the database takes no changes, it is read-only",
    "53100": "the disk of the database is full",
    sqlite3.SQLITE_READONLY: "the database takes no changes, it is read-only",
    sqlite3.SQLITE_FULL: "the disk of the database is full",
    sqlite3.SQLITE_IOERR: "the disk of the database refuses",
}
"""What makes a database that still reads: PostgreSQL's states and SQLite's codes."""
_TRY_AGAIN = 5.0
"""Seconds for which a refusal is believed before it is tried once more."""


@dataclass(frozen=True, slots=True)
class Job:
    """A hint to a worker: `task` by name, ids as strings. The row is the truth; a lost job is swept up later."""

    task: str
    args: tuple[str, ...]
    delay: float = 0.0
    """Seconds to wait; short ones only (Redis brokers repeat long ones)."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change that open pages want to know: ids and few facts, never bodies."""

    kind: str
    payload: dict[str, Any] = field(default_factory=dict)


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Run `action` once the transaction is committed; never when it is rolled back."""
    session.info.setdefault(_OUTGOING, []).append(action)


def enqueue(session: Session, task: str, *args: str, delay: float = 0.0) -> None:
    """Hand a task to the broker after the commit."""
    database: Database = session.info["notifyr.database"]
    job = Job(task, args, delay)
    after_commit(session, lambda: database.dispatch(job))


def publish(session: Session, kind: str, **payload: Any) -> None:
    """Tell open pages after the commit."""
    database: Database = session.info["notifyr.database"]
    change = Event(kind, payload)
    after_commit(session, lambda: database.announce(change))


def _drop(_: object) -> None:
    """Nobody listens: the sweeper finds the rows, pages reload."""


class Database:
    """One engine, and the two ways to use it: `transaction()` to write, `reading()` to read.

    On SQLite a writer takes the write lock at once (`BEGIN IMMEDIATE`), so that two writers queue instead of failing at
    commit. `url` is an SQLAlchemy URL. `dispatch` and `announce` are called after a commit and may fail: the failure is
    logged and the rows are found again by the sweeper. `patient` is for changes of whole tables: on PostgreSQL, any other
    statement that waits ten seconds for a lock, or hears nothing for thirty, is refused.
    """

    def __init__(
        self,
        url: str,
        *,
        dispatch: Callable[[Job], None] = _drop,
        announce: Callable[[Event], None] = _drop,
        pool_size: int = 10,
        patient: bool = False,
    ) -> None:
        self.dispatch = dispatch
        self.announce = announce
        self._refusal = ("", 0.0)
        self.engine = _engine(url, pool_size, patient=patient)
        self._reader = self.engine.execution_options(notifyr_reading=True)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that is committed at the end of the block, or rolled back when the block raises.

        Raises `StorageError` when the database is locked, full, read-only or gone: nothing was kept, try again.
        """
        session = Session(self.engine, expire_on_commit=False, info={"notifyr.database": self})
        try:
            with session:
                yield session
                failpoint("commit.before")
                session.commit()
                failpoint("commit.after")
            self._refusal = ("", 0.0)
        except (OperationalError, InternalError, PoolTimeout) as error:
            if why := _unwritable(error):
                self._refusal = (why, monotonic())
            if (ours := _refused(error)) is None:
                raise
            raise ours from error
        for action in session.info.pop(_OUTGOING, []):
            try:
                action()
            except Exception:  # noqa: BLE001  # see below
                # The rows are committed. A broker or bus that is down costs time, never a message.
                _log.warning("after_commit_failed", exc_info=True)

    def refusal(self, probe: Callable[[Session], None]) -> str:
        """Why nothing can be written although reading works; empty when it can. Looked at again by a small write, `probe`."""
        why, at = self._refusal
        if why and monotonic() - at > _TRY_AGAIN:
            with suppress(StorageError), self.transaction() as session:
                probe(session)
        return self._refusal[0]

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading: one snapshot, nothing is ever written."""
        session = Session(self._reader, expire_on_commit=False, autoflush=False, info={"notifyr.database": self})
        try:
            with session:
                yield session
        except (OperationalError, InternalError, PoolTimeout) as error:
            if (ours := _refused(error)) is None:
                raise
            raise ours from error

    def close(self) -> None:
        self.engine.dispose()


def _refused(error: OperationalError | InternalError | PoolTimeout) -> StorageError | None:
    """Ours for what the database cannot do just now. None for an `InternalError` that says anything else."""
    if isinstance(error, PoolTimeout):
        return StorageError("the database refused: every connection is in use")
    if isinstance(error, InternalError) and getattr(error.orig, "sqlstate", "") not in (_READ_ONLY, _STOOD_STILL):
        return None
    return StorageError(f"the database refused: {type(error.orig).__name__}: {error.orig}")


def _unwritable(error: OperationalError | InternalError | PoolTimeout) -> str:
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    return _UNWRITABLE.get(code) or _UNWRITABLE.get(getattr(original, "sqlstate", "") or "", "")


def _engine(url: str, pool_size: int, *, patient: bool) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        from assistant.db.postgresql import engine_of

        return engine_of(parsed, pool_size, patient=patient)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=10,
        hide_parameters=True,  # an error in the log names its statement, not the mail it was about
        connect_args={"timeout": 30, "check_same_thread": False},
    )
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: SQLAlchemy's begin event does, with the right kind.
    connection.isolation_level = None
    _write_ahead(connection)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_SECONDS * 1000}",
        "temp_store=MEMORY",
        "cache_size=-16000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    """Switch to WAL. On a new file several processes may try at once, and SQLite does not wait there by itself."""
    end = monotonic() + 30
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if monotonic() > end:
                raise
            time.sleep(0.01)


def _sqlite_begin(connection: Connection) -> None:
    if connection.get_execution_options().get("notifyr_reading", False):
        connection.exec_driver_sql("BEGIN")
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout=0")
    try:
        if not _begin_writing(driver):
            # SQLAlchemy meets the error itself, and does not wait a second time for it.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")


def _begin_writing(driver: Any) -> bool:
    """Take the write lock as soon as it is free. SQLite's own waiting sleeps up to a tenth of a second between two looks, in
    which the others write twenty transactions. False when it was not to be had.
    """
    end, pause = monotonic() + _BUSY_SECONDS, 0.0005
    while monotonic() < end:
        try:
            driver.execute("BEGIN IMMEDIATE")
            return True
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                return False
        time.sleep(pause * uniform(0.5, 1))  # noqa: S311  # no secret: two who wait must not look in step
        pause = min(pause * 1.5, 0.003)
    return False


def committing(name: str, session: Session) -> None:
    """Mark the failpoints round this session's commit: `NAME.before_commit` and `NAME.after_commit`."""
    event.listen(session, "before_commit", lambda _: failpoint(f"{name}.before_commit"), once=True)
    event.listen(session, "after_commit", lambda _: failpoint(f"{name}.after_commit"), once=True)
