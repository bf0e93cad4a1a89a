"""Writes docs/settings.md from the settings themselves. With --check it only says whether the page is up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pydantic_core import PydanticUndefined  # noqa: E402

from assistant.settings import PREFIX, Settings  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Settings

Every setting is an environment variable. None has to be set: the defaults make an installation on a laptop. Unknown
`NOTIFYR_` variables are refused, an empty one counts as not set, and all problems are listed at once. `notifyr config check`
checks them, `notifyr config show` prints each value and where it comes from, with secrets masked.

This page is written by `make docs` from `assistant/settings.py`.
"""


def _default(value: object) -> str:
    if value is None or value is PydanticUndefined:
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "empty"
    return f"`{value}`" if str(value) else "empty"


def page() -> str:
    """The whole page. The sections are the comment lines `# -- name` in the class."""
    source = (ROOT / "assistant" / "settings.py").read_text()
    sections = re.findall(r"^    # -- (.+)$|^    (\w+): .*(?:Field\(|$)", source, re.MULTILINE)
    lines = [HEAD]
    for heading, name in sections:
        if heading:
            lines += [f"\n## {heading[0].upper()}{heading[1:]}\n", "| variable | default | meaning |", "|---|---|---|"]
        elif name in Settings.model_fields:
            field = Settings.model_fields[name]
            secret = " Secret: never shown." if "SecretStr" in str(field.annotation) else ""
            meaning = (field.description or "").replace("|", "\\|")
            lines.append(f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {meaning}{secret} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.exit("docs/settings.md is not up to date; run: make docs")
    else:
        PAGE.write_text(text)
