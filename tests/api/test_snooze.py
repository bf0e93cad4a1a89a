"""Snoozing in the words and the time zone of who types, and moments shown where the reader is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from assistant.db.messages import Thread
from assistant.services import threads
from tests.api.conftest import World


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
