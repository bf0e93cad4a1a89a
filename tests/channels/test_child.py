"""The parser's child process: the same answers as the parser, and a bomb costs its child only."""

from __future__ import annotations

import contextlib
import errno
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

from assistant.errors import StorageError
from channels.support import child
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


def processes(parser: ParserChild) -> list[psutil.Process]:
    return [psutil.Process(one._process.pid) for one in parser._children if one._process is not None]


def process(parser: ParserChild) -> psutil.Process:
    (only,) = processes(parser)
    return only


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
        assert process(other).rlimit(psutil.RLIMIT_CPU)[0] == 5
        assert "NOTIFYR_SECRET_KEY" not in process(other).environ()
    finally:
        other.close()


BREAKING = {
    "time": "while True: pass",
    "time and no signal": "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n        while True: pass",
    "memory": "x = [bytearray(1 << 20) for _ in range(4096)]",
    "death": "import os; os.kill(os.getpid(), 11)",
    "lies": "import sys; sys.stdout.buffer.write(b'\\xff' * 100); sys.stdout.flush()",
    "no json": "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\1{'); sys.stdout.flush()",
    "wrong json": "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\2[]'); sys.stdout.flush()",
    "files": "import tempfile; f = tempfile.TemporaryFile(); f.write(b'x'); f.flush()",
}
NOT_THE_MAIL = {
    "it sleeps": "import time; time.sleep(60)",
    "it is stopped": "import os; os.kill(os.getpid(), 19)",
    "it is killed": "import os; os.kill(os.getpid(), 9)",
    "it is told to end": "import os; os.kill(os.getpid(), 15)",
}


def breaks(monkeypatch: pytest.MonkeyPatch, what: str, *, cpu_seconds: int = 1) -> None:
    """From now on, a child does `what` at a mail that says BREAK."""
    code = (
        "import channels.support.child as c, channels.support.mime as m\n"
        f"c.CPU_SECONDS = {cpu_seconds}\n"
        "old = m.parse\n"
        "def parse(raw):\n"
        "    if b'BREAK' in raw:\n"
        f"        {what}\n"
        "    return old(raw)\n"
        "m.parse = parse\n"
        "c.main()"
    )
    starts(monkeypatch, code)
    monkeypatch.setattr(child, "CPU_SECONDS", cpu_seconds)


def starts(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", code], **kw))


@pytest.mark.parametrize("how", BREAKING)
@pytest.mark.checklist(3)
def test_whatever_breaks_the_child_gives_a_quarantined_message_and_a_new_child(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, BREAKING[how])
    with contextlib.closing(ParserChild(wall_seconds=3)) as parser:
        assert parser.parse(b"From: a@example.com\n\nfirst").text == "first"
        first = process(parser).pid
        found = parser.parse(b"From: a@example.com\n\nBREAK")
        assert "quarantine" in found.defects
        assert (found.text, found.attachments) == ("", ())
        assert_sound(found)
        assert not psutil.pid_exists(first)
        assert parser.parse(b"From: a@example.com\n\nafter").text == "after"


@pytest.mark.parametrize("how", NOT_THE_MAIL)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_child_that_was_held_up_or_killed_says_nothing_about_its_mail(
    how: str, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a good mail was quarantined for good because its machine stood still for ten seconds."""
    breaks(monkeypatch, NOT_THE_MAIL[how])
    with contextlib.closing(ParserChild(wall_seconds=2)) as parser:
        if not fresh:
            parser.parse(b"From: a@example.com\n\nfirst")
        with pytest.raises(StorageError):
            parser.parse(b"From: a@example.com\n\nBREAK")
        assert parser.parse(b"From: a@example.com\n\nafter").text == "after"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_a_mail_whose_child_cannot_be_started_is_not_its_fault(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was answered with 250, and quarantined."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with contextlib.closing(ParserChild()) as parser:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refused)
            with pytest.raises(StorageError, match="no parser starts"):
                parser.parse(b"From: a@example.com\n\nhi")
        assert parser.parse(b"From: a@example.com\n\nhi").text == "hi"


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import time; time.sleep(60)", "print('no frame')"])
def test_a_child_that_ends_before_it_is_there_is_not_its_mails_fault(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts(monkeypatch, code)
    with (
        contextlib.closing(ParserChild(wall_seconds=2)) as parser,
        pytest.raises(StorageError, match="no parser starts"),
    ):
        parser.parse(b"From: a@example.com\n\nhi")


def test_a_mail_that_used_up_its_time_is_not_tried_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, BREAKING["time"])
    with contextlib.closing(ParserChild()) as parser:
        parser.parse(b"From: a@example.com\n\nfirst")
        assert "quarantine" in parser.parse(b"From: a@example.com\n\nBREAK").defects
        assert parser.restarts == 1


@pytest.mark.checklist(3)
def test_other_mails_are_read_while_a_bomb_is(monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, BREAKING["time"], cpu_seconds=4)
    with contextlib.closing(ParserChild()) as parser, ThreadPoolExecutor(1) as pool:
        parser.parse(b"From: a@example.com\n\nfirst")
        bomb = pool.submit(parser.parse, b"From: a@example.com\n\nBREAK")
        servers.wait_until(lambda: process(parser).cpu_percent(0.1) > 20, what="the bomb")
        for number in range(20):
            assert parser.parse(b"From: a@example.com\n\n%d" % number).text == str(number)
        assert not bomb.done()
        assert len(processes(parser)) == 2
        assert "quarantine" in bomb.result().defects


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
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"\0\0\0\1x", stdout=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.returncode == 42


def test_a_child_that_died_of_something_else_costs_nothing() -> None:
    parser = ParserChild()
    try:
        parser.parse(b"\n\nfirst")
        os.kill(process(parser).pid, signal.SIGKILL)
        servers.wait_until(lambda: process(parser).status() == psutil.STATUS_ZOMBIE, what="its death")
        found = parser.parse(b"From: a@example.com\n\nsecond")
        assert (found.text, found.defects) == ("second", ("no message-id",))
    finally:
        parser.close()


def test_threads_share_the_children(parser: ParserChild) -> None:
    def one(number: int) -> str:
        return parser.parse(b"From: a@example.com\n\n%d " % number + b"x" * (number * 1_000)).text.partition(" ")[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(200))) == [str(number) for number in range(200)]
    assert threading.active_count() < 20
    assert len(processes(parser)) <= 2


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
