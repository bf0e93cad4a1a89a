"""Files from strangers and agents: what their bytes are, and a name that is only a name."""

from __future__ import annotations

import re

from channels.support.risks import zip_names
from channels.support.text import one_line

__all__ = ["file_name", "sniffed"]

_MAGIC = (
    (b"MZ", "application/vnd.microsoft.portable-executable"),
    (b"\x7fELF", "application/x-executable"),
    (b"#!", "text/x-shellscript"),
)
_OFFICE = "application/vnd.openxmlformats-officedocument"
_PACKED = (
    ("word/", f"{_OFFICE}.wordprocessingml.document"),
    ("xl/", f"{_OFFICE}.spreadsheetml.sheet"),
    ("ppt/", f"{_OFFICE}.presentationml.presentation"),
    ("META-INF/MANIFEST.MF", "application/java-archive"),
)
"""What a name in a ZIP file starts with -> the type of the whole."""


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
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content.startswith(b"PK\x03\x04"):
        return _packed(content)
    try:
        found = puremagic.from_string(content[:8192], mime=True) if content else ""
    except (puremagic.PureError, ValueError, IndexError, UnicodeError):
        found = ""
    if found:
        return str(found)[:100]
    plain = re.fullmatch(r"(text/(plain|csv|calendar)|message/rfc822|application/(json|pdf|zip))", claimed)
    return claimed if plain else "application/octet-stream"


def _packed(content: bytes) -> str:
    """Of what starts like a ZIP file: documents are told from archives by the names inside."""
    names, _ = zip_names(content) or ([], False)
    if "mimetype" in names[:1]:
        stored = re.match(rb"[\x00-\xff]{30}mimetype(application/[\w.+-]{1,80}?)PK", content[:400])
        if stored:
            return stored[1].decode("ascii")
    found = (kind for start, kind in _PACKED if any(name.startswith(start) for name in names))
    return next(found, "application/zip")
