"""Build the image of a compose file and start its services, where no container engine runs: buildah, in a chroot.

Usage: sudo python scripts/try_compose.py [deploy/docker-compose.yml | docker-compose.gpu.yml] [--llama-wheels FOLDER]

The base image is pulled, or made of Debian's own Python where no registry is reached. What the file says of stores is taken from
this machine (PostgreSQL, Redis), and there is one network, no limit on what may be written and no GPU: so this shows that the image
builds, that every command of the file starts as its user, that its health checks pass, and that the demo's mails get labels and drafts.
Needs root and, on Debian: apt-get install buildah debootstrap postgresql redis-server
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.servers import find_binary, postgres_server, redis_server, wait_until  # noqa: E402

BUILDAH = [find_binary("buildah", "buildah"), "--storage-driver", "overlay"]
STORES = {"valkey", "postgres"}
GIVEN = ("/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pip.conf")
"""Of this machine, where they are there: whom it trusts, and where its pip looks."""
MINUTES = 5
_began = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _began:3.0f} s] {text}", flush=True)


def buildah(*words: str, quiet: bool = True) -> str:
    """What a buildah command says; with `quiet=False` it says it as it goes."""
    done = subprocess.run([*BUILDAH, *words], stdout=subprocess.PIPE if quiet else None, text=True, check=True)
    return (done.stdout or "").strip()


def base_image(name: str) -> None:
    """`name` in this machine's images: from its registry, or made of Debian's Python."""
    if buildah("images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference={name}"):
        return
    with contextlib.suppress(subprocess.CalledProcessError):
        buildah("pull", name)
        return
    say(f"no registry has {name} for us: making it of Debian's Python")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        wanted = "--include=python3.11,python3.11-venv,ca-certificates"
        subprocess.run(
            [find_binary("debootstrap", "debootstrap"), "--variant=minbase", wanted, "bookworm", str(root)],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        (root / "usr/bin/python").symlink_to("python3.11")
        made = buildah("from", "scratch")
        buildah("copy", "-q", made, str(root), "/")
        buildah("commit", "-q", made, f"docker.io/library/{name}")
        buildah("rm", made)


def build(service: dict[str, Any], file: Path, wheels: Path | None) -> str:
    context = (file.parent / service["build"]["context"]).resolve()
    dockerfile = context / service["build"]["dockerfile"]
    for name in sorted(set(re.findall(r"(?m)^FROM (\S+)", dockerfile.read_text()))):
        base_image(name)
    shared = [Path(one) for one in (*GIVEN, os.environ.get("PIP_FIND_LINKS", "")) if one and Path(one).exists()]
    words = [word for one in shared for word in ("-v", f"{one}:{one}:ro")]
    words += [word for name in ("PIP_FIND_LINKS", "PIP_CERT") if name in os.environ for word in ("--env", name)]
    say(f"building {service['image']} from {dockerfile.relative_to(ROOT)}")
    tag = ["-t", service["image"], "-f", str(dockerfile), str(context)]
    with tempfile.TemporaryDirectory() as folder:
        if wheels is not None:
            _index(wheels, Path(folder))
            words += ["-v", f"{folder}:/root/.cache/notifyr/wheels:ro"]
            words += ["--build-arg", "LLAMA_WHEELS=file:///root/.cache/notifyr/wheels"]
        how = ["--isolation", "chroot", "--pull-never", "--layers", "--format", "docker", "-q"]
        buildah("bud", *how, *words, *tag, quiet=False)
    return str(service["image"])


def _index(wheels: Path, folder: Path) -> None:
    """The wheels of llama.cpp where the one image looks for files, and as the index that the other image asks."""
    page = folder / "llama-cpp-python" / "index.html"
    page.parent.mkdir()
    for wheel in sorted(wheels.glob("llama_cpp_python-*.whl")):
        shutil.copy(wheel, folder)
        page.write_text(f'<a href="../{wheel.name}">{wheel.name}</a>')


class Services:
    """The services of a compose file as processes of its image, with the stores of this machine."""

    def __init__(self, image: str, folder: Path, redis: str, database: str) -> None:
        self._image, self._folder, self._redis, self._database = image, folder, redis, database
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._made: list[str] = []
        self._hand = ""
        self._key = secrets.token_hex(32)
        (folder / "var").mkdir()
        shutil.chown(folder / "var", 10001, 10001)

    def _container(self) -> str:
        self._made.append(buildah("from", "--pull-never", self._image))
        return self._made[-1]

    def words(self, service: dict[str, Any], command: list[str], *, made: str = "") -> list[str]:
        """How a command runs as a service does: in a container of its own, or in the one that checks and single commands share."""
        if not made:
            made = self._hand = self._hand or self._container()
        environment = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in service["environment"].items()
        }
        environment |= {"NOTIFYR_SECRET_KEY": self._key, "NOTIFYR_REDIS_URL": self._redis}
        if "NOTIFYR_DATABASE_URL" in environment:
            environment["NOTIFYR_DATABASE_URL"] = self._database
        given = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        run = ["run", "--isolation", "chroot", "-v", f"{self._folder / 'var'}:/app/var", *given, made, "--", *command]
        return [*BUILDAH, *run]

    def do(self, service: dict[str, Any], command: list[str]) -> str:
        done = subprocess.run(self.words(service, command), capture_output=True, text=True, check=False)
        if done.returncode:
            told = "".join(f"\n-- {name}:\n{self._log(name)}" for name in self._running)
            words = f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr[-2000:]}"
            raise SystemExit(f"{words}{told}")
        return done.stdout

    def start(self, name: str, service: dict[str, Any]) -> None:
        log = (self._folder / f"{name}.log").open("wb")
        words = self.words(service, service["command"], made=self._container())
        self._running[name] = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def well(self, name: str, service: dict[str, Any]) -> bool:
        """Whether its own health check passes."""
        self.alive()
        check = self.words(service, service["healthcheck"]["test"][1:])
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    def alive(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with {process.returncode}: {self._log(name)}")

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running.values():
            process.wait(60)
        for made in self._made:
            buildah("rm", made)


@contextlib.contextmanager
def started(image: str, compose: dict[str, Any]) -> Iterator[Services]:
    with tempfile.TemporaryDirectory() as folder, redis_server() as redis, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o755)
        database = ""
        if "postgres" in compose["services"]:
            server = stack.enter_context(postgres_server())
            server.execute("CREATE DATABASE notifyr")
            database = server.url("notifyr")
        services = Services(image, Path(folder), redis, database)
        try:
            yield services
        finally:
            services.stop()


def labels_of(key: str) -> Iterator[tuple[str, list[str]]]:
    """Subject and labels of some threads' first messages."""
    with httpx.Client(base_url="http://127.0.0.1:8300/api/v1", headers={"Authorization": f"Bearer {key}"}) as api:
        for thread in api.get("/threads").raise_for_status().json()["items"][:5]:
            first = api.get(f"/threads/{thread['id']}/messages").raise_for_status().json()["items"][0]
            yield thread["subject"], [f"{one['name']} {one['score']:.2f}" for one in first["labels"]]


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("file", nargs="?", default="deploy/docker-compose.yml", type=Path)
    given.add_argument("--llama-wheels", type=Path, help="folder with a wheel of llama-cpp-python, instead of an index")
    options = given.parse_args()
    if os.geteuid():
        sys.exit("root is needed: buildah's chroot is made by nobody else")
    file = ROOT / options.file
    compose = yaml.safe_load(file.read_text())
    ours = {name: one for name, one in compose["services"].items() if name not in STORES}
    image = build(ours["api"], file, options.llama_wheels)
    with started(image, compose) as services:
        say("migrating")
        services.do(ours["migrate"], ours["migrate"]["command"])
        for name, service in ours.items():
            if name != "migrate":
                services.start(name, service)
        for name, service in ours.items():
            if "healthcheck" in service:
                wait_until(lambda: services.well(name, service), seconds=120, what=f"the health check of {name}")  # noqa: B023
                say(f"{name} is well by its own check")
        api = ours["api"]
        services.do(api, ["notifyr", "agents", "create", "ada@example.org", "--admin"])
        made = services.do(api, ["notifyr", "keys", "create", "trial", "--scope", "threads:read", "--json"])
        key = str(json.loads(made)["secret"])
        said = services.do(api, ["notifyr", "demo", "--wait", str(60 * MINUTES), "--json"])
        say(f"the demo's mails: {said.strip()}")
        services.alive()
        for subject, labels in labels_of(key):
            say(f"{subject}: {', '.join(labels) or 'no labels'}")
        ready = httpx.get("http://127.0.0.1:8300/readyz").json()
        say(f"the api says: {json.dumps(ready)}")
        services.alive()
        say(f"{len(ours) - 1} services of {options.file} run")


if __name__ == "__main__":
    main()
