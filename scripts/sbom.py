"""Writes requirements/sbom.cdx.json, a CycloneDX 1.6 bill of materials of what `make run` installs, from the lock files alone.

With --check it only says whether the file is current. Equal lock files give equal bytes: no time, no random number.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path("requirements", "sbom.cdx.json")
LOCKS = ("pip", "runtime", "models", "base", "llama", "compile")
"""What is installed on a machine that runs Notifyr. `dev` and `train` never get there."""
BROWSER = Path("api", "inbox", "static", "vendor", "manifest.json")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([A-Za-z0-9.+!-]+)", re.MULTILINE)


def blocks(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Name, version, SHA-256 of each file, and who asked for it, of each entry of a lock file."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", "\n" + re.sub(r"(?m)^#.*\n", "", text)):
        pin = _PIN.search(block)
        if pin is None:
            continue
        wanted_by = re.findall(r"(?m)^\s+#(?: via)? +([A-Za-z0-9._-]+)(?: \(.*\))?$", block)
        yield _normal(pin[1]), pin[2], re.findall(r"--hash=sha256:([0-9a-f]{64})", block), [*map(_normal, wanted_by)]


def bill(root: Path = ROOT) -> str:
    """The whole document as text."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    found: dict[str, dict[str, Any]] = {}
    asked: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version, hashes, wanted_by in blocks(
            (root / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
        ):
            found.setdefault(name, _python(name, version, hashes))
            # What no other package asked for, we did.
            asked.setdefault(name, set()).update(wanted_by or [project["name"]])
    refs = {name: component["bom-ref"] for name, component in found.items()} | {project["name"]: own}
    needs: dict[str, set[str]] = {ref: set() for ref in refs.values()}
    for name, wanted_by in asked.items():
        for other in wanted_by:
            needs[refs.get(other, own)].add(refs[name])
    for entry in json.loads((root / BROWSER).read_text(encoding="utf-8")).values():
        component = _browser(**entry)
        found[component["bom-ref"]] = component
        needs[own].add(component["bom-ref"])
        needs.setdefault(component["bom-ref"], set())
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"license": {"id": project["license"]}}],
            }
        },
        "components": sorted(found.values(), key=lambda one: str(one["bom-ref"])),
        "dependencies": [{"ref": ref, "dependsOn": sorted(others)} for ref, others in sorted(needs.items())],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return (
        json.dumps(
            {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "serialNumber": f"urn:uuid:{serial}"}
            | content,
            indent=1,
        )
        + "\n"
    )


def _python(name: str, version: str, hashes: list[str]) -> dict[str, Any]:
    ref = f"pkg:pypi/{name}@{version}"
    # A lock names every file of a release, of which one is installed: they are files of it, not the component itself.
    files = {
        "type": "distribution",
        "url": f"https://pypi.org/project/{name}/{version}/",
        "hashes": [{"alg": "SHA-256", "content": one} for one in hashes],
    }
    return {
        "type": "library",
        "bom-ref": ref,
        "name": name,
        "version": version,
        "purl": ref,
        "externalReferences": [files],
    }


def _browser(package: str, version: str, licence: str, sha384: str) -> dict[str, Any]:
    ref = f"pkg:npm/{package}@{version}"
    return {
        "type": "library",
        "bom-ref": ref,
        "name": package,
        "version": version,
        "purl": ref,
        "hashes": [{"alg": "SHA-384", "content": base64.b64decode(sha384).hex()}],
        "licenses": [{"license": {"id": licence}}],
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not (ROOT / TARGET).exists() or (ROOT / TARGET).read_text(encoding="utf-8") != bill():
            sys.exit(f"{TARGET} is not up to date with the lock files; run: python scripts/sbom.py")
    else:
        (ROOT / TARGET).write_text(bill(), encoding="utf-8")
