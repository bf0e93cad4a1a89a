"""What happened between the messages of a thread: shown where it happened, with who did it, and read in one query."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape

import httpx

from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.messages import Message, MessageEvent
from assistant.services import contacts, inbox, sweeper, threads
from assistant.states import Author, Delivery, Direction, ThreadState
from assistant.values import Address, InboundMessage
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data=fields, headers={"accept": "text/html"}, follow_redirects=True)


def events(page: str) -> list[str]:
    """The lines between the messages, in their order, without their ages."""
    found = re.findall(r'<li class="event" data-event="[\w-]+">(.*?)</li>', unescape(page), re.S)
    return [
        " ".join(re.sub(r"<time.*?</time>|<[^>]+>", " ", one, flags=re.S).split()).removesuffix(" ·") for one in found
    ]


def test_assignments_and_states_stand_in_the_thread_with_who_did_it(world: World) -> None:
    boss, agent, thread = world.browser(), world.browser("agent@example.org"), world.thread()
    assert events(boss.get(f"/inbox/{thread}").text) == []
    with world.container.database.reading() as session:
        names = {one: session.get_one(Agent, world.ids[one]).name for one in ("admin", "agent")}
    given = boss.patch(
        f"/api/v1/threads/{thread}", json={"assignee_id": world.ids["agent"]}, headers=etag(boss, thread)
    )
    assert given.status_code == 200, given.text
    for act in ("unassign", "done", "reopen", "spam"):
        assert post(agent, f"/inbox/{thread}/act", act=act).status_code == 200
    assert post(agent, f"/inbox/{thread}/act", act="star").status_code == 200
    boss_, agent_ = names["admin"], names["agent"]
    shown = boss.get(f"/inbox/{thread}").text
    assert re.findall(r"(\d+) earlier events", shown) == ["2"]
    assert events(shown) == [
        f"{boss_} assigned this to {agent_}",
        f"{agent_} gave this back",
        f"{agent_} marked this done",
        f"{agent_} opened this again",
        f"{agent_} marked this as spam",
    ]


def etag(client: httpx.Client, thread: str) -> dict[str, str]:
    return {"if-match": client.get(f"/api/v1/threads/{thread}").headers["etag"]}


def test_what_the_program_does_to_a_thread_says_why(world: World) -> None:
    client, thread = world.browser(), world.thread()
    with world.container.database.transaction() as session:
        threads.snooze(session, thread, until=utcnow() + timedelta(seconds=30), agent_id=world.ids["admin"])
    with world.container.database.transaction() as session:
        sweeper._wake(session, utcnow() + timedelta(minutes=1))
        threads.change_state(session, thread, state=ThreadState.CLOSED)
    with world.container.database.transaction() as session:
        original = threads.messages_of(session, thread)[0]
        again = InboundMessage(
            channel="email",
            external_id="<again@mail.example>",
            sender=Address("email", original.from_address),
            recipients=(Address("email", "support@example.org"),),
            subject=original.subject,
            text="And now?",
            reply_to_id=original.external_id,
        )
        found = inbox.receive(session, profile_id=world.ids["profile"], message=again, new_text=again.text, size=10)
        assert found.thread_id == thread
    lines = events(client.get(f"/inbox/{thread}").text)
    assert "snoozed this until" in lines[0]
    assert lines[1:] == [
        "The program opened this again: the snooze ended",
        "The program marked this done",
        "The program opened this again: they wrote again",
    ]


def test_an_opt_out_a_bounce_and_decisions_stand_where_they_happened(world: World) -> None:
    client = world.browser()
    failed = [{"name": "numbers", "passed": False, "detail": "new 42"}]
    suggestion, thread = world.suggestion(checks=failed)
    with world.container.database.transaction() as session:
        row = threads.get_thread(session, thread)
        first = threads.messages_of(session, thread)[0]
        first.trace = [{"stage": "decide", "outcome": "handoff", "reason": "asks for a human", "milliseconds": 0.1}]
        ours = Message(
            thread_id=thread,
            profile_id=row.profile_id,
            direction=Direction.OUTBOUND,
            author=Author.AGENT,
            status=Delivery.BOUNCED,
            external_id="<ours@example.org>",
            from_address="support@example.org",
            occurred_at=utcnow(),
        )
        session.add(ours)
        session.flush()
        session.add(MessageEvent(message_id=ours.id, event_id="b1", kind="bounced", detail="mailbox full"))
        contacts.record_consent(
            session, row.contact_id, channel="email", kind="withdrawn", source="message", message_id=first.id
        )
    post(client, f"/suggestions/{suggestion}/reject", thread_id=thread, version="1", reason="wrong facts")
    shown = client.get(f"/inbox/{thread}").text
    lines = events(shown)
    assert "Bounced: mailbox full" in lines
    assert "Opt-out: they are not to be written to here any more: heard in a message" in lines
    assert any(line.startswith("The guard held the model's words back") and line.endswith("numbers") for line in lines)
    assert any(line.endswith("dismissed the suggestion: wrong facts") for line in lines)
    # The newest mail's own decision is said by the card; that of an older one between the messages.
    assert "Left to a person: asks for a human" not in lines
    with world.container.database.transaction() as session:
        session.add(world._message(thread))
    assert "Left to a person: asks for a human" in events(client.get(f"/inbox/{thread}").text)


def test_what_happened_goes_along_with_a_merge_and_comes_back(world: World) -> None:
    client, first, second = world.browser(), world.ids["thread"], world.thread()
    post(client, f"/inbox/{second}/act", act="assign")
    merged = post(client, f"/inbox/{second}/merge", into=first, reason="same", view="inbox")
    assert any(line.endswith("took this") for line in events(merged.text))
    move = re.findall(r'action="/moves/([^/]+)/undo"', merged.text)[0]
    post(client, f"/moves/{move}/undo", thread_id=first)
    assert not any(line.endswith("took this") for line in events(client.get(f"/inbox/{first}").text))
    assert any(line.endswith("took this") for line in events(client.get(f"/inbox/{second}").text))


def test_a_thread_takes_as_many_queries_with_many_events_as_with_one(
    world: World, statements: Callable[[], list[str]]
) -> None:
    client, thread = world.browser(), world.thread()
    post(client, f"/inbox/{thread}/act", act="star")
    client.get(f"/inbox/{thread}")
    statements()
    client.get(f"/inbox/{thread}")
    one = len(statements())
    for act in ("assign", "unassign", "done", "reopen") * 3:
        post(client, f"/inbox/{thread}/act", act=act)
    statements()
    shown = client.get(f"/inbox/{thread}").text
    assert len(events(shown)) == 12
    assert len(statements()) == one


def test_the_head_of_a_thread_names_who_takes_part_and_the_profile(world: World) -> None:
    client, thread = world.browser(), world.thread()
    with world.container.database.transaction() as session:
        message = threads.messages_of(session, thread)[0]
        message.to_addresses = [{"address": "support@example.org", "name": "Support"}]
        message.cc_addresses = [{"address": f"{name}@example.com", "name": name.title()} for name in ("bo", "cy", "di")]
    head = (
        unescape(client.get(f"/inbox/{thread}").text).partition('<div class="thread-title">')[2].partition("</div>")[0]
    )
    assert "Ana Silva, Bo, Cy and 1 more · Email, support@example.org · 1 message" in " ".join(head.split())
