"""The systemd units: systemd itself reads them, they give no right that is not needed, and they start what exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import COMMANDS, create_app
from api.supervisor import procfile
from assistant.settings import PREFIX, ROOT, Settings
from tests.support.servers import find_binary

FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
INSTANCES = {"notifyr@.service": ("api", "beat", "mailboxes"), "notifyr-worker@.service": ("inbound", "outbound")}
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
    "User": "notifyr",
    "StateDirectory": "notifyr",
    "StateDirectoryMode": "0700",
}


def read(name: str) -> dict[str, list[str]]:
    """Every key of a unit with its values, in order."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_each_unit_takes_the_rights_away_that_it_does_not_need(name: str) -> None:
    unit = read(name)
    assert {key: unit.get(key) for key in HARDENED} == {key: [value] for key, value in HARDENED.items()}


@pytest.mark.parametrize("name", UNITS)
def test_the_code_belongs_to_somebody_else_and_nothing_but_the_data_can_be_written(name: str) -> None:
    unit = read(name)
    assert unit["ExecStart"][0].startswith("/opt/notifyr/.venv/bin/notifyr ")
    assert "ReadWritePaths" not in unit, "StateDirectory is the one place"
    assert f"{PREFIX}DATA_DIR=/var/lib/notifyr" in unit["Environment"]


@pytest.mark.parametrize("name", UNITS)
def test_each_unit_starts_a_command_that_exists_with_its_options(name: str) -> None:
    (line,) = read(name)["ExecStart"]
    for instance in INSTANCES.get(name, ("",)):
        _, command, *options = line.replace("%i", instance).split()
        assert command in COMMANDS
        shown = CliRunner().invoke(create_app(), [command, "--help"]).stdout
        assert all(option.replace("--no-", "--") in shown for option in options if option.startswith("--"))


def test_the_units_together_start_what_the_procfile_starts() -> None:
    apart = set()
    for name in UNITS:
        if name in {"notifyr.service", "notifyr-migrate.service"}:
            continue
        for instance in INSTANCES.get(name, ("",)):
            command, *options = read(name)["ExecStart"][0].replace("%i", instance).split()[1:]
            queues = options[options.index("--queues") + 1].split(",") if "--queues" in options else [""]
            apart |= {(command, queue) for queue in queues}
    wanted = set()
    for words in procfile(ROOT / "deploy" / "Procfile").values():
        command, *options = words[3:]
        queues = options[options.index("--queues") + 1].split(",") if "--queues" in options else [""]
        wanted |= {(command, queue) for queue in queues}
    assert apart == wanted


def test_no_unit_gives_a_secret_and_every_setting_in_them_exists() -> None:
    for name in UNITS:
        for value in read(name).get("Environment", []):
            key = value.partition("=")[0]
            assert key.removeprefix(PREFIX).lower() in Settings.model_fields
            assert "SECRET" not in key and "URL" not in key, "they come from /etc/notifyr/environment"
        assert read(name)["EnvironmentFile"] == ["/etc/notifyr/environment"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as on a machine: instances named, and programs that are there, so that systemd can look at all else."""
    folder = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (FOLDER / name).read_text().replace("/opt/notifyr/.venv/bin/notifyr", "/bin/true")
        text = re.sub(r"^(WorkingDirectory)=.*$", r"\1=/", text, flags=re.MULTILINE)
        (folder / name).write_text(text)
        for instance in INSTANCES.get(name, ()):
            (folder / name.replace("@", f"@{instance}")).write_text(text)
    return folder


def analyze(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = find_binary("systemd-analyze", "systemd")
    return subprocess.run(
        [program, *words],
        cwd=folder,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_systemd_finds_nothing_wrong_with_them(installed: Path) -> None:
    files = [f"./{path.name}" for path in sorted(installed.iterdir()) if "@." not in path.name]
    done = analyze("verify", *files, folder=installed)
    ours = [line for line in done.stderr.splitlines() if str(installed) in line or "notifyr" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", [name.replace("@.", "@api.") for name in UNITS if name != "notifyr-worker@.service"])
def test_systemd_calls_what_is_left_open_small(installed: Path, name: str) -> None:
    done = analyze("security", "--offline=true", "--threshold=20", f"./{name}", folder=installed)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < 2.0 and done.returncode == 0, done.stdout[-500:]
