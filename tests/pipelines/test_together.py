"""Group commit: one transaction for what is ready at the same time, and nobody pays for a neighbour's failure."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from assistant.errors import StorageError
from pipelines.together import MOST, Together

ITEMS = 100


class Store:
    """Stores numbers, all or none; `gate` holds the first transaction up until everybody waits."""

    def __init__(self, bad: int = -1, error: Exception | None = None) -> None:
        self.bad, self.error = bad, error
        self.stored: list[int] = []
        self.batches: list[Sequence[int]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        self.batches.append(items)
        if self.bad in items and self.error is not None:
            raise self.error
        self.stored += items
        return [10 * one for one in items]


def _run(store: Store) -> dict[int, int | Exception]:
    together = Together[int, int](store, order=lambda number: f"{number:03}")
    found: dict[int, int | Exception] = {}

    def one(number: int) -> None:
        try:
            found[number] = together(number)
        except Exception as error:  # noqa: BLE001  # what each got is what is asked about
            found[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(ITEMS)]
    for thread in threads:
        thread.start()
    while len(together._waiting) < ITEMS - 1:
        threading.Event().wait(0.005)
    store.gate.set()
    for thread in threads:
        thread.join(10)
    return found


def test_what_waits_goes_together_and_everybody_gets_their_own_answer() -> None:
    store = Store()
    assert _run(store) == {number: 10 * number for number in range(ITEMS)}
    assert sorted(store.stored) == list(range(ITEMS))
    assert len(store.batches) <= 2 + ITEMS // MOST
    assert all(list(batch) == sorted(batch) and len(batch) <= MOST for batch in store.batches)


def test_a_failure_is_only_its_own() -> None:
    error = ValueError("this one cannot be stored")
    found = _run(Store(bad=7, error=error))
    assert found.pop(7) is error
    assert found == {number: 10 * number for number in range(ITEMS) if number != 7}


def test_a_store_that_refuses_is_asked_once_for_all_of_them() -> None:
    store = Store(bad=7, error=StorageError("the disk is full"))
    found = _run(store)
    refused = [number for number, answer in found.items() if isinstance(answer, StorageError)]
    assert 7 in refused and sorted(store.stored) == sorted(set(found) - set(refused))
    assert len(store.batches) <= 2 + ITEMS // MOST


def test_one_after_the_other_is_one_each() -> None:
    store = Store()
    store.gate.set()
    together = Together[int, int](store, order=str)
    assert [together(number) for number in range(3)] == [0, 10, 20]
    assert store.batches == [[0], [1], [2]]
    with pytest.raises(StorageError):
        Together[int, int](Store(bad=1, error=StorageError("gone")), order=str)(1)
