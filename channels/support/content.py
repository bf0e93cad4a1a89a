"""Files from strangers and agents: what their bytes are, and a name that is only a name."""

from __future__ import annotations

import re

from channels.support.text import one_line

__all__ = ["file_name", "sniffed"]


def file_name(claimed: str) -> str:
    """The last part of a path, without control characters, dots and blanks around it; at most 200 characters."""
    return one_line(claimed).replace("\\", "/").rpartition("/")[2].strip(". ")[:200]


def sniffed(content: bytes, claimed: str) -> str:
    """The type that the bytes show. A claim is believed only for text that is none of the dangerous kinds."""
    import puremagic

    start = content[:2000].lstrip().lower()
    if b"<svg" in start:
        return "image/svg+xml"
    if start.startswith((b"<!doctype html", b"<html", b"<script", b"<body")):
        return "text/html"
    try:
        found = puremagic.from_string(content[:8192], mime=True) if content else ""
    except (puremagic.PureError, ValueError, IndexError, UnicodeError):
        found = ""
    if found:
        return str(found)[:100]
    plain = re.fullmatch(r"(text/(plain|csv|calendar)|message/rfc822|application/(json|pdf|zip))", claimed)
    return claimed if plain else "application/octet-stream"
