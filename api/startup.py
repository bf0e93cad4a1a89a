"""What must be true before anything starts: our own packages, a usable folder, an interpreter that behaves.

The interpreter is part of the attack surface: releases differ in what their email package lets through (CVE-2024-6923,
CVE-2023-27043, cpython #151857). So the *behaviour* of our layer on this interpreter is tried, not a version number.
"""

from __future__ import annotations

import os
import sqlite3
import ssl
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from assistant.errors import ConfigurationError
from assistant.settings import ROOT, Settings

__all__ = [
    "INTERPRETER_CHECKS",
    "PACKAGES",
    "folder",
    "interpreter",
    "problems",
    "require_folder",
    "require_interpreter",
]

PACKAGES = ("api", "assistant", "channels", "models", "pipelines")
_SQLITE = (3, 35, 0)  # RETURNING


def problems(settings: Settings) -> list[str]:
    """Everything that stands in the way of a start, in words; empty when nothing does."""
    return [*_packages(), *interpreter(), *folder(settings)]


def require_folder(settings: Settings) -> None:
    """Raise `ConfigurationError` when the data cannot be kept, before anything tries to."""
    if found := folder(settings):
        raise ConfigurationError(found)


def require_interpreter() -> None:
    """Refuse to start on a Python that fails a check. Every process asks, however it was started."""
    if found := interpreter():
        raise ConfigurationError(found)


def interpreter() -> list[str]:
    """What this interpreter does wrong."""
    return [f"this Python ({sys.version.split()[0]}) is not usable: {words}" for words in filter(None, _results())]


def _results() -> list[str]:
    return [_result(check) for check in INTERPRETER_CHECKS]


def _result(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  # what breaks a check is wrong, too, and is said in words
        return f"the check {check.__name__.strip('_')} ends in {type(error).__name__}"


def _packages() -> list[str]:
    """`channels` and `models` are common names: another installed package must not be taken for ours."""
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin != ROOT / name / "__init__.py":
            found.append(
                f"package {name!r} would come from {origin}, not from {ROOT}: run from the checkout's own .venv"
            )
    return found


def folder(settings: Settings) -> list[str]:
    """What keeps this user from writing where the data lives. Makes the folder."""
    place = settings.path()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return [f"NOTIFYR_DATA_DIR: cannot write in {place}: {error.strerror}; name another, or give it to this user"]
    return []


# -- the interpreter


def _asserts() -> str:
    return "" if __debug__ else "python -O removes the checks that guard the data; start without -O"


def _encoding() -> str:
    name = sys.getfilesystemencoding()
    return "" if name == "utf-8" else f"file names are {name}, not UTF-8; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"


def _sqlite() -> str:
    if sqlite3.sqlite_version_info < _SQLITE:
        return f"its SQLite is {sqlite3.sqlite_version}; {'.'.join(map(str, _SQLITE))} or newer is needed"
    if sqlite3.threadsafety < 1:
        return "its SQLite was built for one thread only"
    return ""


def _tls() -> str:
    context = ssl.create_default_context()
    if not ssl.HAS_TLSv1_2:
        return "its TLS is older than 1.2"
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        return "its default TLS context does not check certificates and names"
    return ""


def _mail_that_kills_parsers() -> str:
    from channels.support.mime import parse

    try:
        parse(b"Content-Type: text/plain; x*\r\n\r\n")
    except Exception as error:  # noqa: BLE001  # any kind of failure is what is looked for
        return f"a 32-byte mail breaks the parser ({type(error).__name__})"
    return ""


def _two_addresses_in_one() -> str:
    from channels.support.mime import parse

    for text in (b"alice@example.org)bob@evil.example", b"<alice@example.org>bob@evil.example"):
        parsed = parse(b"From: " + text + b"\r\n\r\n")
        if parsed.sender.value == "alice@example.org":
            return "it reads one sender out of a From with two"
    return ""


def _header_injection() -> str:
    from email.message import EmailMessage
    from email.policy import SMTP

    message = EmailMessage(policy=SMTP)
    try:
        message["Subject"] = "hello\r\nBcc: everybody@example.org"
    except ValueError:
        return ""
    return "a header value with a line break is accepted"


INTERPRETER_CHECKS: tuple[Callable[[], str], ...] = (
    _asserts,
    _encoding,
    _sqlite,
    _tls,
    _mail_that_kills_parsers,
    _two_addresses_in_one,
    _header_injection,
)
"""Each returns what is wrong in words, or nothing."""
