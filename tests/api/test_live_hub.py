"""Open pages share one reader: each hears everything once and in order, also after a gap and in a flood."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import ExitStack

import pytest
from redis import Redis
from websockets.sync.client import ClientConnection, connect

from api.realtime import hub
from assistant.db.session import Event
from tests.api.conftest import World
from tests.support.loops import run_apart
from tests.support.servers import wait_until

PAGES = 12
CHANGES = 300


def _open(world: World, cookie: str, after: str = "") -> ClientConnection:
    return connect(
        f"{world.url.replace('http', 'ws')}/live?after={after}",
        additional_headers={"Origin": world.url, "Cookie": f"notifyr={cookie}"},
        proxy=None,
    )


def _heard(page: ClientConnection, until: int) -> tuple[list[int], list[str], int]:
    """Numbers and ids up to a number, and how many messages they came in."""
    numbers: list[int] = []
    ids: list[str] = []
    messages = 0
    while not numbers or numbers[-1] != until:
        told = json.loads(page.recv(timeout=20))
        messages += 1
        for frame in told if isinstance(told, list) else [told]:
            if frame["kind"] == "change":
                numbers.append(frame["number"])
                ids.append(frame["id"])
    return numbers, ids, messages


def _readers(world: World) -> int:
    with Redis.from_url(world.container.redis_url) as client:
        return sum(one["cmd"] == "xread" for one in client.client_list())


def test_pages_share_a_reader_and_each_hears_everything_once(world: World) -> None:
    cookie = world.browser().cookies["notifyr"]
    bus = world.container.bus
    with ExitStack() as stack:
        pages = [stack.enter_context(_open(world, cookie)) for _ in range(PAGES)]
        wait_until(lambda: _readers(world) == 1, what="one reader for all pages")
        results: dict[int, tuple[list[int], list[str], int]] = {}
        listening = [
            threading.Thread(target=lambda n=number, p=page: results.update({n: _heard(p, CHANGES - 1)}))  # type: ignore[misc]
            for number, page in enumerate(pages)
        ]
        for one in listening:
            one.start()
        for number in range(CHANGES):
            bus.publish(Event("change", {"number": number}))
        for one in listening:
            one.join(30)
        assert len(results) == PAGES
        assert all(numbers == list(range(CHANGES)) for numbers, _, _ in results.values())
        # One that was away comes back with its last id, and hears the rest once, before what is new.
        _, ids, _ = results[0]
        with _open(world, cookie, after=ids[99]) as late:
            bus.publish(Event("change", {"number": CHANGES}))
            numbers, _, messages = _heard(late, CHANGES)
            assert numbers == list(range(100, CHANGES + 1))
            assert messages < CHANGES - 100, "many at once come together"
    wait_until(lambda: _readers(world) == 0, what="no reader without a page")


def test_a_page_whose_place_is_forgotten_reads_everything_again(world: World) -> None:
    cookie = world.browser().cookies["notifyr"]
    with _open(world, cookie, after="1-1") as page:
        assert json.loads(page.recv(timeout=10))["kind"] == "reset"
    world.container.bus.publish(Event("change", {"number": 1}))
    with _open(world, cookie, after="9999999999999-0") as page:
        assert json.loads(page.recv(timeout=10))["kind"] == "reset"


@pytest.mark.checklist(18)
def test_a_page_that_does_not_read_is_let_go_and_its_memory_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more is kept for it, and the others hear everything meanwhile."""
    assert hub.BEHIND <= 10_000
    monkeypatch.setattr(hub, "BEHIND", 20)
    container, most = world.container, 0

    async def publish(number: int) -> None:
        await asyncio.to_thread(container.bus.publish, Event("change", {"number": number}))

    async def main() -> tuple[list[int], int]:
        nonlocal most
        shared = hub.Hub(container.bus, container.database)
        deaf, reads = shared.frames(), shared.frames()
        firsts = [asyncio.ensure_future(anext(one)) for one in (deaf, reads)]
        await asyncio.sleep(0)  # both have asked
        await shared._follow()
        await asyncio.sleep(0.2)
        await publish(0)
        heard = [json.loads(one)["number"] for one in await asyncio.gather(*firsts)][1:]
        for number in range(1, 101):
            await publish(number)
            told = json.loads(await anext(reads))
            heard += [one["number"] for one in (told if isinstance(told, list) else [told])]
            most = max(most, *(len(page.waiting) for page in shared._pages))
        with pytest.raises(hub.Gone) as gone:
            await anext(deaf)
        await reads.aclose()
        return heard, gone.value.code

    heard, code = run_apart(main())
    assert heard == list(range(101)), "the one who reads missed nothing"
    assert code == 1013 and most <= 21


def test_the_first_reason_to_close_a_page_counts() -> None:
    page = hub._Page()
    page.close(1013)
    page.close(1012)
    assert page.end == 1013
