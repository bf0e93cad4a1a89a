"""What one peer of the SMTP listener may ask for, on real sockets: 127.0.0.1 and 127.0.0.2 are two peers here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY

from assistant.backends.coordination import Limiter
from assistant.db.session import Database
from assistant.errors import ConfigurationError
from assistant.settings import Settings, load_settings
from pipelines import peers
from pipelines.peers import Peers
from tests.support import servers
from tests.support.listening import Listening, listening, mail

ONE, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def listen(
    sqlite_database: Database, make_settings: Callable[..., Settings], valkey_url: str
) -> Iterator[Callable[..., Listening]]:
    """`listen(smtp_mails_per_minute=...)`: a running listener that counts in Valkey."""
    with listening(sqlite_database, valkey_url) as start:
        yield lambda **values: start(make_settings(**values))


@pytest.fixture
def nobody_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is all that a test has: it is counted like any other network."""
    monkeypatch.setattr(peers, "HERE", ())


def put_off(reason: str) -> float:
    return REGISTRY.get_sample_value("notifyr_smtp_put_off_total", {"reason": reason}) or 0.0


def begin(listener: Listening, source: str) -> str:
    """The answer to MAIL FROM of a new connection."""
    with listener.connect(source=source) as wire:
        assert wire.say(b"EHLO client.example").startswith("250")
        return wire.say(b"MAIL FROM:<a@b.example>")


def is_greeted(listener: Listening, source: str) -> bool:
    wire = listener.connect(source=source)
    with contextlib.closing(wire.socket), contextlib.closing(wire.file):
        return wire.answer().startswith("220")


@pytest.mark.checklist(39)
@pytest.mark.usefixtures("nobody_is_here")
def test_a_peer_holds_so_many_connections_and_another_peer_is_not_hindered(listen: Callable[..., Listening]) -> None:
    listener = listen(smtp_connections_per_peer=3)
    before = put_off("connections")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(listener.connect(source=ONE))
        refused = listener.connect(source=ONE)
        with contextlib.closing(refused.socket), contextlib.closing(refused.file):
            assert refused.answer().startswith("421 4.7.0 Too many connections from you")
            assert refused.answer() == "", "it hung up"
        assert is_greeted(listener, OTHER)
    assert put_off("connections") == before + 1
    servers.wait_until(lambda: is_greeted(listener, ONE), what="a free place")


@pytest.mark.checklist(39)
@pytest.mark.usefixtures("nobody_is_here")
def test_a_peer_begins_so_many_mails_a_minute_and_the_rest_stays_with_it(listen: Callable[..., Listening]) -> None:
    listener = listen(smtp_mails_per_minute=2)
    before = put_off("mails")
    with listener.connect(source=ONE) as wire:
        for number in range(2):
            wire.begin()
            assert wire.say(mail(str(number)) + b".").startswith("250")
        assert wire.say(b"MAIL FROM:<a@b.example>").startswith("451 4.7.1 Too many mails from you")
        assert wire.say(b"RCPT TO:<support@example.org>").startswith("503"), "no envelope was begun"
    assert begin(listener, ONE).startswith("451"), "a new connection is the same peer"
    assert begin(listener, OTHER).startswith("250")
    assert (listener.count(), put_off("mails") - before) == (2, 2)


@pytest.mark.parametrize("trusted", [("127.0.0.1",), ("127.0.0.0/31", "10.0.0.0/8")])
@pytest.mark.usefixtures("nobody_is_here")
def test_a_trusted_relay_brings_as_much_as_it_likes(listen: Callable[..., Listening], trusted: tuple[str, ...]) -> None:
    listener = listen(smtp_connections_per_peer=1, smtp_mails_per_minute=1, smtp_trusted_networks=trusted)
    with listener.connect(source=ONE), listener.connect(source=ONE):
        assert [begin(listener, ONE)[:3] for _ in range(3)] == ["250", "250", "250"]
    assert [begin(listener, OTHER)[:3] for _ in range(2)] == ["250", "451"]


def test_this_machine_is_not_counted(listen: Callable[..., Listening]) -> None:
    listener = listen(smtp_connections_per_peer=1, smtp_mails_per_minute=1)
    with listener.connect(source=ONE), listener.connect(source=OTHER):
        assert [begin(listener, source)[:3] for source in (ONE, ONE, OTHER, OTHER)] == ["250"] * 4


@pytest.mark.usefixtures("nobody_is_here")
def test_mail_is_taken_in_while_the_counter_is_down(
    sqlite_database: Database, make_settings: Callable[..., Settings]
) -> None:
    with listening(sqlite_database, f"redis://127.0.0.1:{servers.free_port()}") as start:
        listener = start(make_settings(smtp_mails_per_minute=1))
        assert [begin(listener, ONE)[:3] for _ in range(2)] == ["250", "250"]


def test_the_addresses_of_one_ipv6_network_are_one_peer_and_a_mapped_one_is_its_ipv4(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(smtp_connections_per_peer=1, smtp_trusted_networks=("10.1.0.0/16", "2001:db8:5::7/128"))
    asked = Peers(settings, Limiter(""))
    assert asked.enter("2001:db8:1::1") and not asked.enter("2001:db8:1::2"), "a provider gives everybody a whole /64"
    assert asked.enter("2001:db8:2::1") and asked.enter("192.0.2.1") and not asked.enter("::ffff:192.0.2.1")
    assert all(asked.enter(one) for one in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8:5::7", "::1", "fe80::1%eth0"))
    asked.leave("2001:db8:1::1")
    asked.leave("2001:db8:1::2")
    assert asked.enter("2001:db8:1::3")
    assert asked.enter("") and not asked.enter(""), "who hung up before it was asked is a peer as well"


def test_networks_that_are_none_are_refused_at_the_start() -> None:
    assert load_settings({"NOTIFYR_SMTP_TRUSTED_NETWORKS": "10.0.0.0/8, 192.0.2.1"}).smtp_trusted_networks == (
        "10.0.0.0/8",
        "192.0.2.1",
    )
    with pytest.raises(ConfigurationError, match="NOTIFYR_SMTP_TRUSTED_NETWORKS: takes addresses and networks"):
        load_settings({"NOTIFYR_SMTP_TRUSTED_NETWORKS": "the relay"})
