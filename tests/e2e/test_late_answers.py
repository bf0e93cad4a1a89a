"""Answers that come late: the thread that an agent went to stays under the hands that type in it, and has no words of another."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from assistant.services import drafts, saved_replies, threads
from tests.api.conftest import World
from tests.e2e.test_drafts import at, by_key, kept, opened
from tests.e2e.test_review import TEXT, proposal
from tests.support.servers import wait_until

GATE = """window.late = null; window.waiting = []; window.came = [];
const plain = window.fetch.bind(window);
window.fetch = async (address, how) => {
  const name = `${how?.method ?? "GET"} ${how?.headers?.["HX-Source"] ?? ""} ${address}`;
  const held = late?.test(name);
  const answer = await plain(address, how);
  if (held) await new Promise((done) => waiting.push(done));
  came.push(name);
  return answer;
};
addEventListener("DOMContentLoaded", () => {
  const ajax = htmx.ajax.bind(htmx);
  window.refreshes = 0;
  htmx.ajax = (...all) => { refreshes += 1; return ajax(...all); };
});"""
"""Answers to what fits `late` wait in the page until `waiting` lets them go; `refreshes` counts what a script asked for."""


def gated(desk: Callable[..., Page], thread: str) -> Page:
    page = desk()
    page.add_init_script(GATE)
    opened(page, thread)
    return page


def held_back(page: Page, pattern: str) -> None:
    page.evaluate("(pattern) => { late = new RegExp(pattern); }", pattern)


def until(page: Page, words: str) -> None:
    wait_until(lambda: page.wait_for_timeout(20) or page.evaluate(words), seconds=15, what=words)


def let_go(page: Page) -> None:
    """The answers that were held arrive, and what they set off is over."""
    page.evaluate("() => { for (const done of waiting.splice(0)) done(); }")


def changed(world: World, thread: str, *, starred: bool) -> None:
    """Open pages hear of it and read the thread again."""
    with world.container.database.transaction() as session:
        threads.star(session, thread, starred=starred, agent_id=world.ids["agent"])


def saved(world: World, thread: str, text: str) -> None:
    wait_until(lambda: kept(world, thread) == text, seconds=15, what=text)


def opened_meanwhile(page: Page, thread: str) -> None:
    page.locator(f"#row-{thread} .row-link").click()
    at(page, thread)
    expect(page.locator("#reply")).to_have_value("")
    page.locator("#reply").click()
    page.keyboard.type("For the")


def sent_and_left(world: World, desk: Callable[..., Page], text: str) -> tuple[Page, str, str]:
    """A reply is sent in the first thread, and the second is opened and written in before the answer is there; then it comes."""
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    page = gated(desk, first)
    held_back(page, "^POST .*/reply$")
    page.locator("#reply").fill(text)
    page.keyboard.press("Control+Enter")
    until(page, "waiting.length === 1")
    opened_meanwhile(page, second)
    let_go(page)
    return page, first, second


def test_a_refresh_that_waited_for_another_reads_what_is_open_by_then(world: World, desk: Callable[..., Page]) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    page = gated(desk, first)
    page.locator("#reply").fill("For the first alone")
    expect(page.locator("#draft-state")).to_have_text("Draft kept")
    held_back(page, "#announce")
    page.wait_for_timeout(1000)
    before = page.evaluate("refreshes")
    changed(world, first, starred=True)
    until(page, "waiting.length === 1")
    changed(world, first, starred=False)
    until(page, f"refreshes === {before + 2}")
    opened_meanwhile(page, second)
    for _ in range(2):  # the first refresh, and the one that waited behind it
        came = page.evaluate("came.length")
        let_go(page)
        until(page, f"came.length > {came}")
        until(page, "waiting.length === 1")
    page.keyboard.type(" second")
    expect(page.locator("#reply")).to_have_value("For the second")
    at(page, second)
    saved(world, second, "For the second")
    assert kept(world, first) == "For the first alone"


def test_a_send_that_is_answered_late_leaves_the_thread_that_was_opened_meanwhile(
    world: World, desk: Callable[..., Page]
) -> None:
    page, first, second = sent_and_left(world, desk, "For the first alone")
    expect(page.locator(".toast")).to_contain_text("Sending in")
    page.keyboard.type(" second")
    at(page, second)
    expect(page.locator("#reply")).to_have_value("For the second")
    saved(world, second, "For the second")
    page.get_by_role("button", name="Undo").click()
    at(page, first)
    expect(page.locator("#reply")).to_have_value("For the first alone")
    assert kept(world, second) == "For the second"


def test_a_send_that_is_refused_late_says_whose_it_was_and_leaves_the_thread_that_was_opened_meanwhile(
    world: World, desk: Callable[..., Page]
) -> None:
    page, first, second = sent_and_left(world, desk, "You find it in the attachment.")
    expect(page.locator(".toast-bad")).to_contain_text("First: Send it like this?")
    page.keyboard.type(" second")
    at(page, second)
    expect(page.locator("#reply")).to_have_value("For the second")
    assert page.locator("#reply-form [name=confirmed]").count() == 0
    page.locator(f"#row-{first} .row-link").click()
    expect(page.locator("#reply")).to_have_value("You find it in the attachment.")


def test_a_page_that_back_asked_for_gives_way_to_the_thread_that_was_opened_after_it(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second, third = (world.thread(subject=name) for name in ("First", "Second", "Third"))
    page = gated(desk, first)
    page.locator(f"#row-{second} .row-link").click()
    at(page, second)
    held_back(page, "^GET  ")  # what Back asks for names no source
    page.evaluate("history.back()")
    until(page, "waiting.length === 1")
    opened_meanwhile(page, third)
    came = page.evaluate("came.length")
    let_go(page)
    until(page, f"came.length > {came}")
    page.keyboard.type(" third")
    at(page, third)
    expect(page.locator("#reply")).to_have_value("For the third")
    saved(world, third, "For the third")
    assert (kept(world, first), kept(world, second)) == ("", "")


def test_letters_typed_before_the_box_has_come_never_go_to_the_thread_that_was_opened_instead(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    page = gated(desk, first)
    by_key(page, "m")
    expect(page.locator("#composer")).to_have_attribute("data-compose", "note")
    held_back(page, "compose=reply")
    by_key(page, "r")
    until(page, "waiting.length === 1")
    page.keyboard.type("for the first")
    page.keyboard.press("Control+Enter")
    page.locator(f"#row-{second} .row-link").click()
    at(page, second)
    expect(page.locator("#composer")).to_have_attribute("data-compose", "reply")
    expect(page.locator(".toast-bad")).to_contain_text("another thread was opened: for the first")
    expect(page.locator("#reply")).to_have_value("")
    page.locator("#reply").click()
    page.keyboard.type("For the second")
    saved(world, second, "For the second")
    with world.container.database.reading() as session:
        assert [len(threads.messages_of(session, one)) for one in (first, second)] == [1, 1], "nothing was sent"


def test_saved_replies_that_come_late_are_not_offered_in_another_thread(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    with world.container.database.transaction() as session:
        saved_replies.save(session, name="About", text="About {subject}", agent_id=world.ids["admin"])
    page = gated(desk, first)
    held_back(page, f"{first}/saved-replies")
    page.locator("#saved-button").click()
    until(page, "waiting.length === 1")
    page.locator(f"#row-{second} .row-link").click()
    at(page, second)
    page.locator("#saved-button").click()
    expect(page.locator("[data-insert='About Second']")).to_be_visible()
    came = page.evaluate("came.length")
    let_go(page)
    until(page, f"came.length > {came}")
    expect(page.locator("[data-insert]")).to_have_attribute("data-insert", "About Second")
    page.locator("[data-insert]").click()
    expect(page.locator("#reply")).to_have_value("About Second")


def test_words_are_taken_over_in_the_thread_in_which_that_was_pressed_or_not_at_all(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    with world.container.database.transaction() as session:
        for thread in (first, second):
            drafts.save(session, thread, agent_id=world.ids["agent"], text=f"Theirs in {thread}")
    page = gated(desk, first)
    held_back(page, "/draft$")
    page.locator("#reply").fill("Mine")
    page.get_by_role("button", name="Take over").click()
    until(page, "waiting.length === 1")
    page.locator(f"#row-{second} .row-link").click()
    at(page, second)
    let_go(page)
    saved(world, first, "Mine")
    expect(page.locator("#draft-state")).to_have_text("")
    page.locator("#reply").click()
    page.keyboard.type("For the second")
    until(page, "waiting.length === 1")
    let_go(page)
    saved(world, second, "For the second")
    assert kept(world, first) == "Mine"
    assert not any("take-over" in one for one in page.evaluate("came"))


def test_a_box_that_a_broken_page_left_with_the_words_of_another_thread_is_not_kept_under_this_one(
    world: World, desk: Callable[..., Page]
) -> None:
    first, second = world.thread(subject="First"), world.thread(subject="Second")
    page = gated(desk, first)
    page.locator("#reply").fill("For the first alone")
    saved(world, first, "For the first alone")
    page.evaluate(
        "(address) => { document.querySelector('#reply').dataset.draft = address; }", f"/inbox/{second}/draft"
    )
    page.locator("#reply").click()
    page.keyboard.type("x")
    expect(page.locator("#reply")).to_have_value("")
    page.keyboard.type("For the second")
    saved(world, second, "For the second")
    assert kept(world, first) == "For the first alone"


@pytest.mark.parametrize("stored", [True, False], ids=["kept", "not kept yet"])
def test_a_page_that_is_read_again_does_not_lock_an_edit_from_which_everything_without_a_source_is_out(
    world: World, desk: Callable[..., Page], stored: bool
) -> None:
    """It knew the suggestion's own words only: sending was locked until the next letter, and nothing said why."""
    _, thread = proposal(world, flagged=True)
    page = gated(desk, thread)
    if not stored:
        page.route(re.compile("/draft$"), lambda route: route.abort())
    page.keyboard.press("i")
    box, send = page.get_by_label("Edit the reply"), page.locator(".edit [data-key=send]")
    box.fill(TEXT.replace(" today", ""))
    expect(send).to_be_enabled()
    if stored:
        wait_until(lambda: kept(world, thread, kind="edit"), seconds=15, what="the edit")
    page.wait_for_timeout(1000)  # what keeping it sets off
    read = page.evaluate("came.filter((name) => name.includes('#announce')).length")
    changed(world, thread, starred=True)
    until(page, f"came.filter((name) => name.includes('#announce')).length > {read}")
    expect(page.locator("[data-key=star]")).to_contain_text("Unstar")
    expect(send).to_be_enabled()
    if stored:  # so does one that is opened again, and it says what was changed
        opened(page, thread)
        expect(page.locator(".diff del")).to_contain_text("today")
        expect(send).to_be_enabled()
