"""Nearest chunks by vector: Qdrant's embedded engine in a folder, or a Qdrant server. An index, never the truth.

It is brought in line with the chunk rows whenever they change, and made anew when it is missing, damaged or of another
engine. The folder belongs to one process (the worker of the `inbound` queue); a lock file holds the others off.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

import structlog

from assistant.errors import ModelError, StorageError
from assistant.failpoints import failpoint
from assistant.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Vectors", "qdrant_client"]

_log = structlog.get_logger(__name__)
_BATCH = 64
_LARGEST_COSINE = 1.01
_SAME_TEXT = 0.98
"""A text embedded again, alone instead of in a batch, comes back at least this near."""
Matrix: TypeAlias = "npt.NDArray[np.float32]"


class _Store(Protocol):
    """One index of one engine and dimension."""

    def numbers(self) -> set[int]: ...
    def upsert(self, numbers: Sequence[int], vectors: Matrix) -> None: ...
    def delete(self, numbers: Sequence[int]) -> None: ...
    def search(self, vector: Matrix, limit: int) -> list[tuple[int, float]]: ...
    def close(self) -> None: ...


class _Embedded:
    """qdrant-edge in a folder of its own. Raises whatever the engine raises; `Vectors` translates."""

    def __init__(self, folder: Path, dimensions: int, *, fresh: bool) -> None:
        from qdrant_edge import Distance, EdgeConfig, EdgeShard, EdgeVectorParams

        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        config = EdgeConfig(vectors={"": EdgeVectorParams(size=dimensions, distance=Distance.Cosine)})
        if folder.exists():
            self._shard = EdgeShard.load(str(folder), config)
        else:
            folder.mkdir(parents=True)
            self._shard = EdgeShard.create(str(folder), config)

    def numbers(self) -> set[int]:
        from qdrant_edge import ScrollRequest

        found: set[int] = set()
        offset: Any = None
        while True:
            records, offset = self._shard.scroll(ScrollRequest(offset=offset, limit=1000))
            found.update(int(record.id) for record in records)
            if offset is None:
                return found

    def upsert(self, numbers: Sequence[int], vectors: Matrix) -> None:
        from qdrant_edge import Point, UpdateOperation

        points = [Point(number, vector.tolist()) for number, vector in zip(numbers, vectors, strict=True)]
        self._shard.update(UpdateOperation.upsert_points(points))
        self._shard.flush()

    def delete(self, numbers: Sequence[int]) -> None:
        from qdrant_edge import UpdateOperation

        self._shard.update(UpdateOperation.delete_points(list(numbers)))
        self._shard.flush()

    def search(self, vector: Matrix, limit: int) -> list[tuple[int, float]]:
        from qdrant_edge import Query, SearchRequest

        found = self._shard.search(SearchRequest(query=Query.Nearest(vector.tolist()), limit=limit))
        return [(int(point.id), float(point.score)) for point in found]

    def close(self) -> None:
        self._shard.close()


class _Server:
    """A collection on a Qdrant server."""

    def __init__(self, client: Any, name: str, dimensions: int, *, fresh: bool) -> None:
        from qdrant_client.models import Distance, VectorParams

        self._client, self._name = client, name
        if fresh and client.collection_exists(name):
            client.delete_collection(name)
        if not client.collection_exists(name):
            client.create_collection(name, vectors_config=VectorParams(size=dimensions, distance=Distance.COSINE))

    def numbers(self) -> set[int]:
        found: set[int] = set()
        offset: Any = None
        while True:
            records, offset = self._client.scroll(
                self._name, limit=1000, offset=offset, with_payload=False, with_vectors=False
            )
            found.update(int(record.id) for record in records)
            if offset is None:
                return found

    def upsert(self, numbers: Sequence[int], vectors: Matrix) -> None:
        from qdrant_client.models import PointStruct

        points = [
            PointStruct(id=number, vector=vector.tolist(), payload={})
            for number, vector in zip(numbers, vectors, strict=True)
        ]
        self._client.upsert(self._name, points, wait=True)

    def delete(self, numbers: Sequence[int]) -> None:
        from qdrant_client.models import PointIdsList

        self._client.delete(self._name, PointIdsList(points=list(numbers)), wait=True)

    def search(self, vector: Matrix, limit: int) -> list[tuple[int, float]]:
        found = self._client.query_points(self._name, query=vector.tolist(), limit=limit, with_payload=False).points
        return [(int(point.id), float(point.score)) for point in found]

    def close(self) -> None:
        """The client is shared."""


class Vectors:
    """One index per encoder. `sync` before `nearest`; both raise `StorageError` when the engine fails."""

    def __init__(self, folder: Path, *, client: Any = None) -> None:
        self._folder = folder
        self._client = client
        self._mutex = threading.RLock()
        self._store: _Store | None = None
        self._name = ""
        self._version = ""
        self._damaged = False
        self._empty = True
        self._lock_file: IO[str] | None = None

    @classmethod
    def open(cls, settings: Settings) -> Vectors:
        """The index that the settings name. Nothing is opened before the first `sync`."""
        if settings.qdrant_url is None:
            return cls(settings.path("vectors"))
        return cls(settings.path("vectors"), client=qdrant_client(settings.qdrant_url.get_secret_value()))

    def sync(
        self,
        *,
        encoder: str,
        dimensions: int,
        version: str,
        texts: Callable[[], Mapping[int, str]],
        embed: Callable[[Sequence[str]], Matrix],
    ) -> None:
        """Make the index hold exactly `texts()` (number -> text) as seen by `encoder`; free when `version` is known."""
        name = _index_name(encoder, dimensions)
        with self._mutex:
            if self._store is not None and not self._damaged and (self._name, self._version) == (name, version):
                return
            wanted = texts()
            try:
                self._bring_in_line(name, dimensions, wanted, embed)
            except (StorageError, ModelError):
                raise
            except BaseException as error:  # noqa: BLE001  # a panic of the Rust engine is no Exception; others are raised again
                _only_engine(error)
                _log.warning("vector_index_rebuilt", index=name, reason=f"{type(error).__name__}: {error}")
                self._damaged = True
                self._guarded(lambda: self._bring_in_line(name, dimensions, wanted, embed))
            self._version = version

    def nearest(self, vector: Matrix, *, limit: int) -> list[tuple[int, float]]:
        """`(number, cosine)` of the nearest points, best first."""
        with self._mutex:
            store = self._store
            if store is None:
                raise StorageError("the vector index is not open")
            failpoint("index.before_search")
            found: list[tuple[int, float]] = self._guarded(
                lambda: _plausible(store.search(vector, limit), empty=self._empty)
            )
            failpoint("index.after_search")
            return found

    def close(self) -> None:
        with self._mutex:
            if self._store is not None:
                self._store.close()
            self._store, self._name, self._version = None, "", ""
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    def _bring_in_line(
        self, name: str, dimensions: int, wanted: Mapping[int, str], embed: Callable[[Sequence[str]], Matrix]
    ) -> None:
        failpoint("index.before_open")
        store = self._open(name, dimensions)
        present = store.numbers()
        failpoint("index.after_open")
        if gone := sorted(present - wanted.keys()):
            failpoint("index.before_delete")
            store.delete(gone)
            failpoint("index.after_delete")
        missing = sorted(wanted.keys() - present)
        for start in range(0, len(missing), _BATCH):
            numbers = missing[start : start + _BATCH]
            found = embed([wanted[number] for number in numbers])
            failpoint("index.before_upsert")
            store.upsert(numbers, found)
            failpoint("index.after_upsert")
        self._empty = not wanted
        if kept := sorted(wanted.keys() & present):
            probe = embed([wanted[kept[0]]])[0]
            failpoint("index.before_search")
            best = _plausible(store.search(probe, 1), empty=False)[0][1]
            failpoint("index.after_search")
            if best < _SAME_TEXT:
                raise _Damaged(f"a stored text is found with {best:.2f}")

    def _open(self, name: str, dimensions: int) -> _Store:
        if self._store is not None and self._name == name and not self._damaged:
            return self._store
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._client is not None:
            self._store = _Server(self._client, name, dimensions, fresh=self._damaged)
        else:
            self._hold_folder()
            self._store = _Embedded(self._folder / name, dimensions, fresh=self._damaged)
        self._name, self._damaged = name, False
        return self._store

    def _hold_folder(self) -> None:
        if self._lock_file is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = (self._folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StorageError(f"another process uses the vector index in {self._folder}") from None
        self._lock_file = lock

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (StorageError, ModelError):
            raise
        except BaseException as error:
            _only_engine(error)
            self._damaged = True
            raise StorageError(f"the vector index failed: {type(error).__name__}: {error}") from error


def qdrant_client(url: str, *, seconds: int = 5) -> Any:
    """A client for `http(s)://[:KEY@]host[:port]`. Nothing is connected yet."""
    from qdrant_client import QdrantClient

    parts = urlsplit(url)
    key = unquote(parts.password or parts.username or "")
    host = parts.netloc.rpartition("@")[2]
    with warnings.catch_warnings():
        # A key over plain http is the operator's word (a private network); it was said once at `config check`.
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(
            url=parts._replace(netloc=host).geturl(), api_key=key or None, timeout=seconds, check_compatibility=False
        )


def _index_name(encoder: str, dimensions: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", encoder.lower()).strip("-")[:60]
    return f"{words}-{dimensions}-{hashlib.sha256(encoder.encode()).hexdigest()[:8]}"


def _only_engine(error: BaseException) -> None:
    # A panic inside the Rust engine arrives as pyo3's PanicException: a BaseException whose class cannot be imported.
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


class _Damaged(Exception):
    """The engine answers, but wrongly."""


def _plausible(found: list[tuple[int, float]], *, empty: bool) -> list[tuple[int, float]]:
    # Damaged files can load: a cosine beyond 1, not a number, or nothing at all gives them away.
    if (not found and not empty) or any(not abs(score) <= _LARGEST_COSINE for _, score in found):
        raise _Damaged(f"impossible answer {found[:1]}")
    return found
