"""Requests of several threads in one batch: same rows, nobody waits without need, and a bad text fails only its caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from assistant.settings import ROOT
from models.base import Vectors
from models.batching import Batches
from models.bert import TOLERANCE, Encoder


class Work:
    """Gives each text its length; notes the batches; holds the first one until it is told."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        if len(self.batches) == 1:
            assert self.go.wait(10)
        if "bad" in texts:
            raise ValueError("bad text")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def asked_while_busy(work: Work, batches: Batches, requests: list[list[str]]) -> list[object]:
    """The answers to requests that all arrive while a first one is being worked on."""

    def ask(texts: list[str]) -> object:
        try:
            return batches(texts).ravel().tolist()
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(requests) + 1) as pool:
        first = pool.submit(ask, ["first"])
        while not work.batches:
            time.sleep(0.001)
        rest = []
        for texts in requests:
            rest.append(pool.submit(ask, texts))
            while sum(len(one.texts) for one in batches._waiting) < sum(map(len, requests[: len(rest)])):
                time.sleep(0.001)
        work.go.set()
        assert first.result() == [5.0]
        return [one.result() for one in rest]


def test_what_arrives_meanwhile_is_one_batch_and_each_caller_gets_its_own_rows() -> None:
    work = Work()
    assert asked_while_busy(work, Batches(work), [["a", "bb"], ["ccc"], []]) == [[1, 2], [3], []]
    assert sorted(work.batches[1]) == ["a", "bb", "ccc"]
    assert len(work.batches) <= 3


def test_a_batch_is_bounded_so_that_nobody_waits_long() -> None:
    work = Work()
    assert asked_while_busy(work, Batches(work, characters=100), [["x" * 60] for _ in range(4)]) == [[60]] * 4
    assert [len(batch) for batch in work.batches] == [1, 1, 1, 1, 1]
    work = Work()
    asked_while_busy(work, Batches(work, characters=100), [["x" * 200], ["y"]])
    assert sum(map(len, work.batches)) == 3


def test_company_saves_calls_and_nobody_waits_for_more_than_the_batch_before_its_own() -> None:
    """Time is counted in characters worked on: what a caller waits for is two batches at most, however many are asking."""
    worked, calls, waits = 0, 0, []
    ended: dict[str, int] = {}

    def work(texts: Sequence[str]) -> Vectors:
        nonlocal worked, calls
        time.sleep(0.002)
        worked, calls = worked + sum(map(len, texts)), calls + 1
        ended.update(dict.fromkeys(texts, worked))
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    batches = Batches(work, characters=200)

    def ask(text: str) -> None:
        before = worked
        assert batches([text])[0, 0] == len(text)
        waits.append(ended[text] - before)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, [f"{number:025}" for number in range(400)]))
    assert worked == 400 * 25
    assert calls < 200, "eight callers at once ought to share calls"
    # Between counting and asking the machine may hold up a thread: that is not the batches' doing.
    assert sorted(waits)[-9] <= 2 * 200, "someone waited for more than the batch at work and its own"


def test_a_bad_text_fails_its_own_caller_only() -> None:
    work = Work()
    assert asked_while_busy(work, Batches(work), [["a"], ["bad"], ["cc"]]) == [[1], "bad text", [2]]


def test_many_threads_get_the_vectors_that_each_text_has_alone() -> None:
    encoder = Encoder(ROOT / "deploy/weights/encoder")
    texts = [f"Where is my order {n}? " * (1 + n % 7) for n in range(48)]
    alone = encoder.embed(texts)
    batches = Batches(encoder.embed)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: batches([text])[0], texts))
    assert np.abs(np.stack(found) - alone).max() <= TOLERANCE


@pytest.mark.parametrize("threads", [1, 16])
def test_no_request_is_lost_or_answered_twice(threads: int) -> None:
    calls: list[int] = []

    def work(texts: Sequence[str]) -> Vectors:
        calls.append(len(texts))
        return np.array([[float(text)] for text in texts], dtype=np.float32)

    batches = Batches(work)
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda n: float(batches([str(n)])[0, 0]), range(500)))
    assert found == [float(n) for n in range(500)]
    assert sum(calls) == 500
