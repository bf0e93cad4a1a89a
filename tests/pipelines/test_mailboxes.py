"""The SMTP listener, spoken to over real sockets: what gets 250 is stored, and nothing else does."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from assistant import failpoints
from assistant.backends.blobs import Blobs
from assistant.db.messages import Message
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.settings import Settings
from pipelines import mailboxes
from pipelines.inbound import Receiver
from tests.support import servers
from tests.support.listening import Listening, Wire, listening, mail


@pytest.fixture
def listen(sqlite_database: Database, make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Listening]]:
    """`listen(max_mail_bytes=...)`: a running listener on SQLite."""
    with listening(sqlite_database) as start:
        yield lambda **values: start(make_settings(**values))


def test_a_mail_is_answered_when_it_is_stored(listen: Callable[..., Listening]) -> None:
    listener = listen()
    with listener.connect() as wire:
        wire.begin()
        answer = wire.say(mail() + b".")
        assert re.fullmatch(r"250 2\.0\.0 Stored as [0-9a-f-]{36}", answer)
        stored = listener.only()
        assert stored.id in answer
        assert (stored.external_id, stored.from_address, stored.text) == ("<1@example.com>", "ann@example.com", "Hello")
        assert wire.say(b"QUIT").startswith("221")


def test_the_bytes_are_kept_as_they_came(listen: Callable[..., Listening]) -> None:
    listener = listen()
    raw = mail().replace(b"Hello", b".dot\r\n..\r\n\xff\x00tail  ")
    listener.send(raw)
    assert Blobs.open(listener.settings).get(listener.only().raw_key) == raw


def test_the_same_mail_again_is_answered_with_the_same_row(listen: Callable[..., Listening]) -> None:
    listener = listen()
    answers = set()
    for _ in range(3):
        with listener.connect() as wire:
            wire.begin()
            answers.add(wire.say(mail() + b"."))
    assert len(answers) == 1
    assert listener.count() == 1


def test_a_mail_to_two_of_our_mailboxes_is_in_both_and_again_in_none_twice(listen: Callable[..., Listening]) -> None:
    listener = listen()
    with listener.database.transaction() as session:
        session.add(Profile(channel="email", name="Sales", address="sales@example.org"))
    for _ in range(2):
        listener.send(mail(), ("support@example.org", "else@example.net", "Sales@example.org", "support@example.org"))
    with listener.database.reading() as session:
        rows = session.scalars(select(Message)).all()
        assert sorted(session.get_one(Profile, row.profile_id).address for row in rows) == [
            "sales@example.org",
            "support@example.org",
        ]


def test_the_null_sender_marks_a_machine(listen: Callable[..., Listening]) -> None:
    listener = listen()
    listener.send(mail(), sender="")
    assert listener.only().auto_submitted == "bounce"


# -- refusals


@pytest.mark.checklist(2, 39)
def test_a_mail_that_is_too_large_is_refused_before_and_after_its_bytes(listen: Callable[..., Listening]) -> None:
    listener = listen(max_mail_bytes=20_000)
    with listener.connect() as wire:
        assert "SIZE 20000" in _greeting(wire)
        assert wire.say(b"MAIL FROM:<a@b.example> SIZE=20001").startswith("552")
        wire.begin()
        assert wire.say(mail() + b"x\r\n" * 10_000 + b".").startswith("552")
        wire.begin()
        assert wire.say(mail() + b".").startswith("250")
    assert listener.count() == 1


@pytest.mark.checklist(2)
def test_a_mail_of_exactly_the_largest_size_is_taken_and_one_byte_more_is_not(listen: Callable[..., Listening]) -> None:
    """By what it says it has, and by what it has."""
    listener = listen(max_mail_bytes=20_000)

    def of(size: int) -> bytes:
        head = mail().rstrip(b"\r\n") + b"\r\n"
        lines, rest = divmod(size - len(head), 100)
        return head + b"x" * 98 + b"\r\n" + (b"y" * 98 + b"\r\n") * (lines - 2) + b"z" * (98 + rest) + b"\r\n"

    assert (len(of(20_000)), len(of(20_001))) == (20_000, 20_001)
    with listener.connect() as wire:
        assert wire.say(b"HELO client.example").startswith("250")
        assert "SIZE 20000" in _greeting(wire)
        assert wire.say(b"MAIL FROM:<a@b.example> SIZE=20000").startswith("250")
        assert wire.say(b"RSET").startswith("250")
        assert wire.say(b"MAIL FROM:<a@b.example> SIZE=20001").startswith("552")
        for size, answer in ((20_001, "552"), (20_000, "250")):
            wire.begin()
            assert wire.say(of(size) + b".").startswith(answer), size
    assert listener.count() == 1


def _greeting(wire: Wire) -> str:
    wire.socket.sendall(b"EHLO client.example\r\n")
    lines = []
    while not lines or lines[-1][3:4] == "-":
        lines.append(wire.file.readline().decode())
    return "".join(lines)


@pytest.mark.checklist(39)
def test_a_line_without_an_end_is_cut_off(listen: Callable[..., Listening]) -> None:
    listener = listen(max_mail_bytes=20_000)
    with listener.connect() as wire:
        wire.begin()
        # Not every OSError: a listener that reads on would keep us waiting, and a time-out is one of them.
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                wire.socket.sendall(b"x" * 65_536)
        with contextlib.suppress(ConnectionError):
            assert wire.answer()[:3] in {"552", ""}
            assert wire.answer() == "", "it hung up"
    listener.send(mail())
    assert listener.count() == 1


def test_a_line_longer_than_any_program_writes_is_refused_and_the_next_mail_is_taken(
    listen: Callable[..., Listening],
) -> None:
    listener = listen()
    with listener.connect() as wire:
        wire.begin()
        assert wire.say(mail() + b"x" * 200_000 + b"\r\n.").startswith("500")
        wire.begin()
        assert wire.say(mail() + b"x" * 50_000 + b"\r\n.").startswith("250")


@pytest.mark.checklist(2)
def test_too_many_recipients_are_put_off(listen: Callable[..., Listening]) -> None:
    listener = listen(max_recipients=3)
    with listener.connect() as wire:
        wire.envelope()
        answers = [wire.say(b"RCPT TO:<r%d@example.org>" % number)[:3] for number in range(4)]
        assert answers == ["250", "250", "452", "452"]
        assert wire.say(b"DATA").startswith("354")
        assert wire.say(mail() + b".").startswith("250")


def test_beyond_loopback_only_our_own_addresses_are_taken(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "LOOPBACK", frozenset())
    listener = listen()
    with listener.connect() as wire:
        assert wire.say(b"EHLO c").startswith("250")
        assert wire.say(b"MAIL FROM:<a@b.example>").startswith("250")
        assert wire.say(b"RCPT TO:<else@example.net>").startswith("550")
        assert wire.say(b"RCPT TO:<Support@Example.ORG>").startswith("250")


@pytest.mark.checklist(39)
def test_ten_thousand_commands_end_the_connection_not_the_listener(listen: Callable[..., Listening]) -> None:
    listener = listen()
    with listener.connect() as wire:
        assert wire.say(b"EHLO c").startswith("250")
        with contextlib.suppress(OSError):
            wire.socket.sendall(b"NOOP\r\n" * 10_000)
            last = [answer for _ in range(10_000) if (answer := wire.answer())][-1]
            assert last.startswith("421")
    listener.send(mail())
    assert listener.count() == 1


@pytest.mark.checklist(39)
def test_connections_are_capped_and_freed(listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "CONNECTIONS", 5)
    listener = listen()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(listener.connect())
        refused = listener.connect()
        assert refused.answer().startswith("421")
        refused.file.close()
        refused.socket.close()
    servers.wait_until(lambda: _accepts(listener), what="a free place")
    listener.send(mail())
    assert listener.count() == 1


@pytest.mark.checklist(39)
def test_more_mail_than_can_be_stored_is_for_later_and_what_is_taken_is_stored(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "PENDING", 6)
    monkeypatch.setattr(mailboxes, "WORKERS", 2)
    real, inside, most, full = Receiver.receive, [0], [0], threading.Event()

    def held(self: Receiver, raw: bytes, **values: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        full.wait(30)
        try:
            return real(self, raw, **values)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(Receiver, "receive", held)
    listener = listen()
    taken: list[int] = []
    refused: list[int] = []

    def send(number: int) -> None:
        while number not in taken:
            try:
                listener.send(mail(str(number)))
                taken.append(number)
            except smtplib.SMTPDataError as answer:
                assert answer.smtp_code == 451 and "try again later" in str(answer.smtp_error)
                refused.append(number)
                full.set()
                time.sleep(0.05)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(30)]
    for one in senders:
        one.start()
    for one in senders:
        one.join(60)
    assert sorted(taken) == list(range(30)) and listener.count() == 30
    assert refused, "five times what fits did not all find room at once"
    assert most[0] == 2


def _accepts(listener: Listening) -> bool:
    with contextlib.closing(socket.create_connection(("127.0.0.1", listener.port), timeout=5)) as probe:
        return probe.recv(3) == b"220"


@pytest.mark.checklist(39)
def test_a_silent_client_is_hung_up_on(listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "IDLE_SECONDS", 1.5)  # longer than the envelope takes on a busy machine
    listener = listen()
    with listener.connect() as wire:
        assert wire.answer() == ""
    with listener.connect() as wire:
        wire.begin()
        wire.socket.sendall(b"Subject: slow\r\n")
        assert wire.answer() == ""
    assert listener.count() == 0


@pytest.mark.checklist(39)
def test_a_slow_client_may_take_longer_than_one_pause(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "IDLE_SECONDS", 2.0)
    listener = listen()
    with listener.connect() as wire:
        wire.begin()
        for line in [*mail().splitlines(keepends=True), b"."]:
            wire.socket.sendall(line)
            time.sleep(0.5)
        assert wire.say(b"").startswith("250")


@pytest.mark.checklist(39)
def test_a_drip_of_bytes_does_not_hold_a_place_for_ever(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "IDLE_SECONDS", 1.5)
    monkeypatch.setattr(mailboxes, "MAIL_SECONDS", 0.6)
    listener = listen()
    with listener.connect() as wire:
        wire.begin()
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 20:
                wire.socket.sendall(b"x\r\n")
                time.sleep(0.1)
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("step", ["greeting", "envelope", "data", "text"])
def test_a_client_that_leaves_at_any_step_leaves_nothing(listen: Callable[..., Listening], step: str) -> None:
    listener = listen()
    wire = listener.connect()
    with wire:
        if step != "greeting":
            wire.envelope()
        if step in {"data", "text"}:
            assert wire.say(b"DATA").startswith("354")
        if step == "text":
            wire.socket.sendall(mail())
    listener.send(mail("2"))
    assert listener.only().external_id == "<2@example.com>"


@pytest.mark.checklist(39)
def test_reset_and_pipelining_work(listen: Callable[..., Listening]) -> None:
    listener = listen()
    with listener.connect() as wire:
        wire.envelope()
        assert wire.say(b"RSET").startswith("250")
        assert wire.say(b"DATA").startswith("503")
        wire.socket.sendall(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<support@example.org>\r\nDATA\r\n")
        assert [wire.answer()[:3] for _ in range(3)] == ["250", "250", "354"]
        assert wire.say(mail() + b".").startswith("250")


@pytest.mark.checklist(39)
def test_letters_outside_ascii_are_taken_in_text_headers_and_addresses(listen: Callable[..., Listening]) -> None:
    """8BITMIME (RFC 6152) and SMTPUTF8 (RFC 6531)."""
    listener = listen()
    raw = "From: Jörg <jörg@example.com>\r\nMessage-ID: <ö@example.com>\r\nSubject: Größe\r\n\r\nGrüße\r\n".encode()
    with listener.connect() as wire:
        offered = _greeting(wire)
        assert "8BITMIME" in offered and "SMTPUTF8" in offered
        assert wire.say("MAIL FROM:<jörg@example.com> SMTPUTF8 BODY=8BITMIME".encode()).startswith("250")
        assert wire.say("RCPT TO:<größe@example.org>".encode()).startswith("250")
        assert wire.say(b"DATA").startswith("354")
        assert wire.say(raw + b".").startswith("250")
    stored = listener.only()
    assert (stored.from_address, stored.from_name, stored.subject) == ("jörg@example.com", "Jörg", "Größe")
    assert (stored.text, stored.external_id) == ("Grüße", "<ö@example.com>")
    assert Blobs.open(listener.settings).get(stored.raw_key) == raw


# -- smuggling: where a mail ends is decided by <CR><LF>.<CR><LF> alone (RFC 5321, section 4.1.1.4)

_ENDS = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\r\r\n",
    b"\n\r",
    b"\n\n",
    b"\r\r",
    b"\x00\r\n",
    b"\x0b",
    b"\x0c",
    b"\x85",
    b"\xe2\x80\xa8",
]
_MARKS = [
    (before, after)
    for before in _ENDS
    for after in (b"\n", b"\r", b"\r\n", b"\r\r\n", b"\x00\r\n", b"\x0b\r\n")
    if (before, after) != (b"\r\n", b"\r\n") and before.endswith(b"\r\n") + after.startswith(b"\r\n") < 2
][:66]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Any) -> Iterator[Callable[..., Listening]]:
    """One listener for a table of dialogues."""
    import shutil

    from assistant.settings import load_settings

    folder = tmp_path_factory.mktemp("shared")
    shutil.copyfile(sqlite_template, folder / "notifyr.db")
    database = Database(f"sqlite:///{folder / 'notifyr.db'}")
    with listening(database) as start:
        one = start(
            load_settings({}, data_dir=folder, mail_address="support@example.org", smtp_port=servers.free_port())
        )
        yield lambda: one
    database.close()


@pytest.mark.parametrize(("before", "after"), _MARKS, ids=repr)
@pytest.mark.checklist(36)
def test_nothing_but_the_right_mark_ends_a_mail(shared: Callable[..., Listening], before: bytes, after: bytes) -> None:
    listener = shared()
    stored = listener.count()
    smuggled = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<support@example.org>\r\nDATA\r\n" + mail("smuggled")
    with listener.connect() as wire:
        wire.begin()
        wire.socket.sendall(mail("outer") + b"x" + before + b"." + after + smuggled + b".\r\n")
        answers = [wire.answer(), wire.say(b"NOOP")]
        assert answers[1].startswith("250"), answers
        assert answers[0][:3] in {"250", "554"}
    if answers[0].startswith("554"):
        assert listener.count() == stored
    with listener.database.reading() as session:
        assert "<smuggled@example.com>" not in session.scalars(select(Message.external_id)).all()


@pytest.mark.checklist(36)
def test_there_are_enough_smugglers() -> None:
    assert len(_MARKS) >= 60


@pytest.mark.parametrize("piece", [b"a\nb", b"a\rb", b"\n", b"\r", b"a\r\r\nb", b"\n\r\n"], ids=repr)
@pytest.mark.checklist(36)
def test_bare_line_ends_are_refused(shared: Callable[..., Listening], piece: bytes) -> None:
    listener = shared()
    stored = listener.count()
    with listener.connect() as wire:
        wire.begin()
        assert wire.say(mail("bare") + piece + b"\r\n.").startswith("554")
    assert listener.count() == stored


@pytest.mark.parametrize(
    "command",
    [b"MAIL FROM:<a\x00@b>", b"MAIL FROM:<a@b", b"MAIL FROM: a@b> X=<", b"RCPT TO:<a@b>\rDATA", b"\xff\xfe", b"", b" ",
     b"MAIL FROM:<" + b"a" * 5000 + b"@b>", b"EHLO " + b"x" * 100_000, b"AUTH PLAIN AGEAYg==", b"STARTTLS", b"EXPN x", b"BDAT 5"],
    ids=lambda command: repr(command[:20]),
)  # fmt: skip
def test_odd_commands_get_an_answer_and_harm_nothing(shared: Callable[..., Listening], command: bytes) -> None:
    listener = shared()
    with listener.connect() as wire:
        assert wire.say(b"EHLO c").startswith("250")
        assert wire.say(command)[:1] in "245"
        assert wire.say(b"NOOP").startswith("250")


# -- failures of our own


@pytest.mark.parametrize("place", ["before_blob", "after_blob", "before_commit", "before_answer"])
def test_a_failure_while_storing_is_temporary_and_the_second_try_makes_one_message(
    listen: Callable[..., Listening], place: str
) -> None:
    listener = listen()
    failpoints.arm(f"receive.{place}=raise")
    with listener.connect() as wire:
        wire.begin()
        assert wire.say(mail() + b".").startswith("451")
        wire.begin()
        assert wire.say(mail() + b".").startswith("250")
    assert listener.count() == 1


def test_a_mail_for_which_no_parser_can_be_started_is_temporary(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a machine without a free process or descriptor said 250 and quarantined a good mail."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    listener = listen()
    with listener.connect() as wire:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refused)
            wire.begin()
            assert wire.say(mail() + b".").startswith("451")
        wire.begin()
        assert wire.say(mail() + b".").startswith("250")
    assert listener.only().text == "Hello"


def test_a_database_that_is_gone_is_temporary_and_told_to_nobody(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "LOOPBACK", frozenset())
    listener = listen()
    with listener.connect() as wire:
        wire.begin()
        _rename(listener, "profiles", "away")
        answer = wire.say(mail() + b".")
        assert answer.startswith("451")
        assert wire.say(b"MAIL FROM:<a@b.example>").startswith("250")
        answer = wire.say(b"RCPT TO:<support@example.org>")
        assert answer.startswith("451")
        assert not re.search(r"sql|profile|error", answer, re.I)
        _rename(listener, "away", "profiles")
        assert wire.say(b"RCPT TO:<support@example.org>").startswith("250")
        assert wire.say(b"DATA").startswith("354")
        assert wire.say(mail() + b".").startswith("250")


def _rename(listener: Listening, old: str, new: str) -> None:
    with listener.database.transaction() as session:
        session.connection().exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")


def listening_ports() -> set[int]:
    found = psutil.Process().net_connections("tcp")
    return {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}


def test_a_stop_waits_for_the_mail_that_is_being_stored(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reached, go_on = Receiver.receive, threading.Event(), threading.Event()

    def held(self: Receiver, raw: bytes, **values: Any) -> Any:
        reached.set()
        assert go_on.wait(30)
        return real(self, raw, **values)

    monkeypatch.setattr(Receiver, "receive", held)
    listener = listen()
    with listener.connect() as wire:
        wire.begin()
        wire.socket.sendall(mail() + b".\r\n")
        assert reached.wait(30)
        stopping = threading.Thread(target=listener.stop)
        stopping.start()
        # Looked up and not tried: a connection that comes just then would be one more that the stop has to end.
        servers.wait_until(lambda: listener.port not in listening_ports(), what="the end of listening")
        assert stopping.is_alive() and listener.count() == 0
        go_on.set()
        assert wire.answer().startswith("250")
        assert wire.answer() == ""
        stopping.join(30)
    assert listener.count() == 1
    with pytest.raises(ConnectionRefusedError):
        listener.connect()


def test_a_taken_port_gives_the_next_free_one_and_says_so(listen: Callable[..., Listening]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listener = listen(smtp_port=port)
        assert listener.port > port
        listener.send(mail())
    assert listener.count() == 1


# -- the real process


@contextlib.contextmanager
def _process(settings: Settings, url: str, failpoint: str = "") -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    env = servers.clean_environment(
        NOTIFYR_DATA_DIR=str(settings.data_dir),
        NOTIFYR_DATABASE_URL=url,
        NOTIFYR_SMTP_PORT=str(servers.free_port()),
        NOTIFYR_MAIL_ADDRESS="support@example.org",
        NOTIFYR_FAILPOINTS=failpoint,
    )
    where = settings.path("run", "smtp-address")
    where.unlink(missing_ok=True)
    command = [sys.executable, "-m", "api.cli", "mailboxes"]
    log = settings.path("mailboxes.log")
    log.parent.mkdir(exist_ok=True)
    with servers.running(
        command, log=log, ready=lambda: where.exists() and where.read_text().strip(), env=env
    ) as process:
        yield process, int(where.read_text().strip().rpartition(":")[2])


@pytest.mark.parametrize("place", ["before_blob", "after_blob", "before_commit", "after_commit", "before_answer"])
def test_a_kill_at_any_point_loses_nothing_and_the_senders_retry_makes_no_second_message(
    database_url: str, settings: Settings, place: str
) -> None:
    with _process(settings, database_url, f"receive.{place}=exit") as (process, port):
        with Wire(port, 20) as wire:
            wire.begin()
            with contextlib.suppress(ConnectionError):
                assert wire.say(mail() + b".") == ""
        assert process.wait(10) == 137
    with _process(settings, database_url) as (process, port):
        for _ in range(2):
            with Wire(port, 20) as wire:
                wire.begin()
                assert wire.say(mail() + b".").startswith("250")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not settings.path("run", "smtp-address").exists()
    database = Database(database_url)
    with database.reading() as session:
        stored = session.scalars(select(Message)).one()
    database.close()
    blobs = Blobs.open(settings)
    assert list(blobs.list("raw")) == [stored.raw_key]
    assert blobs.get(stored.raw_key) == mail()
