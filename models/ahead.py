"""Vectors of some texts while the words of others are still read: the network works outside the interpreter, which reads words."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from models.base import Vectors

__all__ = ["Ahead"]

Ids = tuple[int, ...]


class Ahead:
    """Texts are handed in as token ids and worked on by `threads - 1` threads, the longest first; `vectors` lends its caller's, too.

    A context: at its end nobody works any more. What `encode` raises is raised by `vectors`.
    """

    def __init__(self, encode: Callable[[Ids], Vectors], threads: int) -> None:
        self._encode = encode
        self._waiting: list[tuple[int, Ids]] = []
        self._known: set[Ids] = set()
        self._found: dict[Ids, Vectors] = {}
        self._news = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(max(1, threads - 1))
        self._workers: list[Future[None]] = [self._pool.submit(self._work) for _ in range(threads - 1)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._news:
            self._closed = True
            self._waiting.clear()
            self._news.notify_all()
        self._pool.shutdown()

    def add(self, ids: Ids) -> None:
        """One text more. One that was handed in before costs nothing."""
        with self._news:
            if ids not in self._known:
                self._known.add(ids)
                heapq.heappush(self._waiting, (-len(ids), ids))
                self._news.notify()

    def vectors(self) -> dict[Ids, Vectors]:
        """The vectors of all of them; nothing can be handed in after it."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._work()
        for worker in self._workers:
            worker.result()
        return self._found

    def _work(self) -> None:
        while (ids := self._next()) is not None:
            self._found[ids] = self._encode(ids)

    def _next(self) -> Ids | None:
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            return heapq.heappop(self._waiting)[1] if self._waiting else None
