"""The palette, the drawer about a contact, saved filters and addresses that hold everything, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.installation import Installation, mail
from tests.support.servers import wait_until


@pytest.fixture(scope="module")
def nora(server: Installation, new_page_of_module: Callable[[], Page]) -> str:
    """A contact with two threads, one of them of three messages that no model is asked about; the address of that one."""
    sender, headers = "Nora Vance <nora@vance.example>", {"Auto_Submitted": "auto-generated"}
    server.send(mail(sender, "Nora's invoice", "Please find it below.", **headers))
    first = mail(sender, "Nora's roof", "The roof is wet.", **headers)
    server.send(first)
    for number, text in enumerate(("It still is.", "And now the floor.")):
        again = mail(sender, f"Re: Nora's roof {number}", text, In_Reply_To=first["Message-ID"], **headers)
        del again["Subject"]
        again["Subject"] = "Re: Nora's roof"
        server.send(again)
    page = new_page_of_module()
    page.goto("/inbox?view=all&q=from:vance")
    wait_until(
        lambda: page.reload() and page.locator(".row", has_text="Nora's roof").locator(".num", has_text="3").count(),
        seconds=60,
        what="Nora's threads",
    )
    return str(page.locator(".row", has_text="Nora's roof").locator(".row-link").get_attribute("href"))


def options(page: Page) -> list[str]:
    return [" ".join(one.split()) for one in page.locator("#palette-list li:visible").all_inner_texts()]


def palette(page: Page, words: str = "") -> None:
    page.keyboard.press("Control+k")
    expect(page.locator("#palette-input")).to_be_focused()
    page.keyboard.type(words)


def test_the_palette_finds_acts_views_contacts_and_help(nora: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.goto("/inbox")
    page.locator("html[data-ready]").wait_for()
    palette(page, "snoozed")
    assert options(page)[0].startswith("Snoozed View")
    page.keyboard.press("Enter")
    expect(page.locator(".view-title")).to_have_text("Snoozed")
    palette(page, "nora va")
    expect(page.locator("#palette-list li:visible")).to_have_count(1)
    chosen = page.locator("#palette-input").get_attribute("aria-activedescendant")
    assert chosen and page.locator(f"#{chosen}").inner_text().startswith("Nora Vance nora@vance.example")
    page.keyboard.press("Enter")
    expect(page.locator(".row")).to_have_count(2)
    palette(page, "how to search")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/help#search"))


def test_the_palette_offers_only_acts_that_can_be_done_here(nora: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.goto("/settings")
    page.locator("html[data-ready]").wait_for()
    palette(page, "star")
    assert not [one for one in options(page) if one.startswith("Star Act")]
    page.goto(nora)
    page.locator("html[data-ready]").wait_for()
    palette(page, "star")
    assert [one for one in options(page) if one.startswith("Star Act")]
    page.keyboard.press("Enter")
    expect(page.locator("[data-key=star]")).to_contain_text("Unstar")
    palette(page, "no such thing at all")
    expect(page.locator("#palette-none")).to_be_visible()


def test_acts_stay_in_the_palette_when_single_letters_are_off(nora: str, new_page: Callable[..., Page]) -> None:
    page = new_page()
    page.goto("/settings#keys")
    page.uncheck("input[name=letters]")
    page.get_by_role("button", name="Save settings").click()
    page.wait_for_url("**/settings?did=saved")
    try:
        page.goto(nora)
        page.locator("html[data-ready]").wait_for()
        page.keyboard.press("e")
        page.wait_for_timeout(500)
        expect(page.locator(".state")).to_have_text("open")
        palette(page, "internal note")
        assert options(page) == ["Internal note Act"]
        page.keyboard.press("Enter")
        expect(page.locator("#composer")).to_have_attribute("data-compose", "note")
    finally:
        page.goto("/settings#keys")
        page.check("input[name=letters]")
        page.get_by_role("button", name="Save settings").click()
        page.wait_for_url("**/settings?did=saved")


def test_a_key_of_ones_own_works_and_is_shown_everywhere(nora: str, new_page: Callable[..., Page]) -> None:
    page = new_page()

    def remap(keys: str) -> None:
        page.goto("/settings#keys")
        page.fill("#key-star", keys)
        page.get_by_role("button", name="Save settings").click()

    remap("e")
    expect(page.get_by_role("alert")).to_contain_text("would share their keys")
    remap("q")
    page.wait_for_url("**/settings?did=saved")
    try:
        page.goto(nora)
        page.locator("html[data-ready]").wait_for()
        starred = "Unstar" in page.locator("[data-key=star]").inner_text()
        page.keyboard.press("s")
        page.wait_for_timeout(400)
        page.keyboard.press("q")
        expect(page.locator("[data-key=star] .act-word")).to_have_text("Star" if starred else "Unstar")
        expect(page.locator("[data-key=star] kbd")).to_have_text("q")
        page.keyboard.press("Shift+?")
        expect(page.locator("#help dl div", has=page.locator("dt", has_text=re.compile("^Star$")))).to_contain_text("q")
    finally:
        remap("s")
        page.wait_for_url("**/settings?did=saved")


@pytest.mark.parametrize("width", [1440, 900, 375])
def test_who_this_is_opens_beside_the_thread_and_closes_again(
    nora: str, new_page: Callable[..., Page], width: int
) -> None:
    page = new_page(width=width)
    page.goto(nora)
    page.locator("html[data-ready]").wait_for()
    drawer = page.locator("#context")
    expect(drawer).to_be_hidden()
    page.keyboard.press("w")
    expect(drawer).to_be_visible()
    assert page.evaluate("document.activeElement.closest('#context') !== null")
    expect(drawer).to_contain_text("nora@vance.example")
    expect(drawer).to_contain_text("support@example.org")
    expect(drawer.locator("dl", has_text="email")).to_contain_text("Yes")
    expect(drawer.locator(".earlier")).to_contain_text("Nora's invoice")
    expect(page.locator(".thread [data-who]")).to_have_attribute("aria-expanded", "true")
    page.evaluate(
        "htmx.ajax('GET', location.href, {source: '#announce', target: '#app', select: '#app', swap: 'outerMorph'})"
    )
    page.wait_for_timeout(600)
    expect(drawer).to_be_visible()
    page.locator("#context .close").focus()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    page.locator(".thread [data-who]").click()
    expect(drawer).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_drawer_is_always_there_on_a_wide_screen(nora: str, new_page: Callable[..., Page]) -> None:
    page = new_page(width=1600)
    page.goto(nora)
    expect(page.locator("#context")).to_be_visible()
    expect(page.locator(".thread [data-who]")).to_be_hidden()


def test_the_address_names_view_filter_thread_and_message_and_another_page_shows_the_same(
    nora: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto(nora.replace("?", "?sort=oldest-waiting&"))
    page.locator("html[data-ready]").wait_for()
    read = []
    for key in (
        "n",
        "p",
        "p",
    ):  # the newest of three messages, and two back: the address must lead to none but the first
        page.keyboard.press(key)
        read.append(page.evaluate("document.activeElement.id"))
    shown, after = read[2], read[1]
    assert shown.startswith("message-") and len(set(read)) == 3
    address = page.url
    assert address.endswith(f"#{shown}") and "sort=oldest-waiting" in address and "q=from" in address
    page.reload()
    page.locator("html[data-ready]").wait_for()
    other = new_page(height=400)
    for one in (page, other):
        one.goto("about:blank")
        one.goto(address)
        one.locator("html[data-ready]").wait_for()
        expect(one.locator(f"#{shown}")).to_be_in_viewport()
        expect(one.locator("#sort")).to_have_value("oldest-waiting")
        expect(one.locator("#search")).to_have_value("from:vance")
        expect(one.locator(".row")).to_have_count(2)
        one.evaluate("document.activeElement.blur()")  # the browser may move the focus there later than a key comes
        one.keyboard.press("n")
        assert one.evaluate("document.activeElement.id") == after, "the next message follows the one in the address"
    other.keyboard.press("p")
    assert other.evaluate("document.activeElement.id") == shown


def test_a_list_is_saved_under_a_name_used_from_the_rail_and_taken_back(
    nora: str, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.goto("/inbox?view=all&q=from:vance")
    page.locator("html[data-ready]").wait_for()
    page.locator(".filter-menu summary").click()
    page.fill("#filter-name", "Nora only")
    page.get_by_role("button", name="Save filter").click()
    row = page.locator("#rail li", has_text="Nora only")
    expect(row.locator(".count")).to_have_text("2")
    page.keyboard.press("g")
    page.keyboard.press("i")
    expect(page.locator(".view-title")).to_have_text("Inbox")
    row.locator("a").click()
    expect(page.locator("#search")).to_have_value("from:vance")
    expect(row.locator("a")).to_have_attribute("aria-current", "page")
    page.locator(".filter-menu summary").click()
    page.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    page.keyboard.press("z")
    expect(row).to_have_count(1)
