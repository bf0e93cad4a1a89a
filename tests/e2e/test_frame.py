"""The frame and the list by hand: selecting by keys, more rows in place, widths that are kept, rows drawn by a finger."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.installation import Installation, mail
from tests.support.servers import wait_until

COUNT = 56
"""More threads than one page of the list."""


@pytest.fixture(scope="module")
def robots(server: Installation) -> str:
    """Many threads that no model is asked about; the search that finds them."""
    for number in range(COUNT):
        server.send(
            mail(
                f"Robot {number} <r{number}@robots.example>",
                f"Robot report {number}",
                "All is well.",
                Auto_Submitted="auto-generated",
            )
        )
    return "/inbox?view=all&q=from:robots.example"


def opened(page: Page, url: str) -> None:
    page.goto(url)
    wait_until(lambda: page.locator(".row").count() == 50 or (page.reload() and False), seconds=60, what="the threads")
    page.locator("html[data-ready]").wait_for()


def test_more_rows_come_where_the_list_ends_and_stay_when_it_is_read_again(
    robots: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    opened(page, robots)
    for _ in range(46):
        page.keyboard.press("j")
    wait_until(lambda: page.locator("#rows .row").count() == COUNT, what="the other rows")
    assert page.evaluate("document.activeElement.closest('.row')?.dataset.id") is not None
    page.keyboard.press("o")
    page.locator(".has-thread .message").first.wait_for()
    assert page.locator("#rows .row").count() == COUNT
    assert page.locator(".row.current").count() == 1
    page.evaluate(
        "htmx.ajax('GET', location.pathname + location.search, {source: '#announce', target: '#app', select: '#app', swap: 'outerMorph'})"
    )
    page.wait_for_timeout(1000)
    assert page.locator("#rows .row").count() == COUNT


def test_the_address_names_how_far_down_the_list_one_was_and_a_reload_comes_back_there(
    robots: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    opened(page, robots)
    for _ in range(53):
        page.keyboard.press("j")
        if page.locator("#rows .row").count() == 50:
            page.wait_for_timeout(30)
    page.wait_for_url(re.compile(r"upto=.*#row-"))
    page.wait_for_timeout(400)
    at = page.url.rpartition("#")[2]
    assert page.locator(f"#{at}.cursor").count() == 1
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.locator("#rows .row").count() == COUNT
    assert page.evaluate("document.activeElement.closest('.row')?.id") == at
    expect(page.locator(f"#{at}")).to_be_in_viewport()
    shared = new_page()
    shared.goto(page.url)
    shared.locator("html[data-ready]").wait_for()
    expect(shared.locator(f"#{at}")).to_be_in_viewport()
    shared.keyboard.press("o")
    shared.locator(".has-thread .message").first.wait_for()
    shared.wait_for_url(re.compile(r"/inbox/.*upto="))
    shared.reload()
    shared.locator("html[data-ready]").wait_for()
    assert shared.locator("#rows .row").count() == COUNT
    expect(shared.locator(f"#{at}.current")).to_be_in_viewport()
    shared.keyboard.press("n")
    shared.wait_for_url(re.compile("#message-"))
    message = shared.url.rpartition("#")[2]
    assert message.startswith("message-")
    shared.reload()
    expect(shared.locator(f"#{message}")).to_be_in_viewport()


def test_the_exact_time_of_a_row_is_shown_when_a_key_brings_the_focus_to_it(
    robots: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    opened(page, robots)
    read = "(row) => getComputedStyle(row.querySelector('time'), '::after').content"
    row = page.locator(".row").nth(1)
    assert row.evaluate(read) == "none"
    page.keyboard.press("j")
    page.keyboard.press("j")
    exact = row.locator("time").get_attribute("title")
    assert exact and row.evaluate(read) == f'"{exact}"'


def test_threads_are_selected_by_keys_and_the_act_on_them_is_undone(robots: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    opened(page, robots)
    page.keyboard.press("j")
    page.keyboard.press("Shift+J")
    page.keyboard.press("Shift+J")
    assert page.locator("#bulk-count").inner_text() == "3 selected"
    page.locator(".bulk-bar [value=done]").click()
    page.get_by_text("3 threads: done").wait_for()
    page.keyboard.press("z")
    page.get_by_text("Undone").wait_for()
    page.goto("/inbox?view=done&q=from:robots.example")
    assert page.locator(".row").count() == 0


def test_the_width_of_the_list_and_the_folded_rail_are_kept(robots: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    opened(page, robots)
    page.locator("#grip").focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.locator("#rail").hover()
    page.locator("[data-fold-rail]").click()
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert page.evaluate("document.querySelector('#list').offsetWidth") == 410
    assert page.evaluate("document.querySelector('#rail').offsetWidth") == 56
    assert page.locator("#grip").get_attribute("aria-valuenow") == "410"


SWIPE = """([id, by]) => {
  const row = document.getElementById(id), at = (x) => new Touch({ identifier: 1, target: row, clientX: x, clientY: 300 });
  for (const [kind, x] of [["touchstart", 180], ["touchmove", 180 + by / 2], ["touchmove", 180 + by], ["touchend", 180 + by]])
    row.dispatchEvent(new TouchEvent(kind, { bubbles: true, touches: kind === "touchend" ? [] : [at(x)], changedTouches: [at(x)] }));
}"""


@pytest.mark.parametrize(("by", "says"), [(150, "Done"), (-150, "Snoozed until")])
def test_a_finger_draws_a_row_to_done_or_to_snoozed(
    robots: str, new_page: Callable[..., Page], by: int, says: str
) -> None:
    page = new_page(width=375, height=700, has_touch=True)
    opened(page, robots)
    row = page.locator(".row").nth(4).get_attribute("id")
    page.evaluate(SWIPE, [row, by / 3])
    page.evaluate(SWIPE, [row, by])
    page.locator(".toast", has_text=says).wait_for()
    page.locator("#toasts [data-key=undo]").click()
    page.get_by_text("Undone").wait_for()


@pytest.mark.parametrize("width", [320, 375])
def test_everything_on_a_phone_is_large_enough_for_a_finger(
    robots: str, new_page: Callable[..., Page], width: int
) -> None:
    page = new_page(width=width, height=700)
    opened(page, robots)
    page.locator(".row-link").first.click()
    page.locator(".message").first.wait_for()
    small = page.evaluate(
        """() => [...document.querySelectorAll("#app button, #app summary.button, .rail a, select, .modes a")].filter((one) => {
          const box = one.getBoundingClientRect();
          return one.checkVisibility() && box.width && (box.height < 43.5 || box.width < 32);
        }).map((one) => `${one.outerHTML.slice(0, 90)} ${one.getBoundingClientRect().height}`)"""
    )
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


PLANTED = """
<p id="planted" hx-on:click="window.ran = 'hx-on'" onclick="window.ran = 'onclick'">planted</p>
<script>window.ran = "script"</script><img src="/static/none.png" onerror="window.ran = 'onerror'">
<a id="away" href="#" hx-get="https://evil.example/x" data-hx-get="https://evil.example/x" hx-trigger="click">away</a>
<b id="late" hx-get="/planted-vals" hx-vals="js:{a: (window.ran = 'vals')}" hx-trigger="click">late</b>
"""


@pytest.mark.checklist(47)
def test_markup_that_gets_into_a_page_runs_nothing_and_asks_no_other_server(new_page: Callable[..., Page]) -> None:
    forgiven = ("policy", "Content Security Policy", "htmx:error", "evil.example", "Failed to load", "EvalError")
    page, asked = new_page(forgives=forgiven), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.route("**/planted", lambda route: route.fulfill(body=PLANTED, content_type="text/html"))
    page.route("**/planted-*", lambda route: route.fulfill(status=204))
    page.goto("/inbox")
    page.locator("html[data-ready]").wait_for()
    page.evaluate("htmx.ajax('GET', '/planted', {source: document.body, target: '#rows', swap: 'innerHTML'})")
    for name in ("planted", "away", "late"):
        page.locator(f"#{name}").click()  # by the mouse: what the test's own `evaluate` calls may evaluate, too
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None
    assert any("/planted" in one for one in asked) and not [one for one in asked if "evil.example" in one]
