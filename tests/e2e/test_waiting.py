"""What a page shows while it waits: bones of the thread after 150 ms, a banner only after 3 s without a connection."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.api.conftest import World
from tests.support.installation import Installation, mail


def arrived(server: Installation, page: Page, subject: str) -> None:
    server.send(mail("Dora Quist <dora@customer.example>", subject, "Hello, when do you open?\n"))
    page.goto("/inbox?q=Dora")
    while not page.locator(".row", has_text=subject).count():
        page.wait_for_timeout(300)
        page.reload()


def test_a_slow_thread_shows_its_bones_and_a_quick_one_does_not(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    arrived(server, page, "Opening hours")
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => seen.push(document.body.classList.contains('waiting-thread')))"
        ".observe(document.body, { attributes: true }); }"
    )

    asked: list[Route] = []
    page.route("**/inbox/*-*", lambda route: asked.append(route))
    page.locator(".row-link").first.click()
    expect(page.locator("body.waiting-thread")).to_have_count(1)
    assert page.locator("#thread").get_attribute("aria-busy") == "true"
    asked[0].continue_()
    expect(page.locator("h1")).to_have_text("Opening hours")
    expect(page.locator("body.waiting-thread")).to_have_count(0)
    assert page.locator("#thread").get_attribute("aria-busy") is None
    page.unroute("**/inbox/*-*")


BOXES = """() => Object.fromEntries([...document.querySelectorAll("#list, #thread, .list-head, #rows")]
  .map((one) => [one.id || one.className, ["x", "y", "width"].map((name) => Math.round(one.getBoundingClientRect()[name]))]))"""


def test_another_view_shows_the_bones_of_its_list_and_nothing_moves(world: World, desk: Callable[..., Page]) -> None:
    page = desk()
    page.goto(f"/inbox/{world.ids['thread']}?view=inbox")
    page.wait_for_function("document.documentElement.dataset.ready === '1'")
    before = page.evaluate(BOXES)

    asked: list[Route] = []
    page.route("**/inbox?view=done", lambda route: asked.append(route))
    page.locator(".rail a[title=Done]").click()
    expect(page.locator("body.waiting-list")).to_have_count(1)
    assert page.locator("#list").get_attribute("aria-busy") == "true"
    assert page.evaluate("getComputedStyle(document.querySelector('.row')).opacity") == "0"
    assert page.evaluate("getComputedStyle(document.querySelector('#rows'), '::before').content") == '""'
    assert page.evaluate(BOXES) == before
    asked[0].continue_()
    expect(page.locator(".view-title")).to_have_text("Done")
    expect(page.locator("body.waiting-list")).to_have_count(0)
    assert page.locator("#list").get_attribute("aria-busy") is None


def test_a_lost_connection_is_said_after_three_seconds_and_taken_back(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    cut, open_sockets = False, []

    def through(socket: WebSocketRoute) -> None:
        if cut:
            socket.close(code=1001)
            return
        socket.connect_to_server()
        open_sockets.append(socket)

    page.route_web_socket("**/live?*", through)
    arrived(server, page, "Offline then online")
    page.wait_for_timeout(500)
    banner = page.locator("#offline")
    assert open_sockets and not banner.is_visible()
    # By the page's own clock: this process may look late.
    page.evaluate("""() => {
        const banner = document.querySelector("#offline");
        const seen = () => { if (!banner.hidden) window.saidAt ??= Date.now(); };
        new MutationObserver(seen).observe(banner, { attributes: true });
        window.cutAt = Date.now();
    }""")
    cut = True
    open_sockets[-1].close(code=1001)
    expect(banner).to_be_visible(timeout=20_000)
    assert page.evaluate("window.saidAt - window.cutAt") >= 3000, "a short gap is not worth a word"
    server.send(mail("Dora Quist <dora@customer.example>", "Sent meanwhile", "Are you there?\n"))
    cut = False
    expect(banner).to_be_hidden(timeout=30_000)
    expect(page.locator("#pill")).to_have_text("1 new", timeout=30_000)
