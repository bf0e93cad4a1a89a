"""What the description of the inbox promises in small print: undo of notes and of what was settled, tooltips, words for times."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from api.inbox import keys, words
from assistant.clock import new_id, utcnow
from assistant.db.access import Agent
from assistant.db.inbox import Note
from assistant.db.messages import Message, Thread
from assistant.errors import Conflict
from assistant.services import drafts, outbox, settling
from assistant.services.outbox_rows import note
from assistant.states import Author, Delivery, Direction, ThreadState
from tests.api.conftest import BOTH, World

ENGINES = BOTH

STATIC = Path(__file__).resolve().parents[2] / "api" / "inbox" / "static"


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    """One form post, and the page after it."""
    return client.post(path, data={name: str(value) for name, value in fields.items()}, follow_redirects=True)


def forms(page: str, of: str) -> dict[str, str]:
    """Address and fields of the form in the toast whose button undoes, as a browser would post them."""
    toast = page[page.index('id="toasts"') :]
    found = re.search(rf'<form method="post" action="({of})">(.*?)</form>', toast, re.S)
    assert found is not None, toast[:600]
    return {"": found[1]} | dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', found[2]))


def press(client: httpx.Client, page: str, of: str) -> httpx.Response:
    fields = forms(page, of)
    return post(client, fields.pop(""), **fields)


def written(world: World, thread: str) -> list[str]:
    with world.container.database.reading() as session:
        return list(session.scalars(select(Note.text).where(Note.thread_id == thread).order_by(Note.created_at)))


# -- undo


def test_a_note_that_was_just_written_is_taken_back_into_the_box(world: World) -> None:
    client, thread = world.browser(), world.thread()
    page = post(client, f"/inbox/{thread}/note", text="Call her first", form_id="n1").text
    assert "Note added" in page and written(world, thread) == ["Call her first"]
    back = press(client, page, "/notes/[^/]+/undo")
    assert "Its words are in the box again" in back.text and written(world, thread) == []
    assert 'data-compose="note"' in back.text and ">Call her first</textarea>" in back.text


def test_a_removed_note_comes_back_where_it_stood_but_only_to_who_wrote_it(world: World) -> None:
    client, other, thread = world.browser(), world.browser("agent@example.org"), world.thread()
    for number in (1, 2):
        post(client, f"/inbox/{thread}/note", text=f"Note {number}", form_id=f"n{number}")
    with world.container.database.reading() as session:
        first = session.scalars(select(Note.id).where(Note.text == "Note 1")).one()
    page = post(client, f"/notes/{first}/remove", thread_id=thread).text
    assert "Note removed" in page and written(world, thread) == ["Note 2"]
    assert post(other, f"/notes/{first}/restore", thread_id=thread).status_code == 404
    assert "Undone" in press(client, page, "/notes/[^/]+/restore").text
    assert written(world, thread) == ["Note 1", "Note 2"]
    press(client, page, "/notes/[^/]+/restore")
    assert written(world, thread) == ["Note 1", "Note 2"], "pressed twice"
    world.clear_limits()
    post(client, f"/notes/{first}/remove", thread_id=thread)
    world.clear_limits()  # what Redis remembered is gone, as after ten minutes
    late = post(client, f"/notes/{first}/restore", thread_id=thread)
    assert (late.status_code, "are not kept any more" in late.text) == (404, True)


def unknown(world: World, thread: str) -> str:
    """A reply whose fate nobody knows."""
    with world.container.database.transaction() as session:
        message = outbox.queue_message(
            session, thread_id=thread, author=Author.AGENT, agent_id=world.ids["admin"], text="Hello"
        )
        message.status, message.error_code = Delivery.UNKNOWN, "uncertain-delivery"
        note(session, message.id, "unknown:1", actor="worker", detail="the connection ended")
        return message.id


def fate(world: World, message: str) -> tuple[Delivery, str, bool]:
    with world.container.database.reading() as session:
        found = session.get_one(Message, message)
        return Delivery(found.status), found.error_detail, found.sent_at is not None


@pytest.mark.parametrize(
    ("outcome", "said", "state"),
    [("sent", "Noted: it arrived", Delivery.SENT), ("failed", "Noted: it did not arrive", Delivery.FAILED)],
)
def test_what_was_said_of_a_message_of_unknown_fate_is_taken_back(
    world: World, outcome: str, said: str, state: Delivery
) -> None:
    client, thread = world.browser(), world.thread()
    message = unknown(world, thread)
    page = post(client, f"/messages/{message}/settle", thread_id=thread, outcome=outcome).text
    assert said in page and fate(world, message)[0] is state
    assert "Undone" in press(client, page, "/messages/[^/]+/unsettle").text
    assert fate(world, message) == (Delivery.UNKNOWN, "the connection ended", False)
    assert "It arrived" in client.get(f"/inbox/{thread}").text
    twice = press(client, page, "/messages/[^/]+/unsettle")
    assert (twice.status_code, "cannot be taken back any more" in twice.text) == (409, True)


def test_what_was_said_stands_once_something_followed_from_it(world: World) -> None:
    thread, by = world.thread(), world.ids["admin"]
    failed, again = unknown(world, thread), unknown(world, thread)
    with world.container.database.transaction() as session:
        outbox.resolve_unknown(session, failed, outcome="failed", agent_id=by)
        outbox.retry(session, failed, agent_id=by)
        outbox.resolve_unknown(session, again, outcome="resend", agent_id=by)
    for message in (failed, again):
        with world.container.database.transaction() as session, pytest.raises(Conflict, match="is queued"):
            settling.take_back(session, message, agent_id=by)
    page = post(world.browser(), f"/messages/{unknown(world, thread)}/settle", thread_id=thread, outcome="resend").text
    assert "It is sent again" in page and "/unsettle" not in page


def test_a_message_for_later_can_be_taken_back_at_once(world: World) -> None:
    client, thread = world.browser(), world.thread()
    fields = {"kind": "reply", "to": "ana@example.net", "text": "Later", "then": "later", "later": "in 3 days"}
    page = post(client, f"/inbox/{thread}/reply", **fields, form_id="l1").text
    assert "Will be sent later" in page
    press(client, page, "/messages/[^/]+/cancel")
    with world.container.database.reading() as session:
        assert session.scalars(select(Message.status).where(Message.text == "Later")).one() == Delivery.CANCELLED
        kept = drafts.load(session, thread, agent_id=world.ids["admin"])
        assert kept is not None and kept.text == "Later"


# -- the list and the thread


def test_a_row_drawn_by_a_finger_sleeps_until_tomorrow_whatever_stands_in_the_menu_of_the_bar(world: World) -> None:
    client, thread = world.browser(), world.thread()
    page = client.get("/inbox").text
    assert re.search(r'<button name="until" value="tomorrow 9:00" data-drawn hidden', page)
    post(client, "/inbox-bulk", id=thread, when="in 3 weeks", until="tomorrow 9:00", view="inbox")
    with world.container.database.reading() as session:
        found = session.get_one(Thread, thread)
        assert found.state == ThreadState.SNOOZED and found.snoozed_until is not None
        assert found.snoozed_until - utcnow() < timedelta(hours=34)


def test_a_row_that_asks_for_a_person_and_has_no_draft_says_so(world: World) -> None:
    asks, quiet = world.thread(needs_review=True, subject="Asks"), world.thread(subject="Quiet")
    page = world.browser().get("/inbox").text
    rows = {one: page[page.index(f'id="row-{one}"') :].partition("</li>")[0] for one in (asks, quiet)}
    assert ">no draft</span>" in rows[asks] and "no draft" not in rows[quiet]


def test_a_long_thread_shows_its_first_message_and_the_last_three(world: World) -> None:
    client, thread = world.browser(), world.thread()
    with world.container.database.transaction() as session:
        first = session.scalars(select(Message).where(Message.thread_id == thread)).one()
        first.new_text = "Words of 0"
        for number in range(1, 9):
            one = world._message(thread)
            one.new_text, one.occurred_at = f"Words of {number}", utcnow() + timedelta(seconds=number)
            session.add(one)
    page = client.get(f"/inbox/{thread}").text
    assert "<summary>5 more messages</summary>" in page
    folded = page[page.index("<summary>5 more") : page.index("</ol></details></li>", page.index("<summary>5 more"))]
    shown = [number for number in range(9) if f"Words of {number}" not in folded]
    assert shown == [0, 6, 7, 8]


def test_a_reply_can_have_another_subject_and_keeps_its_own_otherwise(world: World) -> None:
    client, thread = world.browser(), world.thread()
    page = client.get(f"/inbox/{thread}").text
    assert re.search(r'name="subject" value="Re: Where is my refund\?"', page)
    fields = {"kind": "reply", "to": "ana@example.net", "cc": "", "bcc": ""}
    post(client, f"/inbox/{thread}/reply", **fields, text="As it was", subject="Re: Where is my refund?", form_id="r1")
    post(client, f"/inbox/{thread}/reply", **fields, text="Anew", subject="Your  parcel", form_id="r2")
    with world.container.database.reading() as session:
        sent = select(Message.text, Message.subject).where(Message.direction == Direction.OUTBOUND)
        rows = sorted(tuple(row) for row in session.execute(sent))
    assert rows == [("Anew", "Your parcel"), ("As it was", "Re: Where is my refund?")]


# -- one registry


def test_tooltips_name_the_key_as_it_is_for_this_agent(world: World) -> None:
    client, thread = world.browser(), world.ids["thread"]
    page = unescape(client.get(f"/inbox/{thread}").text)
    for title in ("Done (e)", "Snooze (h)", "Back to the list (u)", "Needs review (g n)", "New message (c)"):
        assert f'title="{title}"' in page, title
    with world.container.database.transaction() as session:
        agent = session.get_one(Agent, world.ids["admin"])
        agent.preferences = agent.preferences | {"keys": {"done": "q"}}
    assert 'title="Done (q)"' in client.get(f"/inbox/{thread}").text
    with world.container.database.transaction() as session:
        agent = session.get_one(Agent, world.ids["admin"])
        agent.preferences = agent.preferences | {"letters": False}
    page = client.get(f"/inbox/{thread}").text
    assert 'title="Done"' in page and "(q)" not in page


def test_the_overlay_names_the_keys_of_the_browser_that_do_the_same(world: World) -> None:
    page = world.browser().get("/inbox").text
    overlay = page[page.index('<dialog id="help"') : page.index('<dialog id="palette"')]
    also = {key.act: key.also for key in keys.KEYS if key.also}
    assert also == {"next": "↓", "previous": "↑", "open": "Enter", "back": "Esc"}
    for one in also.values():
        assert f"or <kbd>{one}</kbd>" in overlay


def test_no_script_of_the_page_imports_itself_by_a_detour() -> None:
    needs = {
        path.name: set(re.findall(r'(?:from|import) "\./([\w.-]+\.js)"', path.read_text()))
        for path in STATIC.glob("*.js")
    }

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " > ".join((*above, name))
        for one in sorted(needs.get(name, ())):
            walk(one, (*above, name))

    assert needs["app.js"]
    for name in needs:
        walk(name, ())


# -- pages beside the inbox


@pytest.mark.parametrize("path", ["/settings", "/knowledge", "/settings/agents", "/models"])
def test_a_page_beside_the_inbox_has_the_whole_rail_with_true_counts(world: World, path: str) -> None:
    world.add()
    client = world.browser()

    def rail(page: str) -> str:
        found = page[page.index('<nav class="rail"') : page.index('<ul class="rail-end">')]
        return re.sub(r' aria-current="page"|\s+', "", found.replace("?v=", ""))

    assert rail(client.get(path).text) == rail(client.get("/inbox").text)
    assert "View" in client.get(path).text and ">refund<" in client.get(path).text


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("undo_seconds", "99", "The undo window is 0 to 60 seconds."),
        ("zone", "Mars/Olympus", "“Mars/Olympus” is no time zone"),
        ("key-done", "g", "would share their keys"),
    ],
)
def test_a_refused_setting_says_so_beside_its_field_and_keeps_what_was_typed(
    world: World, field: str, value: str, said: str
) -> None:
    client = world.browser()
    refused = post(client, "/settings", **{"name": "Bo Anew", "density": "compact", field: value})
    page = unescape(refused.text)
    assert refused.status_code == 422
    beside = re.search(
        rf'name="{field}"[^>]*value="{value}"[^>]*aria-invalid="true"[^>]*>(<p class="lock".*?</p>)', page
    )
    assert beside is not None and said in beside[1]
    assert 'value="Bo Anew"' in page and "<option selected>compact" in page
    assert "Bo Anew" not in client.get("/settings").text and page.count("aria-invalid") == 1


def test_an_error_page_has_the_theme_of_who_reads_it(world: World) -> None:
    with world.container.database.transaction() as session:
        agent = session.get_one(Agent, world.ids["admin"])
        agent.preferences = agent.preferences | {"theme": "dark"}
    gone = world.browser().get(f"/inbox/{new_id()}", headers={"accept": "text/html"})
    assert (gone.status_code, 'data-theme="dark"' in gone.text) == (404, True)


def test_moments_read_as_sentences() -> None:
    now = utcnow()
    said = [words.ago(now - timedelta(seconds=one)) for one in (5, 300, 7200, 3 * 86_400)]
    assert said == ["just now", "5 min ago", "2 h ago", "3 d ago"]
    long_ago = now - timedelta(days=40)
    assert words.ago(long_ago) == f"on {words.age(long_ago)}"
    assert words.ago(None) == ""
    assert words.FILTERS["ago"] is words.ago
