"""The manners of every command, in one table: help, wrong words, missing files, Ctrl-C, a closed pipe, plain output.

The list of commands comes from the program, so that a new one is held to all of it.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tests.support.commands import ROOT, Ended, every_command, example_of, run_each
from tests.support.servers import clean_environment, notifyr

HEAVY = (
    "numpy", "sqlalchemy", "alembic", "litellm", "onnxruntime", "tokenizers", "llama_cpp", "torch", "transformers",
    "qdrant_client", "qdrant_edge", "celery", "kombu", "fastapi", "starlette", "uvicorn", "redis", "httpx",
)  # fmt: skip
pytestmark = pytest.mark.timeout(300)  # one run of the table serves all its tests
HOUSE = ("pipelines.container", "assistant.db.migrate", "assistant.services.access")
PROCESSES = {"run", "api", "worker", "beat", "mailboxes"}
COMMANDS = every_command()
GROUPS = {name for name, command in COMMANDS.items() if hasattr(command, "commands")}
LEAVES = sorted(set(COMMANDS) - GROUPS)

READS = {
    "import": ["/nowhere/mail.mbox"],
    "classify": ["/nowhere/mails"],
    "knowledge add": ["Title", "--file", "/nowhere/answer.txt"],
    "intents add": ["warranty_claim", "--file", "/nowhere/examples.txt"],
    "restore": ["/nowhere/backup.tar"],
    "train": ["--intents", "/nowhere/intents.json"],
    "evaluate": ["--banking", "/nowhere/train.csv"],
}
"""Command -> words that name a file which is not there."""
WRITES = {
    "classify": ["tests/data/mime", "--output", "/nowhere/labels.jsonl"],
    "backup": ["/nowhere/backup.tar"],
    "train": ["--corpus", "tests/data/mime", "--write-split", "/nowhere/split.tsv"],
}
"""Command -> words that name a file in a folder which is not there."""


def words_of(name: str) -> list[str]:
    return name.split()


@cache
def outcomes(*extra: str, how: str = "", only: str = "all") -> dict[str, Ended]:
    """Every command with the same words after it."""
    names = LEAVES if only == "leaves" else list(COMMANDS)
    ended = run_each([[*words_of(name), *extra] for name in names], how=how)
    return dict(zip(names, ended, strict=True))


def named(name: str) -> str:
    return name or "notifyr"


# -- help


@pytest.mark.parametrize("name", COMMANDS, ids=named)
def test_help_says_what_it_does_and_gives_an_example(name: str) -> None:
    done = outcomes("--help")[name]
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"Usage: notifyr {name}".strip())
    assert len(lines[2].split()) >= 3 and lines[2][2].isupper(), "one sentence, first of all"
    assert "Example: " in done.out
    assert "\x1b" not in done.out


@pytest.mark.parametrize("name", COMMANDS, ids=named)
def test_every_option_and_argument_is_explained(name: str) -> None:
    unexplained = [one.name for one in COMMANDS[name].params if not getattr(one, "help", "") and not one.is_eager]
    assert unexplained == []


@pytest.mark.parametrize("name", LEAVES)
def test_the_example_in_the_help_can_be_typed(name: str) -> None:
    command = COMMANDS[name]
    words = shlex.split(example_of(command), comments=True)
    assert words[: 1 + len(name.split())] == ["notifyr", *name.split()]
    command.make_context(name, words[1 + len(name.split()) :]).close()  # raises on an unknown word


def test_the_version_is_said_in_one_line() -> None:
    done = notifyr("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"notifyr \d+\.\d+\.\d+\S*\n", done.stdout)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, contextlib, io, api.cli\n"
        f"for name in {list(COMMANDS)!r}:\n"
        "    sys.argv = ['notifyr', *name.split(), '--help']\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): api.cli.main()\n"
        f"    print(*[f'{{name}}: {{heavy}}' for heavy in {HEAVY!r} if heavy in sys.modules], sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


# -- wrong words


@pytest.mark.parametrize("name", COMMANDS, ids=named)
def test_an_unknown_option_is_a_usage_error_with_a_hint(name: str) -> None:
    done = outcomes("--no-such-option")[name]
    assert (done.code, done.out) == (2, "")
    assert "No such option: --no-such-option" in done.err
    assert f"Try '{f'notifyr {name}'.strip()} -h' for help." in done.err


@pytest.mark.parametrize("name", LEAVES)
def test_a_usage_error_is_json_where_json_was_asked_for(name: str) -> None:
    if "--json" not in {option for one in COMMANDS[name].params for option in one.opts}:
        assert name in PROCESSES
        return
    done = outcomes("--no-such-option", "--json", only="leaves")[name]
    assert (done.code, done.out) == (2, "")
    error = json.loads(done.err)["error"]
    assert error["code"] == "usage" and error["message"].startswith("No such option: --no-such-option")


def test_what_is_nearly_a_command_is_guessed() -> None:
    wrong = [["imprt"], ["agents", "crate"], ["knowledge", "serach"], ["prepar"], ["quite-else"]]
    ended = run_each(wrong)
    assert [done.code for done in ended] == [2] * 5
    assert [done.err.partition("Did you mean ")[2].strip(" ?\n'") for done in ended] == [
        "import", "create", "search", "", "",
    ]  # fmt: skip


# -- files


@cache
def file_outcomes(kind: str, *extra: str) -> dict[str, Ended]:
    table = {"reads": READS, "writes": WRITES}[kind]
    return dict(zip(table, run_each([[*words_of(n), *table[n], *extra] for n in table]), strict=True))


@pytest.mark.parametrize("name", READS)
def test_a_missing_file_is_named_with_what_to_do_next(name: str) -> None:
    done = file_outcomes("reads")[name]
    assert (done.code, done.out) == (5, "")
    path = next(word for word in READS[name] if word.startswith("/nowhere"))
    assert done.err.startswith(f"notifyr: no such file or folder: {path}; ")
    assert json.loads(file_outcomes("reads", "--json")[name].err)["error"]["code"] == "not-found"


@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(name: str) -> None:
    done = file_outcomes("writes")[name]
    assert (done.code, done.out) == (5, "")
    assert done.err == "notifyr: no such folder: /nowhere; make it first: mkdir -p /nowhere\n"


def test_every_parameter_that_is_a_path_is_in_the_tables() -> None:
    taken = {
        "backup": {"file"}, "classify": {"paths", "output"},
        "evaluate": {"corpus", "split", "sms", "banking", "banking_test", "clinc"},
        "import": {"paths"}, "intents add": {"file"}, "knowledge add": {"file"}, "restore": {"file"},
        "train": {"corpus", "split", "sms", "clinc", "intents", "write_split"},
    }  # fmt: skip
    made = {"train": {"output"}, "evaluate": {"encoder"}}
    """Folders of the model: made, or refused by the model in its own words."""
    found: dict[str, set[str]] = {}
    for name in LEAVES:
        hints = get_type_hints(COMMANDS[name].callback)
        for one in COMMANDS[name].params:
            if "Path" in str(hints.get(one.name)):
                found.setdefault(name, set()).add(one.name)
    assert found == {name: taken.get(name, set()) | made.get(name, set()) for name in taken}
    assert set(taken) == set(READS) | set(WRITES)


def test_text_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    lines = [["knowledge", "add", "Title", "--file", str(one)] for one in (tmp_path, tmp_path / "picture.png")]
    folder, picture = run_each(lines, NOTIFYR_DATA_DIR=str(tmp_path / "var"))
    assert folder.code == picture.code == 2
    assert "Is a directory; name a text file" in folder.err and "it is not UTF-8 text" in picture.err


# -- the end


@cache
def interrupted() -> dict[str, Ended]:
    lines = [shlex.split(example_of(COMMANDS[name]), comments=True)[1:] for name in LEAVES]
    functions = [COMMANDS[name].callback.__name__ for name in LEAVES]
    return dict(zip(LEAVES, run_each(lines, how="interrupted", functions=functions), strict=True))


@pytest.mark.parametrize("name", LEAVES)
def test_ctrl_c_ends_with_130_and_a_sentence(name: str) -> None:
    done = interrupted()[name]
    words = "interrupted; what was finished is kept"
    assert (done.code, done.out) == (130, "")
    assert words in done.err and "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS, ids=named)
def test_a_reader_that_has_gone_is_no_fault(name: str) -> None:
    done = outcomes("--help", how="closed")[name]
    assert (done.code, done.err) == (141, "")


def test_data_for_a_reader_that_has_gone_is_no_fault_either(tmp_path: Path) -> None:
    lists = [["config", "show"], ["config", "show", "--json"], ["migrate"], ["keys", "list", "--json"]]
    for done in run_each(lists, how="closed", NOTIFYR_DATA_DIR=str(tmp_path)):
        assert (done.code, done.err) == (141, "") or (done.code, done.out) == (0, "")


# -- what is printed


def test_json_is_one_document_on_standard_output_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "answer.txt").write_text("We ship within two days.")
    (tmp_path / "one.eml").write_text("From: a@example.org\nMessage-ID: <1@example.org>\nSubject: Hello\n\nHello\n")
    env = {"NOTIFYR_DATA_DIR": str(tmp_path / "var")}
    first = [
        ["config", "check"],
        ["config", "show"],
        ["migrate"],
        ["prepare"],
        ["agents", "create", "bo@example.org", "--admin"],
        ["agents", "list"],
        ["agents", "link", "bo@example.org"],
        ["keys", "create", "export", "--scope", "threads:read"],
        ["keys", "list"],
        ["knowledge", "add", "Shipping", "--file", str(tmp_path / "answer.txt")],
        ["knowledge", "list"],
        ["intents", "list"],
        ["import", str(tmp_path / "one.eml")],
        ["classify", str(tmp_path / "one.eml"), "--labels", "spam", "--output", str(tmp_path / "labels.jsonl")],
        ["backup", str(tmp_path / "backup.tar")],
    ]
    said = _documents(first, env)
    key, document = said["keys create"]["id"], said["knowledge add"]["id"]
    _documents(
        [
            ["keys", "revoke", key],
            ["knowledge", "disable", document],
            ["knowledge", "enable", document],
            ["keys", "create", "other", "--scope", "threads:read"],
            ["agents", "disable", "bo@example.org"],
        ],
        env,
    )
    _documents([["restore", str(tmp_path / "backup.tar")]], {"NOTIFYR_DATA_DIR": str(tmp_path / "other")})


def _documents(lines: list[list[str]], env: dict[str, str]) -> dict[str, Any]:
    said = {}
    for words, done in zip(lines, run_each([[*words, "--json"] for words in lines], modules=HOUSE, **env), strict=True):
        assert done.code == 0, (words, done)
        assert _without_logs(done.err) == "", words
        said[" ".join(words[:2])] = json.loads(done.out)
    return said


def _without_logs(text: str) -> str:
    """Migrations are logged, and `prepare` logs as the processes do."""
    return "".join(line for line in text.splitlines() if "migrating" not in line and "@timestamp" not in line)


@pytest.mark.parametrize("words", [["--help"], ["config", "show"], ["import", "--help"], ["fly"]], ids=" ".join)
def test_a_terminal_without_colour_gets_none(tmp_path: Path, words: list[str]) -> None:
    shown, _ = on_terminal(words, out=True, err=True, NO_COLOR="1", NOTIFYR_DATA_DIR=str(tmp_path))
    assert shown and "\x1b" not in shown


def test_a_bar_is_drawn_on_the_terminal_of_standard_error_and_nowhere_else(tmp_path: Path) -> None:
    mails = tmp_path / "mails"
    mails.mkdir()
    for number in range(3):
        (mails / f"{number}.eml").write_text(f"From: a@example.org\nMessage-ID: <{number}@example.org>\n\nHello\n")
    words = ["import", str(mails)]
    env = {"NOTIFYR_DATA_DIR": str(tmp_path / "var")}
    drawn, out = on_terminal(words, out=False, err=True, NO_COLOR="1", TERM="xterm", **env)
    assert "importing" in drawn and "3/3" in drawn
    assert "importing" not in out and "3 mails added" in out
    assert "\x1b[3" not in drawn, "no colour"
    for quiet in (["--json"], []):
        drawn, _ = on_terminal([*words, *quiet], out=False, err=True, TERM="xterm" if quiet else "dumb", **env)
        assert "importing" not in drawn
    piped = notifyr(*words, env=env)
    assert (piped.returncode, piped.stderr) == (0, "") and "\x1b" not in piped.stdout


def on_terminal(words: list[str], *, out: bool, err: bool, **env: str) -> tuple[str, str]:
    """What a terminal was sent, and what went to a pipe instead of it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", *words],
        cwd=ROOT,
        env=clean_environment(**{"COLUMNS": "100", **env}),
        stdin=subprocess.DEVNULL,
        stdout=theirs if out else subprocess.PIPE,
        stderr=theirs if err else subprocess.PIPE,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the terminal ends with its last writer
            break
        shown += part
    piped, _ = process.communicate(timeout=60)
    os.close(ours)
    return shown.decode(), (piped or b"").decode()
