"""Hostile HTML in a mail is shown without one request leaving and without one line of it running, and no reply carries it on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.support.figures import Tell
from tests.support.installation import Installation
from tests.support.servers import SmtpSink, wait_until

SEED = 20261124
COUNT, EACH = 300, 10
"""Mails, and mails in one thread. The last one of each thread is answered: every tenth."""
REPLY = "We have had a look."
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
    return f"<html><body><p>mail {number} {canary(number)}</p>{wrap.format(body)}</body></html>"


def canary(number: int) -> str:
    """A word that only this mail has."""
    return f"canary{number:03}bird"


def send_all(server: Installation) -> None:
    """One body a mail; the last one of the first thread also asks something that has an answer."""
    dice = random.Random(SEED)
    for number in range(COUNT):
        thread, place = divmod(number, EACH)
        asks = number == EACH - 1
        made = EmailMessage()
        made["From"], made["To"] = f"Mallory <m{thread}@evil.example>", "support@example.org"
        made["Subject"] = f"Hostile {thread:02}"
        made["Message-ID"] = f"<hostile-{thread}-{place}@evil.example>"
        if place:
            made["In-Reply-To"] = f"<hostile-{thread}-0@evil.example>"
        made.set_content(
            "Where is my order, when does my parcel arrive?" if asks else f"see the html part {canary(number)}"
        )
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


def answer(page: Page, *, by_suggestion: bool) -> None:
    """Answer the newest mail of the open thread, as an agent does who has read it."""
    if by_suggestion:
        page.wait_for_selector("#suggestion.face-proposed [data-key=accept]:enabled", timeout=120_000)
        page.keyboard.press("y")
        expect(page.locator(".toast")).to_contain_text("Sending")
        return
    page.locator("#reply").fill(REPLY)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".message").last).to_contain_text(REPLY)


def carries_nothing(outside: SmtpSink, count: int) -> None:
    """One reply to each sender has left, and nothing of any hostile mail is in one."""

    def answers() -> dict[str, bytes]:
        found = {one.recipients[0]: one.raw for one in outside.mails if one.recipients[0].endswith("@evil.example")}
        return found if len(found) == count else {}

    for recipient, raw in wait_until(answers, seconds=120, what=f"{count} replies at the relay").items():
        mail = message_from_bytes(raw, policy=policy.default)
        parts = [part for part in mail.walk() if not part.is_multipart()]
        assert [part.get_content_type() for part in parts] == ["text/plain"], recipient
        words = str(mail["Subject"]) + parts[0].get_content()
        assert not re.search(rf"canary|bird|hacked|mail \d|<\w|{re.escape(TARGET)}|see the html", words), (
            recipient,
            words,
        )
        assert mail["To"].addresses[0].addr_spec == recipient and mail["Cc"] is None and mail["Bcc"] is None
        if recipient != "m0@evil.example":
            assert parts[0].get_content().strip() == REPLY
    recipients = [one.recipients for one in outside.mails if one.recipients[0].endswith("@evil.example")]
    assert len(recipients) == count and all(len(one) == 1 for one in recipients), "each was answered once, and alone"


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
        page.goto(f"/inbox?view=all&q=subject:%22Hostile+{thread:02}%22")
        wait_until(lambda: page.reload() and page.locator(".row-link").count(), seconds=60, what="the thread")
        page.locator(".row-link").first.click()
        expect(page.locator("#thread h1")).to_have_text(f"Hostile {thread:02}")
        frames = frames_of(page)
        for frame in frames:
            assert frame.evaluate("typeof window.hacked") == "undefined"
        assert page.evaluate("typeof window.hacked") == "undefined"
        shown += len(frames)
        answer(page, by_suggestion=thread == 0)
    assert left == []
    assert shown == COUNT
    carries_nothing(outside, COUNT // EACH)
    url = page.locator(".mail-frame").first.get_attribute("src") or ""
    alone = page.goto(url)
    assert alone is not None
    assert "sandbox" in alone.headers["content-security-policy"]
    tell(f"{shown} hostile mails shown in their threads, {COUNT // EACH} answered, 0 requests left, seed {SEED}")
