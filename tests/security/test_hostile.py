"""Hostile input by families, each counted: templates, headers, markup, smuggling towards a relay, redirects, file names.

Every list is the product of what is known to work elsewhere (where, how it is written, how it is hidden), so a gap is a missing
family and not a missing line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest

from api.inbox import mailhtml, shell
from api.inbox.account import _local
from assistant.errors import InvalidInput
from assistant.services import saved_replies
from assistant.values import Address, Attachment, OutboundMessage, ThreadHeaders
from channels.email import Email, EmailConfig, compose
from channels.support.content import file_name, sniffed
from tests.support.figures import Tell
from tests.support.htmlchecks import words_of, wrong_in
from tests.support.loops import run_apart
from tests.support.servers import SmtpSink

# -- server-side templates: 10 engines x 10 expressions x 3 places

ENGINES = (
    "{{%s}}", "{%% print(%s) %%}", "${%s}", "#{%s}", "<%%= %s %%>", "{%s}", "{{=%s}}", "@(%s)", "[[${%s}]]", "$({%s})",
)  # fmt: skip
EXPRESSIONS = (
    "73*97", "'7081'|e", "config", "self.__init__.__globals__", "''.__class__.__mro__[1].__subclasses__()",
    "cycler.__init__.__globals__.os.popen('id').read()", "lipsum.__globals__['os']", "request.application",
    "page.opened.csrf_token", "T(java.lang.Runtime).getRuntime()",
)  # fmt: skip
SSTI = [engine % expression for engine, expression in product(ENGINES, EXPRESSIONS)]


def _saved_reply(text: str) -> str:
    return saved_replies.fill(text, {"first_name": "Ana", "subject": "S", "agent": "A", "name": "Ana S"})


def _name(text: str) -> str:
    return saved_replies.fill("{first_name}", {"first_name": text})


def _page(text: str) -> str:
    problem = {"code": "x", "title": text, "detail": text, "status": 404, "request_id": "r"}
    return html.unescape(
        bytes(shell.render("error.html", problem=problem, step=text, page=shell.Visitor()).body).decode()
    )


@pytest.mark.checklist(48)
@pytest.mark.parametrize("place", [_saved_reply, _name, _page], ids=["saved reply", "name", "page"])
def test_no_words_are_run_as_a_template(place: Callable[[str], str]) -> None:
    for text in SSTI:
        shown = place(text)
        assert text in shown, f"{text} became something else"
        assert "7081" not in shown.replace(text, "") and "__main__" not in shown


# -- headers: 8 places x 14 line ends x 5 headers

LINE_ENDS = ["\r", "\n", "\r\n", "\x00", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\x7f", "\x1b"]  # fmt: skip
HEADERS = ["Bcc: v@example.net", "From: boss@example.org", "Content-Type: text/html", "\r\n<script>", " folded"]
MESSAGE = OutboundMessage(
    id="0190",
    sender=Address("email", "support@example.org", "Support"),
    to=(Address("email", "ann@example.com", "Ann"),),
    subject="Re: x",
    text="Hello",
    thread_headers=ThreadHeaders("<0190@example.org>", "<q@example.com>", ("<p@example.com>",)),
)


def _injected(place: str, end: str, header: str) -> OutboundMessage:
    evil, threads = f"x{end}{header}", MESSAGE.thread_headers
    assert threads is not None
    return {
        "subject": lambda: replace(MESSAGE, subject=evil),
        "sender name": lambda: replace(MESSAGE, sender=replace(MESSAGE.sender, display_name=evil)),
        "recipient name": lambda: replace(MESSAGE, to=(replace(MESSAGE.to[0], display_name=evil),)),
        "recipient": lambda: replace(MESSAGE, to=(Address("email", f"a{end}{header}@example.com"),)),
        "copy": lambda: replace(MESSAGE, cc=(Address("email", f"a@example.com{end}{header}"),)),
        "id": lambda: replace(MESSAGE, thread_headers=replace(threads, message_id=f"<{evil}@x>")),
        "reference": lambda: replace(MESSAGE, thread_headers=replace(threads, references=(f"<a@x>{end}{header}",))),
        "file": lambda: replace(MESSAGE, attachments=(Attachment(evil, "text/plain", b"x"),)),
    }[place]()


PLACES = ["subject", "sender name", "recipient name", "recipient", "copy", "id", "reference", "file"]
INJECTIONS = list(product(PLACES, LINE_ENDS, HEADERS))


@pytest.mark.checklist(38)
def test_no_header_is_made_out_of_a_value() -> None:
    taken = []
    for place, end, header in INJECTIONS:
        try:
            compose(_injected(place, end, header))
        except InvalidInput:
            continue
        taken.append((place, end, header))
    assert taken == []


@pytest.mark.checklist(38)
def test_a_blind_copy_is_in_no_header() -> None:
    content = compose(replace(MESSAGE, bcc=(Address("email", "hidden@example.net"),)))
    assert b"hidden" not in content and b"bcc" not in content.lower()


# -- markup: 20 acts x 9 ways round them x 3 ways to write them

ACTS = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "<svg onload=alert(1)>", "<body onpageshow=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>", "<a href='jAvA\tscript:alert(1)'>x</a>", "<a href='&#106;avascript:alert(1)'>x</a>",
    "<a href='data:text/html,x'>x</a>", "<a href='vbscript:x'>x</a>", "<a href='//evil.example'>x</a>",
    "<iframe srcdoc='<script>1</script>'></iframe>", "<form action=/sign-out method=post><button>x</button></form>",
    "<base href=//evil.example>", "<meta http-equiv=refresh content='0;url=//evil.example'>", "<style>*{background:url(//e)}</style>",
    "<div style='background:url(//e);behavior:url(x)'>x</div>", "<div hx-get=/ data-hx-post=/ hx-on:load=x hx-trigger=load>x</div>",
    "<input autofocus onfocus=alert(1)>", "<object data=x></object><embed src=x><applet code=x>", "<link rel=import href=//e>",
)  # fmt: skip
ROUND = (
    "{}", "<math><mtext><table><mglyph><style>{}</style></table>", "<svg></p><style><a id='</style>{}'>",
    "<noscript><p title='</noscript>{}'>", "<form><math><mtext></form><form><mglyph><style></math>{}",
    "<!--><!--{}-->-->", "<textarea><title></textarea>{}</title>", "<table><td><select><option>{}</table>", "<xmp><p title='</xmp>{}'></xmp>",
)  # fmt: skip
WRITTEN: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: "".join(c.upper() if number % 2 else c for number, c in enumerate(text)),
    lambda text: text.replace("<", "<\x00", 1).replace(" ", "/", 1),
)
XSS = [write(around.format(act)) for act, around, write in product(ACTS, ROUND, WRITTEN)]


@pytest.mark.checklist(46)
def test_nothing_that_acts_is_left_and_cleaning_again_changes_nothing() -> None:
    for text in XSS:
        once = mailhtml.sanitise(text)
        assert wrong_in(once) == [], text
        again = mailhtml.sanitise(re.sub(r"<img[^<>]*>", "", once))
        assert wrong_in(again) == [] and words_of(again) == words_of(re.sub(r"<img[^<>]*>", "", once)), text
        for forbidden in ("hx-", "data-hx", "onerror", "onload", "srcdoc", "<form", "<base", "<meta", "javascript:"):
            assert forbidden not in "".join(re.findall(r"<[^<>]*>", once)).lower(), (text, forbidden)


# -- smuggling towards a relay: what our own mails carry

SMUGGLED = "MAIL FROM:<evil@b.example>\r\nRCPT TO:<v@b.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
MARKS = list(
    product(
        ("\r\n", "\n", "\r", "\n\n", "\r\r", "\x00\r\n", "\x0b", "\u2028"), (".", ".."), ("\r\n", "\n", "\r", "\r\r\n")
    )
)


@pytest.mark.checklist(36)
def test_no_text_of_ours_ends_a_mail_early_at_a_relay(smtp_sink: SmtpSink, tmp_path: Path) -> None:
    async def send() -> None:
        channel = Email(EmailConfig(address="support@example.org", outbox=tmp_path / "out", relay_url=smtp_sink.url))
        for before, dot, after in MARKS:
            await channel.send(
                replace(MESSAGE, text=f"outer{before}{dot}{after}{SMUGGLED}", html=f"<p>{before}{dot}{after}</p>")
            )
        await channel.close()

    run_apart(send())
    arrived = smtp_sink.wait(len(MARKS))
    assert len(arrived) == len(MARKS) >= 60
    assert all(b"evil@b.example" not in str(one.message["From"]).encode() for one in arrived)
    assert {str(one.message["Subject"]) for one in arrived} == {"Re: x"}


# -- redirects and file names

FOREIGN = [
    write(start + rest)
    for start, rest, write in product(
        (
            "//",
            "/\\",
            "\\\\",
            "https://",
            "http:",
            "///",
            "/\t/",
            "/\n/",
            " //",
            "\x00//",
            "javascript:",
            "data:",
            "/%09/",
            "//\\",
        ),
        ("evil.example", "evil.example/inbox", "user@evil.example", "[::1]"),
        (lambda text: text, quote, lambda text: text.upper()),
    )
]


@pytest.mark.checklist(49)
def test_signing_in_leads_nowhere_but_into_this_server() -> None:
    for url in FOREIGN:
        target = _local(url)
        assert target.startswith("/") and not target.startswith(("//", "/\\")), url
        assert not re.search(r"[\x00-\x20]", target), url
    assert _local("/inbox/1?view=spam") == "/inbox/1?view=spam"


NAMES = [
    f"{before}{name}{after}"
    for before, name, after in product(
        ("", "../", "..\\", "/etc/", "C:\\", "a/../../", "\x00", "\u202e", "....//", "~/"),
        ("passwd", "a.txt", "CON", "x" * 300, ".htaccess", "..", "a\nb"),
        ("", "\x00.png", "/", " ", "."),
    )
]


@pytest.mark.checklist(57)
def test_a_name_from_a_stranger_is_only_ever_a_name() -> None:
    for claimed in NAMES:
        name = file_name(claimed)
        assert "/" not in name and "\\" not in name and name not in {".", ".."} and not name.startswith(".")
        assert len(name) <= 200 and name.isprintable(), repr(claimed)


@pytest.mark.checklist(44)
@pytest.mark.parametrize(
    ("content", "claimed", "kind"),
    [
        (b"<html><script>1</script>", "image/png", "text/html"),
        (b"  \n<!DOCTYPE html><p>", "text/plain", "text/html"),
        (b"<?xml version='1.0'?><svg onload=x>", "image/png", "image/svg+xml"),
        (b"<svg onload=x>", "text/plain", "image/svg+xml"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "text/html", "image/png"),
        (b"alert(1)", "text/javascript", "application/octet-stream"),
        (b"x", "text/html", "application/octet-stream"),
        (b"x", "application/x-sh", "application/octet-stream"),
        (b"", "text/xml", "application/octet-stream"),
        (b"%PDF-1.7\n", "text/plain", "application/pdf"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_is_what_its_bytes_say(content: bytes, claimed: str, kind: str) -> None:
    assert sniffed(content, claimed) == kind


def test_the_families_are_as_large_as_promised(tell: Tell) -> None:
    counts = {
        "templates": 3 * len(SSTI),
        "headers": len(INJECTIONS),
        "markup": len(set(XSS)),
        "smuggling": len(MARKS),
        "redirects": len(FOREIGN),
        "names": len(NAMES),
    }
    tell("hostile input: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    least = {"templates": 300, "headers": 500, "markup": 500, "smuggling": 60, "redirects": 100, "names": 300}
    assert {name: count for name, count in counts.items() if count < least[name]} == {}
