"""`notifyr classify`: every kind of file, one line a message, odd rows that cost only themselves, and no server."""

from __future__ import annotations

import json
import mailbox
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api import console
from api.cli import create_app, exit_code
from api.commands.classify import count_items, items_in
from api.commands.common import PARTLY
from assistant.errors import NotifyrError
from assistant.settings import ROOT
from assistant.values import Label
from models.heads.labeller import Labeller

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


def test_what_a_text_hides_is_told_beside_the_score_of_spam(run: Any, tmp_path: Path) -> None:
    texts = ["Fr\u0435\u0435 v\u0456\u0430gr\u0430, order now", "fr\u200bee", "Where is my order?"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    lines, _ = run(tmp_path / "in.jsonl", "--labels", "spam")
    told = [line["labels"]["spam"].get("reasons") for line in lines]
    assert told == [["mixes alphabets inside a word"], ["has invisible characters inside words"], None]
    (tmp_path / "in.csv").write_text(f"text\n{texts[0]}\n", encoding="utf-8")
    lines, _ = run(tmp_path / "in.csv", "--labels", "intent,spam")
    assert lines[0]["labels"]["spam"]["reasons"] == ["mixes alphabets inside a word"]
    assert "reasons" not in lines[0]["labels"]["intent"]


def test_only_the_heads_asked_for_are_given(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    lines, _ = run(tmp_path / "in.jsonl", "--labels", "spam")
    assert set(lines[0]["labels"]) == {"spam"}


def noise(folder: Path) -> Path:
    """Four files that only their names call mails: every byte in turn, random ones, zeros, and nothing."""
    folder.mkdir()
    (folder / "bytes.eml").write_bytes(bytes(range(256)) * 64)
    (folder / "nothing.eml").write_bytes(b"")
    (folder / "random.eml").write_bytes(random.Random(7).randbytes(16_384))
    (folder / "zeros.eml").write_bytes(bytes(16_384))
    return folder


def test_files_of_random_bytes_have_one_line_with_labels_each_and_nothing_failed(run: Any, tmp_path: Path) -> None:
    lines, code = run(noise(tmp_path / "mails"))
    assert [line["id"] for line in lines] == ["bytes.eml", "nothing.eml", "random.eml", "zeros.eml"]
    for line in lines:
        assert set(line) == {"id", "file", "labels"} and set(line["labels"]) == {"spam", "intent"}
        assert all(0 <= found["score"] <= 1 for found in line["labels"].values())
    assert code == 0


def test_the_exit_code_tells_whether_none_some_or_all_mails_failed(run: Any, tmp_path: Path) -> None:
    folder = noise(tmp_path / "mails")
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(400))
    (folder / "deep.eml").write_bytes(b"Subject: deep\r\n" + deep + b"\r\nend\r\n")
    lines, code = run(folder)
    failed = [line["id"] for line in lines if "error" in line]
    assert (len(lines), failed, code) == (5, ["deep.eml"], PARTLY)
    lines, code = run(folder / "deep.eml")
    assert [line["labels"] for line in lines] == [{}] and lines[0]["error"] and code == 1


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


# -- scores


def labels_with(monkeypatch: pytest.MonkeyPatch, *labels: Label) -> None:
    """Every text gets these."""

    def classify(self: Labeller, texts: Sequence[str], clues: Any = (), *, heads: Any = ()) -> list[list[Label]]:
        return [[Label("spam:ham", 0.9), Label("spam:spam", 0.1), *labels] for _ in texts]

    monkeypatch.setattr(Labeller, "classify", classify)


def test_other_has_the_probability_of_no_intent_and_not_that_of_the_best_one(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')

    def said(*labels: Label) -> dict[str, Any]:
        labels_with(monkeypatch, *labels)
        lines, _ = run(tmp_path / "in.jsonl")
        found: dict[str, Any] = lines[0]["labels"]["intent"]
        return found

    refund = Label("intent:refund", 0.45)
    assert said(refund, Label("intent:billing", 0.2), Label("intent:other", 0.35)) == {"label": "other", "score": 0.35}
    assert said(refund, Label("intent:billing", 0.2)) == {"label": "other", "score": 0.35}, "what the others leave"
    assert said(Label("intent:refund", 0.6), Label("intent:other", 0.3)) == {"label": "refund", "score": 0.6}
    assert said(Label("intent:other", 0.8), Label("intent:refund", 0.1)) == {"label": "other", "score": 0.8}


def test_the_score_of_spam_is_that_of_being_spam_whatever_the_label(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (SPAM, QUESTION)))
    (spam, ham), _ = run(tmp_path / "in.jsonl", "--labels", "spam")
    assert (spam["labels"]["spam"]["label"], ham["labels"]["spam"]["label"]) == ("spam", "ham")
    assert ham["labels"]["spam"]["score"] < 0.5 < spam["labels"]["spam"]["score"] <= 1


# -- odd texts


ODD = {
    "ten megabytes": "Please look at the order again. " * 330_000,
    "binary": bytes(range(256)).decode("latin-1") * 30,
    "empty": "",
    "spaces": " \n\t ",
    "right to left": "أين طلبي؟ لم يصل بعد، من فضلك ساعدني",
    "overridden": "please \u202egnp.exe\u202c open it",
    "emoji": "🎉🎁🔥" * 40,
    "mixed languages": "Hello 你好 привет שלום नमस्ते, wo ist meine Bestellung? Où est-elle?",
    "half a character": "before \ud800 after, and where is my order",
}


def test_odd_texts_have_a_line_each_with_probabilities_and_stop_nothing(run: Any, tmp_path: Path) -> None:
    rows = [{"id": name, "text": text} for name, text in ODD.items()]
    rows.append({"id": "half \udc80 name", "subject": "half \ud83d", "text": QUESTION})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines, code = run(tmp_path / "in.jsonl", "--labels", "spam,intent,language,optout,urgency,sentiment,reply_intent")
    assert code == 0 and not [line for line in lines if "error" in line]
    assert [line["id"] for line in lines] == [*ODD, "half \ufffd name"]
    assert all(0 <= one["score"] <= 1 for line in lines for one in line["labels"].values())
    assert lines[-1]["labels"]["intent"]["label"] == "order_status"


def test_what_a_mail_hides_does_not_decide_and_a_mail_of_pictures_is_labelled(run: Any, tmp_path: Path) -> None:
    hidden = f'<p>{QUESTION}</p><div style="display:none">{SPAM * 5}</div>'
    for name, html in (("hidden", hidden), ("plain", f"<p>{QUESTION}</p>"), ("picture", '<img src="cid:a">')):
        head = "From: ada@example.org\r\nTo: b@example.org\r\nSubject: Order\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
        (tmp_path / f"{name}.eml").write_text(head + html)
    lines, code = run(*[tmp_path / f"{name}.eml" for name in ("hidden", "plain", "picture")])
    assert code == 0 and len(lines) == 3
    assert lines[0]["labels"]["intent"] == lines[1]["labels"]["intent"]
    (item,) = items_in([tmp_path / "hidden.eml"])
    assert "WINNER" not in item.text and "hidden-text" in item.clues


def test_a_text_that_the_model_breaks_on_costs_only_itself(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Labeller.classify

    def classify(self: Labeller, texts: Sequence[str], *more: Any, **named: Any) -> list[list[Label]]:
        if any("poison" in text for text in texts):
            raise ZeroDivisionError("in the middle of a batch")
        return whole(self, texts, *more, **named)

    monkeypatch.setattr(Labeller, "classify", classify)
    rows = [{"text": f"{'poison' if n == 5 else 'hello'} {n}"} for n in range(9)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines, code = run(tmp_path / "in.jsonl")
    assert code == 3 and [line["id"] for line in lines if "error" in line] == ["6"]
    assert lines[5]["error"] == "it could not be labelled (ZeroDivisionError: in the middle of a batch)"


# -- files that cannot be read


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.eml"])
def test_a_file_that_cannot_be_read_is_a_line_with_an_error(run: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")  # as root there is no file without the right to read it
    (tmp_path / "good.jsonl").write_text('{"text": "hello"}\n')
    lines, code = run(tmp_path / name, tmp_path / "good.jsonl")
    assert code == 3 and [("error" in line) for line in lines] == [True, False]
    assert lines[0]["id"] == name and lines[0]["file"] == str(tmp_path / name) and lines[0]["labels"] == {}
    assert "cannot be read" in lines[0]["error"]


def test_one_bad_file_in_a_maildir_leaves_the_others_and_their_order(run: Any, tmp_path: Path) -> None:
    for part in ("cur", "new", "tmp"):
        (tmp_path / "md" / part).mkdir(parents=True)
    (tmp_path / "md" / "cur" / "1").write_bytes(mail("Order", QUESTION))
    (tmp_path / "md" / "cur" / "2").symlink_to("/proc/self/mem")
    (tmp_path / "md" / "cur" / "3").write_bytes(mail("Order", QUESTION))
    lines, code = run(tmp_path / "md")
    assert code == 3 and [line["id"] for line in lines] == ["cur/1", "cur/2", "cur/3"]
    assert ["error" in line for line in lines] == [False, True, False]


def test_a_line_that_never_ends_is_told_and_the_next_one_is_read(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.commands.classify._LINE", 100)
    (tmp_path / "in.jsonl").write_text('{"text": "' + "a" * 1000 + '"}\n\n{"text": "hello"}')
    lines, code = run(tmp_path / "in.jsonl")
    assert code == 3 and [line["id"] for line in lines] == ["1", "3"] and "longer than" in lines[0]["error"]


# -- the bar


def test_the_bar_knows_how_many_there_are_and_counting_agrees_with_reading(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{broken\n{"text": "b"}')
    (tmp_path / "b.csv").write_text('id,text\n1,"two\nlines"\n\n2,x\n')
    (tmp_path / "mails").mkdir()
    (tmp_path / "mails" / "one.eml").write_bytes(mail("Order", QUESTION))
    box = mailbox.mbox(tmp_path / "mails" / "box.mbox")
    for number in (3, 4):
        box.add(mail("Hello", f"A question, number {number}", number))
    box.close()
    paths = [tmp_path / "a.jsonl", tmp_path / "b.csv", tmp_path / "mails"]
    assert count_items(paths) == len(list(items_in(paths))) == 8
    drawn = console.progress()
    drawn.disable = False
    monkeypatch.setattr(console, "progress", lambda *, quiet=False: drawn)
    run(*paths)
    assert [(task.total, task.completed) for task in drawn.tasks] == [(8, 8)]


# -- the file that is written


def test_a_run_that_breaks_off_leaves_what_was_there_before(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n' * 300)
    (tmp_path / "labels.jsonl").write_text('{"id": "of an earlier run"}\n')
    monkeypatch.setattr("api.commands.classify._write", lambda sink, line: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        run(tmp_path / "in.jsonl")
    assert (tmp_path / "labels.jsonl").read_text() == '{"id": "of an earlier run"}\n'
    assert not list(tmp_path.glob(".labels*")), "no half file is left behind"


def test_a_file_may_be_written_over_the_one_that_is_read_and_a_pipe_stays_one(run: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"text": "hello"}\n')
    lines, code = run(tmp_path / "labels.jsonl")
    assert code == 0 and lines[0]["labels"]["spam"]["label"] == "ham"
    done = CliRunner().invoke(
        create_app(), ["classify", str(tmp_path / "in.jsonl"), "--output", "/dev/null", "--labels", "spam"]
    )
    assert isinstance(done.exception, NotifyrError)
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    done = CliRunner().invoke(
        create_app(), ["classify", str(tmp_path / "in.jsonl"), "--output", "/dev/null", "--labels", "spam"]
    )
    assert done.exit_code == 0 and Path("/dev/null").is_char_device()


def test_an_interrupted_program_says_that_nothing_was_written(tmp_path: Path) -> None:
    rows = (json.dumps({"id": n, "text": f"{QUESTION} {n} " * 40}) for n in range(6000))
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    output = tmp_path / "labels.jsonl"
    words = ["classify", str(tmp_path / "in.jsonl"), "--output", str(output)]
    with subprocess.Popen(
        [sys.executable, "-m", "api.cli", *words],
        cwd=ROOT,
        env=os.environ | {"NOTIFYR_DATA_DIR": str(tmp_path / "var")},
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        ends = time.monotonic() + 120
        while not list(tmp_path.glob(".labels.jsonl.*.part")) and time.monotonic() < ends:
            time.sleep(0.05)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=120)
    assert program.returncode == 130
    assert "labels.jsonl is as it was before" in said
    assert [path.name for path in tmp_path.iterdir() if "labels" in path.name] == []


# -- a model that is not whole


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the encoder's folder that may be spoilt, in use."""
    folder = Path(shutil.copytree(ROOT / "deploy/weights/encoder", tmp_path / "encoder"))
    monkeypatch.setenv("NOTIFYR_ENCODER", f"onnx:{folder}")
    return folder


def test_a_head_that_says_nothing_is_refused_at_once_with_the_way_to_mend_it(
    run: Any, tmp_path: Path, weights: Path
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    (weights / "labels" / "labels.npz").write_bytes(b"cut")
    done = CliRunner().invoke(create_app(), ["classify", str(tmp_path / "in.jsonl")])
    assert isinstance(done.exception, NotifyrError)
    assert "notifyr train --only labels" in str(done.exception) and "--labels spam" in str(done.exception)
    lines, code = run(tmp_path / "in.jsonl", "--labels", "spam")
    assert code == 0 and set(lines[0]["labels"]) == {"spam"}


def test_without_the_network_spam_is_told_by_words_and_the_program_says_so(
    run: Any, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (weights / "model.onnx").unlink()
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (SPAM, QUESTION)))
    said: list[str] = []
    monkeypatch.setattr(console, "error", said.append)
    lines, code = run(tmp_path / "in.jsonl", "--labels", "spam")
    assert code == 3, "a part of the work"
    assert [line["labels"]["spam"]["label"] for line in lines] == ["spam", "ham"]
    assert len(said) == 1 and "by its words alone" in said[0] and "notifyr train" in said[0]


def test_a_text_message_without_its_judge_is_a_line_with_an_error(run: Any, tmp_path: Path, weights: Path) -> None:
    (weights / "heads.npz").write_bytes(b"cut")
    rows = [{"text": "hello, see you at eight"}, {"subject": "Order", "text": QUESTION}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines, code = run(tmp_path / "in.jsonl", "--labels", "spam")
    assert code == 3 and "heads.npz" in lines[0]["error"] and lines[1]["labels"]["spam"]["label"] == "ham"
