"""The relay's name cannot be looked up, takes for ever, comes and goes, or has an address that is dead: it costs time, never a mail.

The names are answered in the place of the system's resolver; the connections behind them are real.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from assistant.clock import monotonic
from assistant.errors import TemporaryChannelError
from channels.support.smtp import Accepted, Relay, RelayAddress
from channels.twins.smtp_receiver import SmtpReceiver

NAME = "relay.example.org"
MAIL = b"From: support@example.org\r\nTo: ann@example.com\r\nMessage-ID: <one@example.org>\r\n\r\nHello\r\n"
TIMEOUT = 1.0


class Resolver:
    """`answers` are taken one after another, the last one for ever: addresses, an error, or an event to wait for first."""

    def __init__(self) -> None:
        self.answers: list[list[str] | OSError | threading.Event] = []
        self.asked = 0

    def __call__(self, host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return self.system(host, port, *rest, **named)
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, threading.Event):
            answer.wait(20)
            answer = ["127.0.0.1"]
        if isinstance(answer, OSError):
            raise answer
        found = []
        for address in answer:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            where = (address, port, 0, 0) if ":" in address else (address, port)
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where))
        return found

    system = staticmethod(socket.getaddrinfo)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


@pytest.fixture
def sink() -> Iterator[SmtpReceiver]:
    with SmtpReceiver() as receiver:
        yield receiver


Send = Callable[[], Awaitable[Accepted]]


def with_relay(port: int, work: Callable[[Send], Awaitable[None]]) -> None:
    """`work` with a function that submits one mail, on a relay that is known by its name."""

    async def run() -> None:
        relay = Relay(RelayAddress.parse(f"smtp://{NAME}:{port}"), timeout=TIMEOUT)
        try:
            await work(lambda: relay.submit("support@example.org", ("ann@example.com",), MAIL))
        finally:
            await relay.close()

    anyio.run(run)


async def refused_for_now(send: Send) -> float:
    """How long it took to be told that it is for later."""
    began = monotonic()
    with pytest.raises(TemporaryChannelError):
        await send()
    return monotonic() - began


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL])
def test_a_name_that_is_not_found_is_for_later_and_then_it_is_sent_once(
    resolver: Resolver, sink: SmtpReceiver, code: int
) -> None:
    """It comes and goes: a mistake of a name server must not cost a mail, so no answer of it is final."""
    resolver.answers = [socket.gaierror(code, "no"), ["127.0.0.1"]]

    async def work(send: Send) -> None:
        assert await refused_for_now(send) < TIMEOUT
        assert (await send()).answer.startswith("250")

    with_relay(sink.port, work)
    assert sink.dots["<one@example.org>"] == 1


def test_a_resolver_that_hangs_costs_no_more_than_the_time_a_relay_has(resolver: Resolver, sink: SmtpReceiver) -> None:
    """Ten at a time, more than there are threads to wait in; and when it answers again, the next mail leaves."""
    again = threading.Event()
    resolver.answers = [again]

    async def work(send: Send) -> None:
        took: list[float] = []

        async def one() -> None:
            took.append(await refused_for_now(send))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(one)
        # Four speak to a relay at a time: the last two of ten wait for two rounds of others first.
        assert len(took) == 10 and max(took) < 3 * TIMEOUT + 2, took
        assert not sink.mails
        again.set()
        with anyio.fail_after(10):
            while True:
                try:
                    accepted = await send()
                except TemporaryChannelError:
                    continue
                break
        assert accepted.answer.startswith("250")

    try:
        with_relay(sink.port, work)
    finally:
        again.set()
    assert sink.dots["<one@example.org>"] == 1, "what was given up in the lookup never spoke to the relay"


@pytest.mark.parametrize("dead", ["::1", "127.0.0.2"])
def test_of_two_addresses_of_which_one_is_dead_the_other_is_taken(
    resolver: Resolver, sink: SmtpReceiver, dead: str
) -> None:
    """A relay with an IPv6 address on a machine without a way there is the usual one."""
    resolver.answers = [[dead, "127.0.0.1"]]

    async def work(send: Send) -> None:
        assert (await send()).answer.startswith("250")

    with_relay(sink.port, work)
    assert sink.dots["<one@example.org>"] == 1


def test_a_name_with_nothing_but_dead_addresses_or_none_is_for_later(resolver: Resolver, sink: SmtpReceiver) -> None:
    resolver.answers = [["::1"], ["127.0.0.2", "127.0.0.3"], []]

    async def work(send: Send) -> None:
        for _ in range(3):
            assert await refused_for_now(send) < TIMEOUT + 1

    with_relay(sink.port, work)
    assert resolver.asked == 3
    assert not sink.mails


def test_an_open_connection_needs_no_name(resolver: Resolver, sink: SmtpReceiver) -> None:
    resolver.answers = [["127.0.0.1"], socket.gaierror(socket.EAI_AGAIN, "no")]

    async def work(send: Send) -> None:
        for _ in range(3):
            assert (await send()).answer.startswith("250")

    with_relay(sink.port, work)
    assert (resolver.asked, sink.dots["<one@example.org>"]) == (1, 3)
