"""Text from strangers as it may be kept and shown: valid Unicode, no controls, marks that deceive made visible."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["deceives", "one_line", "tidy"]

_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C], "\u25a1")
_UNSEEN = (0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x2800, 0x3164, 0xFEFF, 0xFFA0)
_UNSEEN_RANGES = ((0x2060, 0x2064), (0x206A, 0x206F), (0xFFF9, 0xFFFB), (0xE0000, 0xE007F))
_ZERO_WIDTH = dict.fromkeys([*_UNSEEN, *(one for a, b in _UNSEEN_RANGES for one in range(a, b + 1))], "\u25a1")
"""Letters that show nothing: fillers and blanks as well as those of no width, and the tags that hide whole sentences."""
_JOINER = re.compile(r"(?<![^\x00-\x7f])[\u200c\u200d]+(?![^\x00-\x7f])")
"""Joiners belong between letters of some scripts and in emoji; among ASCII they only hide."""
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127, *range(0x80, 0xA0)], None)


def tidy(text: str) -> str:
    """Valid Unicode in NFC with `\\n` line ends, without NUL or control characters except tab and line end."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text.translate(_CONTROL))


def one_line(text: str) -> str:
    """One line for a name, a subject or a file name; marks that turn text round or hide are shown as boxes."""
    flat = " ".join(text.translate(_CONTROL).split())
    return _JOINER.sub("\u25a1", flat.translate(_BIDI).translate(_ZERO_WIDTH)).strip()


def deceives(address: str) -> bool:
    """Whether an address has a mark in it that nobody sees: it would look like another one."""
    return any(unicodedata.category(one) == "Cf" or ord(one) in _ZERO_WIDTH for one in address)
