"""Toasts: how long they stay, what makes them wait, and what of them is in the address."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from assistant.db.session import Event
from tests.api.conftest import World


def opened(page: Page, thread: str) -> None:
    page.clock.install()
    page.goto(f"/inbox/{thread}?view=inbox")
    page.locator("html[data-ready]").wait_for()


def pass_by(page: Page, seconds: float) -> None:
    page.clock.run_for(int(seconds * 1000))


def test_a_toast_without_an_undo_goes_after_a_while_and_waits_for_who_is_over_it(
    world: World, desk: Callable[..., Page]
) -> None:
    page = desk()
    opened(page, world.thread())
    page.keyboard.press("m")
    expect(page.locator("#composer")).to_have_attribute("data-compose", "note")
    page.locator("#reply").fill("Among us")
    page.keyboard.press("Control+Enter")
    toast = page.locator(".toast")
    expect(toast).to_contain_text("Note added")
    toast.locator("[data-key=undo]").click()
    expect(toast).to_contain_text("Note taken back")
    expect(page.locator("#reply")).to_have_value("Among us")
    toast.hover()
    pass_by(page, 10)
    expect(toast).to_be_visible()
    page.mouse.move(5, 5)
    pass_by(page, 8)
    expect(toast).to_have_count(0)


def test_a_toast_with_an_undo_stays_for_its_window_also_when_the_page_is_read_again(
    world: World, desk: Callable[..., Page]
) -> None:
    world.thread()
    thread = world.thread()
    page = desk()
    opened(page, thread)
    page.keyboard.press("e")
    toast = page.locator(".toast")
    expect(toast).to_contain_text("Done")
    expect(page).not_to_have_url("**did=**")
    assert "did=" not in page.url and "state=" not in page.url
    page.evaluate("window.swaps = 0; document.addEventListener('htmx:after:swap', () => { swaps += 1; })")
    here = page.locator("#app").get_attribute("data-thread")
    world.container.bus.publish(Event("thread.changed", {"thread_id": here, "reason": "labelled"}))
    for _ in range(200):
        pass_by(page, 0.02)
        if page.evaluate("swaps"):
            break
        page.wait_for_timeout(50)
    assert page.evaluate("swaps") == 1
    pass_by(page, 9)
    expect(toast).to_contain_text("Done")
    page.keyboard.press("z")
    expect(toast).to_contain_text("Undone")
    pass_by(page, 20)
    expect(toast).to_have_count(0)


def test_the_toast_of_a_send_counts_down_through_a_reload_of_the_page_and_then_goes(
    world: World, desk: Callable[..., Page]
) -> None:
    _, thread = world.suggestion()
    page = desk()
    opened(page, thread)
    page.keyboard.press("y")
    toast = page.locator(".toast")
    expect(toast).to_contain_text("Sending in")
    assert "did=" not in page.url
    pass_by(page, 60)
    expect(toast).to_have_count(0)
