"""The faults that only root can make: everybody else makes them through `sudo`, and takes them back through it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.house import sync_fails
from tests.faults.test_postgres_full import small_disk

SUDO = '#!/bin/sh\n[ "$1" = -n ] || exit 1\nshift\necho "$@" >> {log}\nexec "$@"\n'


@pytest.fixture
def sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another user's eyes, and a `sudo` that writes down what it was asked for."""
    log, program = tmp_path / "asked", tmp_path / "bin" / "sudo"
    program.parent.mkdir()
    program.write_text(SUDO.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return log


def test_a_small_file_system_is_mounted_and_let_go_of_through_sudo(sudo: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m") as disk:
        assert disk.is_mount()
    assert not disk.is_mount()
    assert [line.split()[0] for line in sudo.read_text().splitlines()] == ["mount", "umount"]


def test_where_there_is_no_sudo_it_is_a_failure_with_a_sentence(
    sudo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(pytest.fail.Exception, match="run this test as root or with sudo"), small_disk(tmp_path, "1m"):
        pass


def test_a_tracer_that_sudo_started_is_ended_through_it(sudo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", _protected(Path.read_text))
    script = "import os, time\nwhile True:\n    try: os.fsync(0)\n    except OSError: pass\n    time.sleep(0.01)"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.DEVNULL)
    try:
        with sync_fails(psutil.Process(child.pid)):
            pass
        assert "TracerPid:\t0\n" in Path(f"/proc/{child.pid}/status").read_text()
    finally:
        child.kill()
        child.wait()
    assert [Path(line.split()[0]).name for line in sudo.read_text().splitlines()] == ["strace", "kill"]


def _protected(read: Callable[..., str]) -> Callable[..., str]:
    """Files as they are, on a kernel where nobody may trace but root."""
    return lambda path, *words, **more: "1" if path.name == "ptrace_scope" else read(path, *words, **more)
