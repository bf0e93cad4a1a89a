"""`notifyr run` as a newcomer meets it: no question, a taken port, a second start, a killed process, a clean end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

from assistant.settings import ROOT
from tests.support.promises import kept_within
from tests.support.servers import answers, clean_environment, free_port, notifyr, wait_until

pytestmark = pytest.mark.timeout(180)
COMMAND = [sys.executable, "-m", "api.cli", "run", "--no-browser"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty installation without models, on ports of its own."""
    return clean_environment(
        NOTIFYR_DATA_DIR=str(tmp_path / "var"),
        NOTIFYR_PORT=str(free_port()),
        NOTIFYR_SMTP_PORT=str(free_port()),
        NOTIFYR_ENCODER="off",
        NOTIFYR_GENERATOR="off",
    )


@contextmanager
def started(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running installation and the JSON document it printed when it was ready; stopped in order at the end."""
    process = subprocess.Popen(
        [*COMMAND, "--json"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)
        process.stdout.close()


def family(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes under the run command, by what they do."""
    found = {}
    for child in psutil.Process(process.pid).children():
        try:
            words = child.cmdline()
        except psutil.Error:  # it has just died
            continue
        if "api.cli" in words:
            name = words[words.index("api.cli") + 1]
            found[words[words.index("--name") + 1] if "--name" in words else name] = child
        elif words and "valkey" in words[0]:
            found["valkey"] = child
    return found


def test_a_newcomer_is_asked_nothing_and_gets_a_link_that_signs_in_once(environment: dict[str, str]) -> None:
    terminal = pexpect.spawn(COMMAND[0], COMMAND[1:], cwd=str(ROOT), env=environment, encoding="utf-8", timeout=60)  # type: ignore[arg-type]  # a dict is an environment
    try:
        terminal.expect(r"(http://127\.0\.0\.1:\d+)/link#(\S+)")
        link = terminal.match
        assert isinstance(link, re.Match)
        terminal.expect("Mail in: +SMTP on 127.0.0.1:")
        terminal.expect("Stop:")
        assert "\x1b" not in (terminal.before or "")
        request = urllib.request.Request(
            f"{link[1]}/api/v1/auth/link",
            data=json.dumps({"token": link[2]}).encode(),
            headers={"Content-Type": "application/json", "Origin": link[1]},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(OSError, match="401"):
            urllib.request.urlopen(request, timeout=10)
        terminal.sendintr()
        terminal.expect(pexpect.EOF, timeout=40)
        terminal.close()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)


def test_a_taken_port_is_replaced_by_the_next_free_one_and_it_is_said(environment: dict[str, str]) -> None:
    taken = int(environment["NOTIFYR_PORT"])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", taken))
        holder.listen()
        with started(environment) as (_, facts):
            port = int(facts["url"].rpartition(":")[2])
            assert port > taken
            assert answers(port)


def test_a_second_start_shows_the_first_page_within_five_seconds(environment: dict[str, str]) -> None:
    with started(environment):
        pass

    def attempt() -> float:
        began = time.monotonic()
        with started(environment) as (_, facts):
            with urllib.request.urlopen(f"{facts['url']}/link", timeout=20) as page:
                assert page.status == 200
            took = time.monotonic() - began
        # Other tests and builds share the machine: a start that gets half of a processor may take twice as long.
        return took / max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    kept_within(5.0, attempt)


def test_an_installation_runs_once(environment: dict[str, str]) -> None:
    with started(environment) as (_, facts):
        second = notifyr("run", "--json", env={k: v for k, v in environment.items() if k.startswith("NOTIFYR_")})
        assert second.returncode == 6
        assert facts["url"] in json.loads(second.stderr.splitlines()[-1])["error"]["message"]


@pytest.mark.checklist(60, 61, 66)
def test_every_socket_is_declared_and_on_loopback_and_no_secret_is_in_the_process_list(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with started(environment) as (process, facts):
        people = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = {
            connection.laddr
            for person in people
            for connection in person.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        password = (tmp_path / "var" / "run" / "redis-url").read_text()
        valkey = int(password.rpartition(":")[2].partition("/")[0])
        web, smtp = (int(facts[name].rpartition(":")[2]) for name in ("url", "smtp"))
        assert listening == {("127.0.0.1", port) for port in (web, smtp, valkey)}
        secrets = [password.partition("redis://:")[2].partition("@")[0], (tmp_path / "var" / "secret-key").read_text()]
        words = " ".join(" ".join(person.cmdline()) for person in people)
        assert [secret for secret in secrets if secret.strip() in words] == []
        readable = [
            path
            for path in (tmp_path / "var").rglob("*")
            if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
        ]
        assert readable == []


@pytest.mark.parametrize("name", ["api", "worker", "mailboxes", "valkey"])
def test_a_killed_process_comes_back(environment: dict[str, str], name: str) -> None:
    with started(environment) as (process, facts):
        before = wait_until(lambda: family(process).get(name), what=name)
        before.kill()
        wait_until(
            lambda: (now := family(process).get(name)) is not None and now.pid != before.pid, what="the new process"
        )
        web, smtp = (int(facts[key].rpartition(":")[2]) for key in ("url", "smtp"))
        wait_until(lambda: answers(web) and answers(smtp), seconds=30, what="everything answering again")


def test_the_processes_end_when_the_run_command_is_killed(environment: dict[str, str]) -> None:
    with started(environment) as (process, _):
        wait_until(lambda: len(family(process)) == 6, seconds=20, what="every process")
        people = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        gone, left = psutil.wait_procs(people, timeout=20)
        assert left == [], [one.cmdline() for one in left]
        assert len(gone) >= 6
    with started(environment) as (_, facts):
        assert answers(int(facts["url"].rpartition(":")[2]))


def test_processes_are_told_apart_and_share_their_memory(environment: dict[str, str]) -> None:
    with started(environment) as (process, _):
        names = {"api", "mailboxes", "worker", "models", "beat", "valkey"}  # a fork has its own a moment after it began

        def every() -> dict[str, psutil.Process] | None:
            seen = family(process)
            return seen if set(seen) == names else None

        found = wait_until(every, seconds=20, what="every process")
        beat = found["beat"].memory_full_info()
        assert beat.pss < beat.rss / 2, "most of what it needs is there already"


def test_stopping_ends_every_process_within_its_time(environment: dict[str, str]) -> None:
    with started(environment) as (process, _):
        people = psutil.Process(process.pid).children(recursive=True)
        began = time.monotonic()
        process.terminate()
        assert process.wait(35) == 0
        assert time.monotonic() - began < 32
        assert [person.pid for person in people if person.is_running()] == []


def test_a_redis_that_is_named_but_down_is_said_in_words(environment: dict[str, str]) -> None:
    done = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env={**environment, "NOTIFYR_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 7
    assert "Redis does not answer" in done.stderr
