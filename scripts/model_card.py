"""Writes the tables of docs/model-card.md from the figures beside the weights. With --check it only says whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models.training.card import put_into, stale  # noqa: E402

PAGE, FOLDER = ROOT / "docs" / "model-card.md", ROOT / "deploy" / "weights" / "encoder"

if __name__ == "__main__":
    text = put_into(PAGE.read_text(encoding="utf-8"), FOLDER)
    if "--check" in sys.argv:
        if old := stale(FOLDER):
            sys.exit(f"measured on other weights: {', '.join(old)}; run: notifyr evaluate --write with their data")
        if PAGE.read_text(encoding="utf-8") != text:
            sys.exit("docs/model-card.md is not up to date; run: make docs")
    else:
        PAGE.write_text(text, encoding="utf-8")
