"""A stranger's HTML is harmless before it is shown, every key is told once, and the page stays small and its own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.inbox import keys, mailhtml
from assistant.settings import ROOT
from tests.api.conftest import World
from tests.support.htmlchecks import words_of, wrong_in

STATIC = Path(mailhtml.__file__).parent / "static"
SEED = 20261124
VARIANTS = 300
WRAPS = (
    "<math><mtext><table><mglyph><style>{}</style></table>",
    "<svg></p><style><a id='</style>{}'>",
    "<noscript><p title='</noscript>{}'>",
    "<form><math><mtext></form><form><mglyph><style></math>{}",
    "<!--<img title='-->{}'>",
    "<textarea><title></textarea>{}</title>",
    "<template><s><template><s>{}</s></template>",
    "<table><tr><td><select><option>{}</table>",
    "<xmp><p title='</xmp>{}'></xmp>",
    "<b><p><a><table><a>{}",
)
PAYLOADS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='java&#10;script:alert(1)'>x</a>",
    "<a href=' &#1;javascript:alert(1)'>x</a>",
    "<a href='vbscript:x' hx-get='/knowledge' hx-trigger=load>x</a>",
    "<a href='data:text/html,<script>1</script>' data-hx-post=/x>x</a>",
    "<div hx-on:load='alert(1)' style='position:fixed;background:url(//evil.example)'>x</div>",
    "<form action=//evil.example><input name=csrf_token autofocus onfocus=alert(1)></form>",
    "<base href=//evil.example><meta http-equiv=refresh content='0;url=//evil.example'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<img src='http://evil.example/p.gif' srcset='//evil.example/2x 2x' alt='\"><script>1</script>'>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<img src='cid:logo' alt='x' onload=alert(1)>",
    "<a href='http://evil.example/\"onclick=alert(1)//'>www.bank.example</a>",
    "<a href='http://evil.example' title='</a><img src=x onerror=alert(1)>'>bank.example</a>",
    "<body onload=alert(1) background=//evil.example><p id=app class=toast name=csrf>x</p>",
)


def variants() -> list[str]:
    dice = random.Random(SEED)
    made = []
    for _ in range(VARIANTS):
        html = "".join(dice.sample(PAYLOADS, dice.randint(1, 4)))
        for _ in range(dice.randint(0, 3)):
            html = dice.choice(WRAPS).format(html)
        if dice.random() < 0.3:
            html = html[: dice.randint(1, len(html))]
        made.append("".join(c.upper() if c.isalpha() and dice.random() < 0.2 else c for c in html))
    return made


@pytest.mark.checklist(46)
def test_no_hostile_variant_keeps_anything_that_acts() -> None:
    found = {html: wrong_in(mailhtml.sanitise(html, {"logo": "/inbox/parts/1"})) for html in variants()}
    assert {html: wrong for html, wrong in found.items() if wrong} == {}


@pytest.mark.checklist(46)
def test_cleaning_what_is_clean_changes_nothing_more() -> None:
    """A text that changes when it is read again is where mutation attacks live."""
    ordinary = "<p>Hello <b>Ana</b> &amp; <a href='https://shop.example/a?b=1&c=2'>shop.example</a></p>"
    for html in [*variants(), ordinary]:
        once = re.sub(r"<img[^<>]*>", "", mailhtml.sanitise(html, {"logo": "/inbox/parts/1"}))
        again = mailhtml.sanitise(once)
        assert wrong_in(again) == []
        assert words_of(again) == words_of(once)


def test_ordinary_formatting_is_kept() -> None:
    html = (
        '<h1>Order</h1><table border="1"><tr><td colspan="2" align="right">5 €</td></tr></table><ul><li>one</li></ul>'
    )
    shown = mailhtml.sanitise(html)
    for part in ("<h1>Order</h1>", 'colspan="2"', 'align="right"', "<li>one</li>"):
        assert part in shown


@pytest.mark.checklist(45)
def test_pictures_come_only_from_the_mail_itself() -> None:
    html = '<img src="cid:logo"><img src="cid:other"><img src="https://evil.example/p.gif" alt="a &amp; b"><img src="data:image/png;base64,AA">'
    shown = mailhtml.sanitise(html, {"logo": "/inbox/parts/1"})
    assert re.findall(r'src="([^"]*)"', shown) == ["/inbox/parts/1"]
    assert "a &amp; b</span>" in shown
    assert mailhtml.remote_images(html) == ["https://evil.example/p.gif"]


@pytest.mark.parametrize(
    ("words", "target", "warned"),
    [
        ("www.bank.example", "https://evil.example/", True),
        ("bank.example", "https://bank.example.evil.example/", True),
        ("bank.example", "https://www.bank.example/x", False),
        ("<b>bank</b>.example", "https://evil.example/", True),
        ("your order", "https://shop.example/", False),
        ("from evil.example to bank.example", "https://evil.example/", True),
        ("info@bank.example", "https://evil.example/", True),
        ("bank\uff0eexample", "https://evil.example/", True),
        ("bank&#46;example", "https://evil.example/", True),
        ("192.0.2.7", "https://evil.example/", True),
        ("<img src='cid:logo' alt='bank.example'>", "https://evil.example/", True),
        ("bank.example", "https://bank.example@evil.example/", True),
        ("42.10 for version 1.2.3", "https://shop.example/", False),
    ],
)
@pytest.mark.checklist(49)
def test_a_link_that_names_another_host_says_where_it_goes(words: str, target: str, warned: bool) -> None:
    shown = mailhtml.sanitise(
        f'<a href="{target}" title="https://bank.example/">{words}</a>', {"logo": "/inbox/parts/1"}
    )
    assert ("goes to" in shown) == warned
    assert "title=" not in shown, "a title of the sender's would say that it leads elsewhere"
    assert 'rel="noopener noreferrer"' in shown
    assert 'target="_blank"' in shown


@pytest.mark.checklist(45)
def test_the_frame_may_do_nothing_but_show() -> None:
    assert "script-src" not in mailhtml.FRAME_POLICY
    assert mailhtml.FRAME_POLICY.startswith("default-src 'none'")
    assert "allow-scripts" not in mailhtml.FRAME_POLICY
    assert "allow-same-origin" not in mailhtml.FRAME_POLICY


def test_no_key_shadows_another_also_without_letters() -> None:
    assert keys.conflicts(keys.KEYS) == []
    assert len({key.act for key in keys.KEYS}) == len(keys.KEYS)
    assert [key.act for key in keys.remapped({}, letters=False)] == ["send", "send-done", "palette"]


def test_a_changed_key_that_shadows_another_is_found() -> None:
    changed = keys.remapped({"done": "g"})
    assert {one for pair in keys.conflicts(changed) for one in pair} >= {"done", "go-inbox"}
    assert keys.conflicts(keys.remapped({"done": "q"})) == []


def test_a_sign_is_the_same_key_whether_it_was_written_with_shift_or_without() -> None:
    stored = keys.remapped({"star": "Shift+#"})
    assert {(key.keys, key.shown) for key in stored if key.act in {"star", "trash"}} == {("#", "#")}
    assert keys.conflicts(stored) == [("star", "trash")]
    assert "Shift+R" in {key.keys for key in stored}, "a letter knows Shift"


def test_the_overlay_shows_every_key_of_every_group(world: World) -> None:
    page = world.browser().get("/inbox").text
    overlay = page[page.index('<dialog id="help"') : page.index('<dialog id="palette"')]
    for key in keys.KEYS:
        assert f"<dt>{key.words}</dt>" in overlay
        assert f"<h3>{key.group}</h3>" in overlay


def test_an_agent_changes_keys_and_switches_letters_off(world: World) -> None:
    admin = world.browser()
    token = re.search(r'name="csrf_token" value="([^"]+)"', admin.get("/settings").text)
    assert token is not None
    form = {"csrf_token": token.group(1), "theme": "auto", "density": "comfortable", "letters": "on", "key-done": "q"}
    assert admin.post("/settings", data=form).status_code in {200, 303}
    assert "|done=q|" in admin.get("/inbox").text
    clash = admin.post("/settings", data=form | {"key-done": "g"})
    assert clash.status_code == 422
    assert "share their keys" in clash.text
    assert "|done=q|" in admin.get("/inbox").text
    del form["letters"]
    admin.post("/settings", data=form)
    told = re.search(r'<meta name="keys" content="([^"]*)"', admin.get("/inbox").text)
    assert told is not None
    assert told.group(1) == "send=$mod+Enter|send-done=$mod+Shift+Enter|palette=$mod+k|"


def test_vendored_files_are_the_published_ones() -> None:
    listed = json.loads((STATIC / "vendor/manifest.json").read_text())
    for name, told in listed.items():
        digest = hashlib.sha384((STATIC / "vendor" / name).read_bytes()).digest()
        assert base64.b64encode(digest).decode() == told["sha384"], name
        assert told["version"]
        assert (STATIC / "vendor" / f"LICENSE.{told['package']}.txt").is_file()
    there = {path.name for path in (STATIC / "vendor").iterdir() if path.suffix in {".js", ".css"}}
    assert there == {name for name in listed if "/" not in name}


def test_scripts_and_styles_weigh_at_most_sixty_kilobytes() -> None:
    files = [path for path in STATIC.rglob("*") if path.suffix in {".js", ".css"}]
    assert files
    assert sum(len(gzip.compress(path.read_bytes(), 6)) for path in files) <= 60_000


@pytest.mark.parametrize("path", ["/inbox", "/inbox?view=spam", "/knowledge", "/settings", "/sign-in", "/link"])
@pytest.mark.checklist(47)
def test_a_page_has_no_inline_code_and_names_no_other_host(world: World, path: str) -> None:
    client = world.browser() if path not in {"/sign-in", "/link"} else world.client()
    answer = client.get(path)
    assert answer.status_code == 200
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style\b|\sstyle=|\son[a-z]+=|javascript:", answer.text) == []
    assert re.findall(r'(?:src|href|action)="(?:https?:)?//[^"]*"', answer.text) == []
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy


def test_the_documented_keys_are_those_of_the_program() -> None:
    done = subprocess.run([sys.executable, "scripts/keys_doc.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
