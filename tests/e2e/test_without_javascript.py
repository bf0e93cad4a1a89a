"""The main job with JavaScript switched off: reading, replying and accepting are links and forms."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect
from sqlalchemy import select

from assistant.db.messages import Message
from assistant.services import threads
from assistant.states import Direction, SuggestionState
from tests.api.conftest import World


def outgoing(world: World, thread_id: str) -> list[str]:
    with world.container.database.reading() as session:
        query = select(Message.text).where(Message.thread_id == thread_id, Message.direction == Direction.OUTBOUND)
        return list(session.scalars(query.order_by(Message.id)))


def state(world: World, suggestion_id: str) -> SuggestionState:
    with world.container.database.reading() as session:
        return threads.get_suggestion(session, suggestion_id).state


def test_one_signs_in_reads_a_thread_and_replies(world: World, desk: Callable[..., Page]) -> None:
    thread = world.thread(subject="Without a script", unread=True)
    page = desk(java_script_enabled=False)
    page.get_by_role("link", name="Without a script").click()
    expect(page.locator("#thread h1")).to_have_text("Without a script")
    expect(page.locator(".message")).to_contain_text("where is my refund?")
    page.locator("#reply").fill("It is on its way.")
    page.locator("#reply-form [data-key=send]").click()
    expect(page.locator(".message.outbound, .message").last).to_contain_text("It is on its way.")
    assert outgoing(world, thread) == ["It is on its way."]


def test_a_suggestion_is_accepted(world: World, desk: Callable[..., Page]) -> None:
    suggestion, thread = world.suggestion()
    page = desk(java_script_enabled=False)
    page.goto(f"/inbox/{thread}?view=inbox")
    page.get_by_role("button", name="Accept & send").click()
    page.goto(f"/inbox/{thread}?view=inbox")
    expect(page.locator("#suggestion .word")).to_have_text("accepted")
    assert outgoing(world, thread) == ["Hello Ana, your refund was sent on 12 March."]
    assert state(world, suggestion) == SuggestionState.ACCEPTED


def test_a_suggestion_is_edited_and_sent(world: World, desk: Callable[..., Page]) -> None:
    suggestion, thread = world.suggestion()
    page = desk(java_script_enabled=False)
    page.goto(f"/inbox/{thread}?view=inbox")
    expect(page.locator("#suggestion [data-key=edit]")).to_be_hidden()
    page.get_by_label("Edit the reply").fill("Hello Ana, your refund was sent on 12 March. Regards")
    page.get_by_role("button", name="Send edited reply").click()
    assert outgoing(world, thread) == ["Hello Ana, your refund was sent on 12 March. Regards"]
    assert state(world, suggestion) == SuggestionState.EDITED


def test_a_thread_is_done_snoozed_and_found_again_by_its_view(world: World, desk: Callable[..., Page]) -> None:
    ids = [world.thread(subject=f"Plain {number}") for number in range(2)]
    page = desk(java_script_enabled=False)
    page.goto(f"/inbox/{ids[0]}?view=inbox")
    page.locator(".acts [data-key=done]").click()
    page.goto(f"/inbox/{ids[1]}?view=inbox")
    page.locator(".acts summary[data-key=snooze]").click()
    page.locator("#when").fill("in 2 days")
    page.locator("[data-panel=snooze] .pair button").click()
    for view, number in (("Done", 0), ("Snoozed", 1)):
        page.get_by_role("navigation", name="Views").get_by_role("link", name=view, exact=False).click()
        expect(page.locator("#rows .row")).to_have_count(1)
        expect(page.locator("#rows .row-subject")).to_contain_text(f"Plain {number}")
