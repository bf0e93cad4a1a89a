"""Why opening an attachment may do harm, found in its bytes and its name. No outside scanner is asked, nothing is unpacked.

This names kinds of files, not malware: a file without a risk here is not thereby safe.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile

from channels.support.text import one_line

__all__ = ["risk_of", "zip_names"]

_MAGIC = ((b"MZ", "Windows"), (b"\x7fELF", "Linux"), (b"\xcf\xfa\xed\xfe", "macOS"), (b"\xca\xfe\xba\xbe", "Java"))
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_UNSEEN = (b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_PROGRAMS = frozenset(
    "exe scr com pif cpl msi msix msp bat cmd ps1 psm1 vb vbs vbe js jse ws wsf wsh hta lnk url reg jar apk app pkg dmg "
    "deb rpm sh command desktop scf inf chm gadget application appref-ms sys dll xll".split()
)
_DISKS = frozenset("iso img vhd vhdx udf".split())
_MACROS = frozenset("docm dotm xlsm xltm xlam xlsb pptm potm ppsm ppam sldm".split())
_PAGES = frozenset("html htm xhtml shtml svg mht mhtml".split())
_ARCHIVES = frozenset("zip rar 7z gz tgz bz2 xz tar cab ace arj lzh z".split())
_HARMLESS = frozenset(
    "pdf doc docx xls xlsx ppt pptx txt csv rtf jpg jpeg png gif webp mp3 mp4 odt ods odp eml".split()
)
_MACRO_PARTS = (b"_\0V\0B\0A\0_\0P\0R\0O\0J\0E\0C\0T\0", b"M\0a\0c\0r\0o\0s\0")
"""Names of the streams of an old Office file that hold macros, in UTF-16."""
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
)


def risk_of(name: str, content: bytes) -> str:
    """A word and the reason (`program: ...`); empty when nothing of this kind is found. Never raises, whatever the bytes."""
    ends = [one.strip() for one in name.lower().split(".")[1:]]
    last = ends[-1] if ends else ""
    program = next((system for magic, system in _MAGIC if content.startswith(magic)), "")
    if program or last in _PROGRAMS or content.startswith(b"#!"):
        return _program(ends, program)
    if last in _DISKS or content[0x8001:0x8006] == b"CD001":
        return "disk image: it can hide a program from every check"
    if content.startswith(b"PK\x03\x04"):
        return _archive(content)
    if last in _MACROS or (content.startswith(_OLE) and any(one in content for one in _MACRO_PARTS)):
        return "macros: this document carries a program that runs when it is opened"
    if content.startswith(_UNSEEN) or last in _ARCHIVES:
        return "unseen archive: what is inside could not be looked at"
    if last in _PAGES or _is_page(content):
        return "web page: opened from disk it can imitate a sign-in and send what is typed"
    if content.startswith(b"%PDF") and re.search(rb"/(?:JavaScript|JS|Launch)\b", content):
        return "script: this PDF carries a script or starts another file"
    return ""


def zip_names(content: bytes) -> tuple[list[str], bool] | None:
    """The names in a ZIP file and whether one has a password; None when it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.infolist()
            return [one.filename for one in found], any(one.flag_bits & 1 for one in found)
    except _BROKEN:
        return None


def _program(ends: list[str], system: str) -> str:
    kind = f"a {system} program" if system else "a program"
    shown = next((one for one in ends[:-1] if one in _HARMLESS), "")
    if ends and ends[-1] in _HARMLESS:
        shown = ends[-1]
    if shown:
        return f"disguised program: its name says .{shown}, and it is {kind}"
    return f"program: it is {kind} and runs when it is opened"


def _archive(content: bytes) -> str:
    """What a ZIP file holds, which documents of Office are too."""
    found = zip_names(content)
    if found is None:
        return "unseen archive: it is damaged, or made so that it cannot be looked into"
    names, locked = found
    if any(name.lower().rpartition("/")[2] == "vbaproject.bin" for name in names):
        return "macros: this document carries a program that runs when it is opened"
    endings = {name.lower().rpartition(".")[2].strip(): name for name in names if "." in name}
    if bad := next((endings[one] for one in endings if one in _PROGRAMS | _DISKS), ""):
        return f"program in an archive: it holds {_shown(bad)}"
    if bad := next((endings[one] for one in endings if one in _MACROS), ""):
        return f"macros in an archive: it holds {_shown(bad)}"
    if locked:
        return "archive with a password: nobody could look at what is inside"
    if any(one in _ARCHIVES for one in endings):
        return "archive in an archive: what is inside could not be looked at"
    return ""


def _shown(name: str) -> str:
    return one_line(name.rpartition("/")[2].encode("utf-8", "replace").decode())[:80]


def _is_page(content: bytes) -> bool:
    start = content[:2000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<script", b"<body")) or b"<svg" in start
