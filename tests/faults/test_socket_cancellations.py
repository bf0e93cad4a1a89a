"""Pages whose live socket ends at any moment: in the middle of an event, without reading, or half open.

300 ends, or `TEST_SOCKET_ENDS`. Those who stay get every change once and in order, whoever comes back resumes where it was,
and nothing of the others is left open.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY
from websockets.asyncio.client import ClientConnection, connect

from api.main import create_app
from assistant.db.session import Event
from pipelines.container import Container
from tests.api.conftest import World, serve
from tests.support.figures import Tell
from tests.support.loops import run_apart

ENDS = int(os.environ.get("TEST_SOCKET_ENDS", "300"))
SEED = int(os.environ.get("TEST_SEED", "20261124"))
WIDTH = 8
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def world(container: Container) -> Iterator[World]:
    app = create_app(container)
    with serve(app) as url:
        made = World(container, app, url)
        made.fill()
        yield made
        for client in made.clients:
            client.close()


class Page:
    """A signed-in page's socket."""

    def __init__(self, world: World, cookie: str) -> None:
        self.url, self.headers = world.url, {"Origin": world.url, "Cookie": cookie}
        self.seen: list[int] = []
        self.last = ""

    def open(self, **options: int) -> connect:
        after = f"?after={self.last}" if self.last else ""
        return connect(
            f"{self.url.replace('http', 'ws')}/live{after}", additional_headers=self.headers, proxy=None, **options
        )

    async def read(self, wire: ClientConnection) -> None:
        """Note what comes, for ever."""
        async for text in wire:
            found = json.loads(text)
            for frame in found if isinstance(found, list) else [found]:
                self.last = frame.get("id") or self.last
                number = frame.get("number", frame.get("payload", {}).get("number"))
                if number is not None:
                    self.seen.append(number)


async def end(page: Page, how: str, after: float) -> None:
    """A page that ends after a while: cut off while it reads, deaf, or with half a frame on the wire."""
    options = {"max_queue": 1} if how == "deaf" else {}
    wire = await page.open(**options)
    if how == "half a frame":
        wire.transport.write(b"\x81\xfe\x01")
    work = asyncio.ensure_future(page.read(wire)) if how == "cut" else None
    await asyncio.sleep(after)
    wire.transport.abort()
    if work is not None:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    await wire.wait_closed()


def sockets() -> float:
    return REGISTRY.get_sample_value("notifyr_sockets") or 0.0


def test_pages_that_end_at_any_moment_cost_the_others_nothing(world: World, tell: Tell) -> None:
    browser = world.browser()
    cookie = f"notifyr={browser.cookies['notifyr']}"
    before = sockets()

    async def main() -> tuple[Counter[str], int, Page, Page]:
        dice, ends, sent = random.Random(SEED), Counter[str](), 0
        stays, returns = Page(world, cookie), Page(world, cookie)
        done = asyncio.Event()

        async def publish() -> None:
            nonlocal sent
            while not done.is_set():
                event = Event("thread.changed", {"thread_id": "t", "reason": "test", "number": sent})
                await asyncio.to_thread(world.container.bus.publish, event)
                sent += 1
                await asyncio.sleep(0.01)

        async def come_back() -> None:
            while not done.is_set():
                async with returns.open() as wire:
                    work = asyncio.ensure_future(returns.read(wire))
                    await asyncio.wait([work], timeout=dice.uniform(0.1, 0.5))
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
                    wire.transport.abort()
                ends["came back"] += 1

        slots = asyncio.Semaphore(WIDTH)

        async def one(how: str, after: float) -> None:
            async with slots:
                await end(Page(world, cookie), how, after)
                ends[how] += 1

        async with stays.open() as first, returns.open() as second:
            reading = [asyncio.ensure_future(page.read(wire)) for page, wire in ((stays, first), (returns, second))]
            await asyncio.sleep(0.5)
            publishing = asyncio.ensure_future(publish())
            for _ in range(200):
                if stays.last and returns.last:
                    break
                await asyncio.sleep(0.05)
            reading[1].cancel()
            await asyncio.gather(reading[1], return_exceptions=True)
            second.transport.abort()
            coming = asyncio.ensure_future(come_back())
            hows = ("cut", "deaf", "half a frame")
            await asyncio.gather(*(one(hows[number % 3], dice.uniform(0, 0.3)) for number in range(ENDS)))
            done.set()
            await asyncio.gather(publishing, coming)
            async with returns.open() as third:
                reading.append(asyncio.ensure_future(returns.read(third)))
                for _ in range(200):
                    if len(stays.seen) >= sent and len(returns.seen) >= sent:
                        break
                    await asyncio.sleep(0.05)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        for _ in range(200):
            if sockets() <= before:
                break
            await asyncio.sleep(0.05)
        return ends, sent, stays, returns

    ends, sent, stays, returns = run_apart(main())
    tell(f"sockets: seed {SEED}, {dict(ends)}, {sent} changes")
    assert sum(ends[how] for how in ("cut", "deaf", "half a frame")) == ENDS
    assert stays.seen == list(range(sent)), "the one who stayed missed a change, or got one twice"
    assert returns.seen == list(range(sent)), "the one who came back missed a change, or got one twice"
    assert sockets() <= before, "sockets were left open"
