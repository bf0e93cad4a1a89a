"""The list: what a search finds, acts on many threads and their undo, and static files that a browser may keep for ever."""

from __future__ import annotations

import gzip
import re
from datetime import timedelta
from html import unescape

import pytest

from assistant.clock import utcnow
from assistant.db.messages import Thread
from assistant.services import threads
from assistant.states import ThreadState
from tests.api.conftest import BOTH, World

ENGINES = BOTH


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("from:ana", True),
        ("from:example.net subject:lamp", True),
        ("from:bo", False),
        ("subject:refund", False),
        ("is:unread lamp", True),
        ("is:read lamp", False),
        ("has:attachment lamp", True),
        ("is:unassigned lamp", True),
        ("is:mine lamp", False),
        ("after:2d lamp", False),
        ("before:2d lamp", True),
    ],
)
def test_a_search_finds_what_its_terms_say(world: World, q: str, found: bool) -> None:
    made = world.thread(
        subject="Broken lamp", unread=True, attachment_count=1, last_message_at=utcnow() - timedelta(days=3)
    )
    assert (f'id="row-{made}"' in world.browser().get("/inbox", params={"view": "all", "q": q}).text) == found


def states(world: World, ids: list[str]) -> list[tuple[ThreadState, bool, bool, str | None]]:
    with world.container.database.reading() as session:
        found = [session.get_one(Thread, one) for one in ids]
        return [(one.state, one.unread, one.starred, one.assignee_id) for one in found]


@pytest.mark.parametrize("act", ["done", "snooze", "spam", "trash", "assign", "unread", "star"])
def test_an_act_on_many_threads_can_be_taken_back(world: World, act: str) -> None:
    client = world.browser()
    ids = [
        world.thread(unread=False, state=state) for state in (ThreadState.OPEN, ThreadState.OPEN, ThreadState.CLOSED)
    ]
    before = states(world, ids)
    page = client.post("/inbox-bulk", data={"act": act, "id": ids, "view": "all"}, follow_redirects=True).text
    assert states(world, ids) != before
    assert "3 threads" in page
    was = re.search(r'name="was" value="([^"]+)"', page)
    assert was
    client.post("/inbox-bulk", data={"act": "restore", "was": unescape(was[1]), "view": "all"})
    assert states(world, ids) == before


def test_a_list_is_read_again_as_far_down_as_it_was(world: World) -> None:
    client = world.browser()
    for _ in range(69):
        world.thread()
    first = client.get("/inbox").text
    shown = re.findall(r'id="row-([\w-]+)"', first)
    follow = re.search(r'class="more" href="([^"]+)"', first)
    assert len(shown) == 50 and follow
    second = client.get(unescape(follow[1])).text
    upto = re.search(r'data-last="([^"]+)"', second)
    assert upto
    new = world.thread()
    again = client.get("/inbox", params={"upto": upto[1]}).text
    assert re.findall(r'id="row-([\w-]+)"', again) == [new, *shown, *re.findall(r'id="row-([\w-]+)"', second)]
    assert 'class="more"' not in again, "there is nothing behind the last one"
    part = re.search(r'data-last="([^"]+)"', first)
    assert part
    half = client.get("/inbox", params={"upto": part[1]}).text
    assert re.findall(r'id="row-([\w-]+)"', half) == [new, *shown]
    assert f"cursor={part[1]}" in half
    assert f"upto={part[1]}" in half, "a thread that is opened keeps the place"


def test_the_least_certain_thread_comes_first_and_what_no_model_judged_last(world: World) -> None:
    sure, unsure, middle = (world.thread(certainty=one) for one in (0.97, 0.31, 0.6))
    text = world.browser().get("/inbox", params={"sort": "least-certain"}).text
    assert re.findall(r'id="row-([\w-]+)"', text) == [unsure, middle, sure, world.ids["thread"]]


def test_a_list_that_was_very_long_is_read_again_in_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "FARTHEST", 5)
    client = world.browser()
    for _ in range(9):
        world.thread()
    end = re.search(r'data-last="([^"]+)"', client.get("/inbox").text)
    assert end
    text = client.get("/inbox", params={"upto": end[1]}).text
    assert len(re.findall(r'id="row-', text)) == 5 and 'class="more"' in text and 'data-upto=""' in text


@pytest.mark.parametrize("upto", ["x", "W10", "WyJvbGRlc3Qtd2FpdGluZyIsIDEsICJhIiwgImIiXQ"])
def test_a_place_of_another_list_is_refused_with_words(world: World, upto: str) -> None:
    answer = world.browser().get("/inbox", params={"upto": upto}, headers={"accept": "text/html"})
    assert answer.status_code == 400 and "start from the first page" in answer.text


def test_a_forged_undo_changes_nothing(world: World) -> None:
    client = world.browser()
    thread = world.thread()
    before = states(world, [thread])
    for was in (f"nonsense:{thread}", "open:no-such-thread", f"snoozed:{thread}", ";;:"):
        client.post("/inbox-bulk", data={"act": "restore", "was": was})
    assert states(world, [thread]) == before


def test_static_files_are_kept_for_ever_under_their_hash_and_not_otherwise(world: World) -> None:
    client = world.browser()
    page = client.get("/inbox").text
    links = {unescape(one) for one in re.findall(r'(?:src|href)="(/static/[^"#]+)', page)}
    assert any("icons.svg?v=" in one for one in links)
    weights = {}
    modules = [one for one in links if ".js" in one]
    while modules:
        url = modules.pop()
        inner = re.findall(r'(?:from|import) "(\./[^"]+)"', client.get(url).text)
        folder = url.rpartition("/")[0]
        assert all("?v=" in one for one in inner), url
        links |= {f"{folder}/{one[2:]}" for one in inner}
        modules += [f"{folder}/{one[2:]}" for one in inner]
    for url in links:
        answer = client.get(url)
        assert answer.status_code == 200, url
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable", url
        weights[url] = len(gzip.compress(answer.content, 6))
    stale = client.get("/static/app.css?v=000000000000")
    assert stale.headers["cache-control"] == "no-cache"
    code = sum(size for url, size in weights.items() if ".js" in url or ".css" in url)
    assert code <= 60_000
    assert sum(weights.values()) + len(gzip.compress(page.encode(), 6)) <= 150_000


def test_the_inbox_can_be_installed(world: World) -> None:
    client = world.browser()
    link = re.search(r'<link rel="manifest" href="([^"]+)"', client.get("/inbox").text)
    assert link
    answer = client.get(link[1])
    assert answer.headers["content-type"].startswith("application/manifest+json")
    manifest = answer.json()
    assert manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        assert client.get(icon["src"]).headers["content-type"] == icon["type"]
