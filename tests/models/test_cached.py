"""Finished answers kept in real Redis: exact, single flight, never a broken or partial one, and never a condition."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from redis import Redis

from assistant.backends.cache import GenerationCache
from assistant.errors import ModelTimeout
from assistant.settings import ROOT
from assistant.telemetry import METRICS
from assistant.values import Prompt
from models.base import Generator
from models.wrappers import Cached, cache_key
from tests.support.servers import free_port

PROMPT = Prompt(system="Be brief.", user="Où est ma commande ?", version="1", knowledge_version="k1")


@dataclass
class Counting:
    """Stands for a hosted model: counts what it is asked."""

    says: list[str] = field(default_factory=lambda: ["Hel", "lo ", "⚓"])
    finish_reason: str = "stop"
    error: Exception | None = None
    delay: float = 0.0
    asked: int = 0
    name: str = "counting"
    weights: str = "abc"

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        self.asked += 1
        time.sleep(self.delay)
        yield from self.says
        if self.error is not None:
            raise self.error

    def count(self, text: str) -> int:
        return len(text)

    def parameters(self) -> dict[str, Any]:
        return {"weights": self.weights}


@pytest.fixture
def make_cached(redis_url: str) -> Iterator[Callable[..., Cached]]:
    opened: list[GenerationCache] = []

    def make(generator: Generator, **values: Any) -> Cached:
        opened.append(GenerationCache(redis_url, **({"seconds": 60} | values)))
        return Cached(generator, opened[-1])

    yield make
    for store in opened:
        store.close()


def outcomes(outcome: str) -> float:
    return METRICS.cache.labels(outcome=outcome)._value.get()  # type: ignore[attr-defined]


def test_a_hit_is_byte_identical_costs_nothing_and_is_counted(make_cached: Callable[..., Cached]) -> None:
    model = Counting()
    cached, hits = make_cached(model), outcomes("hit")
    first = cached.generate(PROMPT, limit=10)
    again = cached.generate(PROMPT, limit=10)
    assert first == ("Hello ⚓", False)
    assert again == ("Hello ⚓", True)
    assert model.asked == 1
    assert outcomes("hit") == hits + 1


def test_it_keeps_the_protocol(make_cached: Callable[..., Cached]) -> None:
    cached = make_cached(Counting())
    assert isinstance(cached, Generator)
    assert "".join(cached.stream(PROMPT, limit=10)) == "Hello ⚓"
    assert (cached.name, cached.count("abc"), cached.parameters()) == ("counting", 3, {"weights": "abc"})


def test_pieces_are_shown_while_the_leader_computes(make_cached: Callable[..., Cached]) -> None:
    seen: list[str] = []
    make_cached(Counting()).generate(PROMPT, limit=10, on_delta=seen.append)
    assert seen == ["Hel", "lo ", "⚓"]


@pytest.mark.parametrize(
    "change",
    [
        {"system": "Be long."},
        {"user": "Where?"},
        {"version": "2"},
        {"knowledge_version": "k2"},
        {"examples": (("q", "a"),)},
        {"seed": 1},
        {"stop": ("x",)},
    ],
)
def test_everything_that_decides_an_answer_is_in_the_key(change: dict[str, Any]) -> None:
    model = Counting()
    assert cache_key(model, PROMPT, 10) != cache_key(model, replace(PROMPT, **change), 10)


def test_model_weights_limit_and_tenant_are_in_the_key() -> None:
    key = cache_key(Counting(), PROMPT, 10)
    assert key != cache_key(Counting(weights="other"), PROMPT, 10)
    assert key != cache_key(Counting(name="other"), PROMPT, 10)
    assert key != cache_key(Counting(), PROMPT, 11)
    assert key != cache_key(Counting(), PROMPT, 10, tenant="b")
    assert key == cache_key(Counting(), PROMPT, 10)


def test_one_text_in_two_unicode_forms_has_one_key() -> None:
    decomposed = replace(PROMPT, user="Ou\u0300 est ma commande ?")
    assert cache_key(Counting(), decomposed, 10) == cache_key(Counting(), PROMPT, 10)


def test_parts_cannot_be_shifted_between_fields() -> None:
    a, b = replace(PROMPT, system="ab", user="c"), replace(PROMPT, system="a", user="bc")
    assert cache_key(Counting(), a, 10) != cache_key(Counting(), b, 10)


def test_a_truncated_answer_is_given_but_not_kept(make_cached: Callable[..., Cached]) -> None:
    model = Counting(finish_reason="length")
    cached = make_cached(model)
    assert cached.generate(PROMPT, limit=10) == ("Hello ⚓", False)
    assert cached.generate(PROMPT, limit=10)[1] is False
    assert model.asked == 2


def test_a_failure_passes_through_is_not_kept_and_frees_the_key(make_cached: Callable[..., Cached]) -> None:
    model = Counting(error=ModelTimeout("too slow"))
    cached = make_cached(model)
    with pytest.raises(ModelTimeout):
        cached.generate(PROMPT, limit=10)
    model.error = None
    began = time.monotonic()
    assert cached.generate(PROMPT, limit=10) == ("Hello ⚓", False)
    assert time.monotonic() - began < 5.5


def test_a_temperature_passes_by_the_cache(make_cached: Callable[..., Cached]) -> None:
    model = Counting()
    cached = make_cached(model)
    warm = replace(PROMPT, temperature=0.7)
    assert [cached.generate(warm, limit=10)[1] for _ in range(2)] == [False, False]
    assert model.asked == 2


def test_many_askers_make_one_computation(make_cached: Callable[..., Cached]) -> None:
    model = Counting(delay=0.4)
    cached = make_cached(model)
    found: list[tuple[str, bool]] = []
    threads = [threading.Thread(target=lambda: found.append(cached.generate(PROMPT, limit=10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.asked == 1
    assert [text for text, _ in found] == ["Hello ⚓"] * 8
    assert sum(not hit for _, hit in found) == 1


def test_an_answer_that_came_between_the_look_and_the_lease_is_taken(
    make_cached: Callable[..., Cached], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the leader kept its answer and freed the key just then, and it was computed again."""
    model, key = Counting(), cache_key(Counting(), PROMPT, 10)
    cached = make_cached(model)
    store: Any = cached._store
    lead = store._redis.set

    def just_before(name: str, *values: Any, **how: Any) -> Any:
        store._redis.execute_command("SET", f"notifyr:gen:{key}", "Hello ⚓")
        return lead(name, *values, **how)

    monkeypatch.setattr(store._redis, "set", just_before)
    assert cached.generate(PROMPT, limit=10) == ("Hello ⚓", True)
    assert model.asked == 0
    with Redis.from_url(redis_url) as redis:
        assert not redis.exists(f"notifyr:gen:lead:{key}"), "the key is free again"


def test_the_followers_of_a_crashed_leader_go_on(make_cached: Callable[..., Cached], redis_url: str) -> None:
    key = cache_key(Counting(), PROMPT, 10)
    with Redis.from_url(redis_url) as redis:
        redis.set(f"notifyr:gen:lead:{key}", "a leader that was killed", px=700)
    model = Counting()
    began = time.monotonic()
    assert make_cached(model).generate(PROMPT, limit=10) == ("Hello ⚓", False)
    assert 0.3 < time.monotonic() - began < 15


def test_a_leader_that_takes_longer_than_its_lease_keeps_it(make_cached: Callable[..., Cached]) -> None:
    model = Counting(delay=9.0)
    cached = make_cached(model, lease_seconds=6.0)  # a leader that stands still for four seconds may lose a shorter one
    found: list[tuple[str, bool]] = []
    threads = [threading.Thread(target=lambda: found.append(cached.generate(PROMPT, limit=10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.asked == 1
    assert sorted(hit for _, hit in found) == [False, True, True]


def test_a_leader_whose_process_is_killed_frees_its_followers_with_its_lease(
    make_cached: Callable[..., Cached], redis_url: str
) -> None:
    """A real process that dies while it computes: what its followers wait for is the lease, however long it had worked."""
    key = cache_key(Counting(), PROMPT, 10)
    code = (
        "import sys, time; from assistant.backends.cache import GenerationCache;"
        "GenerationCache(sys.argv[1], seconds=60, lease_seconds=1.0)"
        ".get_or_compute(sys.argv[2], lambda: (print('leads', flush=True), time.sleep(60)))"
    )
    with subprocess.Popen([sys.executable, "-c", code, redis_url, key], stdout=subprocess.PIPE, cwd=ROOT) as leader:
        assert leader.stdout is not None and leader.stdout.readline() == b"leads\n"
        time.sleep(1.5)  # longer than its lease
        follower = make_cached(Counting(), lease_seconds=1.0)
        asked = threading.Thread(target=follower.generate, args=(PROMPT,), kwargs={"limit": 10})
        asked.start()
        time.sleep(0.5)
        assert asked.is_alive(), "it waits for the one who computes"
        began = time.monotonic()
        leader.kill()
        asked.join(20)
    assert not asked.is_alive() and time.monotonic() - began < 12


def test_a_leader_frees_only_its_own_lease(redis_url: str) -> None:
    store = GenerationCache(redis_url, seconds=60)

    def overtaken() -> tuple[str, bool]:
        with Redis.from_url(redis_url) as redis:
            redis.set("notifyr:gen:lead:k", "somebody else", px=5000)
        return "x", True

    store.get_or_compute("k", overtaken)
    store.close()
    with Redis.from_url(redis_url) as redis:
        assert redis.get("notifyr:gen:lead:k") == b"somebody else"


def test_lifetimes_end_and_are_spread(redis_url: str) -> None:
    store = GenerationCache(redis_url, seconds=1000)
    for n in range(20):
        store.get_or_compute(f"k{n}", lambda: ("x", True))
    with Redis.from_url(redis_url) as redis:
        lifetimes = {int(redis.ttl(f"notifyr:gen:k{n}")) for n in range(20)}  # type: ignore[arg-type]
    assert all(895 <= one <= 1000 for one in lifetimes)
    assert len(lifetimes) > 3
    store.forget("k0")
    assert store.get_or_compute("k0", lambda: ("y", True)) == ("y", False)
    store.close()


def test_a_redis_that_is_down_costs_only_speed() -> None:
    store = GenerationCache(f"redis://127.0.0.1:{free_port()}/0", seconds=60)
    model, missed = Counting(), outcomes("unavailable")
    cached = Cached(model, store)
    assert cached.generate(PROMPT, limit=10) == ("Hello ⚓", False)
    assert cached.generate(PROMPT, limit=10) == ("Hello ⚓", False)
    assert model.asked == 2
    assert outcomes("unavailable") == missed + 2
    store.close()
