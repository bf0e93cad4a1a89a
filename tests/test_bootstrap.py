"""scripts/bootstrap.sh after a try that broke off, and the torch that scripts/install_train.sh takes: with an interpreter and a pip that only write down what they are asked for."""

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
    for name in ("bootstrap.sh", "bytecode.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
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


def test_make_hands_on_the_interpreter_that_is_asked_for(checkout: Path) -> None:
    """A variable of the Makefile had the same name, so whoever set PYTHON was told that there is no Python."""
    shutil.copy(ROOT / "Makefile", checkout)
    for name in ("pip.txt", "runtime.txt", "models.txt"):
        (checkout / "requirements" / name).touch()
    given = {"PYTHON": str(checkout / "python"), "LLAMA": "off", "XDG_CACHE_HOME": str(checkout / "cache")}
    asked = ["make", "-C", str(checkout), ".venv/.ready-run"]
    done = subprocess.run(asked, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (checkout / ".venv" / "bin" / "python").read_text() == PYTHON


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


# -- the train extra

TORCH = """#!/bin/bash
echo "$@" >> asked
case "$*" in
  *--dry-run*--index-url*) echo '{"torch": "2.13.0+cpu"}' ;;
  *--dry-run*) echo '{"requires_dist": ["nvidia-cublas==1"]}' ;;
esac
"""


@pytest.fixture
def extra(checkout: Path) -> Path:
    """A checkout with a .venv, whose pip would take a CUDA build from its own index."""
    shutil.copy(ROOT / "scripts" / "install_train.sh", checkout / "scripts")
    (checkout / "pyproject.toml").write_text('gpu = [\n  "torch==2.13.0",\n]\n')
    tools = checkout / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, text in (("pip", TORCH), ("python", "#!/bin/sh\n[ ! -e away ]\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return checkout


def install_train(checkout: Path, **env: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    command = [str(checkout / "scripts" / "install_train.sh")]
    given = {name: value for name, value in os.environ.items() if name != "TORCH_INDEX"} | env
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    return done, (checkout / "asked").read_text().splitlines()


without_a_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="here a CUDA build is for something")


@without_a_gpu
def test_torch_comes_from_the_index_for_cpus_where_pip_would_take_a_cuda_build(extra: Path) -> None:
    done, asked = install_train(extra)
    assert done.returncode == 0, done.stderr
    (torch,) = [line for line in asked if "--dry-run" not in line and "torch==2.13.0" in line]
    assert "--no-deps --index-url https://download.pytorch.org/whl/cpu" in torch
    assert [line.rpartition("/")[2] for line in asked if "--require-hashes" in line] == ["train.txt", "base.txt"]


@without_a_gpu
def test_where_that_index_is_out_of_reach_the_setting_that_names_another_is_told(extra: Path) -> None:
    (extra / "away").touch()
    done, asked = install_train(extra)
    assert done.returncode == 1 and "TORCH_INDEX=https://download.pytorch.org/whl/cpu" in done.stderr
    assert all("--dry-run" in line for line in asked), "nothing was fetched"
    done, asked = install_train(extra, TORCH_INDEX="https://torch.example/cpu")
    assert "--index-url https://torch.example/cpu" in asked[-3]


# -- the servers of the tests


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs with what the script itself needs, and none of the servers."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env"):
        (programs / name).symlink_to(str(shutil.which(name)))
    return programs


def servers(programs: Path, **stand_ins: str) -> subprocess.CompletedProcess[str]:
    """The script, where only `programs` are found: of /usr/sbin, which it adds, nothing is needed that is not there."""
    for name, text in stand_ins.items():
        (programs / name.replace("_", "-")).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name.replace("_", "-")).chmod(0o755)
    script = (ROOT / "scripts" / "install_test_servers.sh").read_text()
    own = programs.parent / "install.sh"
    own.write_text(
        script.replace('export PATH="$PATH:/usr/sbin:/usr/local/sbin"', "")
        .replace("/usr/lib/postgresql", "/nowhere")
        .replace("/usr/sbin/policy-rc.d", "/nowhere/policy-rc.d")
    )
    command = [str(shutil.which("bash")), str(own)]
    return subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)


SERVERS = {
    "redis-server",
    "rabbitmq-server",
    "postfix",
    "chromium",
    "util-linux",
    "strace",
    "caddy",
    "systemd",
    "postgresql",
}


def test_without_root_and_sudo_it_says_what_to_install_and_by_which_command(bare: Path) -> None:
    done = servers(bare, apt_get="exit 9", id="echo 1000", sudo="exit 1")
    assert done.returncode == 1 and "sudo apt-get install --no-install-recommends" in done.stderr
    assert set(done.stderr.split("recommends", 1)[1].split()) == SERVERS


def test_without_apt_it_names_what_is_missing_and_nothing_that_is_there(bare: Path) -> None:
    done = servers(bare, initdb="", chromium="")
    assert done.returncode == 1 and "your system's package manager" in done.stderr
    assert SERVERS - {"postgresql", "chromium"} == SERVERS & set(done.stderr.replace("(", "").split())


def test_with_sudo_it_installs_what_is_missing_and_starts_no_daemon(bare: Path) -> None:
    asked = bare.parent / "asked"
    sudo = f"""[ "$*" = "-n true" ] || printf "%s\\n" "$*" >> {asked}
case "$*" in *tee*|*debconf*) while read -r _; do :; done ;; esac  # whoever writes to a reader that is gone ends by SIGPIPE"""
    done = servers(bare, apt_get="exit 9", id="echo 1000", sudo=sudo)
    assert done.returncode == 0, done.stderr
    lines = asked.read_text().splitlines()
    assert any(one.startswith("-n env DEBIAN_FRONTEND=noninteractive apt-get install") for one in lines)
    installed = next(one for one in lines if "apt-get install" in one)
    assert set(installed.split()) >= SERVERS
    assert lines[0] == "-n tee /nowhere/policy-rc.d" and lines[-1] == "-n rm -f /nowhere/policy-rc.d"
    assert (
        servers(
            bare,
            **dict.fromkeys(("redis_server", "rabbitmq_server", "smtp_sink", "setpriv", "strace", "caddy"), ""),
            chromium="",
            systemd_analyze="",
            initdb="",
            apt_get="exit 9",
            sudo="exit 9",
        ).returncode
        == 0
    )
