"""Group commit: what several threads have ready at the same time is stored in one transaction, with one sync of the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from assistant.errors import StorageError

__all__ = ["Together"]

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 32
"""Items of one transaction: the write lock is given to others in between."""


class _Entry(Generic[Item, Result]):
    """One item, and what became of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: list[Result] = []
        self.error: BaseException | None = None


class Together(Generic[Item, Result]):
    """`store` takes items, sorted by `order`, and stores all or none. Whoever comes while it works goes with the next."""

    def __init__(self, store: Callable[[Sequence[Item]], Sequence[Result]], *, order: Callable[[Item], str]) -> None:
        self._store = store
        self._order = order
        self._working = threading.Lock()
        self._mutex = threading.Lock()
        self._waiting: list[_Entry[Item, Result]] = []

    def __call__(self, item: Item) -> Result:
        """Returns once the item is stored. Raises what its own storing raised: a neighbour's failure is not its own."""
        entry: _Entry[Item, Result] = _Entry(item)
        with self._mutex:
            self._waiting.append(entry)
        while not entry.result and entry.error is None:
            with self._working:
                if not entry.result and entry.error is None:  # nobody took it along
                    with self._mutex:
                        taken, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                    self._work(sorted(taken, key=lambda one: self._order(one.item)))
        if entry.error is not None:
            raise entry.error
        return entry.result[0]

    def _work(self, entries: Sequence[_Entry[Item, Result]]) -> None:
        try:
            for entry, result in zip(entries, self._store([one.item for one in entries]), strict=True):
                entry.result.append(result)
        except BaseException as error:  # noqa: BLE001  # handed to those it belongs to
            if len(entries) == 1 or isinstance(error, StorageError):  # a store that refuses would refuse each of them
                for entry in entries:
                    entry.error = error
                return
            for entry in entries:
                self._work([entry])
