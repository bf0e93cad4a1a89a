"""Raw mails and attachments: one key, bytes that never change. A folder by default, S3 by URL, both through obstore."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from assistant.errors import InvalidInput, NotFound, StorageError
from assistant.failpoints import failpoint
from assistant.settings import Settings

__all__ = ["Blobs", "key_of"]

_DIGEST = re.compile(r"/([0-9a-f]{64})(?:\.[a-z]+)?$")
"""A key that is made from its content ends in this."""
_STAGED = re.compile(r"#\d+$")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,250}")


def key_of(folder: str, content: bytes, *, suffix: str = "") -> str:
    """The key that is made from its content: equal bytes are stored once, and `Blobs.intact` can tell when they changed."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{folder}/{digest[:2]}/{digest}{suffix}"


class Blobs:
    """Bytes by key (`raw/2026/11/24/<id>.eml`). Keys are made by us, never taken from a mail.

    Raises `StorageError` when the disk or the store refuses (nothing is kept then), `NotFound`, `InvalidInput` for a key
    that could leave the store.
    """

    def __init__(self, store: Any, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder
        self._named: set[tuple[Path, int]] = set()
        """Folders whose own names are on the disk for certain, with their inodes: one that is made anew has another."""

    @classmethod
    def open(cls, settings: Settings) -> Blobs:
        """The store of the settings; the folder is made when it is missing."""
        if settings.blobs_url is not None:
            return cls.at(settings.blobs_url.get_secret_value())
        return cls._folder_at(settings.path("blobs"))

    @classmethod
    def at(cls, url: str, *, tries: int = 3) -> Blobs:
        """The store at a URL. One that does not answer costs a few tries, not obstore's ten within three minutes."""
        from obstore.store import from_url

        if url.startswith("file://"):
            return cls._folder_at(Path(url.removeprefix("file://")))
        return cls(from_url(url, retry_config={"max_retries": tries - 1, "retry_timeout": timedelta(seconds=15)}))

    @classmethod
    def _folder_at(cls, folder: Path) -> Blobs:
        from obstore.store import LocalStore

        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"the blob folder cannot be made: {error.strerror}") from error
        return cls(LocalStore(prefix=folder), folder)

    def put(self, key: str, content: bytes) -> None:
        """Store bytes; they are on the disk when this returns. The same key again replaces them whole."""
        import obstore

        _check(key)
        try:
            failpoint("blob.before_put")
            obstore.put(self._store, key, content, use_multipart=False)
            failpoint("blob.after_put")
            self._sync(key)
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}: {str(error)[:200]}") from error

    def keep(self, key: str, content: bytes) -> None:
        """As `put`, for a key that is made from the content: equal bytes that are there already are not written again.

        They are compared and synced all the same: whoever wrote them may have died before they were on the disk.
        """
        try:
            whole = self._read(key) == content
        except NotFound:
            whole = False
        if not whole:
            self.put(key, content)
            return
        try:
            self._sync(key)
        except OSError as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}") from error

    def ensure(self, key: str, content: bytes) -> None:
        """For whoever relied on bytes that were there already, once its row is committed: they may have been tidied up meanwhile."""
        if not self.exists(key):
            self.put(key, content)

    def read(self, key: str) -> bytes:
        """The bytes of a key as they are, damaged or not."""
        return self._read(key)

    def entries(self) -> Iterator[tuple[str, datetime]]:
        """Every key with the moment of its last change."""
        import obstore

        try:
            failpoint("blob.before_read")
            for batch in obstore.list(self._store):
                for entry in batch:
                    yield str(entry["path"]), entry["last_modified"]
            failpoint("blob.after_read")
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}") from error

    def get(self, key: str) -> bytes:
        """The bytes of a key. Raises `StorageError` too when they are not the ones that were stored under it."""
        content = self._read(key)
        if not self.intact(key, content):
            raise StorageError("these bytes were damaged on the disk; take them from a backup")
        return content

    @staticmethod
    def intact(key: str, content: bytes) -> bool:
        """Whether bytes agree with the digest in their key; a key without one says nothing."""
        named = _DIGEST.search(key)
        return named is None or hashlib.sha256(content).hexdigest() == named.group(1)

    def _read(self, key: str) -> bytes:
        import obstore

        _check(key)
        try:
            failpoint("blob.before_read")
            content = bytes(obstore.get(self._store, key).bytes())
            failpoint("blob.after_read")
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            raise NotFound("these bytes are not in the blob store") from None
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}") from error
        return content

    def exists(self, key: str) -> bool:
        import obstore

        _check(key)
        try:
            failpoint("blob.before_read")
            obstore.head(self._store, key)
            failpoint("blob.after_read")
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return False
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}") from error
        return True

    def delete(self, key: str) -> None:
        import obstore

        _check(key)
        try:
            failpoint("blob.before_delete")
            obstore.delete(self._store, key)
            failpoint("blob.after_delete")
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}") from error

    def move(self, key: str, target: str) -> None:
        """Put bytes under another key. Raises `NotFound` too. On S3 they are copied first, so a killed one leaves both."""
        import obstore

        _check(key)
        _check(target)
        try:
            failpoint("blob.before_move")
            obstore.rename(self._store, key, target)
            failpoint("blob.after_move")
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            raise NotFound("these bytes are not in the blob store") from None
        except (OSError, obstore.exceptions.BaseError) as error:
            raise StorageError(f"the blob store refused: {type(error).__name__}") from error

    def clear(self, before: datetime) -> int:
        """Remove what writes that were killed before that moment left in the folder. Returns how many.

        obstore writes into `NAME#1` and renames; it lists and deletes no such name. S3 shows nothing of such a write. Folders
        that are empty for so long go, too.
        """
        gone, moment = 0, before.timestamp()
        for folder, _, names in os.walk(self._folder, topdown=False) if self._folder is not None else ():
            where = Path(folder)
            for path in [where / name for name in names if _STAGED.search(name)]:
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < moment:
                        path.unlink()
                        gone += 1
            with suppress(OSError):  # it is not empty, most often
                if where != self._folder and where.stat().st_mtime < moment:
                    where.rmdir()
        return gone

    def list(self, prefix: str = "") -> Iterator[str]:
        """Every key below a prefix (whole path parts)."""
        import obstore

        failpoint("blob.before_read")
        for batch in obstore.list(self._store, prefix=prefix or None):
            for entry in batch:
                yield str(entry["path"])
        failpoint("blob.after_read")

    def close(self) -> None:
        """Nothing is held open."""

    def _sync(self, key: str) -> None:
        """The file and every folder on the way to it: a new folder's name is lost with its parent's unwritten page."""
        if self._folder is None:
            return
        target = self._folder / key
        failpoint("blob.before_sync")
        _fsync(target)
        on_the_way = []
        while target != self._folder:
            target = target.parent
            _fsync(target)
            known = (target, target.stat().st_ino)
            if known in self._named:
                break
            on_the_way.append(known)
        self._named.update(on_the_way)
        failpoint("blob.after_sync")


def _check(key: str) -> None:
    if not _KEY.fullmatch(key) or ".." in key or "//" in key:
        raise InvalidInput("that is no key of the blob store")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
