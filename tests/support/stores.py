"""Stores that a test may kill, stop, fill and start again on the same port and folder. `servers.py` has the ones that last."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psutil
import psycopg
import redis

from tests.support.memory import MEMORY
from tests.support.servers import (
    answers,
    bound,
    find_binary,
    free_port,
    rabbitmq_home,
    stop_port_mapper,
    stop_process,
    temporary_folder,
    unprivileged,
    wait_until,
)

__all__ = ["PostgresStore", "RabbitStore", "RedisStore", "in_memory", "paused"]


@contextlib.contextmanager
def in_memory(name: str, *, owner: str = "") -> Iterator[Path]:
    """A folder whose fsync costs nothing, where the machine has one: a dying process loses no page either way."""
    before = tempfile.tempdir
    tempfile.tempdir = str(MEMORY) if os.access(MEMORY, os.W_OK) else before
    try:
        made = temporary_folder(name, owner=owner)
        with made as folder:
            tempfile.tempdir = before
            yield folder
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def paused(*processes: psutil.Process) -> Iterator[None]:
    """SIGSTOP for as long as the block."""
    for one in processes:
        one.suspend()
    try:
        yield
    finally:
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()


class _Store:
    """A server process of ours under one command."""

    command: list[str]
    port: int
    environment: dict[str, str] | None = None
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Self:
        """Started again where it ends at once: a port or a piece of memory may be another's for a moment after a kill."""

        def up() -> bool:
            if not self.alive():
                time.sleep(0.3)
                self._spawn()
            return self.ready()

        self._spawn()
        try:
            wait_until(up, seconds=60, what=f"the start of {' '.join(self.command)}")
        except BaseException:
            print((self.folder / "log").read_text(errors="replace")[-3000:])  # noqa: T201
            raise
        return self

    def _spawn(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=self.environment,
            )

    def ready(self) -> bool:
        return answers(self.port)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL for the process and all its children, as when the machine loses them."""
        assert self.process is not None
        own = psutil.Process(self.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            own.suspend()  # it makes no child any more that nobody would kill
        for one in [*own.children(recursive=True), own]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(10)

    def restart(self) -> None:
        """An orderly stop and a start."""
        self.stop()
        self.start()

    def stop(self) -> None:
        if self.process is not None:
            stop_process(self.process, self.stop_signal)


class PostgresStore(_Store):
    """PostgreSQL that keeps what it committed, with an empty database `notifyr`."""

    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *, segment_mb: int = 16) -> None:
        """`segment_mb`: the size of the log's files, which are made before they are needed."""
        super().__init__(folder)
        folders = sorted((str(p) for p in Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
        user = unprivileged("postgres") or bound(signal.SIGQUIT)
        self.port = free_port()
        data = folder / "data"
        subprocess.run(
            [*user, find_binary("initdb", "postgresql", *folders), "-D", data, "-U", "notifyr", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", f"--wal-segsize={segment_mb}"],
            check=True, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", timeout=60,
        )  # fmt: skip
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "max_connections": 60,
            "shared_buffers": "32MB",
            "restart_after_crash": "on",
            "min_wal_size": f"{5 * segment_mb}MB",
        }
        self.command = [*user, find_binary("postgres", "postgresql", *folders), "-D", str(data)]
        for name, value in options.items():
            self.command += ["-c", f"{name}={value}"]
        (folder / "log").touch(mode=0o666)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://notifyr@127.0.0.1:{self.port}/notifyr"

    def ready(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            if not self.execute("SELECT 1 FROM pg_database WHERE datname = 'notifyr'"):
                self.execute("CREATE DATABASE notifyr")
            return True
        return False

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="notifyr", dbname=database, autocommit=True, connect_timeout=5
        )

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        with self.connect() as connection:
            found = connection.execute(statement)  # type: ignore[call-overload]  # the tests' own words
            return found.fetchall() if found.description else []

    def backends(self) -> list[psutil.Process]:
        """The server processes behind the program's connections."""
        rows = self.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'notifyr'")
        return [psutil.Process(int(str(pid))) for (pid,) in rows]

    def disconnect(self) -> None:
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'notifyr'")


class RabbitStore(_Store):
    """Debian's RabbitMQ that keeps its durable queues: `kill` it and `start` it again on the same port and folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.mapper = free_port(), free_port()
        self.home, self.environment = rabbitmq_home(folder, self.port, self.mapper)
        self.command = [*bound(), str(self.home / "rabbitmq-server")]

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def control(self, *words: str) -> None:
        """`rabbitmqctl`."""
        command = [str(self.home / "rabbitmqctl"), "-n", self.environment["RABBITMQ_NODENAME"], *words]
        subprocess.run(
            command, env=self.environment, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60
        )

    def stop(self) -> None:
        super().stop()
        stop_port_mapper(self.mapper)


class RedisStore(_Store):
    """Debian's redis-server, whose CONFIG is open to the test."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        configuration = folder / "redis.conf"
        configuration.write_text(f'bind 127.0.0.1\nport {self.port}\nsave ""\ndir "{folder}"\n')
        self.command = [*bound(), find_binary("redis-server", "redis-server"), str(configuration)]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @contextlib.contextmanager
    def client(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            yield client
