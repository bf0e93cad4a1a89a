"""Write docs/keys.md from the table of keys that the inbox itself uses.

Usage: python scripts/keys_doc.py (`--check`: write nothing, fail when the file is out of date)
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from api.inbox.keys import KEYS, Key  # noqa: E402

TARGET = ROOT / "docs" / "keys.md"
HEAD = """# Keys

The whole inbox works without a mouse. `Shift+?` shows this list in the program, `Ctrl+K` finds a command by its words.
On a Mac, Ctrl is Cmd. Two keys in a row (`g` then `i`) are pressed within a second.

Every key can be changed, and all single letters switched off at once, under Settings, Keys. No key works while you type
in a field, except those with Ctrl.

This file is written by `scripts/keys_doc.py` from `api/inbox/keys.py`.
"""
FOOT = """
## In a dismissal

`d` dismisses at once. The keys `1` to `6` then say why: wrong facts, wrong tone, not needed, unsafe, language, other. The same
reasons stay on the card as buttons. `z` takes a dismissal back.
"""


def _shown(key: Key) -> str:
    keys = " then ".join(f"`{part}`" for part in key.shown.split(" "))
    return f"{keys} or `{key.also}`" if key.also else keys


def text() -> str:
    parts = [HEAD]
    for group in dict.fromkeys(key.group for key in KEYS):
        rows = [f"| {_shown(key)} | {key.words} |" for key in KEYS if key.group == group]
        parts.append("\n".join(("", f"## {group}", "", "| key | what it does |", "|---|---|", *rows, "")))
    return "".join((*parts, FOOT))


def main() -> int:
    wanted = text()
    if "--check" in sys.argv[1:]:
        if TARGET.is_file() and TARGET.read_text() == wanted:
            return 0
        sys.stderr.write("docs/keys.md is out of date: run python scripts/keys_doc.py\n")
        return 1
    TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
