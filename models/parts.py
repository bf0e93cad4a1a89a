"""Parts of a model on disk that are read, and fail, each for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from assistant.errors import ModelUnavailable

__all__ = ["Part"]


class Part:
    """Read on first use, once; safe from several threads. A good part is never read again, whatever becomes of its files.

    After a failure it is read again only when one of its files has become another: a restored file heals it without a
    restart, and a damaged one costs every mail no more than a look at the folder.
    """

    def __init__(self, read: Callable[[], None], files: Sequence[Path]) -> None:
        """`read` raises `ModelUnavailable` with the way to mend it."""
        self._read = read
        self._files = files
        self._lock = threading.Lock()
        self._ready = False
        self._error: ModelUnavailable | None = None
        self._seen: list[tuple[int, int] | None] = []

    @property
    def ready(self) -> bool:
        return self._ready

    def load(self) -> None:
        """Read it now. Raises `ModelUnavailable`."""
        if self._ready:
            return
        with self._lock:
            if not self._ready:
                self._try()

    def fault(self) -> ModelUnavailable | None:
        """Why it cannot be used; None where it is whole. Reads it where nobody has yet."""
        try:
            self.load()
        except ModelUnavailable as error:
            return error
        return None

    def _try(self) -> None:
        now = [_stamp(file) for file in self._files]  # before reading: what changes meanwhile is read next time
        if self._error is not None and now == self._seen:
            raise ModelUnavailable(self._error.message) from self._error
        try:
            self._read()
        except ModelUnavailable as error:
            self._error, self._seen = error, now
            raise
        self._error, self._ready = None, True


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
