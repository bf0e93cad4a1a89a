"""The migrations build exactly the tables of the code, on both engines, and never touch a newer database."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from assistant.db.migrate import difference, migrate, revision_of
from assistant.db.session import Database
from assistant.errors import ConfigurationError
from tests.support.servers import PostgresServer

VERSIONS = Path(__file__).resolve().parents[2] / "assistant" / "db" / "migrations" / "versions"


def head() -> str:
    """The newest revision: the file with the highest number."""
    return max(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))


def test_migrations_and_models_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        assert difference(connection) == []


def test_migrating_twice_changes_nothing(database: Database) -> None:
    before = migrate(database.engine)
    assert migrate(database.engine) == before
    with database.engine.connect() as connection:
        assert revision_of(connection) == before


def test_a_database_of_a_newer_version_is_refused_with_words(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="a newer Notifyr has used it"):
        migrate(database.engine)
    with database.engine.connect() as connection:
        assert revision_of(connection) == "9999"


def _migrate_at_once(url: str) -> list[object]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(migrate(url))
        except Exception as error:  # noqa: BLE001  # shown by the assertion
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_three_processes_that_start_together_on_an_empty_sqlite_file_all_succeed(tmp_path: Path) -> None:
    assert _migrate_at_once(f"sqlite:///{tmp_path / 'new.db'}") == [head()] * 3


def test_three_processes_that_start_together_on_an_empty_postgresql_all_succeed(postgres: PostgresServer) -> None:
    postgres.execute("DROP DATABASE IF EXISTS racing")
    postgres.execute("CREATE DATABASE racing")
    assert _migrate_at_once(postgres.url("racing")) == [head()] * 3
    postgres.execute("DROP DATABASE racing WITH (FORCE)")


def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'half.db'}")
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE profiles (id TEXT)"))  # in the way of the first migration
    with pytest.raises(Exception, match="already exists"):
        migrate(database.engine)
    with database.engine.connect() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
    database.close()
    assert tables == ["profiles"]
