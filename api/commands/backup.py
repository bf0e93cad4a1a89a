"""`notifyr backup` and `notifyr restore`: one file with everything, taken while the program runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api import console
from api.commands.common import PARTLY, Json, existing, writable

if TYPE_CHECKING:
    from pipelines.backups import Restored

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `backup` and `restore`."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="File to write; it must not be there yet.")], as_json: Json = False
) -> None:
    """Write database, keys and stored mail into one file, while everything runs. The file is not encrypted.

    Example: notifyr backup /backups/notifyr-2026-11-24.tar
    """
    from assistant.settings import load_settings
    from pipelines.backups import back_up

    writable(file)
    done = back_up(load_settings(), file)
    lines = [f"{done.path}: {done.files} files, {done.size:,} bytes, as of {done.taken_at:%Y-%m-%d %H:%M:%S} UTC."]
    _finish(asdict(done), lines, done.damaged, as_json=as_json)


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `notifyr backup` wrote.")], as_json: Json = False
) -> None:
    """Bring a backup into an empty installation. Replies that were waiting become `unknown`: a person decides.

    Example: NOTIFYR_DATA_DIR=/srv/notifyr notifyr restore /backups/notifyr-2026-11-24.tar
    """
    from assistant.settings import load_settings
    from pipelines.backups import restore as run

    existing(file, hint="name a file that `notifyr backup` wrote")
    done = run(load_settings(), file)
    _finish(asdict(done), _words(done), done.damaged, as_json=as_json)


def _words(done: Restored) -> list[str]:
    lines = [f"Restored as of {done.taken_at:%Y-%m-%d %H:%M:%S} UTC: {done.files} files, revision {done.revision}."]
    if done.fenced.replies:
        lines.append(
            f"{done.fenced.replies} replies were waiting then and may have left since: they are unknown, and a person "
            "says for each whether it was sent."
        )
    lines.append("Everybody signs in again. What happened after that moment is not here: mail, opt-outs, revoked keys.")
    return lines


def _finish(facts: dict[str, object], lines: list[str], damaged: tuple[str, ...], *, as_json: bool) -> None:
    if damaged:
        lines.append(f"{len(damaged)} stored files are damaged, like {damaged[0]}.")
    console.emit(facts, lines, as_json=as_json)
    if damaged:
        raise typer.Exit(PARTLY)
