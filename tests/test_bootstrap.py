"""scripts/bootstrap.sh after a try that broke off: with an interpreter and a pip that only write down what they are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from assistant.settings import ROOT

PYTHON = """#!/bin/sh
case "$*" in
  *importlib.metadata*) test -e .venv/llama; exit ;;
  "-m venv"*) ;;
  *) exit 0 ;;
esac
mkdir -p .venv/bin
cp "$0" .venv/bin/python
[ -e incomplete ] && exit 1  # as Debian's does without python3-venv: half of it is there
cp pip .venv/bin/pip
"""
PIP = """#!/bin/bash
echo "$@" >> asked
[ ! -e away ] || exit 1
for last; do [ "$before" != -w ] || into=$last; before=$last; done
case "$*" in
  wheel*) echo good > "$into/llama_cpp_python-9.9.9-py3-none-any.whl" ;;
  *.whl) grep -q good "$last" && touch .venv/llama ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("scripts", "requirements"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "scripts" / "bootstrap.sh", tmp_path / "scripts")
    (tmp_path / "requirements" / "llama.txt").write_text("llama-cpp-python==9.9.9\n")
    for name, text in (("python", PYTHON), ("pip", PIP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def bootstrap(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": str(checkout / "python"), "XDG_CACHE_HOME": str(checkout / "cache")} | env
    command = [str(checkout / "scripts" / "bootstrap.sh"), "run"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_without_the_venv_module_nothing_is_left_and_the_next_try_works(checkout: Path) -> None:
    (checkout / "incomplete").touch()
    done = bootstrap(checkout, LLAMA="off")
    assert done.returncode == 1 and "apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()
    (checkout / "incomplete").unlink()
    assert bootstrap(checkout, LLAMA="off").returncode == 0
    assert (checkout / ".venv" / ".ready-run").exists()


def test_a_venv_that_was_broken_off_is_made_anew_and_a_whole_one_is_kept(checkout: Path) -> None:
    (checkout / "away").touch()  # the index: the packages cannot be installed
    assert bootstrap(checkout, LLAMA="off").returncode != 0
    (checkout / ".venv" / "bin" / "pip").unlink()
    (checkout / "away").unlink()
    done = bootstrap(checkout, LLAMA="off")
    assert done.returncode == 0 and "an earlier try was broken off" in done.stdout
    (checkout / ".venv" / "mine").touch()
    assert bootstrap(checkout, LLAMA="off").returncode == 0
    assert (checkout / ".venv" / "mine").exists()


def test_a_kept_wheel_that_is_damaged_is_compiled_again(checkout: Path) -> None:
    kept = checkout / "cache" / "notifyr" / "wheels" / "llama_cpp_python-9.9.9-py3-none-linux_x86_64.whl"
    kept.parent.mkdir(parents=True)
    kept.write_text("half a wheel")
    done = bootstrap(checkout, LLAMA_WHEELS="")
    assert done.returncode == 0, done.stderr
    assert "it is damaged" in done.stdout and "compiled in" in done.stdout
    assert [one.read_text() for one in kept.parent.iterdir()] == ["good\n"]
