"""Real servers for the tests, each started when a test first asks for it. A missing one fails with the way to get it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest

INSTALL = "run: scripts/install_test_servers.sh"


def missing(what: str) -> None:
    """Fail the test: a server that is not installed is never a reason to skip."""
    pytest.fail(f"{what} is not installed; {INSTALL}", pytrace=False)


def find_binary(name: str, package: str, *folders: str) -> str:
    """The path of a server's program, on PATH or where Debian keeps it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *folders])
    found = shutil.which(name, path=path)
    if found is None:
        missing(f"{name} (Debian package {package})")
        raise AssertionError
    return found


# Below the ports that the kernel gives to outgoing connections (from 32768): one of those may be taken by a client, even by the
# one that looks for the server, while a killed server is down or a started one has not come to listen.
_FIRST_PORT, _LAST_PORT = 10_000, 32_000


def _own_ports(worker: str, workers: int) -> Iterator[int]:
    """This process' share of the ports in an order of its own, each of them again only after all the others."""
    share = range(_FIRST_PORT + int(worker.removeprefix("gw") or 0), _LAST_PORT, workers)
    return itertools.cycle(random.SystemRandom().sample(share, len(share)))


_ports = _own_ports(os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def free_port() -> int:
    """A port on loopback that nothing listens on, and that no other test of this run is given."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def wait_until(condition: Callable[[], Any], *, seconds: float = 10.0, what: str = "the condition") -> Any:
    """Wait until `condition()` is true and return its value. Fails the test with `what` when it takes too long."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen within {seconds:g} s", pytrace=True)
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


def unprivileged(user: str) -> list[str]:
    """The prefix that runs a command as `user` when the tests run as root (PostgreSQL refuses root)."""
    if os.geteuid() != 0:
        return []
    # A change of user forgets the signal at the parent's death, so it is set again.
    return [*bound(signal.SIGQUIT), f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def bound(how: signal.Signals = signal.SIGTERM) -> list[str]:
    """The prefix that ends a command when the tests end, however they end: a killed run leaves no server behind."""
    return [find_binary("setpriv", "util-linux"), "--pdeathsig", how.name.removeprefix("SIG")]


@contextlib.contextmanager
def temporary_folder(name: str, *, owner: str = "") -> Iterator[Path]:
    """A short path (sockets need one) that another user can reach."""
    folder = Path(tempfile.mkdtemp(prefix=f"notifyr-{name}-"))
    if owner and os.geteuid() == 0:
        entry = pwd.getpwnam(owner)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], Any],
    seconds: float = 20.0,
    stop: signal.Signals = signal.SIGTERM,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that lives as long as the block. Its output goes to `log`, which a failure shows."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*bound(stop), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}", pytrace=False)
            time.sleep(0.02)
        yield process
    finally:
        stop_process(process, stop)


def stop_process(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
    """Stop a process and everything in its session; never wait for ever."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


# -- PostgreSQL


@dataclass(frozen=True)
class PostgresServer:
    port: int

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://notifyr@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run one statement outside a transaction, on the maintenance database."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="notifyr", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)  # type: ignore[call-overload]  # the tests' own words


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL in a folder of its own, with everything durable switched off: a test needs speed."""
    folders = sorted((str(p) for p in Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb = find_binary("initdb", "postgresql", *folders)
    postgres = find_binary("postgres", "postgresql", *folders)
    user = unprivileged("postgres")
    with temporary_folder("pg", owner="postgres") as folder:
        data = folder / "data"
        subprocess.run(
            [*user, initdb, "-D", data, "-U", "notifyr", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            check=True, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", timeout=60,
        )  # fmt: skip
        port = free_port()
        options = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "max_connections": 200,
            "shared_buffers": "64MB",
            "autovacuum": "off",
        }
        command = [*user, postgres, "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        server = PostgresServer(port)

        def ready() -> bool:
            import psycopg

            with contextlib.suppress(psycopg.OperationalError):
                server.execute("SELECT 1")
                return True
            return False

        # SIGQUIT: nothing in there is worth an orderly goodbye.
        with running(command, log=folder / "log", ready=ready, stop=signal.SIGQUIT):
            yield server


# -- Redis and Valkey


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Debian's redis-server; yields its URL."""
    binary = find_binary("redis-server", "redis-server")
    with temporary_folder("redis") as folder:
        port = free_port()
        configuration = folder / "redis.conf"
        configuration.write_text(f'bind 127.0.0.1\nport {port}\nrequirepass tests-only\nsave ""\ndir "{folder}"\n')
        with running([binary, str(configuration)], log=folder / "log", ready=lambda: answers(port)):
            yield f"redis://:tests-only@127.0.0.1:{port}/0"


@contextlib.contextmanager
def valkey_server() -> Iterator[str]:
    """The embedded Valkey that the run command starts; yields its URL."""
    from assistant.backends.valkey import EmbeddedValkey

    with temporary_folder("valkey") as folder:
        port = free_port()
        embedded = EmbeddedValkey.prepare(folder, port=port, keep=False)
        with running(embedded.command, log=folder / "log", ready=lambda: answers(port)):
            yield embedded.url


# -- RabbitMQ


@contextlib.contextmanager
def rabbitmq_server() -> Iterator[str]:
    """Debian's RabbitMQ on loopback only, without its management; yields an `amqp://` URL."""
    with temporary_folder("rabbit") as folder:
        port, mapper = free_port(), free_port()
        home, env = rabbitmq_home(folder, port, mapper)
        command = [str(home / "rabbitmq-server")]
        try:
            with running(command, log=folder / "log", ready=lambda: answers(port), seconds=60, env=env):
                yield f"amqp://guest:guest@127.0.0.1:{port}//"
        finally:
            stop_port_mapper(mapper)


def rabbitmq_home(folder: Path, port: int, mapper: int) -> tuple[Path, dict[str, str]]:
    """Where RabbitMQ's programs are, and the environment of a node of its own in `folder`."""
    homes = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    if not homes:
        missing("RabbitMQ (Debian package rabbitmq-server)")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\n")
    (folder / "enabled_plugins").write_text("[].\n")
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"tests{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    return homes[-1], env


def stop_port_mapper(port: int) -> None:
    """epmd detaches itself; it is ours when it listens on our port."""
    import psutil

    for process in psutil.process_iter(["name", "environ"]):
        if process.info["name"] == "epmd" and (process.info["environ"] or {}).get("ERL_EPMD_PORT") == str(port):
            process.kill()


# -- S3


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """moto's S3 server in a process of its own; yields endpoint, bucket and keys."""
    port = free_port()
    with temporary_folder("s3") as folder:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with running(command, log=folder / "log", ready=lambda: answers(port), seconds=30):
            import urllib.request

            endpoint = f"http://127.0.0.1:{port}"
            urllib.request.urlopen(
                urllib.request.Request(f"{endpoint}/notifyr-tests", method="PUT"), timeout=10
            ).close()
            yield {"endpoint": endpoint, "bucket": "notifyr-tests", "key": "testing", "secret": "testing"}


def s3_environment(facts: dict[str, str]) -> dict[str, str]:
    """What obstore reads from the environment to find the server of `s3_server`."""
    return {
        "AWS_ENDPOINT_URL": facts["endpoint"],
        "AWS_ACCESS_KEY_ID": facts["key"],
        "AWS_SECRET_ACCESS_KEY": facts["secret"],
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


# -- a mail server that receives


@dataclass(frozen=True)
class Delivered:
    """One mail as the other side got it."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        parsed = BytesParser(policy=SMTP).parsebytes(self.raw)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class SmtpSink:
    """A receiving SMTP server (aiosmtpd, on a thread and a loop of its own) that keeps what it got."""

    port: int = 0
    mails: list[Delivered] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Scripted answers to the next end-of-data, oldest first; empty: `250 OK`."""
    refuse: dict[str, str] = field(default_factory=dict)
    """Recipient -> answer to its RCPT."""
    delay: float = 0.0
    """Seconds between taking a mail and saying so."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def wait(self, count: int, *, seconds: float = 20.0) -> list[Delivered]:
        """The mails, once there are at least `count`."""
        wait_until(lambda: len(self.mails) >= count, seconds=seconds, what=f"{count} mails in the sink")
        return list(self.mails)

    def clear(self) -> None:
        with self._lock:
            self.mails.clear()
            self.answers.clear()
            self.refuse.clear()
            self.delay = 0.0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802  # aiosmtpd's name
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        with self._lock:
            answer = self.answers.pop(0) if self.answers else "250 OK"
            if answer.startswith("2"):
                self.mails.append(
                    Delivered(envelope.mail_from or "", tuple(envelope.rcpt_tos), bytes(envelope.original_content))
                )
        await asyncio.sleep(self.delay)
        return answer


@contextlib.contextmanager
def smtp_sink_server() -> Iterator[SmtpSink]:
    """A running `SmtpSink` on a free loopback port."""
    from aiosmtpd.controller import Controller

    sink = SmtpSink(port=free_port())
    # Its name is in what it says, and some tests cut that by the byte: the machine's own name would move them.
    named = {"server_hostname": "sink.example", "ident": "SMTP", "data_size_limit": 64_000_000}
    controller = Controller(sink, hostname="127.0.0.1", port=sink.port, ready_timeout=10, **named)
    controller.start()
    try:
        yield sink
    finally:
        controller.stop(no_assert=True)


# -- our own command


def clean_environment(**values: str) -> dict[str, str]:
    """The environment for a program of ours: nothing of the developer's own NOTIFYR_ settings gets in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFYR_", "DISPLAY", "WAYLAND_", "PROMETHEUS_"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **values}


def notifyr(
    *arguments: str, env: dict[str, str] | None = None, seconds: float = 240.0
) -> subprocess.CompletedProcess[str]:
    """Run the `notifyr` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        cwd=Path(__file__).resolve().parents[2],
        env=clean_environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
