"""Bring a database to the tables of this version. Alembic does the work; there is no alembic.ini and nothing to type.

Alembic is imported only where something is to be done: a database that is at the newest revision already, which is every start
but the first, is found to be so by one look at Alembic's own table.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from assistant.db.base import Json, UtcDateTime
from assistant.db.session import Database
from assistant.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.config import Config

__all__ = ["adopt", "difference", "is_known", "make_revision", "migrate", "render_item", "require", "revision_of"]

_log = structlog.get_logger(__name__)
_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 0x6E6F7469  # any number that only we use: "noti"


def migrate(target: str | Engine) -> str:
    """Run the missing migrations in one transaction, and return the revision the database is then at.

    Of two processes that start together one works and the other waits. Raises `ConfigurationError` for a database that a
    newer version has already changed: an older program would damage it.
    """
    if isinstance(target, Engine):
        return _migrate(target)
    with closing(Database(target, pool_size=1, patient=True)) as database:
        try:
            return _migrate(database.engine)
        except OperationalError as error:
            raise StorageError(f"the database refused: {type(error.orig).__name__}: {error.orig}") from error


def _migrate(engine: Engine) -> str:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before, head = _revisions(connection)
        if before != head:
            from alembic import command

            _log.info("migrating", before=before or "empty", after=head)
            command.upgrade(_config(connection), "head")
        return head


def require(url: str) -> None:
    """Raise `ConfigurationError` unless the database has exactly the tables of this version. Changes nothing."""
    with closing(Database(url, pool_size=1)) as database, database.reading() as session:
        before, head = _revisions(session.connection())
    if not before:
        raise ConfigurationError(["the database has no tables yet; make them: notifyr migrate"])
    if before != head:
        words = f"the database is at revision {before}, this version needs {head}; back it up, then: notifyr migrate"
        raise ConfigurationError([words])


def _revisions(connection: Connection) -> tuple[str, str]:
    """The revision a database is at (empty: none), and the newest one. Raises for one of a newer program."""
    head = max(_known())
    before = revision_of(connection)
    if before and not is_known(before):
        words = (
            f"the database is at revision {before}, which this version does not know (it knows up to {head}): "
            "a newer Notifyr has used it. Start that version, or restore a backup made before the upgrade"
        )
        raise ConfigurationError([words])
    return before, head


def revision_of(connection: Connection) -> str:
    """The revision a database is at; empty when it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.scalar(text("SELECT version_num FROM alembic_version")) or ""


def _known() -> set[str]:
    """Every revision: the number that its file's name begins with."""
    return {file.name.partition("_")[0] for file in (_FOLDER / "versions").glob("[0-9]*_*.py")}


def is_known(revision: str) -> bool:
    """Whether this version can bring a database from that revision up."""
    return revision in _known()


def adopt(connection: Connection, revision: str) -> str:
    """Bring loaded tables that are at `revision` up, inside the caller's transaction. The revision they are then at."""
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    MigrationContext.configure(connection).stamp(ScriptDirectory(str(_FOLDER)), revision)
    command.upgrade(_config(connection), "head")
    return revision_of(connection)


def difference(connection: Connection) -> list[Any]:
    """What Alembic would still change to reach the tables of the code: empty when they agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from assistant.db.tables import metadata

    options = {"compare_type": True, "render_item": render_item, "include_name": _is_compared}
    context = MigrationContext.configure(connection, opts=options)
    with warnings.catch_warnings():
        # Indexes on expressions cannot be read back from SQLite; they are left out by name below.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        return list(compare_metadata(context, metadata))


def _is_compared(name: str | None, kind: str, _parents: object) -> bool:
    return not (kind == "index" and (name or "").startswith("ix_order_"))


def make_revision(connection: Connection, number: str, message: str) -> Path:
    """Write the next migration from the difference between `connection` and the code."""
    from alembic import command

    made = command.revision(_config(connection), message=message, autogenerate=True, rev_id=number)
    assert made is not None
    assert not isinstance(made, list)
    return Path(made.path)


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Write our own column types as plain ones, so that a migration does not depend on later code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and item is Json:
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    return config
