"""Hostile HTML in a mail is shown without one request leaving and without one line of it running."""

from __future__ import annotations

import random
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from playwright.sync_api import Page

from tests.support.installation import Installation
from tests.support.servers import wait_until

SEED = 20261124
COUNT = 300
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


@pytest.mark.checklist(45)
def test_no_request_leaves_and_nothing_runs(server: Installation, new_page: Callable[..., Page]) -> None:
    dice = random.Random(SEED)
    bodies = [hostile(number, dice) for number in range(COUNT)]
    # Ten bodies a mail. One that is never closed may swallow those after it, so few mails hold many beginnings.
    for start in range(0, COUNT, 10):
        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = "Mallory <m@evil.example>", "support@example.org", "Hostile"
        made["Message-ID"] = f"<hostile-{start}@evil.example>"
        made["In-Reply-To"] = "<hostile-0@evil.example>" if start else ""
        made.set_content("see the html part")
        made.add_alternative("".join(bodies[start : start + 10]), subtype="html")
        server.send(made)
    page = new_page()
    left: list[str] = []
    page.on("request", lambda one: left.append(one.url) if not one.url.startswith((server.url, "data:")) else None)
    page.on("dialog", lambda one: left.append(f"dialog {one.message}"))
    page.goto("/inbox?view=all&q=Hostile")
    wait_until(lambda: page.reload() and page.locator(".num").count(), seconds=30, what="the thread")
    page.locator(".row-link").first.click()
    page.locator(".message").first.wait_for()
    frames = sorted(set(page.eval_on_selector_all(".mail-frame", "all => all.map(one => one.src)")))
    assert len(frames) == COUNT // 10
    for url in frames:
        answer = page.goto(url)
        assert answer is not None
        assert "sandbox" in answer.headers["content-security-policy"]
        assert page.locator("body").inner_text().count("mail ") >= 1
        assert page.evaluate("typeof window.hacked") == "undefined"
    assert left == []
