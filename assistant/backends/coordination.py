"""Rate limits shared by all processes, counted in Redis by the `limits` library.

What happens while Redis is down is declared per rule, not left to chance: reading and triage acts stay open (`closed=False`),
signing in and sending answer 503 (`closed=True`), because an uncounted guess or an uncounted mail is worse than a short wait.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass

import redis
import structlog
from limits import RateLimitItemPerSecond
from limits.errors import StorageError as LimitsStorageError
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from assistant.clock import utcnow
from assistant.errors import RateLimited, StorageError
from assistant.failpoints import failpoint

__all__ = ["RULES", "Limiter", "Rule", "network_of"]

_log = structlog.get_logger(__name__)
_PREFIX = "notifyr:limit"
_TRUST_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Rule:
    """At most `amount` in `seconds` for one identity. `closed`: refuse while the counter's store is down."""

    name: str
    amount: int
    seconds: int
    closed: bool


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        # Signing in: a window of 15 minutes is also the longest time anybody can be kept out.
        Rule("sign-in-pair", 10, 900, closed=True),  # one account from one network
        Rule("sign-in-network", 60, 900, closed=True),  # all accounts from one network
        Rule("sign-in-account", 100, 900, closed=True),  # one account from networks it never signed in from
        Rule("link", 20, 900, closed=True),  # one-time links tried from one network
        Rule("key-wrong", 60, 60, closed=False),  # wrong API keys from one network
        Rule("read", 1200, 60, closed=False),
        Rule("write", 300, 60, closed=False),
        Rule("send", 120, 60, closed=True),
    )
}
"""Every limit. Documented one by one in the API guide."""


def network_of(address: str) -> str:
    """The network that an address is counted under: an IPv4 address itself, the /64 of an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class Limiter:
    """Counters on the Redis at `redis_url`. An empty URL counts as a store that is down."""

    def __init__(self, redis_url: str) -> None:
        self._redis: redis.Redis | None = None
        self._limiter: FixedWindowRateLimiter | None = None
        if redis_url:
            self._redis = redis.Redis.from_url(
                redis_url, socket_timeout=1, socket_connect_timeout=1, health_check_interval=30
            )
            storage = RedisStorage(
                redis_url, connection_pool=self._redis.connection_pool, wrap_exceptions=True, key_prefix=_PREFIX
            )
            self._limiter = FixedWindowRateLimiter(storage)

    def hit(self, rule: Rule, *identity: str) -> None:
        """Count one. Raises `RateLimited` with the seconds to wait, or `StorageError` under a closed rule without a store."""
        item = RateLimitItemPerSecond(rule.amount, rule.seconds, namespace=rule.name)
        try:
            if self._limiter is None:
                raise ConnectionError("no Redis")
            # One atomic increment with expiry; the window does not grow when it is hit again after it is full.
            failpoint("limit.before_hit")
            within = self._limiter.hit(item, _hidden(*identity))
            failpoint("limit.after_hit")
            if within:
                return
            reset = self._limiter.get_window_stats(item, _hidden(*identity)).reset_time
        except (LimitsStorageError, redis.RedisError, OSError) as error:
            self._down(rule, error)
            return
        wait = min(float(rule.seconds), max(1.0, reset - utcnow().timestamp()))
        raise RateLimited("too many tries; wait a little", delay=wait)

    def forget(self, rule: Rule, *identity: str) -> None:
        """Start a counter again, after a success."""
        if self._limiter is None:
            return
        try:
            item = RateLimitItemPerSecond(rule.amount, rule.seconds, namespace=rule.name)
            failpoint("limit.before_forget")
            self._limiter.clear(item, _hidden(*identity))
            failpoint("limit.after_forget")
        except (LimitsStorageError, redis.RedisError, OSError) as error:
            self._down(rule, error, ignore=True)

    def trust(self, account: str, network: str) -> None:
        """Remember for 30 days that this account signed in from here: strangers' tries elsewhere cannot lock it out."""
        if self._redis is None:
            return
        try:
            failpoint("limit.before_trust")
            self._redis.set(f"{_PREFIX}:known:{_hidden(account, network)}", 1, ex=_TRUST_SECONDS)
            failpoint("limit.after_trust")
        except (redis.RedisError, OSError) as error:
            _log.warning("limiter_store_down", error=type(error).__name__)

    def trusted(self, account: str, network: str) -> bool:
        if self._redis is None:
            return False
        try:
            return bool(self._redis.exists(f"{_PREFIX}:known:{_hidden(account, network)}"))
        except (redis.RedisError, OSError) as error:
            _log.warning("limiter_store_down", error=type(error).__name__)
            return False

    def ping(self) -> bool:
        """Whether the store answers."""
        if self._redis is None:
            return False
        try:
            return bool(self._redis.ping())
        except (redis.RedisError, OSError):
            return False

    def value(self, key: str) -> bytes | None:
        """A small published value, for example the state of the models; None when absent or when Redis is down."""
        if self._redis is None:
            return None
        try:
            found = self._redis.get(key)
        except (redis.RedisError, OSError):
            return None
        return found if isinstance(found, bytes) else None

    def _down(self, rule: Rule, error: Exception, *, ignore: bool = False) -> None:
        _log.warning("limiter_store_down", rule=rule.name, error=type(error).__name__)
        if rule.closed and not ignore:
            raise StorageError("the rate counter is not available; try again in a few seconds", delay=5) from error

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()


def _hidden(*identity: str) -> str:
    # Keys in Redis carry no addresses, and no separator that a caller could choose.
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
