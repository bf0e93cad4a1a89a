"""What the commands share: the options they have in common, files they are given, and the way to an opened installation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api import console

if TYPE_CHECKING:
    from assistant.db.session import Database
    from assistant.settings import Settings
    from pipelines.container import Container

__all__ = ["PARTLY", "Json", "existing", "opened_container", "opened_database", "ready", "text_of", "writable"]

PARTLY = 3
"""Exit code of a command that did a part of its work."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


# -- files


def existing(*paths: Path, hint: str = "check the path") -> None:
    """Raise `NotFound` that names every path that is not there, and `hint` as what to do next."""
    from assistant.errors import NotFound

    if missing := [str(path) for path in paths if not path.exists()]:
        raise NotFound(f"no such file or folder: {', '.join(missing)}; {hint}")


def writable(path: Path) -> None:
    """Raise unless a file can be made at `path`, before work is done whose result would be lost."""
    from assistant.errors import InvalidInput, NotFound

    if not path.parent.is_dir():
        raise NotFound(f"no such folder: {path.parent}; make it first: mkdir -p {path.parent}")
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name a file in it")


def text_of(file: Path | None) -> str:
    """The text of a file, or of standard input when there is none."""
    from assistant.errors import InvalidInput

    if file is None:
        if sys.stdin.isatty():
            console.error("Type the text, then Ctrl-D on a line of its own.")
        return sys.stdin.read()
    existing(file)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InvalidInput(f"{file} cannot be read: {words}; name a text file") from None


# -- an installation


def ready(settings: Settings) -> None:
    """Raise unless the tables are there. The embedded database gets them here, a server's only by `notifyr migrate`."""
    from api.startup import require_folder
    from assistant.db.migrate import migrate, require

    if settings.database_url is None:
        require_folder(settings)
    (migrate if settings.database_url is None else require)(settings.sql_url)


@contextmanager
def opened_database() -> Iterator[tuple[Settings, Database]]:
    """The settings and their database, for a command that needs nothing else. Raises when its tables are not there."""
    from assistant.db.session import Database
    from assistant.settings import load_settings

    settings = load_settings()
    ready(settings)
    with closing(Database(settings.sql_url, pool_size=1)) as database:
        yield settings, database


@contextmanager
def opened_container() -> Iterator[Container]:
    """Everything the settings name, closed at the end. Raises when the database's tables are not there."""
    from assistant.settings import load_settings
    from pipelines.container import build

    settings = load_settings()
    ready(settings)
    container = build(settings)
    try:
        yield container
    finally:
        container.close()
