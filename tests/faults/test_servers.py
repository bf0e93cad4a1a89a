"""A test run that is killed leaves no server behind, and no two tests are given one port."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from assistant.settings import ROOT
from tests.support import servers
from tests.support.servers import bound, temporary_folder, wait_until

SERVERS = ("postgres_server", "redis_server", "valkey_server", "rabbitmq_server", "s3_server")


def alive(folder: str) -> list[psutil.Process]:
    """Processes that name the killed run's folder in their command line."""
    return [
        one
        for one in psutil.process_iter(["cmdline", "status"])
        if one.info["status"] != psutil.STATUS_ZOMBIE and folder in " ".join(one.info["cmdline"] or [])
    ]


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that another user reaches, as a server runs: pytest closes its own whenever a run of it starts."""
    with temporary_folder("killed") as folder:
        folder.chmod(0o755)
        yield folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("server", SERVERS)
def test_a_killed_run_takes_its_servers_with_it(server: str, open_path: Path) -> None:
    script = (
        "import sys, tempfile, time\n"
        f"tempfile.tempdir = {str(open_path)!r}\n"
        f"from tests.support.servers import {server}\n"
        f"with {server}():\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen([*bound(signal.SIGKILL), sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        started = psutil.Process(run.pid).children(recursive=True)
        assert started
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.communicate(timeout=10)
    psutil.wait_procs(started, timeout=20)
    wait_until(lambda: not any(one.is_running() for one in started), seconds=5, what=f"the end of {started}")
    wait_until(lambda: not alive(str(open_path)), seconds=20, what="nothing of the run left")


def test_workers_share_no_port_and_none_comes_twice() -> None:
    shares = [list(itertools.islice(servers._own_ports(f"gw{number}", 3), 7_000)) for number in range(3)]
    assert all(len(set(share)) == 7_000 for share in shares)
    assert not set(shares[0]) & set(shares[1]) and not set(shares[1]) & set(shares[2])


def test_a_port_that_somebody_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = servers.free_port(), servers.free_port()
    monkeypatch.setattr(servers, "_ports", iter([taken, free]))
    with socket.create_server(("127.0.0.1", taken)):
        assert servers.free_port() == free
