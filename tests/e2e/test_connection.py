"""An open page and its connection: the server restarts, the page sleeps, the network goes; nothing is missed, nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.support.installation import Installation, mail
from tests.support.servers import wait_until

MACHINE = {"Auto_Submitted": "auto-generated"}


@pytest.fixture
def letter(server: Installation) -> Callable[..., None]:
    """`letter("Runa", "First")`: a mail that no model is asked about."""

    def send(name: str, subject: str) -> None:
        server.send(mail(f"{name} Dahl <{name.lower()}@live.example>", subject, "Hello.", **MACHINE))

    return send


def opened(page: Page, name: str) -> None:
    """The list of one contact with its first row, live."""
    page.goto(f"/inbox?view=all&q=from:{name.lower()}@live.example")
    wait_until(lambda: page.reload() and page.locator(".row").count(), seconds=60, what="the first mail")
    page.locator("html[data-ready]").wait_for()
    page.wait_for_function("sessionStorage.getItem('last') !== undefined")
    page.evaluate("window.mark = 'same page'")


def test_an_open_page_goes_on_after_the_server_was_killed_and_misses_nothing(
    server: Installation, new_page: Callable[..., Page], letter: Callable[..., None]
) -> None:
    letter("Runa", "Before the restart")
    page = new_page(forgives=("ERR_CONNECTION_REFUSED",))
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    opened(page, "Runa")
    letter("Runa", "Heard by the page")
    expect(page.locator("#pill")).to_have_text("1 new", timeout=20_000)
    last = page.evaluate("sessionStorage.getItem('last')")
    assert re.fullmatch(r"\d+-\d+", last)
    before = server.child("api.cli api")
    before.kill()
    letter("Runa", "While it was away")
    expect(page.locator("#pill")).to_have_text("2 new", timeout=60_000)
    page.locator("#pill").click()
    expect(page.locator(".row")).to_have_count(3)
    after = [int(part) for part in sockets[-1].partition("after=")[2].split("-")]
    assert after >= [int(part) for part in last.split("-")], "it asks for what came after the last event it heard"
    assert page.evaluate("window.mark") == "same page"
    assert not psutil.pid_exists(before.pid) or psutil.Process(before.pid).status() == psutil.STATUS_ZOMBIE


COUNTED = """const Real = WebSocket;
window.sockets = [];
window.WebSocket = class extends Real { constructor(...values) { super(...values); window.sockets.push(this); } };"""
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_page_hidden_for_five_minutes_lets_go_and_catches_up_when_it_is_looked_at(
    new_page: Callable[..., Page], letter: Callable[..., None]
) -> None:
    letter("Siri", "Before the sleep")
    page = new_page()
    page.add_init_script(COUNTED)

    def sockets() -> int:
        return int(page.evaluate("sockets.filter((one) => one.readyState < 2).length"))

    page.clock.install()
    opened(page, "Siri")
    wait_until(lambda: sockets() == 1, what="the socket")
    page.evaluate(HIDE, True)
    page.clock.fast_forward("04:50")
    page.wait_for_timeout(500)
    assert sockets() == 1, "a short absence costs nothing"
    page.clock.fast_forward("00:20")
    wait_until(lambda: sockets() == 0, what="the end of the socket")
    page.clock.fast_forward("02:00")
    page.wait_for_timeout(500)
    assert sockets() == 0, "nothing is asked for while nobody looks"
    letter("Siri", "During the sleep")
    page.wait_for_timeout(1000)
    expect(page.locator("#pill")).to_be_hidden()
    page.evaluate(HIDE, False)
    wait_until(lambda: sockets() == 1, what="the socket again")
    expect(page.locator("#pill")).to_have_text("1 new", timeout=20_000)
    assert page.evaluate("window.mark") == "same page"


def test_acts_wait_while_offline_and_say_so_and_sends_are_refused(
    new_page: Callable[..., Page], letter: Callable[..., None]
) -> None:
    letter("Tora", "To be starred")
    page = new_page(forgives=("ERR_INTERNET_DISCONNECTED", "htmx:error", "Failed to fetch"))
    opened(page, "Tora")
    page.locator(".row-link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("To be starred")
    page.context.set_offline(True)  # the library's own signature
    page.keyboard.press("s")
    expect(page.locator(".toast")).to_contain_text("Offline: 1 act waits")
    page.keyboard.press("v")
    page.keyboard.press("Enter")
    expect(page.locator(".toast")).to_contain_text("Offline: 2 acts wait")
    page.keyboard.press("r")
    page.keyboard.type("Words that must not be lost")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".toast")).to_contain_text("Not sent: there is no connection")
    expect(page.locator("#reply")).to_have_value("Words that must not be lost")
    page.context.set_offline(False)
    expect(page.locator("[data-key=star]")).to_contain_text("Unstar", timeout=20_000)
    expect(page.locator("[data-key=assign]")).to_contain_text("You")
    expect(page.locator(".message.outbound")).to_have_count(0)
    expect(page.locator("#reply")).to_have_value("Words that must not be lost")
    wait_until(
        lambda: page.locator("#draft-state").inner_text() == "Draft kept", seconds=20, what="the draft on the server"
    )
    page.reload()
    expect(page.locator("#reply")).to_have_value("Words that must not be lost")
