"""`notifyr classify`: every kind of file, one line a message, odd rows that cost only themselves, and no server."""

from __future__ import annotations

import json
import mailbox
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import create_app, exit_code
from assistant.errors import NotifyrError

SPAM = "WINNER!! Claim your free $1000 prize now, call 09061701461 before midnight. 100% free cash, no risk!"
QUESTION = "Hello, my parcel should have arrived on Monday. Where is my order 48213?"


def mail(subject: str, text: str, number: int = 1) -> bytes:
    return (
        f"From: ada{number}@example.org\r\nTo: support@example.org\r\nSubject: {subject}\r\n"
        f"Message-ID: <{number}@example.org>\r\n\r\n{text}\r\n"
    ).encode()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it; gives the lines and the exit code."""
    monkeypatch.setenv("NOTIFYR_DATA_DIR", str(tmp_path / "var"))

    def call(*words: str | Path) -> tuple[list[dict[str, Any]], int]:
        output = tmp_path / "labels.jsonl"
        done = CliRunner().invoke(create_app(), ["classify", *map(str, words), "--output", str(output)])
        if isinstance(done.exception, NotifyrError):
            return [], exit_code(done.exception)  # as `main` does
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        lines = output.read_text().splitlines() if output.exists() else []
        return [json.loads(line) for line in lines], done.exit_code

    return call


def test_jsonl_gives_one_line_a_row_with_the_probability_of_being_spam(run: Any, tmp_path: Path) -> None:
    rows = [{"id": "a", "text": SPAM}, {"id": 7, "subject": "Order", "text": QUESTION}, {"text": "Thanks!"}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    lines, code = run(tmp_path / "in.jsonl")
    assert code == 0
    assert [line["id"] for line in lines] == ["a", "7", "3"]
    assert lines[0]["labels"]["spam"]["label"] == "spam"
    assert lines[0]["labels"]["spam"]["score"] > 0.5
    assert lines[1]["labels"]["spam"]["label"] == "ham"
    assert lines[1]["labels"]["spam"]["score"] < 0.5
    assert lines[1]["labels"]["intent"]["label"] == "order_status"
    assert "error" not in lines[0]


def test_a_row_that_cannot_be_read_costs_only_itself(run: Any, tmp_path: Path) -> None:
    content = [
        '{"id": "good", "text": "hello"}',
        "{broken",
        '{"id": "none"}',
        "[1, 2]",
        '{"id": "x", "text": 5}',
        "[" * 9999,
    ]
    (tmp_path / "in.jsonl").write_bytes("\n".join(content).encode() + b'\n{"id": "bytes", "text": "caf\xe9"}')
    lines, code = run(tmp_path / "in.jsonl")
    assert code == 3
    assert [line["id"] for line in lines] == ["good", "2", "none", "4", "x", "6", "bytes"]
    assert [bool(line.get("error")) for line in lines] == [False, True, True, True, True, True, False]
    assert all(line["labels"] == {} for line in lines if "error" in line)


def test_csv_with_quotes_and_a_byte_order_mark_is_read(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(
        '\ufeffid,subject,text\r\n1,Order,"Where is it?\r\nI have waited ""long""."\r\n2,,\r\n'.encode()
    )
    lines, code = run(tmp_path / "in.csv")
    assert code == 0
    assert [line["id"] for line in lines] == ["1", "2"]


def test_csv_without_a_text_column_says_so_for_each_row(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,body\n1,hello\n")
    lines, code = run(tmp_path / "in.csv")
    assert code == 1
    assert "no text" in lines[0]["error"]


def test_mails_of_a_folder_an_mbox_and_a_maildir_are_labelled(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.eml").write_bytes(mail("Order", QUESTION))
    (folder / "deep" / "two.eml").write_bytes(mail("Winner", SPAM, 2))
    box = mailbox.mbox(tmp_path / "box.mbox")
    for number in (3, 4):
        box.add(mail("Hello", f"A question, number {number}", number))
    box.close()
    maildir = mailbox.Maildir(tmp_path / "md", create=True)
    maildir.add(mail("Hello", QUESTION, 5))
    lines, code = run(folder, tmp_path / "box.mbox", tmp_path / "md")
    assert code == 0
    assert len(lines) == 5
    assert {line["id"] for line in lines} >= {"one.eml", "deep/two.eml", "box.mbox#1", "box.mbox#2"}
    assert all(Path(line["file"]).exists() for line in lines)
    spam = next(line for line in lines if line["id"] == "deep/two.eml")
    assert spam["labels"]["spam"]["label"] == "spam"


def test_quoted_history_does_not_decide(run: Any, tmp_path: Path) -> None:
    quoted = "\n".join(f"> {SPAM}" for _ in range(5))
    (tmp_path / "reply.eml").write_bytes(
        mail(
            "Re: hello", f"Thank you, Tuesday at three suits me well.\n\nOn Monday Bo <bo@example.org> wrote:\n{quoted}"
        )
    )
    lines, _ = run(tmp_path / "reply.eml")
    assert lines[0]["labels"]["spam"]["label"] == "ham"


def test_only_the_heads_asked_for_are_given(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    lines, _ = run(tmp_path / "in.jsonl", "--labels", "spam")
    assert set(lines[0]["labels"]) == {"spam"}


def test_a_mail_of_random_bytes_is_labelled_or_says_why_not(run: Any, tmp_path: Path) -> None:
    (tmp_path / "noise.eml").write_bytes(bytes(range(256)) * 64)
    lines, code = run(tmp_path / "noise.eml")
    assert len(lines) == 1
    assert code in (0, 1)


def test_the_same_file_gives_the_same_lines(run: Any, tmp_path: Path) -> None:
    rows = [{"id": n, "text": (SPAM if n % 2 else QUESTION) + f" {n}"} for n in range(150)]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    first, _ = run(tmp_path / "in.jsonl")
    again, _ = run(tmp_path / "in.jsonl")
    assert first == again
    assert [line["id"] for line in first] == [str(n) for n in range(150)]


@pytest.mark.parametrize(("words", "code"), [(["--labels", "colour"], 2), (["--labels", ""], 2), ([], 5)])
def test_wrong_use_is_said_before_anything_is_read(run: Any, tmp_path: Path, words: list[str], code: int) -> None:
    path = tmp_path / "in.jsonl"
    if words:
        path.write_text('{"text": "hello"}\n')
    assert run(path, *words) == ([], code)
