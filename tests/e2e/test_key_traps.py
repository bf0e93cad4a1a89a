"""Keys that could mean two things, Enter in a form with several buttons, and answers that are no page of the inbox."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, expect
from sqlalchemy import delete

from assistant.db.inbox import ThreadLabel
from assistant.db.messages import Message, Suggestion, Thread
from assistant.services import threads
from tests.api.conftest import World

PRESS = "how => document.body.dispatchEvent(new KeyboardEvent('keydown', {bubbles: true, cancelable: true, ...how}))"
PAIRS = ("i", "n", "o", "s", "p", "t", "k", ",")


def ready(page: Page) -> None:
    page.wait_for_function("document.documentElement.dataset.ready === '1'")


def open_thread(world: World, page: Page) -> None:
    page.goto(f"/inbox/{world.ids['thread']}?view=all")
    ready(page)
    page.locator("#thread h1").wait_for()


@pytest.mark.parametrize("second", PAIRS)
def test_the_second_key_of_a_pair_does_nothing_of_its_own(world: World, desk: Callable[..., Page], second: str) -> None:
    page = desk()
    open_thread(world, page)
    changes: list[Request] = []
    page.on("request", lambda one: changes.append(one) if one.method == "POST" else None)
    page.keyboard.press("g")
    page.keyboard.press(second)
    page.wait_for_function("id => !location.pathname.includes(id)", arg=world.ids["thread"])
    page.wait_for_timeout(300)
    assert [one.url for one in changes if "/live" not in one.url and "/draft" not in one.url] == []
    with world.container.database.reading() as session:
        assert threads.get_thread(session, world.ids["thread"]).starred is False


def test_a_single_letter_still_acts_when_no_pair_was_begun(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    open_thread(world, page)
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        page.keyboard.press("s")
    with world.container.database.reading() as session:
        assert threads.get_thread(session, world.ids["thread"]).starred is True


def test_what_is_gone_says_so_and_leaves_the_page_and_its_words(world: World, desk: Callable[..., Page]) -> None:
    _, gone = world.suggestion()
    page = desk()
    open_thread(world, page)
    page.locator("#reply").fill("half a sentence")
    with world.container.database.transaction() as session:
        for table in (Suggestion, Message, ThreadLabel):
            session.execute(delete(table).where(table.thread_id == gone))
        session.execute(delete(Thread).where(Thread.id == gone))
    page.locator(f"#row-{gone} .row-link").click()
    note = page.locator(".refused")
    expect(note).to_contain_text("there is no such thread")
    expect(note).to_contain_text("not-found")
    expect(page.locator("#reply")).to_have_value("half a sentence")
    expect(page.locator("#rows .row")).not_to_have_count(0)


def test_who_is_signed_out_comes_to_the_sign_in_page(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    open_thread(world, page)
    page.context.clear_cookies()
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.wait_for_url("**/sign-in**")


def test_enter_behind_a_wish_of_ones_own_asks_for_that_wish(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    open_thread(world, page)
    page.locator("#instruction").fill("in Spanish")
    with page.expect_request("**/regenerate") as asked:
        page.locator("#instruction").press("Enter")
    said = asked.value.post_data or ""
    assert "in+Spanish" in said or "in Spanish" in said
    assert "shorter" not in said


def test_enter_behind_a_label_for_many_threads_labels_them(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    page.goto("/inbox?view=all")
    ready(page)
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.locator("#bulk-name").fill("billing")
    with page.expect_request("**/inbox-bulk") as asked:
        page.locator("#bulk-name").press("Enter")
    said = asked.value.post_data or ""
    assert "label" in said and "done" not in said


@pytest.mark.parametrize(
    ("layout", "pressed"),
    [
        ("German", {"key": "/", "code": "Digit7", "shiftKey": True}),
        ("French", {"key": "/", "code": "Period", "shiftKey": True}),
        ("American", {"key": "/", "code": "Slash"}),
        ("by AltGr", {"key": "/", "code": "KeyQ", "ctrlKey": True, "altKey": True, "modifierAltGraph": True}),
    ],
)
def test_a_sign_is_found_wherever_the_keyboard_has_it(
    world: World, desk: Callable[..., Page], layout: str, pressed: dict[str, object]
) -> None:
    page = desk()
    open_thread(world, page)
    page.evaluate(PRESS, pressed)
    expect(page.locator("#search")).to_be_focused()


def test_a_sign_without_shift_acts_and_with_ctrl_is_the_browsers(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    open_thread(world, page)
    page.evaluate(PRESS, {"key": "/", "code": "Slash", "ctrlKey": True})
    expect(page.locator("#search")).not_to_be_focused()
    page.evaluate(PRESS, {"key": "#", "code": "Backslash"})
    expect(page.locator(".toast")).to_contain_text("Moved to trash")
