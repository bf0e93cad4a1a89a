"""The command line: its manners, its configuration commands, and how errors become words and exit codes."""

from __future__ import annotations

import json
import os
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import typer

from api import startup
from api.cli import COMMANDS, create_app, exit_code
from api.console import without_secrets
from assistant import errors
from assistant.backends.bus import Bus
from assistant.settings import ROOT, Settings
from assistant.values import Address, InboundMessage
from channels.support import mime
from tests.support.servers import PostgresServer, clean_environment, notifyr

PROCESSES = {"run", "api", "worker", "beat", "mailboxes"}
"""They run until they are stopped and print logs; `run` has --json all the same."""


def tree() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    root = typer.main.get_command(create_app())
    context = root.make_context("notifyr", ["config"], resilient_parsing=True)
    for name in COMMANDS:
        command = root.get_command(context, name)  # type: ignore[attr-defined]
        for child, part in getattr(command, "commands", {}).items():
            yield f"{name} {child}", part
        if not getattr(command, "commands", None):
            yield name, command


def test_every_command_is_where_the_table_says() -> None:
    found = dict(tree())
    assert all(found.values())
    assert {name.split()[0] for name in found} == set(COMMANDS)


def test_every_command_has_help_with_an_example() -> None:
    lacking = [name for name, command in tree() if "Example: " not in (command.help or "")]
    assert lacking == []


def test_every_command_that_ends_by_itself_prints_json_on_request() -> None:
    lacking = [
        name
        for name, command in tree()
        if name not in PROCESSES and "--json" not in {option for p in command.params for option in p.opts}
    ]
    assert lacking == []


def test_help_is_quick_and_plain(tmp_path: Path) -> None:
    notifyr("--help")  # compiles what has to be compiled
    # In turns, so that others' work falls on both alike.
    turns = [(_cpu_of(_bare), _cpu_of(_help)) for _ in range(10)]
    bare, best = (min(one) for one in zip(*turns, strict=True))
    # Processor time against an empty interpreter on the same machine: about 100 ms where that takes 15.
    assert best < 10 * bare, f"{best * 1000:.0f} ms of processor time, an empty interpreter takes {bare * 1000:.0f}"


def _cpu_of(act: Callable[[], None]) -> float:
    before = os.times()
    act()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _bare() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def _help() -> None:
    done = notifyr("--help")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert all(name in done.stdout for name in COMMANDS if name != "prepare")


def test_an_unknown_command_is_a_usage_error() -> None:
    assert notifyr("fly").returncode == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotAuthenticated, 4),
        (errors.NotAllowed, 4),
        (errors.NotFound, 5),
        (errors.Conflict, 6),
        (errors.PreconditionFailed, 6),
        (errors.InvalidInput, 2),
        (errors.StorageError, 7),
        (errors.ModelError, 7),
        (errors.ChannelError, 7),
        (errors.NotifyrError, 1),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(error: type[errors.NotifyrError], code: int) -> None:
    assert exit_code(error("words")) == code


# -- configuration


def test_a_valid_configuration_is_said_to_be_valid(tmp_path: Path) -> None:
    done = notifyr("config", "check", env={"NOTIFYR_DATA_DIR": str(tmp_path)})
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "The configuration is valid.")


def test_all_problems_are_listed_at_once_and_no_value_is_repeated(tmp_path: Path) -> None:
    env = {
        "NOTIFYR_DATA_DIR": str(tmp_path),
        "NOTIFYR_PORT": "99999",
        "NOTIFYR_SECRET_KEY": "short-but-secret",
        "NOTIFYR_LOG_LEVEL": "loud",
        "NOTIFYR_PROT": "1",
    }
    done = notifyr("config", "check", "--json", env=env)
    assert done.returncode == 2
    problems = json.loads(done.stderr)["error"]["problems"]
    for name in ("NOTIFYR_PORT", "NOTIFYR_SECRET_KEY", "NOTIFYR_LOG_LEVEL", "NOTIFYR_PROT"):
        assert any(name in problem for problem in problems), name
    assert "short-but-secret" not in done.stdout + done.stderr


def test_a_listener_beyond_this_machine_needs_a_secret(tmp_path: Path) -> None:
    env = {"NOTIFYR_DATA_DIR": str(tmp_path), "NOTIFYR_HOST": "0.0.0.0", "NOTIFYR_PUBLIC_URL": "https://a.example"}
    refused = notifyr("config", "check", env=env)
    assert refused.returncode == 2
    assert "NOTIFYR_SECRET_KEY" in refused.stderr
    assert notifyr("config", "check", env={**env, "NOTIFYR_SECRET_KEY": "s" * 32}).returncode == 0


def test_show_tells_where_each_value_comes_from_and_masks_secrets(tmp_path: Path) -> None:
    env = {
        "NOTIFYR_DATA_DIR": str(tmp_path),
        "NOTIFYR_SECRET_KEY": "k" * 40,
        "NOTIFYR_RELAY_URL": "smtp://bo:hunter2@relay.example:587",
        "NOTIFYR_DATABASE_URL": "postgresql+psycopg://notifyr:hunter2@db/notifyr",
    }
    plain = notifyr("config", "show", env=env)
    document = notifyr("config", "show", "--json", env=env)
    rows = json.loads(document.stdout)
    assert set(rows) == {f"NOTIFYR_{name.upper()}" for name in Settings.model_fields}
    assert rows["NOTIFYR_SECRET_KEY"]["value"] == "***"
    assert rows["NOTIFYR_SECRET_KEY"]["source"] == "environment"
    assert rows["NOTIFYR_RELAY_URL"]["value"] == "smtp://bo:***@relay.example:587"
    assert rows["NOTIFYR_PORT"]["source"] == "default"
    for output in (plain.stdout, document.stdout):
        assert "hunter2" not in output
        assert "kkkk" not in output


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("redis://:pass@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("amqp://u:p@ss:w@h//", "amqp://u:***@h//"),
        ("https://token@h/", "https://***@h/"),
        ("s3://bucket/prefix?secret=x", "s3://bucket/prefix?***"),
        ("no url at all", "***"),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(secret: str, shown: str) -> None:
    assert without_secrets(secret) == shown


def test_a_setting_that_lists_things_is_read_from_the_environment(tmp_path: Path) -> None:
    env = {"NOTIFYR_ALLOWED_HOSTS": "a.example, b.example", "NOTIFYR_TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8"}
    rows = json.loads(notifyr("config", "show", "--json", env={"NOTIFYR_DATA_DIR": str(tmp_path), **env}).stdout)
    assert rows["NOTIFYR_ALLOWED_HOSTS"]["value"] == "a.example,b.example"
    assert rows["NOTIFYR_TRUSTED_PROXIES"]["value"] == "127.0.0.1,10.0.0.0/8"
    wrong = notifyr("config", "check", env={"NOTIFYR_TRUSTED_PROXIES": "proxy"})
    assert wrong.returncode == 2 and "NOTIFYR_TRUSTED_PROXIES: takes addresses and networks" in wrong.stderr


def test_a_data_folder_that_cannot_be_written_is_a_problem_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = notifyr("config", "check", env={"NOTIFYR_DATA_DIR": str(tmp_path / "file" / "var")})
    assert done.returncode == 2
    assert "NOTIFYR_DATA_DIR: cannot write" in done.stderr


# -- the start


@pytest.mark.parametrize("words", [["run"], ["migrate"], ["agents", "list"]], ids=" ".join)
def test_a_folder_that_cannot_be_written_stops_a_command_with_a_way_out(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    done = notifyr(*words, env={"NOTIFYR_DATA_DIR": str(tmp_path / "file" / "var")})
    assert (done.returncode, done.stdout) == (2, "")
    assert "NOTIFYR_DATA_DIR: cannot write in" in done.stderr and "name another" in done.stderr


def test_an_address_of_another_machine_is_refused_in_words(tmp_path: Path) -> None:
    env = {"NOTIFYR_DATA_DIR": str(tmp_path), "NOTIFYR_SECRET_KEY": "s" * 32, "NOTIFYR_HOST": "203.0.113.5"}
    env["NOTIFYR_PUBLIC_URL"] = "https://a.example"
    done = notifyr("run", env=env)
    assert done.returncode == 2
    assert "NOTIFYR_HOST: cannot listen on 203.0.113.5" in done.stderr and "Traceback" not in done.stderr


def test_a_database_of_another_kind_is_a_setting_that_is_wrong() -> None:
    for url in ("nonsense", "mysql://user:hunter2@host/name"):
        done = notifyr("migrate", env={"NOTIFYR_DATABASE_URL": url})
        assert done.returncode == 2
        assert "NOTIFYR_DATABASE_URL: takes postgresql+psycopg://" in done.stderr and "hunter2" not in done.stderr


def test_a_database_that_is_away_stops_the_start_and_the_migration_in_words(tmp_path: Path) -> None:
    env = {"NOTIFYR_DATA_DIR": str(tmp_path), "NOTIFYR_DATABASE_URL": "postgresql+psycopg://x:y@127.0.0.1:1/z"}
    for words in (["migrate"], ["prepare"]):
        done = notifyr(*words, env=env)
        assert done.returncode == 7
        assert "the database refused" in done.stderr and "Traceback" not in done.stderr


def test_what_the_last_run_said_of_its_models_is_forgotten_before_the_next(tmp_path: Path, valkey_url: str) -> None:
    with closing(Bus(valkey_url)) as bus:
        bus.set_model("encoder", state="ready", name="of the last run", reason="", at="")
        env = {"NOTIFYR_DATA_DIR": str(tmp_path), "NOTIFYR_REDIS_URL": valkey_url}
        assert notifyr("prepare", env=env).returncode == 0
        assert bus.models() == {}


def test_a_database_without_tables_says_which_command_makes_them(postgres: PostgresServer) -> None:
    postgres.execute("DROP DATABASE IF EXISTS empty_one")
    postgres.execute("CREATE DATABASE empty_one")
    done = notifyr("agents", "list", env={"NOTIFYR_DATABASE_URL": postgres.url("empty_one")})
    assert done.returncode == 2
    assert "the database has no tables yet; make them: notifyr migrate" in done.stderr
    postgres.execute("DROP DATABASE empty_one WITH (FORCE)")


@pytest.mark.checklist(68)
def test_this_interpreter_passes_every_behaviour_check() -> None:
    assert startup.interpreter() == []
    assert len(startup.INTERPRETER_CHECKS) >= 7


@pytest.mark.checklist(68)
def test_an_interpreter_without_assertions_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "api.cli", "config", "check"],
        cwd=ROOT,
        env=clean_environment(NOTIFYR_DATA_DIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "start without -O" in done.stderr


@pytest.mark.checklist(68)
@pytest.mark.parametrize("process", ["api", "worker", "beat", "mailboxes"])
def test_no_process_starts_on_a_python_that_fails_a_check(tmp_path: Path, process: str) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "api.cli", process],
        cwd=ROOT,
        env=clean_environment(NOTIFYR_DATA_DIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2 and "start without -O" in done.stderr


@pytest.mark.checklist(68)
@pytest.mark.parametrize("check", startup.INTERPRETER_CHECKS, ids=lambda check: check.__name__)
def test_each_behaviour_that_is_wrong_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[], str]
) -> None:
    others = [one for one in startup.INTERPRETER_CHECKS if one is not check]
    monkeypatch.setattr(startup, "INTERPRETER_CHECKS", (*others, lambda: f"{check.__name__} is wrong"))
    with pytest.raises(errors.ConfigurationError, match=f"{check.__name__} is wrong"):
        startup.require_interpreter()


def _kills(*_: object, **__: object) -> InboundMessage:
    raise IndexError


def _reads_one_sender(*_: object, **__: object) -> InboundMessage:
    return InboundMessage("email", "<1@x>", Address("email", "alice@example.org"), (), "", "")


WRONG: dict[str, list[tuple[object, str, object]]] = {
    # check -> what is put in the interpreter's place, one after the other
    "_encoding": [(sys, "getfilesystemencoding", lambda: "ascii")],
    "_sqlite": [(sqlite3, "sqlite_version_info", (3, 34, 1)), (sqlite3, "threadsafety", 0)],
    "_tls": [(ssl, "HAS_TLSv1_2", False), (ssl, "create_default_context", ssl._create_unverified_context)],
    "_mail_that_kills_parsers": [(mime, "parse", _kills)],
    "_two_addresses_in_one": [(mime, "parse", _reads_one_sender)],
    "_header_injection": [(EmailMessage, "__setitem__", lambda *_: None)],
}


@pytest.mark.checklist(68)
@pytest.mark.parametrize("name", WRONG)
def test_an_interpreter_that_behaves_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for where, what, instead in WRONG[name]:
        with monkeypatch.context() as patch:
            patch.setattr(where, what, instead)
            assert getattr(startup, name)(), (name, what)
            assert startup.interpreter() != []
        assert startup.interpreter() == []
    untried = {check.__name__ for check in startup.INTERPRETER_CHECKS} - set(WRONG)
    assert untried == {"_asserts"}, "tried by processes under -O"


def test_a_foreign_package_with_one_of_our_names_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from api import startup; print(startup._packages())"],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'models' would come from" in done.stdout
    assert startup.problems.__module__ == "api.startup"


def test_migrate_brings_either_database_up_and_says_so(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute("DROP DATABASE IF EXISTS by_command")
    postgres.execute("CREATE DATABASE by_command")
    for url in (postgres.url("by_command"), f"sqlite:///{tmp_path / 'new.db'}"):
        for _ in range(2):
            done = notifyr("migrate", "--json", env={"NOTIFYR_DATABASE_URL": url, "NOTIFYR_DATA_DIR": str(tmp_path)})
            newest = max(file.name[:4] for file in (ROOT / "assistant/db/migrations/versions").glob("0*.py"))
            assert json.loads(done.stdout) == {"revision": newest}
    postgres.execute("DROP DATABASE by_command WITH (FORCE)")


@pytest.mark.checklist(57)
def test_what_a_command_writes_is_for_this_user_only(tmp_path: Path) -> None:
    notifyr("migrate", env={"NOTIFYR_DATA_DIR": str(tmp_path / "var")})
    assert (tmp_path / "var" / "notifyr.db").stat().st_mode & 0o077 == 0


def test_a_database_that_is_down_is_a_dependency_that_is_down() -> None:
    done = notifyr("agents", "list", "--json", env={"NOTIFYR_DATABASE_URL": "postgresql+psycopg://x:y@127.0.0.1:1/z"})
    assert done.returncode == 7
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "storage"
