"""A notification of the system comes while nobody looks at the page, and only then."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.installation import Installation, mail
from tests.support.servers import wait_until

HIDE = """
  window.away = false;
  Object.defineProperty(Document.prototype, "hidden", { get: () => window.away });
  window.shown = [];
  const show = ServiceWorkerRegistration.prototype.showNotification;
  ServiceWorkerRegistration.prototype.showNotification = function (title, options) {
    shown.push([title, options.body, options.data.url]);
    return show.call(this, title, options);
  };
"""


def test_mail_that_comes_while_the_page_is_hidden_is_notified_with_sender_and_preview(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    page = new_page()
    page.context.add_init_script(HIDE)
    page.goto("/settings")
    page.locator("html[data-ready]").wait_for()
    expect(page.locator("#notify-state")).not_to_be_empty()
    page.context.grant_permissions(["notifications"])
    page.locator("#notify").select_option("preview")
    page.get_by_role("button", name="Save settings").click()
    page.wait_for_url("**/settings?did=saved")
    expect(page.locator("#notify-state")).to_have_text("This browser shows them.")
    try:
        page.goto("/inbox")
        page.locator("html[data-ready]").wait_for()
        assert page.evaluate("navigator.serviceWorker.ready.then((one) => one.active.scriptURL)").endswith("/worker.js")
        server.send(mail("Uma Ray <uma@seen.example>", "Seen by itself", "The list shows this.\n"))
        wait_until(
            lambda: page.locator("#pill").is_visible() or page.get_by_text("Seen by itself").count(),
            what="the mail in the page that is looked at",
        )
        page.wait_for_timeout(1500)
        assert page.evaluate("shown") == [], "who looks at the list needs no notification"
        page.evaluate("window.away = true")
        server.send(mail("Vera Lund <vera@away.example>", "Broken lamp", "The glass of my lamp is broken.\n"))
        wait_until(lambda: page.evaluate("shown.length") == 1, seconds=60, what="the notification")
        [[title, body, url]] = page.evaluate("shown")
        assert title == "Vera Lund" and body.startswith("Broken lamp\nThe glass of my lamp is broken")
        assert page.request.get(url).ok
    finally:
        page.goto("/settings")
        page.locator("#notify").select_option("off")
        page.get_by_role("button", name="Save settings").click()
        page.wait_for_url("**/settings?did=saved")
