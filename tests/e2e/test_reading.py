"""Reading a thread: where it opens, how high a mail's frame is, its other forms, and pictures that are fetched only on request."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from email.message import EmailMessage

import pytest
from playwright.sync_api import Browser, Page

from api.inbox import mailhtml
from api.inbox.mailheight import heights
from tests.support.installation import Installation, mail
from tests.support.servers import wait_until

WORDS = "Dear customer, thank you for your order, which is on its way to you and should arrive in a few days. "
MAILS = {
    "paragraphs": "<h1>Shipped</h1>" + f"<p>{WORDS}</p>" * 8,
    "one long text": f"<div>{WORDS * 20}</div>",
    "lines": "<br>".join(["A short line"] * 30),
    "list": "<ul>" + f"<li>{WORDS}</li>" * 5 + "</ul><hr><p>Bye</p>",
    "invoice": "<table border=1>" + "<tr><td>Article</td><td>2</td><td>42.10</td></tr>" * 12 + "</table>",
    "layout": f"<table><tr><td>{WORDS * 3}</td></tr><tr><td><h2>Offer</h2><p>{WORDS}</p></td></tr></table>",
    "picture": '<p>See</p><img src="cid:a" width="300" height="200"><p>there</p>',
    "code": "<pre>" + "def one():\n    return 1\n" * 10 + "</pre>",
}


@pytest.mark.parametrize("width", [340, 700])
@pytest.mark.parametrize("name", list(MAILS))
def test_a_frame_is_as_high_as_its_mail(browser: Browser, name: str, width: int) -> None:
    body = mailhtml.sanitise(MAILS[name], {"a": "data:image/gif;base64,R0lGODlhAQABAAAAACw="})
    page = browser.new_page(viewport={"width": width, "height": 40})
    page.set_content(mailhtml.document(body))
    real = int(page.evaluate("document.documentElement.scrollHeight"))
    page.close()
    known = heights(body)
    reckoned = known[max(one for one in known if one <= width)]
    assert real <= reckoned <= real * 1.6 + 90


def test_a_huge_mail_is_bounded() -> None:
    assert max(heights(f"<p>{WORDS}</p>" * 3000).values()) <= 6_000


def open_thread(page: Page, subject: str) -> None:
    page.goto(f"/inbox?view=all&q={subject}")
    wait_until(lambda: page.reload() and page.locator(".row").count(), seconds=30, what="the thread")
    page.locator(".row-link").first.click()
    page.locator(".message").first.wait_for()


def test_a_long_thread_opens_at_its_newest_message_with_quotes_folded(
    server: Installation, new_page: Callable[..., Page]
) -> None:
    for number in range(8):
        made = mail(
            "Lena Long <lena@long.example>",
            "Lengthy matter",
            f"Part {number}\n" + "words\n" * 12 + "\n> you\n> wrote\n",
        )
        made.replace_header("Message-ID", f"<lengthy-{number}@long.example>")
        if number:
            made["In-Reply-To"] = "<lengthy-0@long.example>"
        server.send(made)
    page = new_page()
    page.goto("/inbox?view=all&q=Lengthy")
    wait_until(lambda: page.reload() and page.locator(".num", has_text="8").count(), seconds=30, what="eight messages")
    page.locator(".row-link").first.click()
    newest = page.locator("[data-start]")
    newest.wait_for()
    box, pane = newest.bounding_box(), page.locator("#scroll").bounding_box()
    assert box and pane and pane["y"] - 1 <= box["y"] <= pane["y"] + pane["height"] / 2
    assert newest.locator(".quoted summary").inner_text().startswith("Quoted text, ")
    assert not newest.locator(".quoted .text").is_visible()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A picture on this machine, which is no public address, and the requests that reached it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}/pixel.gif", asked
        listener.shutdown()


@pytest.mark.checklist(45)
def test_pictures_wait_for_the_agent_and_private_addresses_are_refused(
    server: Installation, new_page: Callable[..., Page], elsewhere: tuple[str, list[str]]
) -> None:
    url, asked = elsewhere
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "Pia <pia@pictures.example>", "support@example.org", "Picturesque"
    made["Message-ID"] = "<picturesque@pictures.example>"
    made.set_content("as plain words")
    made.add_alternative(
        f'<p>as <b>rich</b> words</p><img src="{url}"><img src="https://metadata.internal/x">', subtype="html"
    )
    server.send(made)
    page = new_page()
    left: list[str] = []
    page.on("request", lambda one: left.append(one.url) if not one.url.startswith((server.url, "data:")) else None)
    open_thread(page, "Picturesque")
    assert "2 images not loaded" in page.locator(".images").inner_text()
    assert asked == []
    page.get_by_role("button", name="Load images in this message").click()
    page.get_by_text("0 of 2 images loaded").wait_for()
    assert (asked, left) == ([], [])
    page.get_by_label("Plain text").check()
    assert page.locator(".as-text").inner_text() == "as plain words"
    assert not page.locator(".mail > .mail-frame").is_visible()
