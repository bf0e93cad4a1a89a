"""Snoozing in the words and the time zone of who types, and moments shown where the reader is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest

from assistant.clock import utcnow
from assistant.db.messages import Thread
from assistant.services import threads
from assistant.states import ThreadState
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def until_of(world: World) -> datetime | None:
    with world.container.database.reading() as session:
        return session.get_one(Thread, world.ids["thread"]).snoozed_until


@pytest.mark.parametrize(("zone", "hour"), [("Asia/Tokyo", 0), ("America/New_York", None), ("", 9)])
def test_nine_is_nine_where_the_agent_is(world: World, zone: str, hour: int | None) -> None:
    client = world.browser()
    client.post("/settings", data={"theme": "auto", "letters": "on", "zone": zone})
    answer = client.post(
        f"/inbox/{world.ids['thread']}/act", data={"act": "snooze", "when": "tue 9am", "view": "snoozed"}
    )
    at = until_of(world)
    assert at is not None
    assert at.astimezone(ZoneInfo(zone or "UTC")).strftime("%a %H:%M") == "Tue 09:00"
    assert hour is None or at.hour == hour
    shown = client.get(answer.headers["location"]).text
    assert "Snoozed until" in shown
    assert re.search(
        r'class="chip" title="Tue [^"]*, 09:00 [^"]*">until [^<]*9:00<', client.get("/inbox?view=snoozed").text
    )


@pytest.mark.parametrize("words", ["yesterday", "when pigs fly", "<script>"])
def test_what_is_no_moment_to_come_is_refused_with_words(world: World, words: str) -> None:
    answer = world.browser().post(f"/inbox/{world.ids['thread']}/act", data={"act": "snooze", "when": words})
    assert answer.status_code == 422
    assert "past" in answer.text or "is no moment" in answer.text
    assert until_of(world) is None


def test_moments_are_shown_in_the_zone_of_the_browser_until_the_agent_says_otherwise(world: World) -> None:
    at = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
    with world.container.database.transaction() as session:
        threads.get_thread(session, world.ids["thread"]).last_message_at = at
    client = world.browser()
    client.cookies.set("zone", "Asia%2FTokyo")
    assert "Thu 15 Jan 2026, 21:00 JST" in client.get("/inbox?view=all").text
    client.post("/settings", data={"theme": "auto", "letters": "on", "zone": "Europe/Lisbon"})
    assert "Thu 15 Jan 2026, 12:00 WET" in client.get("/inbox?view=all").text
    client.cookies.set("zone", "nowhere/at-all")
    refused = client.post("/settings", data={"theme": "auto", "letters": "on", "zone": "Middle/Earth"})
    assert refused.status_code == 422
    assert "is no time zone" in refused.text


def undo_form(page: str) -> tuple[str, dict[str, str]]:
    """Where the toast's undo posts to, and what."""
    part = re.search(r'<div class="toast" data-undo>.*?</form>', page, re.DOTALL)
    assert part, page[-3000:]
    action = re.search(r'action="([^"]+)"', part[0])
    assert action
    fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', part[0]))
    return action[1], {name: unescape(value) for name, value in fields.items()}


def asleep(world: World, *, hours: int = 30) -> tuple[str, datetime]:
    until = utcnow().replace(microsecond=0) + timedelta(hours=hours)
    return world.thread(state=ThreadState.SNOOZED, snoozed_until=until), until


def slept(world: World, thread_id: str) -> tuple[str, datetime | None]:
    with world.container.database.reading() as session:
        found = session.get_one(Thread, thread_id)
        return found.state.value, found.snoozed_until


@pytest.mark.parametrize("act", ["reopen", "done", "trash", "spam", "snooze"])
def test_undo_puts_a_snoozed_thread_back_to_sleep_until_the_same_moment(world: World, act: str) -> None:
    client = world.browser()
    thread_id, until = asleep(world)
    data = {"act": act, "view": "snoozed", "when": "in 5 days"}
    page = client.post(f"/inbox/{thread_id}/act", data=data, follow_redirects=True).text
    assert slept(world, thread_id) != ("snoozed", until)
    path, fields = undo_form(page)
    answer = client.post(path, data=fields, follow_redirects=True)
    assert answer.status_code == 200 and "Undone" in answer.text
    assert slept(world, thread_id) == ("snoozed", until)


@pytest.mark.parametrize("act", ["done", "trash", "spam", "snooze"])
def test_undo_of_an_act_on_many_puts_each_back_to_its_own_sleep(world: World, act: str) -> None:
    client = world.browser()
    (one, early), (two, late) = asleep(world, hours=4), asleep(world, hours=300)
    page = client.post(
        "/inbox-bulk", data={"act": act, "id": [one, two], "view": "snoozed"}, follow_redirects=True
    ).text
    path, fields = undo_form(page)
    client.post(path, data=fields | {"act": "restore"})
    assert slept(world, one) == ("snoozed", early)
    assert slept(world, two) == ("snoozed", late)


def test_a_sleep_that_ended_meanwhile_is_not_undone_into_the_past(world: World) -> None:
    thread_id, _ = asleep(world)
    client = world.browser()
    client.post(f"/inbox/{thread_id}/act", data={"act": "done", "view": "snoozed"})
    past = (utcnow() - timedelta(hours=1)).isoformat()
    client.post(f"/inbox/{thread_id}/undo", data={"state": "snoozed", "back": past})
    assert slept(world, thread_id) == ("open", None)
