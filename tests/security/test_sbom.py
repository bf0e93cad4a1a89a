"""The bill of materials is made from the lock files, is current, and names every package once; the audit never looks clean by accident."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from assistant.settings import ROOT

pytestmark = pytest.mark.checklist(67)
LOCKS = ("pip", "runtime", "models", "base", "llama", "compile")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "sbom.py"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the script reads, in a folder of its own."""
    for name in ("scripts/sbom.py", "pyproject.toml", "api/inbox/static/vendor/manifest.json", "requirements"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, target)
    return tmp_path


def committed() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "requirements" / "sbom.cdx.json").read_text())
    return content


def test_the_bill_of_materials_is_current() -> None:
    done = run(ROOT, "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("requirements/runtime.txt", r"(?m)^(httpx==)[0-9.]+", r"\g<1>9.9.9"),
        ("requirements/runtime.txt", r"(--hash=sha256:)[0-9a-f]{4}", r"\g<1>0000"),
        ("api/inbox/static/vendor/manifest.json", r'("sha384": ")[A-Za-z0-9]{4}', r"\g<1>AAAA"),
        ("pyproject.toml", r'(?m)^(version = ")[0-9.]+', r"\g<1>9.9.9"),
    ],
    ids=["a version", "a hash", "a browser library", "our version"],
)
def test_whatever_is_installed_otherwise_makes_it_stale(copy: Path, file: str, old: str, new: str) -> None:
    assert run(copy, "--check").returncode == 0
    text = (copy / file).read_text()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    (copy / file).write_text(changed)
    done = run(copy, "--check")
    assert done.returncode == 1
    assert "sbom.cdx.json is not up to date with the lock files" in done.stderr
    assert run(copy).returncode == 0
    assert run(copy, "--check").returncode == 0
    assert (copy / "requirements" / "sbom.cdx.json").read_text() != json.dumps(committed())


def test_it_names_every_locked_package_with_its_hashes_and_nothing_twice() -> None:
    bill = committed()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", bill["serialNumber"])
    components = {one["bom-ref"]: one for one in bill["components"]}
    assert len(components) == len(bill["components"])
    text = "\n".join((ROOT / "requirements" / f"{lock}.txt").read_text() for lock in LOCKS)
    locked = re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", text)
    names = {f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}" for name, version in locked}
    assert len(names) > 80
    assert {ref for ref in components if ref.startswith("pkg:pypi/")} == names
    kept = {
        one["content"]
        for component in bill["components"]
        for reference in component.get("externalReferences", [])
        for one in reference["hashes"]
    }
    assert kept == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))
    assert {one["name"] for one in bill["components"] if one["purl"].startswith("pkg:npm/")} == {
        "htmx.org",
        "lucide-static",
        "tinykeys",
    }


def test_who_needs_what_leads_from_us_to_every_package() -> None:
    bill = committed()
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    own = bill["metadata"]["component"]["bom-ref"]
    assert set(needs) == {one["bom-ref"] for one in bill["components"]} | {own}
    reached, ahead = set[str](), [own]
    while ahead:
        one = ahead.pop()
        if one not in reached:
            reached.add(one)
            ahead += needs[one]
    assert reached == set(needs)
    assert any(ref.startswith("pkg:pypi/httpcore@") for ref in needs[_ref(needs, "httpx")])


def _ref(needs: dict[str, Any], name: str) -> str:
    return next(ref for ref in needs if ref.startswith(f"pkg:pypi/{name}@"))


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("answer", ["none", "500", "of somebody else"])
def test_an_audit_that_cannot_ask_says_so_and_does_not_pass(answer: str) -> None:
    script = str(ROOT / "scripts" / "audit.py")
    with answering(500 if answer == "500" else 200, b"{}") as url:
        asked = "http://127.0.0.1:9/v1/query" if answer == "none" else url
        done = subprocess.run([sys.executable, script, asked], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("Nothing was compared: the advisory database at http://127.0.0.1:")
    assert "Run `make audit` on a machine that may reach it." in done.stderr


def test_no_landing_audits_over_the_network() -> None:
    text = (ROOT / ".ci" / "run").read_text() + (ROOT / "Makefile").read_text().partition("\naudit:")[0]
    assert "audit.py" not in text
