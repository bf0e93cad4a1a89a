"""`/metrics` after real triage: time, the share of each stage of the cascade, abstentions; counted once a message."""

from __future__ import annotations

import re

import pytest

from assistant.clock import new_id
from assistant.db.messages import Message, Thread
from assistant.settings import ROOT
from assistant.states import Author, Delivery, Direction, TriageState
from pipelines.container import build
from tests.api.conftest import World

TEXTS = (
    "Where is my order 48213? It should have been here on Monday.",
    "WINNER!! You have won a prize of 900 pounds, call 09061701461 now to claim it, free entry",
    "zzz qqq",
    "Could somebody look at the thing from last time, please?",
)


def scraped(world: World) -> dict[str, float]:
    """Every sample of the page by its name and labels."""
    lines = world.client().get("/metrics").text.splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def grown(before: dict[str, float], after: dict[str, float], pattern: str) -> float:
    return sum(value - before.get(name, 0.0) for name, value in after.items() if re.fullmatch(pattern, name))


@pytest.mark.timeout(300)
def test_triage_is_counted_by_time_stage_and_abstention(world: World) -> None:
    settings = world.container.settings.model_copy(
        update={"encoder": f"onnx:{ROOT / 'deploy/weights/encoder'}", "generator": "off"}
    )
    working = build(settings)
    with world.container.database.transaction() as session:
        ids = []
        for number, text in enumerate(TEXTS):
            thread = Thread(
                id=new_id(),
                profile_id=world.ids["profile"],
                contact_id=world.ids["contact"],
                channel="email",
                subject=f"Matter {number}",
            )
            session.add(thread)
            session.flush()
            message = Message(
                id=new_id(),
                thread_id=thread.id,
                profile_id=world.ids["profile"],
                direction=Direction.INBOUND,
                author=Author.CONTACT,
                status=Delivery.RECEIVED,
                external_id=f"<{new_id()}@example.net>",
                subject=thread.subject,
                text=text,
                new_text=text,
                from_address="ana@example.net",
                triage=TriageState.WAITING,
            )
            session.add(message)
            ids.append(message.id)
    before = scraped(world)
    try:
        for one in ids:
            working.triage.triage(one)
            working.triage.triage(one)  # a second delivery of the task is no second message
    finally:
        working.close()
    after = scraped(world)
    with world.container.database.reading() as session:
        rows = [session.get_one(Message, one) for one in ids]
        steps = [step for row in rows for step in row.trace if step["stage"] == "classify"]
    count = len(TEXTS)
    assert len(steps) == count
    assert grown(before, after, r"notifyr_triage_seconds_count") == count
    assert grown(before, after, r"notifyr_triage_seconds_sum") > 0
    assert grown(before, after, r'notifyr_stage_seconds_count\{stage="classify"\}') == count
    for stage in ("words", "encoder", "memory"):
        found = sum(step["detail"]["spam_because"]["stage"] == stage for step in steps)
        assert grown(before, after, rf'notifyr_spam_decided_total\{{stage="{stage}"\}}') == found, stage
    for head in ("intent", "reply_intent", "urgency", "sentiment", "language"):
        silent = sum(head in step["detail"]["abstained"] for step in steps)
        claimed = sum(head in step["detail"]["claims"] for step in steps)
        name = rf'notifyr_labels_total\{{head="{head}",outcome="%s"\}}'
        assert grown(before, after, name % "abstained") == silent, head
        assert grown(before, after, name % "claimed") == claimed, head
    assert grown(before, after, r'notifyr_labels_total\{head="spam",outcome=".*"\}') == count
    assert grown(before, after, r'notifyr_triaged_total\{outcome="done"\}') == count


def test_no_label_of_a_metric_names_a_person_a_thing_or_what_a_caller_made_up(world: World) -> None:
    """Each value of a label is a line of `/metrics` for as long as the process lives: there are few, and they are ours."""
    browser, thread = world.browser(), world.ids["thread"]
    for path in (
        f"/inbox/{thread}?q=canary",
        f"/api/v1/threads/{thread}/messages",
        f"/api/v1/threads/{new_id()}",
        f"/messages/{world.ids['message']}/frame",
        "/canary/../canary",
        "/api/v1/canary",
        f"/static/canary-{thread}.js",
    ):
        browser.get(path, headers={"user-agent": "canary"})
    browser.request("CANARY", "/inbox")
    browser.post(f"/api/v1/threads/{thread}/messages", json={"text": "canary"})
    world.client().post("/api/v1/auth/sign-in", json={"email": "canary@example.org", "password": "canary"})
    page = world.client().get("/metrics").text
    assert "notifyr_http_seconds" in page
    for stranger in ("canary", r"[0-9a-f]{8}-[0-9a-f]{4}-", r"\S@\S"):
        assert re.findall(rf".*{stranger}.*", page, re.I) == []
