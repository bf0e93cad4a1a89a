"""The unit of work on SQLite: how long it waits for others."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from sqlalchemy import text

from assistant.clock import monotonic
from assistant.db import session as unit
from assistant.db.session import Database
from assistant.errors import StorageError


def test_a_writer_waits_for_the_others_once(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: after its 30 seconds SQLite's own waiting began, for 30 more."""
    monkeypatch.setattr(unit, "_BUSY_SECONDS", 2)
    sqlite_database.engine.dispose()
    path = sqlite_database.engine.url.database or ""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = monotonic()
        with pytest.raises(StorageError, match="locked"), sqlite_database.transaction() as session:
            session.execute(text("SELECT 1"))
        assert 2 <= monotonic() - began < 3.9
        other.execute("ROLLBACK")
    with sqlite_database.transaction() as session:
        assert session.scalar(text("PRAGMA busy_timeout")) == 2000


def test_whoever_reads_waits_for_no_writer(sqlite_database: Database) -> None:
    path = sqlite_database.engine.url.database or ""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with sqlite_database.reading() as session:
            assert session.scalar(text("SELECT count(*) FROM messages")) == 0
