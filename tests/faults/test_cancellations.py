"""Calls that are cancelled at any moment: nobody gets another's answer, nothing stays open, nothing is done twice.

2,000 injections over four clients, or `TEST_CANCELLATIONS`: fetches, submissions to a relay, subscribers of the bus (which
is what a page's socket waits on), and senders at the listener.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from redis import Redis
from sqlalchemy import select

from assistant.backends.blobs import Blobs
from assistant.backends.bus import Bus
from assistant.db.messages import Message
from assistant.db.session import Database, Event
from assistant.errors import ChannelError
from assistant.services import profiles
from assistant.settings import Settings
from channels.support import mime
from channels.support.http import SafeClient
from channels.support.smtp import Relay, RelayAddress
from pipelines import mailboxes
from pipelines.inbound import Receiver
from tests.support.figures import Tell
from tests.support.loops import run_apart
from tests.support.servers import SmtpSink, wait_until

INJECTIONS = int(os.environ.get("TEST_CANCELLATIONS", "2000"))
SEED = int(os.environ.get("TEST_SEED", "20261124"))
pytestmark = pytest.mark.timeout(180)


async def storm(
    count: int, dice: random.Random, call: Callable[[int], Awaitable[bool]], *, longest: float, width: int = 8
) -> Counter[str]:
    """`count` calls, some of them at a time, each cancelled after a moment of chance when it is not done by then.

    One in ten is left to its end, so that a busy machine, on which no call is quick enough, also shows right answers.
    """
    ends: Counter[str] = Counter()
    slots = asyncio.Semaphore(width)

    async def one(number: int, after: float | None) -> None:
        async with slots:
            task = asyncio.ensure_future(call(number))
            await asyncio.wait([task], timeout=after)
            if not task.done():
                task.cancel()
                ends["cancelled"] += 1
            try:
                ends["right" if await task else "crossed"] += 1
            except asyncio.CancelledError:
                return
            except ChannelError as error:
                ends[error.code] += 1

    moments = [None if number % 10 == 9 else dice.uniform(0, longest) for number in range(count)]
    await asyncio.gather(*(one(number, after) for number, after in enumerate(moments)))
    return ends


def report(tell: Tell, name: str, ends: Counter[str]) -> None:
    tell(f"{name}: seed {SEED}, {dict(ends)}")
    assert ends["crossed"] == 0
    assert ends["cancelled"] > 0
    assert ends["right"] > 0


def sockets() -> int:
    return len(psutil.Process().net_connections("tcp"))


async def closed(before: int) -> None:
    """Nothing of ours is connected any more."""
    for _ in range(100):
        if sockets() <= before:
            return
        await asyncio.sleep(0.05)
    assert sockets() <= before, "connections were left open"


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A web server that answers with the path it was asked for, sooner or later."""
    dice = random.Random(SEED)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = head.split()[1]
            await asyncio.sleep(dice.uniform(0, 0.02))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:2])
            await asyncio.sleep(dice.uniform(0, 0.01))
            writer.write(body[2:])
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def test_a_fetch_that_is_cancelled_gives_nobody_its_answer(tell: Tell) -> None:
    async def main() -> Counter[str]:
        async with echo() as port:
            client = SafeClient(
                ports=[port], resolve=lambda _h, _p: ["127.0.0.1"], may_connect=lambda one: one == "127.0.0.1"
            )
            before = sockets()

            async def call(number: int) -> bool:
                return (await client.get(f"http://images.example.org:{port}/{number}")).content == b"/%d" % number

            ends = await storm(INJECTIONS // 10, random.Random(SEED), call, longest=0.4, width=4)
            await closed(before)
            return ends

    report(tell, "fetches", run_apart(main()))


def test_a_submission_that_is_cancelled_is_never_half_of_another(smtp_sink: SmtpSink, tell: Tell) -> None:
    """A pooled connection on which somebody was cut off is not used again; each mail arrives once, whole, where it belongs."""
    accepted: list[int] = []

    async def main() -> Counter[str]:
        relay = Relay(RelayAddress.parse(smtp_sink.url), timeout=10)
        before = sockets()

        async def call(number: int) -> bool:
            content = f"Subject: {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n{('x' * 70 + chr(13) + chr(10)) * (number % 50)}\r\n"
            await relay.submit("a@example.org", [f"to{number}@example.org"], content.encode())
            accepted.append(number)
            return True

        ends = await storm(INJECTIONS * 9 // 20, random.Random(SEED), call, longest=0.06)
        await relay.close()
        await closed(before)
        return ends

    report(tell, "submissions", run_apart(main()))
    arrived = Counter(str(one.message["Subject"]) for one in smtp_sink.mails)
    assert max(arrived.values()) == 1
    assert {str(number) for number in accepted} <= set(arrived)
    assert all(one.recipients == (f"to{one.message['Subject']}@example.org",) for one in smtp_sink.mails)


def test_a_subscriber_that_is_cancelled_misses_nothing_when_it_resumes(valkey_url: str, tell: Tell) -> None:
    def clients() -> int:
        with Redis.from_url(valkey_url) as client:
            return int(client.info("clients")["connected_clients"])

    async def main() -> Counter[str]:
        bus, before = Bus(valkey_url), clients()
        last, seen, sent, dice = bus.publish(Event("start")), [], 0, random.Random(SEED)
        ends: Counter[str] = Counter()

        async def listen() -> None:
            nonlocal last
            async for entry, event in bus.subscribe(last):
                if event.kind != "tick":
                    seen.append((event.kind, event.payload.get("number")))
                    last = entry

        for _ in range(INJECTIONS * 3 // 10):
            task = asyncio.ensure_future(listen())
            await asyncio.sleep(dice.uniform(0, 0.01))
            for _ in range(dice.randint(0, 3)):
                bus.publish(Event("change", {"number": sent}))
                sent += 1
            await asyncio.sleep(dice.uniform(0, 0.01))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            ends["cancelled"] += 1
        task = asyncio.ensure_future(listen())
        for _ in range(200):
            if len(seen) >= sent:
                break
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ends["right"] = len(seen)
        ends["crossed"] = seen != [("change", number) for number in range(sent)]
        bus.close()
        for _ in range(100):
            if clients() <= before:
                break
            await asyncio.sleep(0.05)
        assert clients() <= before, "connections were left open"
        return ends

    report(tell, "subscribers", run_apart(main()))


class _Parser:
    parse = staticmethod(mime.parse)


def test_a_sender_that_hangs_up_leaves_whole_mails_or_none(
    sqlite_database: Database, settings: Settings, tell: Tell
) -> None:
    with sqlite_database.transaction() as session:
        profiles.ensure_default(session, settings)
    receiver = Receiver(sqlite_database, Blobs.open(settings), _Parser())
    container: Any = SimpleNamespace(settings=settings, database=sqlite_database, receiver=receiver, limiter=None)
    accepted: list[int] = []

    async def main() -> Counter[str]:
        stop = asyncio.Event()
        server = asyncio.ensure_future(mailboxes.serve(container, stop=stop))
        port = int((await asyncio.to_thread(_address, settings)).rpartition(":")[2])

        async def call(number: int) -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for line in (b"", b"EHLO c", b"MAIL FROM:<c@example.com>", b"RCPT TO:<support@example.org>", b"DATA"):
                    writer.write(line + b"\r\n" if line else b"")
                    while (await reader.readline())[3:4] == b"-":
                        pass
                writer.write(_mail(number) + b".\r\n")
                answer = await reader.readline()
                if answer.startswith(b"250"):
                    accepted.append(number)
                return answer.startswith(b"250")
            finally:
                writer.transport.abort()

        ends = await storm(INJECTIONS * 3 // 20, random.Random(SEED), call, longest=0.3)
        for _ in range(100):
            if not mailboxes._Protocol.open_now:
                break
            await asyncio.sleep(0.05)
        assert not mailboxes._Protocol.open_now, "connections were left open"
        stop.set()
        await server
        return ends

    report(tell, "senders", run_apart(main()))
    with sqlite_database.reading() as session:
        stored = {row.external_id: row.text for row in session.execute(select(Message.external_id, Message.text))}
    assert {f"<{number}@example.com>" for number in accepted} <= set(stored)
    for external_id, text in stored.items():
        assert text.strip() == f"Question {external_id.strip('<>').partition('@')[0]}", "half a mail, or two in one"


def _address(settings: Settings) -> str:
    where = settings.path("run", "smtp-address")
    found: str = wait_until(lambda: where.exists() and where.read_text().strip(), what="the listener's address")
    return found


def _mail(number: int) -> bytes:
    made = EmailMessage()
    made["From"], made["To"], made["Message-ID"] = "c@example.com", "support@example.org", f"<{number}@example.com>"
    made.set_content(f"Question {number}")
    return made.as_bytes().replace(b"\n", b"\r\n")
