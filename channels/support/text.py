"""Text from strangers as it may be kept and shown: valid Unicode, no controls, marks that deceive made visible."""

from __future__ import annotations

import unicodedata

__all__ = ["one_line", "tidy"]

_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C], "\u25a1")
_ZERO_WIDTH = dict.fromkeys([0x200B, 0x2060, 0xFEFF, 0x00AD, 0x180E], "\u25a1")
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127, *range(0x80, 0xA0)], None)


def tidy(text: str) -> str:
    """Valid Unicode in NFC with `\\n` line ends, without NUL or control characters except tab and line end."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text.translate(_CONTROL))


def one_line(text: str) -> str:
    """One line for a name, a subject or a file name; marks that turn text round or hide are shown as boxes."""
    flat = " ".join(text.translate(_CONTROL).split())
    return flat.translate(_BIDI).translate(_ZERO_WIDTH).strip()
