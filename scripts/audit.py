"""Compares every locked package with the advisories of OSV through pip-audit. `make audit`; never a part of a landing.

pip-audit is put into a folder of its own and asks by name and version only. Ends with 1 when an advisory fits, and with 2, and
a sentence, when nothing was compared: a machine without the network must not look as if all were well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = "pip-audit==2.10.0"
DATABASE = "https://api.osv.dev/v1/query"
LOCKS = ("runtime", "models", "base", "llama", "compile", "dev", "train")
NOT_COMPARED = 2


def unreachable(url: str) -> str:
    """Why the database does not answer; empty when it does."""
    asked = b'{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}'
    request = urllib.request.Request(url, asked, {"content-type": "application/json"})  # noqa: S310  # always https
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return "" if b'"vulns"' in answer.read() else "it does not know what it must know"
    except (urllib.error.URLError, OSError) as error:
        return str(getattr(error, "reason", error))


def audit(folder: Path) -> int:
    python = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOOL],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no word"])[-1]
            sys.stderr.write(f"Nothing was compared: {TOOL} could not be installed ({said}).\n")
            return NOT_COMPARED
    files = [word for lock in LOCKS for word in ("--requirement", str(ROOT / "requirements" / f"{lock}.txt"))]
    command = [str(python), "-m", "pip_audit", "--disable-pip", "--require-hashes", "--vulnerability-service", "osv"]
    return subprocess.run([*command, *files], check=False).returncode


def main(database: str = DATABASE) -> int:
    if why := unreachable(database):
        sys.stderr.write(
            f"Nothing was compared: the advisory database at {database} cannot be reached from here ({why}). "
            "Run `make audit` on a machine that may reach it.\n"
        )
        return NOT_COMPARED
    with tempfile.TemporaryDirectory(prefix="notifyr-audit-") as folder:
        return audit(Path(folder))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
