"""Write docs/openapi.json from the routes. `--check` writes nothing and fails when the committed file differs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "openapi.json"
sys.path.insert(0, str(ROOT))


def generate() -> str:
    from api import openapi
    from api.main import create_app
    from assistant.settings import load_settings
    from pipelines.container import build

    with tempfile.TemporaryDirectory() as folder:
        container = build(load_settings({}, data_dir=folder))
        return openapi.render(create_app(container))


def main() -> int:
    text = generate()
    if "--check" in sys.argv[1:]:
        same = TARGET.exists() and TARGET.read_text() == text
        sys.stderr.write("" if same else "docs/openapi.json is not what the routes say; run: scripts/openapi.py\n")
        return 0 if same else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
