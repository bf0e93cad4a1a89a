"""Rows of every earlier revision come through the migrations as they were, and the release before may go on writing beside this one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.exc import SAWarning

from assistant.db.migrate import _config, difference, migrate
from assistant.db.session import Database
from tests.support.servers import PostgresServer

VERSIONS = Path(__file__).resolve().parents[2] / "assistant" / "db" / "migrations" / "versions"
REVISIONS = sorted(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))
MOMENT = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC)
ROWS = 3


@contextmanager
def at_revision(url: str, revision: str) -> Iterator[Database]:
    """A database that an earlier release has made."""
    database = Database(url, pool_size=2, patient=True)
    try:
        with database.engine.begin() as connection:
            command.upgrade(_config(connection), revision)
        yield database
    finally:
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'old.db'}"
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.execute("CREATE DATABASE upgraded")
    yield postgres.url("upgraded")
    postgres.execute("DROP DATABASE upgraded WITH (FORCE)")


def tables_of(connection: Connection) -> list[Table]:
    """As they are in the database, parents first."""
    metadata = MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # messages and suggestions name each other; expressions in indexes
        metadata.reflect(connection)
        return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def value_of(column: sa.Column[Any], number: int, made: dict[str, list[dict[str, Any]]]) -> Any:
    if column.foreign_keys:
        parent = next(iter(column.foreign_keys)).column
        rows = made.get(parent.table.name, [])
        return rows[number % len(rows)][parent.name] if rows else None
    kind = column.type
    if isinstance(kind, sa.Boolean):
        return bool(number % 2)
    if isinstance(kind, sa.DateTime):
        return MOMENT if kind.timezone else MOMENT.replace(tzinfo=None)
    if isinstance(kind, sa.Integer | sa.Float | sa.Numeric):
        return number
    if isinstance(kind, sa.JSON):
        return {"kept": [number, "ä"]}
    if isinstance(kind, sa.LargeBinary):
        return b"\x00kept"
    return f"{number}-{column.name} ä"[: getattr(kind, "length", None) or 80]


def fill(connection: Connection, tables: list[Table], *, first: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Some rows in every table, each column with a value of its own."""
    made: dict[str, list[dict[str, Any]]] = {}
    for table in tables:
        rows = [
            {column.name: value_of(column, number, made) for column in table.columns}
            for number in range(first, first + ROWS)
        ]
        connection.execute(table.insert(), rows)
        made[table.name] = rows
    return made


def read(connection: Connection, table: Table, names: list[str]) -> list[tuple[Any, ...]]:
    columns = [table.c[name] for name in names]
    return sorted(map(tuple, connection.execute(sa.select(*columns)).all()), key=repr)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_rows_of_an_earlier_release_are_all_there_after_the_upgrade(empty_url: str, revision: str) -> None:
    with at_revision(empty_url, revision) as database:
        with database.engine.begin() as connection:
            before = tables_of(connection)
            fill(connection, before)
            was = {
                one.name: (list(one.columns.keys()), read(connection, one, list(one.columns.keys()))) for one in before
            }
        assert migrate(database.engine) == REVISIONS[-1]
        with database.engine.connect() as connection:
            assert difference(connection) == []
            after = {one.name: one for one in tables_of(connection)}
            for name, (columns, rows) in was.items():
                assert len(rows) == ROWS
                assert read(connection, after[name], columns) == rows, name


def test_the_release_before_may_write_while_this_one_has_migrated(empty_url: str) -> None:
    """It knows nothing of the newest columns, so each has a default that the database fills in."""
    with at_revision(empty_url, REVISIONS[-2]) as database:
        with database.engine.begin() as connection:
            known = tables_of(connection)
            fill(connection, known)
        migrate(database.engine)
        with database.engine.begin() as connection:
            fill(connection, known, first=10)
            for table in known:
                assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 2 * ROWS, table.name
