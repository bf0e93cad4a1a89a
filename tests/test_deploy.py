"""The compose file for GPUs says what the program understands: settings, commands, files, and which services get the GPU."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.cli import COMMANDS, create_app
from assistant.settings import PREFIX, ROOT, load_settings

FILE = ROOT / "deploy" / "docker-compose.gpu.yml"
STATELESS = {"valkey"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if name not in STATELESS}


def test_every_setting_in_it_exists_and_is_valid(compose: dict[str, Any]) -> None:
    for name, service in ours(compose).items():
        filled = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", re.sub(r"\$\{\w+:\?[^}]*\}", "k" * 40, str(value)))
            for key, value in service["environment"].items()
        }
        assert all(key.startswith(PREFIX) for key in filled), name
        settings = load_settings(filled)
        assert settings.encoder.startswith("torch:") and settings.generator.startswith("llama:")
    assert "${NOTIFYR_SECRET_KEY:?" in FILE.read_text(), "a secret is asked for, never given"


def test_every_command_in_it_is_one_of_ours_with_its_options(compose: dict[str, Any]) -> None:
    for service in ours(compose).values():
        program, command, *options = service["command"]
        assert program == "notifyr" and command in COMMANDS
        shown = CliRunner().invoke(create_app(), [command, "--help"]).stdout
        assert all(option in shown for option in options if option.startswith("--"))
    queues = [part for one in ours(compose).values() for word in one["command"] for part in word.split(",")]
    assert {"inbound", "outbound", "models", "api", "beat", "mailboxes", "migrate"} <= set(queues)


def test_the_workers_with_models_get_the_gpu_and_nothing_else_does(compose: dict[str, Any]) -> None:
    with_gpu = {name for name, service in compose["services"].items() if "deploy" in service}
    assert with_gpu == {"worker", "models"}
    for name in with_gpu:
        (device,) = compose["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2 and all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_is_built_from_files_that_are_here(compose: dict[str, Any]) -> None:
    build = compose["services"]["worker"]["build"]
    dockerfile = FILE.parent / build["context"] / build["dockerfile"]
    text = dockerfile.read_text()
    for match in re.finditer(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in match[1].split()), match[0]
    for name in re.findall(r"requirements/[a-z]+\.txt", text):
        assert (ROOT / name).is_file(), name
    assert "\nUSER notifyr\n" in text
