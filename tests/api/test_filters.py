"""Saved filters: a list under a name, each agent's own, with a true count and a way back."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from assistant.services import saved_filters
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def rail(page: str) -> list[tuple[str, str, str]]:
    """Address, name and count of each filter in the rail."""
    part = re.search(r'aria-labelledby="rail-filters".*?</ul>', page, re.DOTALL)
    found = re.findall(r'href="([^"]+)".*?rail-word">([^<]*)<.*?count">([^<]*)<', part[0], re.DOTALL) if part else []
    return [(unescape(href), unescape(name), count) for href, name, count in found]


def saved(client: httpx.Client, **values: str) -> httpx.Response:
    return client.post("/filters", data={"name": "Lamps", "view": "all", "q": "lamp"} | values, follow_redirects=True)


def test_a_saved_list_stands_in_the_rail_with_its_count_and_opens_as_it_was(world: World) -> None:
    client = world.browser()
    kept = [world.thread(subject=f"Broken lamp {number}") for number in range(3)]
    world.thread(subject="Another matter")
    page = saved(client, sort="oldest-waiting", name="  Broken   <lamps> ")
    assert page.status_code == 200
    [(href, name, count)] = rail(page.text)
    assert (name, count) == ("Broken <lamps>", "3")
    opened = client.get(href).text
    assert [one in opened for one in kept] == [True] * 3
    assert '<option value="oldest-waiting" selected>' in opened
    assert re.search(r'aria-current="page" title="Filter Broken', opened)
    world.thread(subject="One more lamp")
    assert rail(client.get("/inbox").text)[0][2] == "4"


def test_a_count_stops_at_ninety_nine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_filters, "_SHOWN", 4)
    client = world.browser()
    for number in range(6):
        world.thread(subject=f"Broken lamp {number}")
    assert rail(saved(client).text)[0][2] == "4+"


@pytest.mark.parametrize("q", ["", "is:unread lamp", "label:billing lamp", "from:ana", "after:2d"])
@pytest.mark.parametrize("view", ["inbox", "all", "spam", "outbox"])
def test_the_count_is_the_length_of_the_list(world: World, view: str, q: str) -> None:
    client = world.browser()
    lit = world.thread(subject="Broken lamp", unread=True)
    world.thread(subject="Lamp, as spam", state="spam")
    client.post(f"/inbox/{lit}/labels", data={"add": "billing"})
    page = saved(client, view=view, q=q).text
    [(href, _, count)] = rail(page)
    assert len(re.findall(r'id="row-', client.get(href).text)) == int(count)


def test_a_filter_is_renamed_deleted_and_brought_back(world: World) -> None:
    client = world.browser()
    page = saved(client).text
    identity = re.search(r'action="/filters/([0-9a-f-]{36})"', page)
    assert identity
    where = {"view": "all", "q": "lamp"}
    page = client.post(f"/filters/{identity[1]}", data=where | {"name": "Light"}, follow_redirects=True).text
    assert rail(page)[0][1] == "Light"
    page = client.post(f"/filters/{identity[1]}/remove", data=where, follow_redirects=True).text
    assert rail(page) == []
    assert "Filter deleted: Light" in page
    again = re.search(r'<form method="post" action="/filters">.*?name="name" value="([^"]*)"', page, re.DOTALL)
    assert again and again[1] == "Light"


def test_filters_of_another_agent_are_neither_seen_nor_touched(world: World) -> None:
    mine, other = world.browser(), world.browser("agent@example.org")
    page = saved(mine).text
    identity = re.search(r'action="/filters/([0-9a-f-]{36})"', page)
    assert identity
    assert rail(other.get("/inbox").text) == []
    for path in (f"/filters/{identity[1]}", f"/filters/{identity[1]}/remove"):
        assert other.post(path, data={"name": "Mine now"}).status_code == 404
    assert rail(mine.get("/inbox").text)[0][1] == "Lamps"


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"name": " "}, 422, "needs a name"),
        ({"name": "x" * 61}, 422, "60 characters"),
        ({"view": "nowhere"}, 422, "no such list"),
        ({"name": "Taken"}, 409, "Taken"),
    ],
)
def test_a_refused_filter_says_why_on_the_list(world: World, values: dict[str, str], status: int, words: str) -> None:
    client = world.browser()
    saved(client, name="Taken")
    answer = saved(client, **values)
    assert answer.status_code == status
    assert words in unescape(answer.text)
    assert 'role="alert"' in answer.text


def test_no_more_than_twelve_can_be_saved(world: World) -> None:
    client = world.browser()
    for number in range(saved_filters.MOST):
        assert saved(client, name=f"Filter {number}").status_code == 200
    assert saved(client, name="One more").status_code == 422
