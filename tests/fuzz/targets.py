"""What is fuzzed: one function of bytes for each door that strangers' bytes come through. Each raises when a promise is broken."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from api.commands.import_mail import count_mails, mails_by_file
from api.errors import BadRequest
from api.inbox import live, mailhtml, shell
from api.security import parse_json
from assistant.db.session import Database
from assistant.errors import InvalidInput, ModelUnavailable
from assistant.services import paging, saved_replies, threads
from channels.support.bounces import report_of
from channels.support.htmltext import html_to_text
from channels.support.mime import parse
from channels.support.quotes import split_reply
from models.bert import Encoder
from models.heads.weights import Weights
from models.llama import Llama
from pipelines.mailboxes import Listener, _has_bare_line_ends, _Protocol
from tests.support.htmlchecks import words_of, wrong_in

__all__ = ["CORPORA", "TARGETS"]

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
Target = Callable[[bytes], None]


@cache
def folder() -> Path:
    """For what has to be a file; gone at the end."""
    import atexit

    found = Path(tempfile.mkdtemp(prefix="notifyr-fuzz-"))
    atexit.register(shutil.rmtree, found, ignore_errors=True)
    return found


def mime(data: bytes) -> None:
    message = parse(data)
    for text in (message.subject, message.text, message.html, message.external_id, message.sender.value):
        text.encode()
    assert message.sender.value.count("@") == 1 and "\x00" not in message.text and "\n" not in message.subject
    split_reply(message.text)
    if message.auto_submitted == "bounce" and "quarantine" not in message.defects:
        report_of(data)


def reports(data: bytes) -> None:
    """A delivery or feedback report: the bytes are its parts."""
    for kind in (b"delivery-status", b"feedback-report"):
        raw = b"Content-Type: multipart/report; report-type=" + kind + b"; boundary=b\r\n\r\n--b\r\n" + data
        message = parse(raw)
        assert message.auto_submitted in {"bounce", "complaint"} or "quarantine" in message.defects
        if "quarantine" in message.defects:
            continue
        for report in report_of(raw):
            assert report.status == "" or report.status[0] in "245"
            assert "\n" not in report.recipient + report.diagnostic + report.original_id


class _Wire(asyncio.Transport):
    """The listener's side of a connection, in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.said = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """Nothing more is sent anyway."""

    def resume_reading(self) -> None:
        """Nothing was held back."""


class _Recorder(Listener):
    def store(self, raw: bytes, recipients: list[str]) -> str:
        assert not _has_bare_line_ends(raw) and recipients
        return "250 2.0.0 Stored"


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _listener() -> Any:
    from assistant.settings import load_settings

    settings = load_settings({}, data_dir=folder(), mail_address="support@example.org")
    return _Recorder(settings, None, None)  # type: ignore[arg-type]  # a recorder needs neither


def smtp(data: bytes) -> None:
    """A whole dialogue, cut into pieces at every 0xFF (which no command has)."""
    loop = _loop()

    async def talk() -> bytes:
        protocol = _Protocol(
            _listener(), data_size_limit=100_000, enable_SMTPUTF8=True, hostname="t", timeout=60, command_call_limit={"*": 2_000}, loop=loop
        )  # fmt: skip
        wire = _Wire()
        protocol.connection_made(wire)
        for piece in (b"EHLO x\r\n", *data.split(b"\xff"), b"\r\n.\r\nQUIT\r\n"):
            if wire.closed:
                break
            protocol.data_received(piece)
            quiet = 0
            while quiet < 3:
                before = len(wire.said)
                await asyncio.sleep(0)
                quiet = quiet + 1 if len(wire.said) == before else 0
        task = protocol._handler_coroutine
        protocol.connection_lost(None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return bytes(wire.said)

    said = loop.run_until_complete(talk())
    for line in said.split(b"\r\n")[:-1]:
        assert re.match(rb"[2345]\d\d[ -]", line), line
        assert not re.search(rb"Traceback|[a-z](Error|Exception)\b", line), line


def frames(data: bytes) -> None:
    """A frame of the live socket, and a JSON body of the API."""
    text = data.decode("utf-8", "replace")
    frame = live._frame(text)
    if frame is not None:
        assert frame["kind"] in {"presence", "absent", "ping"} and len(text) <= 2_000
        assert isinstance(frame.get("thread_id", ""), str) and frame.get("state", "viewing") in {"viewing", "typing"}
    try:
        parse_json(data)
    except BadRequest as error:
        assert len(error.message) < 200


def templates(data: bytes) -> None:
    """Words in a saved reply, as a name, and on a page: filled in once, never run, always escaped."""
    text = data.decode("utf-8", "replace")
    name = text[len(text) // 2 :]
    values = {"first_name": name, "subject": "{name}", "agent": "{{7*7}}", "name": "N"}
    filled = saved_replies.fill(text, values)
    expected = re.sub(r"\{([a-z_]{1,40})\}", lambda hole: values.get(hole[1]) or hole[0], text)
    assert filled == expected
    problem = {"code": text, "title": text, "detail": text, "status": 500, "request_id": text}
    page = shell.render("error.html", problem=problem, step=text, page=shell.Visitor()).body
    plain = shell.render(
        "error.html", problem=dict.fromkeys(problem, "x") | {"status": 500}, step="x", page=shell.Visitor()
    ).body
    assert bytes(page).count(b"<") == bytes(plain).count(b"<"), "a stranger's words made a tag"


def sanitiser(data: bytes) -> None:
    html = data.decode("utf-8", "replace")
    once = mailhtml.sanitise(html, {"logo": "/inbox/parts/1"})
    assert wrong_in(once) == []
    bare = re.sub(r"<img[^<>]*>", "", once)
    again = mailhtml.sanitise(bare)
    assert wrong_in(again) == []
    assert words_of(again) == words_of(bare)
    text, _ = html_to_text(html)
    text.encode()


def weights(data: bytes) -> None:
    """A model's files: the manifest of an encoder, of its heads, and the head of a GGUF file."""
    place = folder() / "weights"
    (place / "labels").mkdir(parents=True, exist_ok=True)
    (place / "manifest.json").write_bytes(data)
    (place / "labels" / "manifest.json").write_bytes(data)
    (place / "labels" / "labels.npz").write_bytes(data)
    (place / "x.gguf").write_bytes(data)
    for load in (Encoder(place, threads=1).load, Weights(place).read, Llama(str(place / "x.gguf"), threads=1).load):
        if load.__self__.__class__ is Llama and data[:4] == b"GGUF":  # type: ignore[attr-defined]
            continue  # what llama.cpp says of it is tried in tests/models, in a process of its own
        try:
            load()
        except ModelUnavailable as error:
            assert len(error.message) < 2_000
        else:
            raise AssertionError("random bytes were taken for a model")


def archives(data: bytes) -> None:
    """A file of mail to import: mbox or a single mail, in a folder or a Maildir."""
    place = folder() / "archive"
    (place / "cur").mkdir(parents=True, exist_ok=True)
    (place / "one.mbox").write_bytes(data)
    (place / "cur" / "1:2,S").write_bytes(data)
    for path in (place / "one.mbox", place):
        found = list(mails_by_file(path))
        assert len(found) <= max(1, count_mails([path]))
        assert sum(len(raw) for _, _, raw in found) <= len(data)
        assert all(file.is_relative_to(place) for file, _, _ in found)


@cache
def _database() -> Database:
    from assistant.db.migrate import migrate

    url = f"sqlite:///{folder() / 'search.db'}"
    migrate(url)
    return Database(url, pool_size=1)


def search(data: bytes) -> None:
    """Words of a search and filters of a list: a list or a refusal, never an error of the database."""
    text = data.decode("utf-8", "replace").replace("\x00", "")
    with _database().reading() as session:
        for filters in (
            threads.Filters(search=text),
            threads.Filters(assignee=text[:36], intent=text[:80], channel=text[:20]),
        ):
            assert threads.list_threads(session, "all", filters=filters).items == []
    assert len(paging.words(text)) <= 8


def cursors(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for sort, keys in threads.SORTS.items():
        for cursor in (
            text,
            paging.write_cursor(sort, [text] * len(keys)),
            paging.write_cursor(sort, _numbers(data, len(keys))),
        ):
            try:
                values = paging.read_cursor(cursor, sort, keys)
            except InvalidInput:
                continue
            with _database().reading() as session:
                session.execute(threads.select(threads.Thread.id).where(paging.after(keys, values))).all()


def _numbers(data: bytes, count: int) -> list[Any]:
    padded = data.ljust(count, b"0")
    return [byte - 100 if byte % 2 else f"2026-11-{byte % 28 + 1:02}T00:00:00+00:00" for byte in padded[:count]]


TARGETS: dict[str, Target] = {
    one.__name__: one for one in (mime, reports, smtp, frames, templates, sanitiser, weights, archives, search, cursors)
}
CORPORA = {name: DATA / "fuzz" / name for name in TARGETS} | {"mime": DATA / "mime"}
"""Where the inputs are kept that found something or reach far; run as plain tests, and where the fuzzer starts."""
