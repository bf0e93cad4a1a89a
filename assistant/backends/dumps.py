"""A whole database in one file: a snapshot of SQLite, or `pg_dump`'s own format for PostgreSQL. Writers are not held up.

The table that names the revision stays out. A dump that was loaded and not finished (see `pipelines.backups`) is therefore a
database that no version of ours starts on.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.engine import make_url

from assistant.errors import StorageError

__all__ = ["dump_database", "load_database"]

_REVISIONS = "alembic_version"


def dump_database(url: str, target: Path) -> None:
    """Write a consistent copy to `target`. Raises `StorageError`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        _copy_sqlite(Path(parsed.database or ""), target)
    else:
        _run(parsed, "pg_dump", "--format=custom", "--no-owner", f"--exclude-table={_REVISIONS}", f"--file={target}")


def load_database(url: str, source: Path) -> None:
    """Bring a copy into an empty database. Raises `StorageError`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        target = Path(parsed.database or "")
        fresh = target.with_name(f"{target.name}.restoring")
        shutil.copyfile(source, fresh)
        fresh.chmod(0o600)
        _sync(fresh)
        for left in ("-wal", "-shm"):
            target.with_name(target.name + left).unlink(missing_ok=True)
        fresh.replace(target)
        _sync(target.parent)
    else:
        _run(parsed, "pg_restore", "--no-owner", "--single-transaction", "--exit-on-error", str(source))


def _copy_sqlite(source: Path, target: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute(f"DELETE FROM {_REVISIONS}")  # noqa: S608  # a name of ours
    except sqlite3.Error as error:
        raise StorageError(f"the database could not be copied: {error}") from error
    _sync(target)


def _run(url: URL, program: str, *arguments: str) -> None:
    """PostgreSQL's own tool. The password goes through the environment, never into the process list."""
    binary = shutil.which(program)
    if binary is None:
        raise StorageError(f"{program} is not installed here (Debian package postgresql-client)")
    plain = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    done = subprocess.run(  # noqa: S603  # arguments of ours, no shell
        [binary, f"--dbname={plain}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**_environment(), **({"PGPASSWORD": url.password} if isinstance(url.password, str) else {})},
        check=False,
    )
    if done.returncode:
        words = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise StorageError(f"{program} failed: {words[-300:]}")


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
