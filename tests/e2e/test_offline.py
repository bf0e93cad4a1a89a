"""What waits without a connection and is then refused, and a session that ends under an open page: said, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from assistant.db.access import AgentSession
from assistant.db.messages import Suggestion, Thread
from assistant.db.session import Event
from assistant.states import SuggestionState
from tests.api.conftest import PASSWORD, World
from tests.support.servers import wait_until

QUEUE = "Object.entries(sessionStorage).filter(([name]) => name.startsWith('acted')).map(([, kept]) => kept).join()"


def opened(world: World, page: Page, thread: str) -> None:
    page.goto(f"/inbox/{thread}?view=all")
    page.wait_for_function("document.documentElement.dataset.ready === '1'")
    expect(page.locator("#offline")).to_be_hidden()


def starred(world: World, thread: str) -> bool:
    with world.container.database.reading() as session:
        return session.get_one(Thread, thread).starred


def test_an_act_that_waited_and_is_refused_is_told_with_its_name_and_the_reason(
    world: World, desk: Callable[..., Page]
) -> None:
    suggestion, thread = world.suggestion()
    page = desk()
    opened(world, page, thread)
    page.context.set_offline(True)
    page.keyboard.press("d")
    expect(page.locator(".toast")).to_contain_text("1 act waits")
    page.keyboard.press("s")
    expect(page.locator(".toast")).to_contain_text("2 acts wait")
    other = world.browser("agent@example.org")
    answer = other.post(f"/suggestions/{suggestion}/accept", data={"thread_id": thread, "version": "1"})
    assert answer.status_code == 303
    page.context.set_offline(False)
    told = page.get_by_role("alert")
    expect(told).to_contain_text("Dismiss (Where is my refund?): Agent already accepted", timeout=15_000)
    expect(page.locator(".toast", has_text="1 act done that waited")).to_be_visible()
    assert starred(world, thread)
    assert page.evaluate(QUEUE) == "[]"
    page.wait_for_timeout(1000)
    expect(told).to_have_count(1)  # also after the page was read again
    told.get_by_role("button", name="Close").click()
    expect(told).to_have_count(0)
    with world.container.database.reading() as session:
        assert session.get_one(Suggestion, suggestion).state == SuggestionState.ACCEPTED


def test_acts_wait_on_while_nobody_is_signed_in_and_are_done_after_signing_in_again(
    world: World, desk: Callable[..., Page]
) -> None:
    thread = world.thread()
    page = desk()
    opened(world, page, thread)
    page.context.set_offline(True)
    page.keyboard.press("s")
    expect(page.locator(".toast")).to_contain_text("1 act waits")
    with world.container.database.transaction() as session:
        session.query(AgentSession).delete()
    page.context.set_offline(False)
    expect(page.locator("#offline")).to_contain_text("You are signed out", timeout=15_000)
    assert "/act" in page.evaluate(QUEUE) and not starred(world, thread)
    page.get_by_role("link", name="Sign in again").click()
    page.fill("input[type=email]", "admin@example.org")
    page.fill("input[type=password]", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(f"**/inbox/{thread}**")
    wait_until(lambda: page.wait_for_timeout(50) or starred(world, thread), seconds=15, what="the star that waited")


def test_a_page_that_is_read_again_while_signed_out_stays_with_its_words(
    world: World, desk: Callable[..., Page]
) -> None:
    thread = world.thread()
    page = desk()
    opened(world, page, thread)
    page.wait_for_timeout(300)  # the socket is open with the session that it began with
    page.locator("#reply").fill("half a sentence")
    page.context.clear_cookies()
    world.container.bus.publish(Event("thread.changed", {"thread_id": thread, "reason": "labelled"}))
    expect(page.locator("#offline")).to_contain_text("You are signed out")
    expect(page.get_by_role("link", name="Sign in again")).to_be_visible()
    expect(page.locator("#reply")).to_have_value("half a sentence")
    expect(page.get_by_role("heading", level=1)).to_have_text("Where is my refund?")
