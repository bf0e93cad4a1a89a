"""axe-core finds nothing (WCAG 2.2 A and AA) on any page, light and dark, wide and narrow; nothing scrolls sideways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.support.installation import Installation, mail
from tests.support.servers import wait_until

PAGES = (
    "/inbox",
    "/inbox?view=review",
    "/inbox?view=spam",
    "/inbox?q=nothing-like-this",
    "/knowledge",
    "/settings",
    "/settings/agents",
    "/settings/keys",
    "/settings/replies",
    "/settings/intents",
    "/settings/labels",
    "/learning",
    "/models",
    "/settings/trust",
    "/settings/server",
    "/settings/audit",
    "/compose",
    "/help",
    "/inbox?view=outbox",
    "/inbox/019a0000-0000-7000-8000-000000000000",
)
COLOURS = ["color-contrast", "link-in-text-block"]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page, scheme: str = "light") -> list[str]:
    """What axe finds. Dark pages are the same pages: there only what depends on colours is asked again."""
    only = {"type": "tag", "values": TAGS} if scheme == "light" else {"type": "rule", "values": COLOURS}
    found = Axe().run(page, options={"runOnly": only}).response["violations"]
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}" for one in found]


@pytest.fixture(scope="module")
def thread_url(server: Installation) -> str:
    """A thread with a suggestion."""
    server.send(mail("Cleo Marsh <cleo@customer.example>", "Parcel for Cleo", "Hello, when does my parcel arrive?\n"))
    return "/inbox?q=Cleo"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 375])
def test_no_page_has_a_violation(new_page: Callable[..., Page], thread_url: str, scheme: str, width: int) -> None:
    page = new_page(width=width, color_scheme=scheme)
    found = {}
    for url in PAGES:
        page.goto(url)
        found[url] = violations(page, scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{url} scrolls sideways"
    page.goto(thread_url)
    wait_until(lambda: page.reload() and page.locator(".mark-ready, .mark-check").count(), seconds=60, what="a draft")
    page.locator(".row-link").first.click()
    page.locator("#suggestion").wait_for()
    found["thread"] = violations(page, scheme)
    assert {url: one for url, one in found.items() if one} == {}


@pytest.mark.parametrize("width", [320, 900])
def test_no_page_scrolls_sideways_between_the_widths(
    new_page: Callable[..., Page], thread_url: str, width: int
) -> None:
    page = new_page(width=width, height=640)
    wide = []
    for url in (*PAGES, thread_url):
        page.goto(url)
        if url == thread_url:
            page.locator(".row-link").first.click()
            page.locator(".message").first.wait_for()
        if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            wide.append(url)
    assert wide == []


OPENED = {
    # what is open -> how it is opened in a thread
    "palette": "Control+k",
    "keys": "Shift+?",
    "who": "w",
    "label": "l",
    "snooze": "h",
    "note": "m",
    "edit": "i",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 375])
def test_nothing_that_opens_over_a_thread_has_a_violation(
    new_page: Callable[..., Page], thread_url: str, scheme: str, width: int
) -> None:
    page = new_page(width=width, color_scheme=scheme)
    page.goto(thread_url)
    wait_until(lambda: page.reload() and page.locator(".mark-ready, .mark-check").count(), seconds=60, what="a draft")
    page.locator(".row-link").first.click()
    page.locator("#suggestion").wait_for()
    address, found = page.url, {}
    for name, key in OPENED.items():
        page.goto(address)
        page.locator("html[data-ready]").wait_for()
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        found[name] = violations(page, scheme)
        if name == "who":
            page.keyboard.press("w")
    page.goto("/inbox")
    page.locator(".filter-menu summary").click()
    found["filters"] = violations(page, scheme)
    assert {name: one for name, one in found.items() if one} == {}


@pytest.mark.parametrize("url", ["/sign-in", "/link"])
def test_the_pages_before_signing_in_have_no_violation(server: Installation, browser: Browser, url: str) -> None:
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto(url)
    assert violations(page) == []
    context.close()
