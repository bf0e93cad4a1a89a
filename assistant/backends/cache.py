"""Finished generations in Redis: exact keys, one computation at a time per key, bounded lifetime with jitter."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from redis import Redis
from redis.exceptions import RedisError

from assistant.clock import monotonic, new_id
from assistant.failpoints import failpoint
from assistant.telemetry import METRICS

__all__ = ["GenerationCache"]

_log = structlog.get_logger(__name__)
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
_RENEW = (
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end"
)


class GenerationCache:
    """Answers by key. A Redis that is down costs speed only.

    A leader renews its lease of `lease_seconds` while it computes, so that one which was killed frees its followers soon. They
    wait for a living one for `patience_seconds` at most.
    """

    def __init__(
        self,
        url: str,
        *,
        seconds: int,
        lease_seconds: float = 6.0,
        patience_seconds: float = 90.0,
        namespace: str = "notifyr:gen:",
    ) -> None:
        self._redis = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)
        self._seconds = seconds
        self._lease = lease_seconds
        self._patience = patience_seconds
        self._namespace = namespace

    def get_or_compute(self, key: str, compute: Callable[[], tuple[str, bool]]) -> tuple[str, bool]:
        """The answer and whether it was a hit. Errors of `compute` pass through and nothing is kept."""
        token = new_id()
        try:
            failpoint("cache.before_lead")
            found = self._wait_or_lead(key, token)
            failpoint("cache.after_lead")
        except RedisError as error:
            _log.warning("cache_unavailable", error=type(error).__name__)
            METRICS.cache.labels(outcome="unavailable").inc()
            return compute()[0], False
        if found is not None:
            METRICS.cache.labels(outcome="hit").inc()
            return found, True
        METRICS.cache.labels(outcome="miss").inc()
        with self._leading(key, token):
            answer, keep = compute()
            if keep:
                self._keep(key, answer)
            return answer, False

    def forget(self, key: str) -> None:
        self._redis.delete(self._namespace + key)

    def close(self) -> None:
        self._redis.close()

    def _wait_or_lead(self, key: str, token: str) -> str | None:
        """The stored answer, or None once this caller holds the lease and must compute."""
        until = monotonic() + self._patience
        while True:
            stored = self._redis.get(self._namespace + key)
            if isinstance(stored, bytes):
                return stored.decode()
            lease = self._redis.set(self._name(key), token, nx=True, px=self._milliseconds)
            if lease:
                stored = self._redis.get(self._namespace + key)
                if isinstance(stored, bytes):  # between the look and the lease the one before kept its answer and went
                    with _passing_by():
                        self._redis.eval(_RELEASE, 1, self._name(key), token)
                    return stored.decode()
            if lease or monotonic() > until:
                return None
            time.sleep(0.05)

    def _keep(self, key: str, answer: str) -> None:
        lifetime = int(self._seconds * random.uniform(0.9, 1.0)) or 1  # noqa: S311  # jitter, not a secret
        with _passing_by():
            failpoint("cache.before_keep")
            self._redis.set(self._namespace + key, answer.encode(), ex=lifetime)
            failpoint("cache.after_keep")

    @contextmanager
    def _leading(self, key: str, token: str) -> Iterator[None]:
        """Keep the lease for as long as the block. A process that stands still or dies renews nothing."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(self._lease / 3):
                with _passing_by():
                    failpoint("cache.before_renew")
                    self._redis.eval(_RENEW, 1, self._name(key), token, self._milliseconds)
                    failpoint("cache.after_renew")

        threading.Thread(target=renew, name="cache-lease", daemon=True).start()
        try:
            yield
        finally:
            done.set()
            with _passing_by():
                failpoint("cache.before_release")
                self._redis.eval(_RELEASE, 1, self._name(key), token)
                failpoint("cache.after_release")

    def _name(self, key: str) -> str:
        return f"{self._namespace}lead:{key}"

    @property
    def _milliseconds(self) -> int:
        return int(self._lease * 1000)


@contextmanager
def _passing_by() -> Iterator[None]:
    """A Redis that is down is noted, and costs only what would have been kept in it."""
    try:
        yield
    except RedisError as error:
        _log.warning("cache_unavailable", error=type(error).__name__)
