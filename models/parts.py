"""Parts of a model on disk that are read, and fail, each for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from assistant.errors import ModelUnavailable

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ONE_AT_A_TIME", "PASSING", "Part", "arrays_in"]

PASSING = (SystemError, MemoryError, OSError)
"""What may pass without a file becoming another: such a failure is not remembered."""
ONE_AT_A_TIME = threading.Lock()
"""Held while arrays are read. numpy reads the head of each with `ast`, which in Python 3.11 fails at times when two threads use it
(SystemError: AST constructor recursion depth mismatch): a good file would be taken for a damaged one."""


def arrays_in(file: Path | IO[bytes], wanted: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file by name, all or the wanted ones that are there. No pickle is read. Raises whatever numpy raises."""
    import numpy as np  # starts threads, after which no process of ours could be forked

    with ONE_AT_A_TIME, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if wanted is None or name in wanted}


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
            if not isinstance(error.__cause__, PASSING):
                self._error, self._seen = error, now
            raise
        self._error, self._ready = None, True


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
