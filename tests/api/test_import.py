"""`notifyr import`: every way in which people keep mail, twice without a second copy, and no server needed."""

from __future__ import annotations

import json
import mailbox
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from api.commands import import_mail
from api.commands.import_mail import count_mails, mails_in
from assistant.db.messages import Message, Thread
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import labels
from assistant.settings import ROOT
from assistant.states import TriageState
from tests.support import servers


def mail(number: int, body: str = "hello") -> bytes:
    return (
        f"From: ann{number}@example.com\nMessage-ID: <{number}@example.com>\nSubject: Question {number}\n"
        f"Date: Mon, 05 Jan 2026 10:{number:02}:00 +0000\n\n{body}\n"
    ).encode()


def run(folder: Path, *paths: Path | str, code: int = 0) -> dict[str, Any]:
    done = servers.notifyr("import", "--json", *map(str, paths), env={"NOTIFYR_DATA_DIR": str(folder / "var")})
    assert done.returncode == code, done.stderr
    counts: dict[str, Any] = json.loads(done.stdout)
    assert counts.pop("seconds") >= 0
    assert counts.pop("mails_per_second") >= 0
    assert counts.pop("threads") <= counts["added"]
    return counts


def make_mbox(path: Path, mails: list[bytes]) -> Path:
    box = mailbox.mbox(path)
    for raw in mails:
        box.add(raw)
    box.close()
    return path


def make_maildir(path: Path, mails: list[bytes]) -> Path:
    box = mailbox.Maildir(path)
    for number, raw in enumerate(mails):
        one = mailbox.MaildirMessage(raw)
        one.set_subdir("cur" if number % 2 else "new")
        if number % 2:
            one.set_flags("S")
        box.add(one)
    box.close()
    return path


def test_files_mboxes_maildirs_and_folders_come_in_once(tmp_path: Path) -> None:
    (tmp_path / "one.eml").write_bytes(mail(1))
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "2.eml").write_bytes(mail(2))
    (folder / "deep" / "3.EML").write_bytes(mail(3))
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.eml").write_bytes(mail(99))
    make_maildir(folder / "Maildir", [mail(4), mail(5)])
    make_maildir(folder / "Maildir" / ".Sent", [mail(6)])
    make_mbox(tmp_path / "archive", [mail(7, "first\n\nFrom here on\nit goes on"), mail(8), mail(9)])
    paths = (tmp_path / "one.eml", folder, tmp_path / "archive")
    assert count_mails(list(paths)) == 9
    assert run(tmp_path, *paths) == {"added": 9, "known": 0, "failed": 0}
    assert run(tmp_path, *paths) == {"added": 0, "known": 9, "failed": 0}
    database = Database(f"sqlite:///{tmp_path / 'var' / 'notifyr.db'}")
    with database.reading() as session:
        rows = session.scalars(select(Message).order_by(Message.external_id)).all()
        assert [row.external_id for row in rows] == [f"<{number}@example.com>" for number in range(1, 10)]
        assert "From here on\nit goes on" in rows[6].text
        assert {row.triage for row in rows} == {TriageState.WAITING}
        assert rows[0].occurred_at.isoformat() == "2026-01-05T10:01:00+00:00"
        assert session.scalar(select(func.count()).where(Thread.unread)) == 0
    database.close()


def test_a_run_that_was_cut_off_is_started_again(tmp_path: Path) -> None:
    archive = make_mbox(tmp_path / "archive", [mail(number % 60) for number in range(60)])
    first = make_mbox(tmp_path / "part", [mail(number) for number in range(25)])
    assert run(tmp_path, first)["added"] == 25
    assert run(tmp_path, archive) == {"added": 35, "known": 25, "failed": 0}


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_in_the_middle_is_gone_on_with(tmp_path: Path, blow: signal.Signals) -> None:
    archive = make_mbox(tmp_path / "archive", [mail(number % 60, f"number {number}") for number in range(800)])
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "import", "--json", str(archive)],
        cwd=ROOT,
        env=servers.clean_environment(NOTIFYR_DATA_DIR=str(tmp_path / "var")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A run that was started in the background ignores SIGINT, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it only sets a signal
    )
    database = Database(f"sqlite:///{tmp_path / 'var' / 'notifyr.db'}")

    def some() -> bool:
        try:
            with database.reading() as session:
                return bool(session.scalar(select(func.count()).select_from(Message)))
        except StorageError:  # the tables are still being made
            return False

    servers.wait_until(some, seconds=90, what="the first mails")
    process.send_signal(blow)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (130 if blow is signal.SIGINT else -9), errors
    with database.reading() as session:
        before = session.scalar(select(func.count()).select_from(Message)) or 0
    assert 0 < before < 800
    assert run(tmp_path, archive) == {"added": 800 - before, "known": before, "failed": 0}
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Message)) == 800
    database.close()


def test_it_goes_into_the_mailbox_and_under_the_label_that_are_named_and_is_labelled_only_when_wanted(
    tmp_path: Path,
) -> None:
    (tmp_path / "1.eml").write_bytes(mail(1))
    (tmp_path / "2.eml").write_bytes(mail(2))
    assert run(tmp_path, tmp_path / "1.eml")["added"] == 1
    database = Database(f"sqlite:///{tmp_path / 'var' / 'notifyr.db'}")
    with database.transaction() as session:
        session.add(Profile(id="second", channel="email", name="Second", address="second@example.org"))
    options = ("--no-triage", "--profile", "second@example.org", "--label", "Old mail", tmp_path / "2.eml")
    assert run(tmp_path, *options)["added"] == 1
    assert run(tmp_path, *options)["known"] == 1
    with database.reading() as session:
        first, second = session.scalars(select(Message).order_by(Message.external_id)).all()
        assert (first.backfill, first.triage) == (True, TriageState.WAITING)
        assert (second.backfill, second.triage, second.profile_id) == (True, None, "second")
        assert [one.name for one in labels.of_threads(session, [second.thread_id])[second.thread_id]] == ["old-mail"]
        assert labels.of_threads(session, [first.thread_id])[first.thread_id] == []
    done = servers.notifyr(
        "import", "--profile", "nobody", str(tmp_path), env={"NOTIFYR_DATA_DIR": str(tmp_path / "var")}
    )
    assert done.returncode == 5
    assert "second@example.org" in done.stderr
    database.close()


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = servers.notifyr("import", str(tmp_path / "nothing"), env={"NOTIFYR_DATA_DIR": str(tmp_path / "var")})
    assert done.returncode == 5
    assert "no such file or folder" in done.stderr
    assert not (tmp_path / "var" / "notifyr.db").exists()


def test_odd_mails_are_taken_like_any_other(tmp_path: Path) -> None:
    corpus = Path(__file__).resolve().parents[1] / "data" / "mime"
    found = run(tmp_path, corpus)
    assert found["failed"] == 0
    assert found["added"] + found["known"] == len(list(corpus.iterdir()))
    assert run(tmp_path, corpus)["added"] == 0


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_mbox_gives_back_the_bytes_of_its_mails(tmp_path: Path, end: bytes) -> None:
    bodies = [b"From: a@example.com\n\n>From the start\n>>From that\n", b"From: b@example.com\n\nhello\n\n\n"]
    lines = [b"From a@example.com Mon Jan  5 10:00:00 2026\n" + body + b"\n" for body in bodies]
    path = tmp_path / "box"
    path.write_bytes(b"".join(lines).replace(b"\n", end))
    expected = [bodies[0].replace(b">From the", b"From the").replace(b">>From", b">From"), bodies[1]]
    assert list(mails_in([path])) == [one.replace(b"\n", end) for one in expected]


@pytest.mark.checklist(57)
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.eml").write_bytes(mail(1))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "2.eml").write_bytes(mail(2))
    (folder / "1.eml").symlink_to(tmp_path / "secret.eml")
    (folder / "loop").symlink_to(tmp_path)
    assert list(mails_in([folder])) == [mail(2)]


def test_what_cannot_be_read_is_one_line_each_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "locked").mkdir(parents=True)
    for name, number in (("1.eml", 1), ("2.eml", 2), ("4.eml", 4), ("locked/5.eml", 5)):
        (folder / name).write_bytes(mail(number))
    with (folder / "3.eml").open("wb") as huge:
        huge.truncate(5 << 30)  # a hole: it takes no room
    (folder / "2.eml").chmod(0)
    (folder / "locked").chmod(0)
    # Root reads everything; without these two rights it is a user like any other.
    limits = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*limits, sys.executable, "-m", "api.cli", "import", "--json", str(folder)],
        cwd=ROOT,
        env=servers.clean_environment(NOTIFYR_DATA_DIR=str(tmp_path / "var")),
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "locked").chmod(0o700)
    assert done.returncode == 3, done.stderr
    counts = json.loads(done.stdout)
    assert (counts["added"], counts["failed"]) == (2, 3)
    assert done.stderr.splitlines() == [
        f"{folder}/2.eml is left out: Permission denied",
        f"{folder}/3.eml is left out: it is larger than any mail (256 MB)",
        f"{folder}/locked is left out: Permission denied",
    ]


def test_a_mail_that_is_too_large_costs_no_other_mail_of_its_mbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_mail, "_LARGEST", 5000)
    monkeypatch.setattr(import_mail, "_LINE", 1000)
    # The large one is a single line, in whose middle a piece begins with what separates mails.
    path = make_mbox(tmp_path / "box", [mail(1), mail(2, "x" * 1000 + "From " * 2000), mail(3, "y" * 3000)])
    told: list[str] = []
    found = list(mails_in([path], lambda file, words: told.append(f"{file.name}: {words}")))
    assert found == [mail(1), mail(3, "y" * 3000)]
    assert [words.partition(" is ")[0] for words in told] == ["box: its mail 2"]
    assert count_mails([path]) == 3


def test_a_blob_store_that_refuses_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "1.eml").write_bytes(mail(1))
    assert run(tmp_path, tmp_path / "1.eml")["added"] == 1
    shutil.rmtree(tmp_path / "var" / "blobs" / "raw")
    (tmp_path / "var" / "blobs" / "raw").write_bytes(b"in the way")
    (tmp_path / "2.eml").write_bytes(mail(2))
    assert run(tmp_path, tmp_path / "2.eml", code=1) == {"added": 0, "known": 0, "failed": 1}
