"""Fixtures on real servers. Every one is lazy: a test pays only for what it names.

`database` runs a test on SQLite and on PostgreSQL, `redis_url` on the embedded Valkey and on Debian's redis-server.
"""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assistant import failpoints
from assistant.clock import new_id
from assistant.db.session import Database
from assistant.settings import Settings, load_settings
from tests.support import servers
from tests.support.compiled import share_compiled
from tests.support.figures import PROPERTY, Tell
from tests.support.memory import use_memory
from tests.support.servers import PostgresServer, SmtpSink

if TYPE_CHECKING:
    from assistant.backends.blobs import Blobs
    from pipelines.container import Container


use_memory()
share_compiled()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what takes minutes (marked slow)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
    items.sort(key=_place)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: to look through them for garbage, again and again, is for nothing."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """xdist's own groups are a suffix of an item's id, which pytest 9.2 takes from elsewhere: each test was a group by itself."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return Grouped(config, log)


_WHOLE_PROGRAM = (
    "tests/chaos/",
    "tests/benchmarks/test_load",
    "tests/faults/test_grid",
    "tests/faults/test_rabbitmq",
    "tests/faults/test_model_child",
    "tests/api/test_run.py",
)
_FORKING = ("tests/faults/test_failpoints", "tests/faults/test_interleavings")


def _group(name: str) -> str:
    """Tests of one group run one after another in one process: a file, for its fixtures. What starts the whole program, and what
    drives a browser, never runs twice at the same time; a path of crashes needs nothing of another.
    """
    if name.startswith(_WHOLE_PROGRAM):
        return "whole program"
    if name.startswith("tests/e2e/"):
        return "browser"
    return name if name.startswith(_FORKING) else name.partition("::")[0]


def _place(item: pytest.Item) -> int:
    """What takes longest begins first, and what forks thousands of times before its process has grown."""
    name = item.nodeid
    if name.startswith(("tests/chaos/", "tests/faults/", "tests/benchmarks/test_load")):
        return 0 if name.startswith(_WHOLE_PROGRAM) else 1 if name.startswith(_FORKING) or "machine" in name else 2
    return 3 if name.startswith("tests/e2e/") else 4


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Forget what a test that passed has logged: thousands of them would fill this process, and each fork copies its page table."""
    if report.passed:
        report.sections.clear()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts and seeds of the runs that were made: `tell` has left them with the results."""
    told = [
        f"{report.nodeid.removeprefix('tests/').partition('@')[0]}: {text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == PROPERTY
    ]
    if told:
        terminalreporter.section("counts and seeds")
        for line in told:
            terminalreporter.write_line(line)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """`tell("seed 7, 12 killed")`: a line for the summary at the end."""
    return lambda text: record_property(PROPERTY, text)


@pytest.fixture(autouse=True)
def _clean_logging() -> Iterator[None]:
    """A command that ran inside a test leaves its log on the test's own standard error, which is closed afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A developer's own settings and an armed failpoint never reach the next test."""
    import os

    for name in [name for name in os.environ if name.startswith("NOTIFYR_")]:
        monkeypatch.delenv(name)
    yield
    failpoints.disarm()


# -- settings


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """`make_settings(undo_send_seconds=0)`: settings under this test's own folder, with free ports."""

    def make(**values: Any) -> Settings:
        defaults: dict[str, Any] = {
            "data_dir": tmp_path / "var",
            "port": servers.free_port(),
            "smtp_port": servers.free_port(),
            "mail_address": "support@example.org",
        }
        return load_settings({}, **(defaults | values))

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Laptop defaults under this test's own folder: SQLite, no Redis."""
    return make_settings()


# -- databases


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy from."""
    from assistant.db.migrate import migrate

    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL, with a migrated database named `template` to clone from."""
    from assistant.db.migrate import migrate

    with servers.postgres_server() as server:
        server.execute("CREATE DATABASE template")
        migrate(server.url("template"))
        yield server


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own (in `data_dir`, where the default settings look for it)."""
    path = tmp_path / "var" / "notifyr.db"
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgres: PostgresServer) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own."""
    name = "test_" + new_id().replace("-", "")
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template STRATEGY WAL_LOG")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of this test's own, once on each engine."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The unit of work on `database_url`; nothing is dispatched or announced."""
    opened = Database(database_url, pool_size=5)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """Only SQLite: for what does not depend on the engine."""
    opened = Database(sqlite_url, pool_size=5)
    yield opened
    opened.close()


# -- Redis, brokers, files


@pytest.fixture(scope="session")
def valkey_session_url() -> Iterator[str]:
    with servers.valkey_server() as url:
        yield url


@pytest.fixture(scope="session")
def redis_session_url() -> Iterator[str]:
    with servers.redis_server() as url:
        yield url


def _empty(url: str) -> str:
    from redis import Redis

    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def valkey_url(valkey_session_url: str) -> str:
    """The embedded Valkey, emptied."""
    return _empty(valkey_session_url)


@pytest.fixture(params=["valkey", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """The same test on the embedded Valkey and on Debian's redis-server, emptied."""
    return _empty(request.getfixturevalue(f"{request.param}_session_url"))


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Debian's RabbitMQ (six seconds to start)."""
    with servers.rabbitmq_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket: `endpoint`, `bucket`, `key`, `secret`."""
    with servers.s3_server() as facts:
        yield facts


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    """The blob store under this test's own folder."""
    from assistant.backends.blobs import Blobs

    return Blobs.open(settings)


# -- mail, and everything together


@pytest.fixture
def smtp_sink() -> Iterator[SmtpSink]:
    """A receiving mail server: `.url` for `relay_url`, `.wait(n)`, `.mails`, scripted `.answers` and `.refuse`."""
    with servers.smtp_sink_server() as sink:
        yield sink


@pytest.fixture
def full_settings(make_settings: Callable[..., Settings], sqlite_url: str, valkey_url: str) -> Settings:
    """Settings of a whole installation: SQLite, the embedded Valkey, no models."""
    return make_settings(redis_url=valkey_url, database_url=sqlite_url, encoder="off", generator="off")


@pytest.fixture
def container(full_settings: Settings) -> Iterator[Container]:
    """Everything wired as in production, on `full_settings`."""
    from pipelines.container import build

    built = build(full_settings)
    yield built
    built.close()
