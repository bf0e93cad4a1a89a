"""Vectors that are made while words are read: each text once, the longest first, and no error or thread is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from models.ahead import Ahead, Ids
from models.base import Vectors


def counted(made: list[Ids]) -> Callable[[Ids], Vectors]:
    def encode(ids: Ids) -> Vectors:
        made.append(ids)
        return np.full(2, len(ids), np.float32)

    return encode


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_text_gets_its_vector_once(threads: int) -> None:
    made: list[Ids] = []
    texts = [tuple(range(length)) for length in (3, 9, 1, 9, 4, 3)]
    with Ahead(counted(made), threads) as ahead:
        for ids in texts:
            ahead.add(ids)
        found = ahead.vectors()
    assert sorted(made) == sorted(set(texts))
    assert {ids: float(vector[0]) for ids, vector in found.items()} == {ids: len(ids) for ids in texts}


def test_the_longest_that_waits_is_next() -> None:
    made: list[Ids] = []
    with Ahead(counted(made), 1) as ahead:
        for length in (2, 8, 5):
            ahead.add(tuple(range(length)))
        ahead.vectors()
    assert [len(ids) for ids in made] == [8, 5, 2]


def test_it_works_while_others_are_handed_in() -> None:
    began = threading.Event()

    def encode(ids: Ids) -> Vectors:
        began.set()
        return np.zeros(1, np.float32)

    with Ahead(encode, 2) as ahead:
        ahead.add((1, 2))
        assert began.wait(10), "nobody asked for vectors yet"
        assert list(ahead.vectors()) == [(1, 2)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_error_reaches_who_asks_for_the_vectors(threads: int) -> None:
    def encode(ids: Ids) -> Vectors:
        raise ValueError(f"{len(ids)} tokens")

    before = threading.active_count()
    with pytest.raises(ValueError, match="2 tokens"), Ahead(encode, threads) as ahead:
        ahead.add((1, 2))
        ahead.vectors()
    assert threading.active_count() == before


def test_who_leaves_early_leaves_no_thread_and_no_work() -> None:
    made: list[Ids] = []
    before = threading.active_count()
    with pytest.raises(KeyError), Ahead(counted(made), 3) as ahead:
        raise KeyError(str(ahead))
    assert threading.active_count() == before and made == []
    with Ahead(counted(made), 2) as ahead:
        pass
    assert ahead.vectors() == {}
