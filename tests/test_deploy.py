"""The compose files and images say what the program understands, and keep what any image should. No Docker is needed to read them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.cli import COMMANDS, create_app
from assistant.settings import PREFIX, ROOT, load_settings

DEPLOY = ROOT / "deploy"
FILES = ("deploy/docker-compose.yml", "docker-compose.gpu.yml")
IMAGES = ("Dockerfile", "gpu.Dockerfile")
STORES = {"valkey", "postgres"}


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> Path:
    return ROOT / str(request.param)


@pytest.fixture
def compose(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text()))


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    return (DEPLOY / str(request.param)).read_text()


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in compose["services"].items() if name not in STORES}


def test_every_setting_in_it_exists_and_is_valid(file: Path, compose: dict[str, Any]) -> None:
    for name, service in ours(compose).items():
        filled = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", re.sub(r"\$\{\w+:\?[^}]*\}", "k" * 40, str(value)))
            for key, value in service["environment"].items()
        }
        assert all(key.startswith(PREFIX) for key in filled), name
        settings = load_settings(filled)
        assert settings.encoder.startswith("torch:" if "gpu" in file.name else "onnx:")
        assert settings.generator.startswith("llama:")
    assert "${NOTIFYR_SECRET_KEY:?" in file.read_text(), "a secret is asked for, never given"


def test_every_command_in_it_is_one_of_ours_with_its_options(compose: dict[str, Any]) -> None:
    for service in ours(compose).values():
        program, command, *options = service["command"]
        assert program == "notifyr" and command in COMMANDS
        shown = CliRunner().invoke(create_app(), [command, "--help"]).stdout
        assert all(option in shown for option in options if option.startswith("--"))
    queues = [part for one in ours(compose).values() for word in one["command"] for part in word.split(",")]
    assert {"inbound", "outbound", "models", "api", "beat", "mailboxes", "migrate"} <= set(queues)


def test_the_workers_with_models_get_the_gpu_and_nothing_else_does() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    with_gpu = {name for name, service in compose["services"].items() if "deploy" in service}
    assert with_gpu == {"inbound", "models"}
    for name in with_gpu:
        (device,) = compose["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2 and all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_of_each_service_is_built_here_or_pinned(file: Path, compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert (file.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        else:
            assert re.fullmatch(r"[a-z/]+:\d[\w.-]*", service["image"]), "a version, never latest"


def test_every_store_and_every_listener_says_whether_it_is_well(compose: dict[str, Any]) -> None:
    services = compose["services"]
    well = {name for name, service in services.items() if "healthcheck" in service}
    assert STORES & set(services) <= well
    assert {"api", "mailboxes"} <= well


def test_a_process_of_ours_writes_only_its_data_and_has_no_rights_of_the_machine(compose: dict[str, Any]) -> None:
    for name, service in ours(compose).items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["tmpfs"] == ["/tmp"], name
        assert "privileged" not in service and service["volumes"] == ["var:/app/var"], name


def test_only_what_is_reached_or_must_reach_somebody_has_a_way_out(compose: dict[str, Any]) -> None:
    assert compose["networks"] == {"inside": {"internal": True}, "outside": {}}
    networks = {name: service["networks"] for name, service in compose["services"].items()}
    assert {name for name, one in networks.items() if "outside" in one} == {"api", "mailboxes", "outbound"}
    assert all("inside" in one for one in networks.values()), "each needs the stores"
    published = {name for name, service in compose["services"].items() if service.get("ports")}
    assert published == {"api", "mailboxes"}, (
        "Docker publishes no port of a container that is only on an internal network"
    )


def test_an_image_has_the_library_that_llama_cpp_and_onnxruntime_load(image: str) -> None:
    """Without it everything else runs, and no draft is made: the image for GPUs was like that (scripts/try_compose.py)."""
    last = image.rpartition("\nFROM ")[2]
    assert "--no-install-recommends libgomp1" in last


def test_an_image_is_built_from_files_that_are_here(image: str) -> None:
    for match in re.finditer(r"^COPY (?!--from)(.+) \S+$", image, re.MULTILINE):
        assert all((ROOT / source).exists() for source in match[1].split()), match[0]
    for name in re.findall(r"requirements/[a-z]+\.txt|scripts/\w+\.sh", image):
        assert (ROOT / name).is_file(), name


def test_the_gpu_extra_is_what_the_encoder_on_torch_imports_and_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: {requirement(one): one for one in ones} for name, ones in project["optional-dependencies"].items()}
    code = ast.parse((ROOT / "models" / "bert_torch.py").read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(code)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    everywhere = {requirement(one) for one in project["dependencies"]}
    foreign = imported - set(sys.stdlib_module_names) - everywhere - {"assistant", "models"}
    assert foreign == set(extras["gpu"]) == {"torch", "transformers"}
    assert extras["gpu"].items() <= extras["train"].items(), "one version of each, whichever extra asks"


def requirement(line: str) -> str:
    """The name of a package in a line that asks for it."""
    return re.split(r"[\[<>=]", line)[0]


@pytest.mark.parametrize("name", ["scripts/install_train.sh", "deploy/gpu.Dockerfile"])
def test_the_version_of_torch_is_read_from_the_extra_and_is_one(name: str) -> None:
    (command,) = re.findall(r"\$\((sed -n [^)]*\\\)[^)]*\\1/p' pyproject\.toml)\)", (ROOT / name).read_text())
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["gpu"]
    assert f"torch=={done.stdout.strip()}" in pinned


def test_an_image_has_a_pinned_base_a_user_without_rights_and_no_secret(image: str) -> None:
    bases = re.findall(r"^FROM (\S+)", image, re.MULTILINE)
    assert bases and all(re.fullmatch(r"python:3\.11[\w.-]+", base) for base in bases)
    assert re.findall(r"^USER (\S+)$", image, re.MULTILINE)[-1:] == ["notifyr"]
    assert not re.search(r"(?i)(secret|password|token|api_?key)\s*=", image)
    assert not re.search(r"^ADD |curl .*\| *(ba)?sh|--privileged|chmod 777", image, re.MULTILINE)
    for line in re.findall(r"apt-get install[^&]*", image):
        assert "--no-install-recommends" in line and "-y" in line
    assert image.count("apt-get update") == image.count("rm -rf /var/lib/apt/lists/*")


def test_no_data_and_no_git_history_gets_into_an_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "var"} <= set(ignored)
