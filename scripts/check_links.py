"""Checks that every link between files of the documentation leads somewhere. Links to the web are not followed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make (GitHub's rule)."""
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead() -> list[str]:
    """Every link that leads nowhere, as `file: target`."""
    found = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in LINK.findall(page.read_text()):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            exists = file.exists() and file.is_relative_to(ROOT)
            if not exists or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
                found.append(f"{page.relative_to(ROOT)}: {target}")
    return found


if __name__ == "__main__":
    broken = dead()
    sys.exit("dead links:\n" + "\n".join(broken) if broken else 0)
