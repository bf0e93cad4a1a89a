"""What a process leaves when it breaks holds no secret: a dump of its stacks, a traceback, a failed task, the output of a backup."""

from __future__ import annotations

import io
import json
import logging
import resource
import signal
import subprocess
import sys
import tarfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from assistant import failpoints
from assistant.db.migrate import migrate
from assistant.db.session import Database
from assistant.settings import ROOT
from assistant.telemetry import configure_logging
from pipelines.container import Container
from pipelines.worker import create_worker
from tests.support.outboxes import add_thread, queue
from tests.support.servers import clean_environment, notifyr

pytestmark = pytest.mark.checklist(61)
CANARIES = {
    "NOTIFYR_SECRET_KEY": "canary-key-" + "5e" * 24,
    "NOTIFYR_RELAY_URL": "smtp://me:canary-relay@127.0.0.1:2",
    "NOTIFYR_REDIS_URL": "redis://:canary-redis@127.0.0.1:3/0",
    "NOTIFYR_BROKER_URL": "amqp://me:canary-broker@127.0.0.1:4//",
    "NOTIFYR_QDRANT_URL": "http://:canary-qdrant@127.0.0.1:5",
}
WORDS = ("canary-key", "5e5e5e5e", "canary-relay", "canary-redis", "canary-broker", "canary-qdrant")
MAIL = "canary-mail-text"


def kept_out(said: str, *more: str) -> None:
    assert [word for word in (*WORDS, *more) if word in said] == []


_DIES = """
import faulthandler, os, resource, signal, sys
faulthandler.enable(all_threads=True)
from assistant.settings import load_settings
from api import cli

def holds(settings, relay, key):
    typed = "canary-mail-text"
    os.kill(os.getpid(), signal.SIGABRT) if sys.argv[1] == "dump" else 1 / len(relay[:0])

settings = load_settings()
try:
    holds(settings, settings.relay_url.get_secret_value(), settings.secret_key.get_secret_value())
except ZeroDivisionError:
    print(repr(settings), str(settings), file=sys.stderr)
    raise
"""


_ARMED = """
import os
from api import cli
from assistant import failpoints
failpoints.arm(os.environ["NOTIFYR_FAILPOINTS"])  # a command has no container that arms them
cli.main()
"""


@pytest.mark.parametrize("end", ["dump", "traceback"])
def test_a_process_that_dies_shows_where_and_not_with_what(tmp_path: Path, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DIES, end],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(ROOT), NOTIFYR_DATA_DIR=str(tmp_path / "var"), **CANARIES),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (-signal.SIGABRT if end == "dump" else 1)
    assert ("Fatal Python error: Aborted" if end == "dump" else "ZeroDivisionError") in done.stderr
    assert "holds" in done.stderr, "it says where"
    kept_out(done.stdout + done.stderr, MAIL)


@pytest.mark.parametrize(
    ("command", "point"),
    [(("agents", "create", "bo@example.org"), "commit.before"), (("backup", "all.tar"), "blob.before_read")],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_command_that_breaks_shows_no_setting(tmp_path: Path, command: tuple[str, ...], point: str) -> None:
    """A fault of ours, in the middle: what is printed has no local variables in it."""
    data = tmp_path / "var"
    data.mkdir()
    migrate(f"sqlite:///{data / 'notifyr.db'}")
    arguments = [str(tmp_path / one) if one.endswith(".tar") else one for one in command]
    armed = CANARIES | {"NOTIFYR_DATA_DIR": str(data), "NOTIFYR_FAILPOINTS": f"{point}=raise"}
    done = subprocess.run(
        [sys.executable, "-c", _ARMED, *arguments],
        cwd=ROOT,
        env=clean_environment(**armed),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"failpoint {point}" in done.stderr or "could not be" in done.stderr, done.stderr
    kept_out(done.stdout + done.stderr, "bo@example.org")


def test_no_process_of_ours_leaves_an_image_of_its_memory(tmp_path: Path) -> None:
    """Where the system would write one: the limit is taken to nothing before any setting is read."""
    asked = "import resource; from api import cli; cli._harden(); print(resource.getrlimit(resource.RLIMIT_CORE))"

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)

    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=allow,  # no thread of ours holds a lock here
    )
    assert done.stdout.strip() == "(0, 0)"


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a worker would write to standard error, at its most talkative, in either style."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("debug", request.param)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("fault", ["ours", "of the database"])
def test_a_task_that_fails_is_logged_without_the_mail_it_worked_on(
    container: Container, log: io.StringIO, fault: str
) -> None:
    """Celery writes the traceback of what a task raised; SQLAlchemy's errors quote the values of their statement."""
    thread_id = add_thread(container.database, address=f"{MAIL}@example.net")
    message_id = queue(container.database, thread_id)
    with container.database.transaction() as session:
        session.execute(text("UPDATE messages SET text = :text"), {"text": MAIL})
    app = create_worker(container)
    app.conf.task_always_eager = False
    if fault == "ours":
        failpoints.arm("send.before_claim=raise")
    else:
        with container.database.engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE TRIGGER broken BEFORE INSERT ON message_events "
                    "BEGIN SELECT RAISE(ABORT, 'a fault of the schema'); END"
                )
            )
    result = app.tasks["notifyr.deliver"].apply(args=(message_id,))
    said = log.getvalue()
    assert result.failed(), said
    assert "Traceback" in said, "its cause is there"
    assert ("failpoint send.before_claim" if fault == "ours" else "a fault of the schema") in said
    assert message_id in said
    kept_out(said, MAIL)


def test_an_error_of_the_database_names_its_statement_and_not_its_values(database: Database) -> None:
    with pytest.raises(Exception, match="nowhere") as caught, database.transaction() as session:
        session.execute(text("INSERT INTO nowhere (secret) VALUES (:secret)"), {"secret": MAIL})
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "INSERT INTO nowhere" in told
    kept_out(told, MAIL)


def test_the_row_that_a_database_refused_is_not_in_the_log(database: Database, log: io.StringIO) -> None:
    """PostgreSQL's own words name the values of a row: of one key, and of a whole row that breaks a rule."""
    value = f"first line of {MAIL}\nits second line, {MAIL}"
    with database.transaction() as session:
        session.execute(text("CREATE TABLE refused (body TEXT UNIQUE, other TEXT NOT NULL)"))
        session.execute(text("INSERT INTO refused VALUES (:body, 'x')"), {"body": value})
    for other in ("x", None):
        try:
            with database.transaction() as session:
                session.execute(text("INSERT INTO refused VALUES (:body, :other)"), {"body": value, "other": other})
        except IntegrityError:
            structlog.get_logger("tests").exception("it_failed")
    said = log.getvalue()
    assert said.count("[SQL: INSERT INTO refused") == 2
    assert "UNIQUE" in said.upper(), "its cause is there"
    kept_out(said, MAIL)


def test_a_backup_says_nothing_of_the_settings_and_holds_none_of_them(tmp_path: Path) -> None:
    """Documented: it holds mail and the key of this installation. It holds no password of another server."""
    data, target = tmp_path / "var", tmp_path / "all.tar"
    data.mkdir()
    migrate(f"sqlite:///{data / 'notifyr.db'}")
    database = Database(f"sqlite:///{data / 'notifyr.db'}")
    queue(database, add_thread(database, address=f"{MAIL}@example.net"))
    database.close()
    done = notifyr("backup", str(target), env=CANARIES | {"NOTIFYR_DATA_DIR": str(data)})
    assert done.returncode == 0, done.stderr
    kept_out(done.stdout + done.stderr, MAIL)
    content = target.read_bytes()
    assert MAIL.encode() in content, "the mail is what it is for"
    assert [word for word in WORDS if word.encode() in content] == []
    with tarfile.open(target) as tar:
        assert "secret-key" not in tar.getnames(), "a key that the environment gives is kept where it comes from"
    assert target.stat().st_mode & 0o777 == 0o600
    as_json = notifyr("backup", str(tmp_path / "two.tar"), "--json", env=CANARIES | {"NOTIFYR_DATA_DIR": str(data)})
    assert json.loads(as_json.stdout)["path"] == str(tmp_path / "two.tar")
    kept_out(as_json.stdout + as_json.stderr, MAIL)
    refused = notifyr("backup", str(target), env=CANARIES | {"NOTIFYR_DATA_DIR": str(data)})
    assert refused.returncode != 0
    kept_out(refused.stdout + refused.stderr, MAIL)
    assert not list(tmp_path.glob("*.part"))
