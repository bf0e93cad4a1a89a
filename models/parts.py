"""Parts of a model on disk that are read, and fail, each for itself."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from assistant.errors import ModelUnavailable

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ONE_AT_A_TIME", "PASSING", "Part", "arrays_in", "arrays_left"]

PASSING = (SystemError, MemoryError, OSError)
"""What may pass without a file becoming another: such a failure is not remembered."""
_BEFORE = struct.Struct("<4x2xHH4xIIIHH")
"""What stands in front of each file of a ZIP file (APPNOTE 4.3.7): flags, method, CRC-32, sizes, lengths of name and extra field."""
_SIZES = struct.Struct("<4xQQ")
_ELSEWHERE = 0xFFFFFFFF
_UNKNOWN = 8
_LARGEST = 64_000_000
ONE_AT_A_TIME = threading.Lock()
"""Held while arrays are read. numpy reads the head of each with `ast`, which in Python 3.11 fails at times when two threads use it
(SystemError: AST constructor recursion depth mismatch): a good file would be taken for a damaged one."""


def arrays_in(file: Path | IO[bytes], wanted: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file by name, all or the wanted ones that are there. No pickle is read. Raises whatever numpy raises."""
    import numpy as np  # starts threads, after which no process of ours could be forked

    with ONE_AT_A_TIME, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if wanted is None or name in wanted}


def arrays_left(packed: bytes, wanted: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """The wanted arrays of an .npz file that has lost its end, where the list of what is in it stands: those before the cut.

    Each is found by what stands in front of it. Whoever asks has to know its checksum. Raises `ValueError` and `zlib.error`.
    """
    import numpy as np

    found: dict[str, npt.NDArray[Any]] = {}
    at = 0
    while len(packed) >= at + _BEFORE.size and packed.startswith(b"PK\x03\x04", at):
        flags, method, crc, size, whole, named, more = _BEFORE.unpack_from(packed, at)
        start = at + _BEFORE.size + named + more
        name = packed[at + _BEFORE.size : start - more].decode("ascii", "replace").removesuffix(".npy")
        if more >= _SIZES.size and (size, whole) == (_ELSEWHERE, _ELSEWHERE):
            whole, size = _SIZES.unpack_from(packed, start - more)
        at = start + size
        if at > len(packed) or flags & _UNKNOWN or whole > _LARGEST:
            break
        if name in wanted:
            content = packed[start:at]
            if method == zipfile.ZIP_DEFLATED:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, whole)
            if len(content) != whole or zlib.crc32(content) != crc:
                raise ValueError(f"{name} is damaged")
            with ONE_AT_A_TIME:
                found[name] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return found


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
