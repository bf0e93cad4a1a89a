"""The supervisor on small real processes: ports, restarts with backoff, draining, and orphans."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from api import supervisor as module
from api.supervisor import Supervisor, free_port, procfile
from assistant.settings import ROOT
from tests.support.servers import free_port as any_port
from tests.support.servers import wait_until

STEADY = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(dict(os.environ), tmp_path / "logs", said.append)
    yield made
    made.stop(seconds=3)


def tick_until(supervisor: Supervisor, condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        supervisor.tick(hopeful=True)


def test_a_taken_port_gives_the_next_free_one() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert taken < free_port("127.0.0.1", taken) < taken + 100


def test_two_services_never_get_the_same_port() -> None:
    first = any_port()
    assert free_port("127.0.0.1", first, taken=[first]) != first


def test_an_address_that_is_not_ours_is_not_a_port_problem() -> None:
    with pytest.raises(OSError, match="assign"):
        free_port("192.0.2.1", 8300)


def test_the_procfile_names_our_processes() -> None:
    processes = procfile(ROOT / "deploy" / "Procfile")
    assert set(processes) == {"api", "worker", "models", "beat", "mailboxes"}
    assert all(command[:3] == [sys.executable, "-m", "api.cli"] for command in processes.values())


def test_a_killed_process_is_started_again_and_it_is_said(supervisor: Supervisor, said: list[str]) -> None:
    child = supervisor.start("worker", STEADY)
    assert child.process is not None
    first = child.process.pid
    os.kill(first, signal.SIGKILL)
    tick_until(supervisor, lambda: child.process is not None and child.process.pid != first)
    assert said == [f"worker was killed by SIGKILL; starting it again in 0.5 s (log: {supervisor.log_of('worker')})"]


def test_one_that_never_starts_is_tried_less_and_less_often_then_given_up(
    supervisor: Supervisor, said: list[str]
) -> None:
    began = time.monotonic()
    child = supervisor.start("api", [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"])
    hopeless = None
    while hopeless is None:
        hopeless = supervisor.tick(hopeful=False)
        assert time.monotonic() - began < 20
    assert hopeless is child
    assert [text.split(" in ")[1].split(" s")[0] for text in said] == ["0.5", "1", "2", "5"]
    assert "no such thing" in supervisor.log_of("api").read_text()


def test_the_log_of_a_process_that_never_ends_is_put_aside_when_it_is_large(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOG_BYTES", 20_000)
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.0)
    talks = "import itertools, time\nfor n in itertools.count():\n    print(f'{n:07}' + '.' * 92, flush=True)\n    time.sleep(0.001)"
    child = supervisor.start("worker", [sys.executable, "-c", talks])
    log, aside = supervisor.log_of("worker"), supervisor.log_of("worker").with_suffix(".log.1")
    tick_until(supervisor, lambda: aside.exists() and log.stat().st_size > 500, seconds=30)
    assert child.process is not None and child.process.poll() is None, "it runs on"
    kept, now = aside.read_text().splitlines(), log.read_text().splitlines()
    assert kept[0].startswith("0000000.") and [len(line) for line in kept] == [99] * len(kept)
    assert now[0][:1] == "0" and 0 <= int(now[0][:7]) - int(kept[-1][:7]) - 1 < 10, "it appends to what was emptied"
    assert aside.stat().st_mode & 0o077 == 0


def test_stopping_lets_a_process_finish_and_kills_it_after_its_time(tmp_path: Path) -> None:
    finishing = "import signal,time,sys; signal.signal(15, lambda *_: (time.sleep(0.5), print('done'), sys.exit(0)))\n"
    stubborn = "import signal,time; signal.signal(15, signal.SIG_IGN)\n"
    ready = "open({!r}, 'w').close()\nwhile True: time.sleep(1)"
    supervisor = Supervisor({**os.environ, "PYTHONUNBUFFERED": "1"}, tmp_path / "logs", lambda _: None)
    supervisor.start("good", [sys.executable, "-c", finishing + ready.format(str(tmp_path / "good"))])
    supervisor.start("bad", [sys.executable, "-c", stubborn + ready.format(str(tmp_path / "bad"))])
    wait_until(lambda: (tmp_path / "good").exists() and (tmp_path / "bad").exists(), what="both running")
    began = time.monotonic()
    supervisor.stop(seconds=4)
    assert 0.5 < time.monotonic() - began < 15  # 4 s of grace, then the end: bounded, however busy the machine is
    assert "done" in supervisor.log_of("good").read_text()
    assert [c.process.poll() for c in supervisor.children if c.process is not None] == [0, -9]


def test_the_store_is_stopped_after_those_who_use_it(tmp_path: Path) -> None:
    log = tmp_path / "order"
    script = (
        "import signal,time,sys\n"
        "def end(*_):\n    open({0!r}, 'a').write({1!r} + '\\n'); sys.exit(0)\n"
        "signal.signal(15, end); open({0!r} + {1!r}, 'w').close()\nwhile True: time.sleep(1)"
    )
    supervisor = Supervisor(dict(os.environ), tmp_path / "logs", lambda _: None)
    for name in ("valkey", "worker"):
        supervisor.start(name, [sys.executable, "-c", script.format(str(log), name)])
    wait_until(lambda: Path(f"{log}valkey").exists() and Path(f"{log}worker").exists(), what="both running")
    supervisor.stop(seconds=5)
    assert log.read_text().split() == ["worker", "valkey"]


def test_the_processes_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from api.supervisor import Supervisor\n"
        f"s = Supervisor(dict(os.environ), Path({str(tmp_path)!r}), print)\n"
        "child = s.start('worker', [sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.process.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not psutil.pid_exists(child), seconds=5, what="the end of the orphan")
