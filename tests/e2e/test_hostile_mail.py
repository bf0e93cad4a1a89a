"""Hostile HTML in a mail is shown without one request leaving and without one line of it running."""

from __future__ import annotations

import random
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from playwright.sync_api import Frame, Page

from tests.support.figures import Tell
from tests.support.installation import Installation
from tests.support.servers import SmtpSink, wait_until

SEED = 20261124
COUNT, EACH = 300, 30
TARGET = "http://203.0.113.7/leak"
PIECES = (
    '<img src="{t}?{n}">',
    "<script>top.hacked={n}</script>",
    '<img src=x onerror="top.hacked={n}">',
    '<svg onload="top.hacked={n}"><image href="{t}"/></svg>',
    '<a href="javascript:top.hacked={n}">x</a>',
    '<iframe src="{t}"></iframe>',
    '<iframe srcdoc="<script>top.hacked={n}</script>"></iframe>',
    '<link rel=stylesheet href="{t}">',
    "<style>@import url({t}); body{{background:url({t})}}</style>",
    '<div style="background:url({t});position:fixed;inset:0">over</div>',
    '<meta http-equiv="refresh" content="0;url={t}">',
    '<base href="{t}">',
    '<form action="{t}"><input name=a autofocus onfocus="top.hacked={n}"></form>',
    '<video src="{t}" autoplay></video><audio src="{t}"></audio>',
    '<object data="{t}"></object><embed src="{t}">',
    '<div hx-get="{t}" hx-trigger="load">x</div>',
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror=top.hacked={n}&gt;">',
    '<noscript><p title="</noscript><img src=x onerror=top.hacked={n}>"></noscript>',
    '<input type=image src="{t}"><body background="{t}"><table background="{t}"><td>x</table>',
    '<img srcset="{t} 2x" src="cid:none"><picture><source srcset="{t}"></picture>',
)


def hostile(number: int, dice: random.Random) -> str:
    body = "".join(piece.format(t=TARGET, n=number) for piece in dice.sample(PIECES, dice.randint(2, 6)))
    wrap = dice.choice(("{}", "<div>{}</div>", "<table><tr><td>{}</table>", "<!-- --!>{}", "<b>{}", "<p>{}</p" + ">"))
    return f"<html><body><p>mail {number}</p>{wrap.format(body)}</body></html>"


def send_all(server: Installation) -> None:
    """One body a mail, thirty mails a thread; the last one of the first thread also asks something that has an answer."""
    dice = random.Random(SEED)
    for number in range(COUNT):
        thread, place = divmod(number, EACH)
        asks = number == EACH - 1
        made = EmailMessage()
        made["From"], made["To"] = f"Mallory <m{thread}@evil.example>", "support@example.org"
        made["Subject"] = f"Hostile {thread}"
        made["Message-ID"] = f"<hostile-{thread}-{place}@evil.example>"
        if place:
            made["In-Reply-To"] = f"<hostile-{thread}-0@evil.example>"
        made.set_content("Where is my order, when does my parcel arrive?" if asks else "see the html part")
        made.add_alternative(hostile(number, dice), subtype="html")
        server.send(made)


def frames_of(page: Page) -> list[Frame]:
    """The mails of the open thread as they stand in the page, each loaded."""
    page.eval_on_selector_all(".thread details", "all => all.forEach(one => { one.open = true })")
    page.eval_on_selector_all(".mail-frame", "all => all.forEach(one => { one.loading = 'eager' })")

    def loaded() -> list[Frame]:
        found = [one.content_frame() for one in page.query_selector_all(".mail-frame")]
        ready = [one for one in found if one is not None and "mail " in one.locator("body").inner_text()]
        return ready if len(ready) == EACH else []

    return wait_until(loaded, seconds=60, what=f"{EACH} mails in their frames")


@pytest.mark.checklist(45)
@pytest.mark.timeout(600)
def test_no_request_leaves_and_nothing_runs(
    server: Installation, outside: SmtpSink, new_page: Callable[..., Page], tell: Tell
) -> None:
    send_all(server)
    page = new_page()
    left: list[str] = []
    page.on("request", lambda one: left.append(one.url) if not one.url.startswith((server.url, "data:")) else None)
    page.on("dialog", lambda one: left.append(f"dialog {one.message}"))
    shown = 0
    for thread in range(COUNT // EACH):
        page.goto(f"/inbox?view=all&q=subject:%22Hostile+{thread}%22")
        wait_until(lambda: page.reload() and page.locator(".row-link").count(), seconds=60, what="the thread")
        page.locator(".row-link").first.click()
        page.locator(".message").first.wait_for()
        frames = frames_of(page)
        for frame in frames:
            assert frame.evaluate("typeof window.hacked") == "undefined"
        assert page.evaluate("typeof window.hacked") == "undefined"
        shown += len(frames)
        if thread == 0:
            page.locator("#reply").fill("We have had a look.")
            page.keyboard.press("Control+Enter")
    assert left == []
    assert shown == COUNT
    (answer,) = wait_until(
        lambda: [one.raw.decode() for one in outside.mails if one.recipients == ("m0@evil.example",)],
        seconds=60,
        what="the reply at the relay",
    )
    assert "hacked" not in answer
    assert TARGET not in answer
    url = page.locator(".mail-frame").first.get_attribute("src") or ""
    alone = page.goto(url)
    assert alone is not None
    assert "sandbox" in alone.headers["content-security-policy"]
    tell(f"{shown} hostile mails shown in their threads, 0 requests left, seed {SEED}")
