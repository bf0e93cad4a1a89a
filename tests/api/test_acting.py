"""Where an act leads: the next thread of the list that the agent sees, with its search, its order and all of its pages."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx

from assistant.clock import utcnow
from assistant.db.messages import Thread
from tests.api.conftest import BOTH, World

ENGINES = BOTH

MANY = 120


def filled(world: World, count: int, **values: object) -> list[str]:
    """Threads a minute apart, newest first: the order of the list."""
    return [world.thread(last_message_at=utcnow() - timedelta(minutes=number + 1), **values) for number in range(count)]


def after(client: httpx.Client, thread: str, **form: str) -> str:
    """The thread that is opened after this one was done."""
    answer = client.post(f"/inbox/{thread}/act", data={"act": "done", "view": "inbox", **form})
    assert answer.status_code == 303
    found = re.match(r"/inbox/?([^?]*)", answer.headers["location"])
    assert found is not None
    return found[1]


def test_the_next_thread_is_the_next_one_of_the_search(world: World) -> None:
    client = world.browser()
    lamps = filled(world, 3, subject="Broken lamp")
    filled(world, 2, subject="Broken chair")
    search = {"q": "subject:lamp"}
    assert after(client, lamps[1], **search) == lamps[2]
    assert after(client, lamps[2], **search) == lamps[0], "after the last one the first"
    assert after(client, lamps[0], **search) == "", "the list itself when nothing is left in it"


def test_a_search_for_ones_own_threads_stays_among_them(world: World) -> None:
    client = world.browser()
    mine = filled(world, 2, assignee_id=world.ids["admin"])
    filled(world, 2, assignee_id=world.ids["agent"])
    assert after(client, mine[0], q="is:mine") == mine[1]
    assert after(client, mine[1], q="is:mine") == ""


def test_the_next_thread_is_found_on_every_page_of_a_long_list(world: World) -> None:
    client = world.browser()
    with world.container.database.transaction() as session:
        session.query(Thread).update({"subject": "Other"})
    ids = filled(world, MANY, subject="Broken lamp")
    for place in (49, 60, 99, 117):  # the ends of pages of 50 and 100, and between; each one done leaves the list
        assert after(client, ids[place], q="subject:lamp") == ids[place + 1]
        world.clear_limits()
