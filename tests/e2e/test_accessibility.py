"""axe-core finds nothing (WCAG 2.2 A and AA) on any page, light and dark, wide and narrow; nothing scrolls sideways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page

from tests.support.axe import violations
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


@pytest.fixture(scope="module")
def thread_url(server: Installation) -> str:
    """A thread with a suggestion."""
    server.send(mail("Cleo Marsh <cleo@customer.example>", "Parcel for Cleo", "Hello, when does my parcel arrive?\n"))
    return "/inbox?q=Cleo"


@pytest.mark.parametrize("width", [1440, 375])
def test_no_page_has_a_violation(new_page: Callable[..., Page], thread_url: str, width: int) -> None:
    page = new_page(width=width)
    found = {}
    for url in PAGES:
        page.goto(url)
        found[url] = violations(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{url} scrolls sideways"
    page.goto(thread_url)
    wait_until(lambda: page.reload() and page.locator(".mark-ready, .mark-check").count(), seconds=60, what="a draft")
    page.locator(".row-link").first.click()
    page.locator("#suggestion").wait_for()
    found["thread"] = violations(page)
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


@pytest.mark.parametrize("width", [1440, 375])
def test_nothing_that_opens_over_a_thread_has_a_violation(
    new_page: Callable[..., Page], thread_url: str, width: int
) -> None:
    page = new_page(width=width)
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
        found[name] = violations(page)
        if name == "who":
            page.keyboard.press("w")
    page.goto("/inbox")
    page.locator(".filter-menu summary").click()
    found["filters"] = violations(page)
    assert {name: one for name, one in found.items() if one} == {}


@pytest.mark.parametrize("url", ["/sign-in", "/link"])
def test_the_pages_before_signing_in_have_no_violation(server: Installation, browser: Browser, url: str) -> None:
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.goto(url)
    assert violations(page) == []
    context.close()
