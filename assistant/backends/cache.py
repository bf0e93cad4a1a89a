"""Finished generations in Redis: exact keys, one computation at a time per key, bounded lifetime with jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import structlog
from redis import Redis
from redis.exceptions import RedisError

from assistant.clock import monotonic, new_id
from assistant.telemetry import METRICS

__all__ = ["GenerationCache"]

_log = structlog.get_logger(__name__)
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


class GenerationCache:
    """Answers by key. A leader that crashes frees its followers when its lease ends; a Redis that is down costs speed only."""

    def __init__(self, url: str, *, seconds: int, lease_seconds: float = 90.0, namespace: str = "notifyr:gen:") -> None:
        self._redis = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)
        self._seconds = seconds
        self._lease = lease_seconds
        self._namespace = namespace

    def get_or_compute(self, key: str, compute: Callable[[], tuple[str, bool]]) -> tuple[str, bool]:
        """The answer and whether it was a hit. Errors of `compute` pass through and nothing is kept."""
        token = new_id()
        try:
            found = self._wait_or_lead(key, token)
        except RedisError as error:
            _log.warning("cache_unavailable", error=type(error).__name__)
            METRICS.cache.labels(outcome="unavailable").inc()
            return compute()[0], False
        if found is not None:
            METRICS.cache.labels(outcome="hit").inc()
            return found, True
        METRICS.cache.labels(outcome="miss").inc()
        try:
            answer, keep = compute()
            if keep:
                self._keep(key, answer)
            return answer, False
        finally:
            self._release(key, token)

    def forget(self, key: str) -> None:
        self._redis.delete(self._namespace + key)

    def close(self) -> None:
        self._redis.close()

    def _wait_or_lead(self, key: str, token: str) -> str | None:
        """The stored answer, or None once this caller holds the lease and must compute."""
        until = monotonic() + self._lease
        while True:
            stored = self._redis.get(self._namespace + key)
            if isinstance(stored, bytes):
                return stored.decode()
            lease = self._redis.set(self._namespace + "lead:" + key, token, nx=True, px=int(self._lease * 1000))
            if lease or monotonic() > until:
                return None
            time.sleep(0.05)

    def _keep(self, key: str, answer: str) -> None:
        lifetime = int(self._seconds * random.uniform(0.9, 1.0)) or 1  # noqa: S311  # jitter, not a secret
        try:
            self._redis.set(self._namespace + key, answer.encode(), ex=lifetime)
        except RedisError as error:
            _log.warning("cache_unavailable", error=type(error).__name__)

    def _release(self, key: str, token: str) -> None:
        try:
            self._redis.eval(_RELEASE, 1, self._namespace + "lead:" + key, token)
        except RedisError as error:
            _log.warning("cache_unavailable", error=type(error).__name__)
