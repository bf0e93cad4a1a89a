"""Rate limits, on both servers, and what happens without one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from assistant.backends.coordination import RULES, Limiter, Rule, network_of
from assistant.errors import RateLimited, StorageError

RULE = Rule("test", 5, 60, closed=True)


@pytest.mark.checklist(9)
def test_a_limit_counts_exactly_even_when_many_come_at_once(redis_url: str) -> None:
    limiter = Limiter(redis_url)

    def one(_: int) -> bool:
        try:
            limiter.hit(RULE, "somebody")
        except RateLimited as refused:
            assert refused.delay is not None and 0 < refused.delay <= 60
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(one, range(50))) == RULE.amount
    limiter.hit(RULE, "somebody else")
    limiter.forget(RULE, "somebody")
    limiter.hit(RULE, "somebody")
    limiter.close()


@pytest.mark.checklist(60)
def test_keys_in_redis_expire_and_carry_no_address(redis_url: str) -> None:
    limiter = Limiter(redis_url)
    limiter.hit(RULE, "ana@example.org", "192.0.2.7")
    limiter.trust("ana@example.org", "192.0.2.7")
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter())
        assert keys and all(key.startswith(b"notifyr:limit") for key in keys)
        assert all(b"ana" not in key and b"192" not in key for key in keys)
        assert all(client.ttl(key) > 0 for key in keys)
    assert limiter.trusted("ana@example.org", "192.0.2.7") and not limiter.trusted("ana@example.org", "192.0.2.8")
    limiter.close()


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:9"])
def test_without_a_store_closed_rules_refuse_and_open_ones_let_pass(url: str) -> None:
    limiter = Limiter(url)
    for rule in RULES.values():
        if rule.closed:
            with pytest.raises(StorageError):
                limiter.hit(rule, "x")
        else:
            limiter.hit(rule, "x")
        limiter.forget(rule, "x")
    limiter.trust("a", "b")
    assert not limiter.trusted("a", "b") and not limiter.ping() and limiter.value("x") is None
    limiter.close()


def test_signing_in_and_sending_are_the_rules_that_close() -> None:
    closed = {name for name, rule in RULES.items() if rule.closed}
    assert closed == {"sign-in-pair", "sign-in-network", "sign-in-account", "link", "send"}
    assert all(rule.seconds <= 900 for rule in RULES.values())  # nobody is kept out for longer than 15 minutes


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_is_counted_under_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
