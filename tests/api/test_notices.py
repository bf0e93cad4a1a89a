"""Notifications: off until they are asked for, no word more than was asked for, and a worker that keeps nothing."""

from __future__ import annotations

import re

import httpx
import pytest

from assistant.services import threads
from assistant.states import ThreadState
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def asked_for(world: World, choice: str) -> httpx.Client:
    client = world.browser()
    assert client.post("/settings", data={"name": "Admin", "notify": choice}).status_code == 303
    return client


def test_nothing_is_told_until_the_agent_asks_for_it(world: World) -> None:
    client = world.browser()
    assert client.get(f"/inbox/{world.ids['thread']}/notice").status_code == 204
    assert 'name="notify" content' not in client.get("/inbox").text
    client = asked_for(world, "everything")
    assert client.get(f"/inbox/{world.ids['thread']}/notice").status_code == 204, "no such choice: off"


def test_a_notice_has_the_words_that_were_asked_for_and_leaves_the_thread_unread(world: World) -> None:
    thread = world.thread(subject="Lamp", snippet="The glass is broken.")
    client = asked_for(world, "sender")
    assert 'name="notify" content="sender"' in client.get("/inbox").text
    told = client.get(f"/inbox/{thread}/notice").json()
    assert told == {"title": "Ana Silva", "body": "New message", "url": f"/inbox/{thread}"}
    client = asked_for(world, "preview")
    assert client.get(f"/inbox/{thread}/notice").json()["body"] == "Lamp\nThe glass is broken."
    with world.container.database.reading() as session:
        assert threads.get_thread(session, thread).unread


@pytest.mark.parametrize("state", [ThreadState.SPAM, ThreadState.CLOSED, ThreadState.TRASH])
def test_nothing_is_told_of_what_is_held_or_put_away(world: World, state: ThreadState) -> None:
    client = asked_for(world, "preview")
    thread = world.thread()
    with world.container.database.transaction() as session:
        threads.change_state(session, thread, state=state)
    assert client.get(f"/inbox/{thread}/notice").status_code == 204


def test_the_settings_say_what_notifications_do_and_what_they_do_not(world: World) -> None:
    part = re.search(
        r'<section class="card" id="notifications">.*?</section>', world.browser().get("/settings").text, re.S
    )
    assert part and "Nothing comes while it is closed" in part[0]
    assert re.findall(r'<option value="(\w+)"', part[0]) == ["off", "sender", "preview"]


def test_the_worker_keeps_nothing_and_fetches_nothing(world: World) -> None:
    answer = world.client().get("/worker.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "sandbox" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"
    assert not re.search(r"caches\b|\"fetch\"|fetch\(|indexedDB", answer.text)
