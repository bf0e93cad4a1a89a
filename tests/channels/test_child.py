"""The parser's child process: the same answers as the parser, and a bomb costs its child only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from channels.support.child import ParserChild
from channels.support.mime import parse
from tests.channels.test_mime import BOMBS, assert_sound
from tests.support import servers

CORPUS = sorted((Path(__file__).resolve().parents[1] / "data" / "mime").iterdir())
SAMPLES = sorted((Path(__file__).resolve().parents[2] / "channels" / "twins" / "mails").glob("*.eml"))


@pytest.fixture(scope="module")
def parser() -> Iterator[ParserChild]:
    one = ParserChild()
    yield one
    one.close()


def process(parser: ParserChild) -> psutil.Process:
    assert parser._child is not None
    return psutil.Process(parser._child.pid)


@pytest.mark.parametrize("path", [*CORPUS, *SAMPLES], ids=lambda path: path.name)
def test_the_child_says_what_the_parser_says(parser: ParserChild, path: Path) -> None:
    raw = path.read_bytes()
    assert parser.parse(raw) == parse(raw)
    assert parser.restarts == 0


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_even_reach_the_childs_parser(parser: ParserChild, name: str) -> None:
    found = parser.parse(BOMBS[name][0])
    assert "quarantine" in found.defects
    assert BOMBS[name][1] in found.defects
    assert parser.restarts == 0


def test_the_time_of_arrival_is_kept(parser: ParserChild) -> None:
    now = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    assert parser.parse(b"From: a@example.com\n\nhi", received_at=now).received_at == now


@pytest.mark.checklist(3)
def test_the_child_has_limits_and_sees_no_secret(parser: ParserChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFYR_SECRET_KEY", "canary" * 6)
    other = ParserChild()
    try:
        other.parse(b"\n\nhi")
        limits = {name: process(other).rlimit(getattr(psutil, f"RLIMIT_{name}"))[0] for name in ("AS", "CORE", "FSIZE")}
        assert limits == {"AS": 512 * 1024 * 1024, "CORE": 0, "FSIZE": 0}
        assert 0 < process(other).rlimit(psutil.RLIMIT_CPU)[0] < 30
        assert "NOTIFYR_SECRET_KEY" not in process(other).environ()
    finally:
        other.close()


BREAKING = {
    "time": "while True: pass",
    "memory": "x = [bytearray(1 << 20) for _ in range(4096)]",
    "silence": "import time; time.sleep(60)",
    "death": "import os; os.kill(os.getpid(), 9)",
    "lies": "import sys; sys.stdout.buffer.write(b'\\xff' * 100); sys.stdout.flush()",
    "no json": "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\1{'); sys.stdout.flush()",
    "wrong json": "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\2[]'); sys.stdout.flush()",
    "files": "import tempfile; f = tempfile.TemporaryFile(); f.write(b'x'); f.flush()",
}


@pytest.mark.parametrize("how", BREAKING)
@pytest.mark.checklist(3)
def test_whatever_breaks_the_child_gives_a_quarantined_message_and_a_new_child(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import channels.support.child as c, channels.support.mime as m\n"
        "c.CPU_SECONDS = 1\n"
        "old = m.parse\n"
        "def parse(raw):\n"
        "    if b'BREAK' in raw:\n"
        f"        {BREAKING[how]}\n"
        "    return old(raw)\n"
        "m.parse = parse\n"
        "c.main()"
    )
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", code], **kw))
    parser = ParserChild(wall_seconds=3)
    try:
        assert parser.parse(b"From: a@example.com\n\nfirst").text == "first"
        first = process(parser).pid
        found = parser.parse(b"From: a@example.com\n\nBREAK")
        assert "quarantine" in found.defects
        assert (found.text, found.attachments) == ("", ())
        assert_sound(found)
        assert not psutil.pid_exists(first)
        assert parser.parse(b"From: a@example.com\n\nafter").text == "after"
    finally:
        parser.close()


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
@pytest.mark.checklist(3)
def test_the_child_has_no_network(family: str) -> None:
    code = (
        "import socket, sys, channels.support.child as c, channels.support.mime as m\n"
        "def parse(raw):\n"
        f"    try: socket.socket(socket.{family})\n"
        "    except PermissionError: sys.exit(42)\n"
        "    sys.exit(1)\n"
        "m.parse = parse\n"
        "c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"\0\0\0\1x", timeout=60, check=False)
    assert done.returncode == 42


def test_a_child_that_died_of_something_else_costs_nothing() -> None:
    parser = ParserChild()
    try:
        parser.parse(b"\n\nfirst")
        os.kill(process(parser).pid, signal.SIGKILL)
        assert parser._child is not None
        servers.wait_until(lambda: process(parser).status() == psutil.STATUS_ZOMBIE, what="its death")
        found = parser.parse(b"From: a@example.com\n\nsecond")
        assert (found.text, found.defects) == ("second", ("no message-id",))
    finally:
        parser.close()


def test_threads_share_one_child(parser: ParserChild) -> None:
    def one(number: int) -> str:
        return parser.parse(b"From: a@example.com\n\n%d " % number + b"x" * (number * 1_000)).text.partition(" ")[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(200))) == [str(number) for number in range(200)]
    assert threading.active_count() < 20


def test_a_large_mail_with_attachments_passes_through(parser: ParserChild) -> None:
    content = os.urandom(6_000_000)
    from email.message import EmailMessage

    written = EmailMessage()
    written["From"] = "a@example.com"
    written.set_content("see files")
    for number in range(3):
        written.add_attachment(content, maintype="application", subtype="x", filename=f"{number}.bin")
    found = parser.parse(written.as_bytes())
    assert [one.content == content for one in found.attachments] == [True] * 3
    assert found.text == "see files"


def test_a_closed_parser_leaves_no_process() -> None:
    parser = ParserChild()
    parser.parse(b"\n\nhi")
    pid = process(parser).pid
    parser.close()
    assert not psutil.pid_exists(pid)
    parser.close()
