"""Where secrets come from: the settings, else a random key in a file that only this user can read."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from assistant.errors import StorageError
from assistant.settings import Settings

__all__ = ["secret_key", "write_private"]

_BYTES = 32


def secret_key(settings: Settings) -> bytes:
    """The key that signs cookies and tokens: `settings.secret_key`, else one made at random once under `data_dir`.

    Of two processes that start together both get the same key. Raises `StorageError` when it cannot be read or kept.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    path = settings.path("secret-key")
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            _create(path)
            return _read(path)
    except OSError as error:
        raise StorageError(f"cannot keep the secret key in {path}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    key = bytes.fromhex(path.read_text().strip())
    if len(key) != _BYTES:
        raise StorageError(f"{path} is damaged: restore it, or delete it (everybody is then signed out)")
    return key


def write_private(path: Path, text: str) -> None:
    """Put `text` into a file that only this user can read, whole or not at all. An older file is replaced."""
    fresh = _write_beside(path, text)
    fresh.replace(path)


def _create(path: Path) -> None:
    """Write a whole key beside `path` and link it there: a reader never sees half a key, and the first one wins."""
    fresh = _write_beside(path, secrets.token_hex(_BYTES) + "\n")
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


def _write_beside(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return fresh
