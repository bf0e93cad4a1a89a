"""Backup and restore: one tar file with the database, the secret key and every stored byte, taken while everything runs.

The database is copied first, as one snapshot, and the bytes after it: a row never lacks its file. Rows and files that came
later are not in it. `restore` goes into an empty installation only and ends with the fence (`services.restoring`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from sqlalchemy import inspect

from assistant.backends.blobs import Blobs
from assistant.backends.dumps import dump_database, load_database
from assistant.backends.secrets import write_private
from assistant.clock import utcnow
from assistant.db.migrate import adopt, is_known, revision_of
from assistant.db.session import Database
from assistant.errors import Conflict, InvalidInput, NotFound, StorageError
from assistant.services.restoring import Fenced, fence
from assistant.settings import Settings

__all__ = ["BackedUp", "Restored", "back_up", "restore"]

_FORMAT = 1
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What one backup holds. `damaged`: keys of stored bytes that could not be read any more."""

    path: Path
    taken_at: datetime
    revision: str
    files: int
    size: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    taken_at: datetime
    revision: str
    files: int
    fenced: Fenced
    damaged: tuple[str, ...]


def back_up(settings: Settings, target: Path) -> BackedUp:
    """Write everything to a new file `target` that only this user can read, whole or not at all.

    Raises `Conflict` when it is there, `StorageError` when the disk or the database refuses.
    """
    if target.exists():
        raise Conflict(f"{target} is there already")
    part = target.with_name(f"{target.name}.part")
    try:
        with TemporaryDirectory(dir=target.resolve().parent, prefix=".notifyr-backup-") as folder:
            taken_at, dump = utcnow(), Path(folder, "database")
            revision = _revision(settings)
            dump_database(settings.sql_url, dump)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                files, damaged = _write(settings, file, dump, {"taken_at": taken_at.isoformat(), "revision": revision})
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"the backup could not be written: {error.strerror or error}") from error
    return BackedUp(target, taken_at, revision, files, target.stat().st_size, damaged)


def restore(settings: Settings, source: Path) -> Restored:
    """Bring a backup into an empty installation, to the tables of this version, and fence it.

    Raises `Conflict` when there is data already, `InvalidInput` for a file that is no whole backup, `StorageError`.
    """
    _must_be_empty(settings)
    try:
        with tarfile.open(source, "r|") as tar, TemporaryDirectory(prefix="notifyr-restore-") as folder:
            members = _members(tar)
            manifest = _manifest(next(members, ("", None)))
            if manifest["engine"] != _engine(settings):
                raise InvalidInput(f"it is a backup of {manifest['engine']}; this is {_engine(settings)}")
            if not is_known(manifest["revision"]):
                raise InvalidInput(
                    f"a newer Notifyr wrote it (revision {manifest['revision']}): restore it with that one"
                )
            dump = Path(folder, "database")
            found = _read(settings, members, dump, manifest)
            load_database(settings.sql_url, dump)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidInput(f"{source} is no whole backup: {error}") from error
    except OSError as error:
        raise StorageError(f"the backup could not be restored: {error.strerror or error}") from error
    taken_at = datetime.fromisoformat(manifest["taken_at"])
    database = Database(settings.sql_url, pool_size=1, patient=True)
    with closing(database), database.transaction() as session:
        # One transaction: whoever starts on this database finds the fence, or no revision and refuses.
        revision = adopt(session.connection(), manifest["revision"])
        fenced = fence(session, taken_at=taken_at)
    return Restored(taken_at, revision, found[0], fenced, found[1])


# -- writing


def _write(settings: Settings, file: IO[bytes], dump: Path, facts: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    blobs, files, damaged = Blobs.open(settings), 0, []
    digest = hashlib.sha256()
    with dump.open("rb") as read:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
    facts |= {"format": _FORMAT, "engine": _engine(settings), "database": digest.hexdigest()}
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "manifest.json", json.dumps(facts).encode())
        tar.add(dump, "database", filter=_ownerless)
        if (key := settings.path("secret-key")).exists():
            _add(tar, "secret-key", key.read_bytes())
        for name in blobs.list():
            try:
                content = blobs.get(name)
            except (NotFound, StorageError):
                damaged.append(name)
                continue
            _add(tar, f"blobs/{name}", content)
            files += 1
        _add(tar, "end.json", json.dumps({"files": files}).encode())
    return files, tuple(damaged)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(utcnow().timestamp())
    tar.addfile(entry, io.BytesIO(content))


def _ownerless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry


# -- reading

_Member = tuple[str, IO[bytes] | None]


def _members(tar: tarfile.TarFile) -> Iterator[_Member]:
    """Regular files only: nothing is ever unpacked to a path that the archive chooses."""
    for entry in tar:
        if not entry.isreg():
            raise InvalidInput(f"a backup holds no {entry.name!r} of this kind")
        yield entry.name, tar.extractfile(entry)


def _manifest(first: _Member) -> dict[str, Any]:
    name, file = first
    if name != "manifest.json" or file is None:
        raise InvalidInput("that is no backup of Notifyr")
    manifest: dict[str, Any] = json.loads(file.read(_CHUNK))
    if manifest.get("format") != _FORMAT:
        raise InvalidInput("a newer Notifyr has written this backup")
    return manifest


def _read(
    settings: Settings, members: Iterator[_Member], dump: Path, manifest: dict[str, Any]
) -> tuple[int, tuple[str, ...]]:
    blobs, files, damaged, whole = Blobs.open(settings), 0, [], False
    for name, file in members:
        assert file is not None
        if name == "database":
            _unpack(file, dump, manifest["database"])
        elif name == "secret-key":
            if settings.secret_key is None:
                write_private(settings.path("secret-key"), file.read(_CHUNK).decode())
        elif name.startswith("blobs/"):
            key, content = name.removeprefix("blobs/"), file.read()
            blobs.put(key, content)
            files += 1
            if not blobs.intact(key, content):
                damaged.append(key)
        elif name == "end.json":
            whole = json.loads(file.read(_CHUNK)).get("files") == files
    if not whole or not dump.exists():
        raise InvalidInput("the backup is cut short; nothing was restored into the database")
    return files, tuple(damaged)


def _unpack(file: IO[bytes], dump: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with dump.open("wb") as target:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != expected:
        raise InvalidInput("the database in the backup is damaged; nothing was restored into the database")


def _engine(settings: Settings) -> str:
    return "SQLite" if settings.sql_url.startswith("sqlite") else "PostgreSQL"


def _revision(settings: Settings) -> str:
    with closing(Database(settings.sql_url, pool_size=1)) as database, database.engine.connect() as connection:
        revision = revision_of(connection)
    if not revision:
        raise NotFound("there is nothing to back up: the database has no tables")
    return revision


def _must_be_empty(settings: Settings) -> None:
    with closing(Database(settings.sql_url, pool_size=1)) as database:
        if inspect(database.engine).get_table_names():
            raise Conflict("a restore goes into an empty installation: set another NOTIFYR_DATA_DIR or database")
