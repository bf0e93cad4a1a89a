"""The live socket: who may open it, what it takes, how long it lives; and everything of a session ends with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import update
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api.inbox import live
from assistant.clock import utcnow
from assistant.db.access import AgentSession
from assistant.services import access
from tests.api.conftest import PASSWORD, World
from tests.support.promises import kept_within


@contextlib.contextmanager
def socket(world: World, browser: httpx.Client | None, **headers: str) -> Iterator[ClientConnection]:
    cookie = {"Cookie": f"notifyr={browser.cookies['notifyr']}"} if browser is not None else {}
    query = headers.pop("query", "")
    with connect(
        world.url.replace("http", "ws") + "/live" + query,
        additional_headers={"Origin": world.url} | cookie | headers,
        proxy=None,
    ) as opened:
        yield opened


def close_code(opened: ClientConnection, seconds: float = 10) -> int:
    """The code that the server closes with; every frame before it is read."""
    until = time.monotonic() + seconds
    try:
        while True:
            opened.recv(timeout=max(0.1, until - time.monotonic()))
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else 1006


def refused(world: World, browser: httpx.Client | None, **headers: str) -> bool:
    """Whether the socket is not even opened: not one frame is exchanged."""
    try:
        with socket(world, browser, **headers):
            return False
    except InvalidStatus as answer:
        return answer.response.status_code == 403


@pytest.mark.checklist(18, 21)
def test_nobody_gets_a_frame_before_origin_and_session_are_right(world: World) -> None:
    browser = world.browser()
    assert refused(world, None)
    for origin in ("https://evil.example", "null", "", world.url + ".evil.example", world.url.replace("127", "128")):
        assert refused(world, browser, Origin=origin), origin
    token = browser.cookies["notifyr"]
    for query in (f"?token={token}", f"?notifyr={token}", f"?session={token}"):
        assert refused(world, None, query=query), "a token in a URL ends up in logs"
    program = world.program()
    assert refused(world, None, Authorization=program.headers["authorization"])
    assert refused(world, browser, Authorization="Bearer ntf_aaaaaaaaaa_" + "0" * 64)
    with socket(world, browser) as opened:
        opened.send(json.dumps({"kind": "ping"}))
    browser.post("/api/v1/auth/sign-out")
    assert refused(world, None, Cookie=f"notifyr={token}")


STRANGE: dict[str | bytes, int] = {
    "x" * 100_000: 1009,
    "x" * 2_001: 1008,
    "[" * 2_000: 1008,
    "not json": 1008,
    "[]": 1008,
    '{"kind": "publish", "thread_id": "x"}': 1008,
    '{"kind": "presence", "thread_id": 7}': 1008,
    '{"kind": "presence", "thread_id": "' + "x" * 100 + '"}': 1008,
    '{"kind": "presence", "thread_id": "x", "state": "<script>"}': 1008,
    b"\x00\xff": 1003,
}


@pytest.mark.checklist(18)
def test_what_is_not_presence_ends_the_socket(world: World) -> None:
    browser = world.browser()
    for frame, code in STRANGE.items():
        with socket(world, browser) as opened:
            opened.send(frame)
            assert close_code(opened) == code, frame[:40]


@pytest.mark.checklist(18)
def test_frames_silence_and_age_are_capped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = world.browser()
    with socket(world, browser) as opened:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(live.FRAMES + 20):
                opened.send('{"kind": "ping"}')
        assert close_code(opened) == 4029
    assert live.IDLE <= 120 and live.LIFETIME <= 3600
    monkeypatch.setattr(live, "IDLE", 0.5)
    with socket(world, browser) as opened:
        began = time.monotonic()
        assert close_code(opened) == 1012 and time.monotonic() - began < 15
    monkeypatch.setattr(live, "IDLE", 60.0)
    monkeypatch.setattr(live, "LIFETIME", 0.7)
    with socket(world, browser) as opened:
        began = time.monotonic()
        assert close_code(opened) == 1012 and time.monotonic() - began < 15


def _sign_out(world: World, browser: httpx.Client) -> None:
    assert browser.post("/api/v1/auth/sign-out").status_code == 204


def _change_password(world: World, browser: httpx.Client) -> None:
    body = {"current": PASSWORD, "new": "another long password"}
    assert browser.post("/api/v1/auth/password", json=body).status_code == 204


def _by_page(world: World, browser: httpx.Client) -> None:
    assert browser.post("/sign-out").status_code == 303


def _disable(world: World, browser: httpx.Client) -> None:
    with world.container.database.transaction() as session:
        access.disable_agent(session, world.ids["agent"], actor="test")


def _role(world: World, browser: httpx.Client) -> None:
    with world.container.database.transaction() as session:
        access.set_role(session, world.ids["agent"], role="admin", actor="test")


def _expire(world: World, browser: httpx.Client) -> None:
    """Its time is over while the page is open."""
    token = hashlib.sha256(browser.cookies["notifyr"].encode()).hexdigest()
    with world.container.database.transaction() as session:
        ended = update(AgentSession).where(AgentSession.token_hash == token)
        assert session.execute(ended.values(expires_at=utcnow())).rowcount == 1


@pytest.mark.checklist(16)
@pytest.mark.parametrize(
    ("end", "all_of_them"),
    [
        (_sign_out, False),
        (_by_page, False),
        (_change_password, True),
        (_disable, True),
        (_role, True),
        (_expire, False),
    ],
    ids=["sign-out", "sign-out by page", "password", "disabled", "role", "expired"],
)
def test_pages_sockets_and_tokens_are_dead_within_a_second(
    world: World, end: Callable[[World, httpx.Client], None], all_of_them: bool
) -> None:
    attempts = iter(range(3))
    kept_within(1.0, lambda: _seconds_until_dead(world, end, all_of_them, f"agent{next(attempts)}@example.org"))


def _seconds_until_dead(
    world: World, end: Callable[[World, httpx.Client], None], all_of_them: bool, email: str
) -> float:
    """From the end of a new agent's session to the end of the last of its sockets."""
    with world.container.database.transaction() as session:
        world.ids["agent"] = access.create_agent(session, email, name="Agent", role="agent").id
        access.set_password(session, world.ids["agent"], password=PASSWORD, actor="test")
    here, there = world.browser(email), world.browser(email)
    program = world.program("threads:read", agent="agent")
    closed: dict[str, float] = {}

    def watch(name: str, opened: ClientConnection) -> None:
        if close_code(opened, 20) == 1008:
            closed[name] = time.monotonic()

    with socket(world, here) as one, socket(world, there) as two:
        watchers = [threading.Thread(target=watch, args=found) for found in (("here", one), ("there", two))]
        for watcher in watchers:
            watcher.start()
        time.sleep(0.2)
        end(world, here)
        began = time.monotonic()
        assert here.get("/api/v1/threads").status_code == 401
        assert (there.get("/api/v1/threads").status_code == 401) is all_of_them
        assert (program.get("/api/v1/threads").status_code == 401) is (end is _disable)
        watchers[0].join(30)
        assert "here" in closed
        if all_of_them:
            watchers[1].join(30)
            assert "there" in closed
        else:
            two.send('{"kind": "ping"}')
            assert "there" not in closed
            two.close()
        for watcher in watchers:
            watcher.join(30)
    return max(closed.values()) - began
