"""On a phone, and enlarged four times: what is touched is large enough, nothing waits for a pointer, nothing goes sideways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from assistant.db.messages import Message
from assistant.states import SuggestionState
from tests.api.conftest import World

PHONE = {"has_touch": True, "is_mobile": True}
SMALL = """() => {
  const touched = "a[href], button, summary, input:not([type=hidden]), select, textarea, [role=separator]";
  const inText = ".text a, .draft-text a, p a, dd a, .why a, header > a.quiet, a.confidence, .skip, .event a, .lead a";
  return [...document.querySelectorAll(touched)]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.matches(inText))
    .map((one) => one.matches("label input") ? one.closest("label") : one)
    .map((one) => [one, one.getBoundingClientRect()])
    .filter(([, box]) => box.width > 1 && box.height > 1 && (box.width < 43.5 || box.height < 43.5))
    .map(([one, box]) => `${one.outerHTML.replace(/\\s+/g, " ").slice(0, 110)}: ${Math.round(box.width)} x ${Math.round(box.height)}`);
}"""
"""What is too small to be touched. A link within a sentence may be as high as its line."""


def ready(page: Page, path: str) -> None:
    page.goto(path)
    page.locator("html[data-ready]").wait_for()


@pytest.fixture
def threads(world: World) -> dict[str, str]:
    """A thread for each face of the card, with a mail of HTML and a file in the first."""
    faces = {
        "proposed": world.suggestion(text="Hello Ana, we will look into it.")[1],
        "dismissed": world.suggestion(state=SuggestionState.REJECTED, agent_id=world.ids["admin"])[1],
        "stale": world.suggestion(state=SuggestionState.EXPIRED)[1],
        "drafting": world.suggestion(state=SuggestionState.DRAFTING, text="")[1],
        "attached": world.ids["thread"],
    }
    with world.container.database.transaction() as session:
        message = session.query(Message).filter_by(thread_id=faces["proposed"]).one()
        message.html = '<p>Hello</p><img src="https://example.net/p.gif"><blockquote>old</blockquote>'
    return faces


def test_what_is_touched_on_a_phone_is_at_least_44_pixels(
    world: World, desk: Callable[..., Page], threads: dict[str, str]
) -> None:
    page = desk(width=375, **PHONE)
    small: dict[str, list[str]] = {}
    ready(page, "/inbox")
    small["list"] = page.evaluate(SMALL)
    page.locator(".row input").first.check()
    small["selecting"] = page.evaluate(SMALL)
    page.locator(".filter-menu summary").click()
    small["filters"] = page.evaluate(SMALL)
    for face, thread in threads.items():
        ready(page, f"/inbox/{thread}?view=all")
        small[face] = page.evaluate(SMALL)
    ready(page, f"/inbox/{threads['proposed']}?view=all")
    page.locator("[data-key=edit]").click()
    small["edit"] = page.evaluate(SMALL)
    page.locator("summary[data-key=snooze]").click()
    small["snooze"] = page.evaluate(SMALL)
    told = sorted({f"{where}: {one}" for where, found in small.items() for one in found})
    assert not told, "\n".join(told)


def test_nothing_on_a_phone_waits_for_a_pointer_over_it(
    world: World, desk: Callable[..., Page], threads: dict[str, str]
) -> None:
    for width in (375, 900):
        page = desk(width=width, **PHONE)
        ready(page, "/inbox")
        assert page.evaluate("matchMedia('(hover: none)').matches")
        box = page.locator(".row input").first
        assert box.evaluate("one => getComputedStyle(one).opacity") == "1"
        box.tap()
        expect(page.locator("#bulk-count")).to_have_text("1 selected")


def test_enlarged_four_times_nothing_goes_sideways_and_the_reply_can_be_written(
    world: World, desk: Callable[..., Page], threads: dict[str, str]
) -> None:
    page = desk(width=320)
    page.set_viewport_size({"width": 320, "height": 256})
    for path in ("/inbox", *(f"/inbox/{thread}?view=all" for thread in threads.values()), "/compose", "/settings"):
        ready(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
    ready(page, f"/inbox/{threads['proposed']}?view=all")
    box = page.locator("#reply")
    box.scroll_into_view_if_needed()
    box.click()
    page.keyboard.type("Written at 400 %")
    expect(box).to_have_value("Written at 400 %")
    # What is fixed or sticks must leave room to see what one types.
    seen = box.evaluate(
        "one => { const box = one.getBoundingClientRect(); let seen = 0;"
        " for (let y = Math.max(0, Math.ceil(box.top)); y < Math.min(innerHeight, box.bottom); y += 4)"
        " if (document.elementFromPoint(160, y) === one) seen += 4; return seen; }"
    )
    assert seen >= 44
    page.locator("#reply-form [data-key=send]").scroll_into_view_if_needed()
    page.locator("#reply-form [data-key=send]").click()
    expect(page.locator(".toast")).to_contain_text("Sending in")
