"""Take the inbox's script files and icons from their npm packages, and write the manifest that a test checks.

Needs npm. Usage: python scripts/vendor.py [FOLDER_WITH_node_modules]
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = {"htmx.org": "4.0.1", "tinykeys": "3.1.0", "lucide-static": "1.62.0"}
FILES = {
    "htmx.min.js": ("htmx.org", "dist/htmx.min.js", "0BSD"),
    "tinykeys.js": ("tinykeys", "dist/tinykeys.module.js", "MIT"),
}
ICONS = (
    "archive arrow-left check chevron-down clock command ellipsis file-text flag inbox info keyboard book-open mail mail-open "
    "moon paperclip pencil refresh-cw reply search send settings shield-alert sparkles star sun trash-2 undo-2 upload user "
    "user-plus users x log-out triangle-alert image-off tag square-pen sticky-note git-merge list-filter "
    "message-square message-circle bell"
).split()
STATIC = Path(__file__).resolve().parent.parent / "api" / "inbox" / "static"


def fetch(folder: Path) -> Path:
    names = [f"{name}@{version}" for name, version in PACKAGES.items()]
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *names], check=True)
    return folder / "node_modules"


def sprite(modules: Path) -> str:
    symbols = []
    for name in ICONS:
        svg = (modules / "lucide-static" / "icons" / f"{name}.svg").read_text()
        inner = re.search(r"<svg[^>]*>(.*)</svg>", svg, re.S)
        assert inner is not None, name
        body = " ".join(inner.group(1).split())
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{body}</symbol>')
    return '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        modules = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch(Path(folder))
        target = STATIC / "vendor"
        target.mkdir(parents=True, exist_ok=True)
        manifest = {}
        for name, (package, source, licence) in FILES.items():
            text = (modules / package / source).read_text()
            text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "\n", text)
            (target / name).write_text(text)
            manifest[name] = _entry(modules, package, licence, (target / name).read_bytes())
        (STATIC / "icons.svg").write_text(sprite(modules))
        manifest["../icons.svg"] = _entry(modules, "lucide-static", "ISC", (STATIC / "icons.svg").read_bytes())
        (target / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        for package in {entry["package"] for entry in manifest.values()}:
            licence_file = next((modules / package).glob("LICENSE*"))
            (target / f"LICENSE.{package}.txt").write_text(licence_file.read_text())


def _entry(modules: Path, package: str, licence: str, content: bytes) -> dict[str, str]:
    version = json.loads((modules / package / "package.json").read_text())["version"]
    digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
    return {"package": package, "version": version, "licence": licence, "sha384": digest}


if __name__ == "__main__":
    main()
