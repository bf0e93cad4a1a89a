"""`notifyr import`: mail that somebody already has, from .eml files, mbox, Maildir or folders of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api import console

if TYPE_CHECKING:
    from assistant.services.inbox import Received
    from pipelines.inbound import Receiver

__all__ = ["count_mails", "mails_by_file", "mails_in", "register"]

_BATCH = 50
_SUFFIXES = {"", ".eml", ".mbox", ".mbx", ".txt"}
"""What counts as mail inside a folder; a file that is named on the command line is taken whatever it is called."""


def register(app: typer.Typer) -> None:
    """Add `import` to the `notifyr` command."""
    app.command("import")(import_mail)


def import_mail(
    paths: Annotated[list[Path], typer.Argument(help="Files (.eml, mbox) or folders (Maildir, or .eml files).")],
    json_output: Annotated[bool, typer.Option("--json", help="One JSON line with the counts.")] = False,
) -> None:
    """Bring in mail you already have. A second run adds nothing; a run that was cut off is simply started again.

    Imported mail is labelled like new mail, but nothing is ever sent because of it.

    Example: notifyr import ~/Maildir archive.mbox
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from assistant.db.migrate import migrate
    from assistant.services import profiles
    from pipelines.container import build

    missing = [path for path in paths if not path.exists()]
    if missing:
        console.error(f"no such file or folder: {', '.join(map(str, missing))}")
        raise typer.Exit(5)
    container = build()
    migrate(container.settings.sql_url)
    with container.database.transaction() as session:
        profile_id = profiles.ensure_default(session, container.settings).id
    added = known = failed = 0
    screen = Console(stderr=True)
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=screen, disable=json_output or not screen.is_terminal) as progress:
            bar = progress.add_task("import", total=count_mails(paths))
            for batch in _batches(mails_in(paths)):
                found = _stored(container.receiver, batch, profile_id)
                added += sum(one.created for one in found)
                known += sum(not one.created for one in found)
                failed += len(batch) - len(found)
                progress.advance(bar, len(batch))
    except KeyboardInterrupt:
        console.error(f"stopped after {added} new mails; run the same command again to go on")
        raise typer.Exit(130) from None
    finally:
        container.close()
    words = f"{added} mails added, {known} were there already" + (f", {failed} failed" if failed else "")
    console.emit({"added": added, "known": known, "failed": failed}, [words], as_json=json_output)
    if failed:
        raise typer.Exit(3 if added or known else 1)


def _stored(receiver: Receiver, batch: list[bytes], profile_id: str) -> list[Received]:
    """What came of each mail; the failed ones are told and left out. One that is in the way does not stop the others."""
    from assistant.errors import NotifyrError

    try:
        return receiver.receive_many(batch, profile_id=profile_id, backfill=True)
    except NotifyrError as error:
        if len(batch) == 1:
            console.error(f"a mail could not be stored: {error.message}")
            return []
    return [one for raw in batch for one in _stored(receiver, [raw], profile_id)]


def _batches(mails: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for raw in mails:
        batch.append(raw)
        if len(batch) >= _BATCH or sum(map(len, batch)) > 20_000_000:
            yield batch
            batch = []
    if batch:
        yield batch


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    if (path / "cur").is_dir():
        for part in ("cur", "new"):
            if (path / part).is_dir():  # some programs make a part when they need it
                yield from sorted(one for one in (path / part).iterdir() if one.is_file())
        # Maildir++: folders beside it start with a dot.
        for folder in sorted(one for one in path.iterdir() if one.is_dir() and (one / "cur").is_dir()):
            yield from _files(folder)
        return
    for one in sorted(path.iterdir()):
        if one.name.startswith(".") or one.is_symlink():
            continue
        if one.is_dir():
            yield from _files(one)
        elif one.is_file() and one.suffix.lower() in _SUFFIXES:
            yield one


def _is_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(5) == b"From "


def count_mails(paths: list[Path]) -> int:
    """How many mails there are, for the bar."""
    total = 0
    for path in paths:
        for file in _files(path):
            if _is_mbox(file):
                with file.open("rb") as lines:
                    total += sum(line.startswith(b"From ") for line in lines)
            else:
                total += 1
    return total


def mails_in(paths: list[Path]) -> Iterator[bytes]:
    """The raw bytes of each mail, one at a time."""
    for path in paths:
        for _, _, raw in mails_by_file(path):
            yield raw


def mails_by_file(path: Path) -> Iterator[tuple[Path, int, bytes]]:
    """(file, number in it, bytes) of each mail; the number is 0 in a file that holds one mail only."""
    for file in _files(path):
        if _is_mbox(file):
            for number, raw in enumerate(_mbox(file), 1):
                yield file, number, raw
        else:
            yield file, 0, file.read_bytes()


def _mbox(path: Path) -> Iterator[bytes]:
    """Mails of an mbox file (mboxrd: `>From ` in a body loses one mark)."""
    lines: list[bytes] = []
    blank = True
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"From ") and blank:
                if lines:
                    yield _joined(lines)
                lines = []
            else:
                lines.append(line[1:] if line.lstrip(b">").startswith(b"From ") and line.startswith(b">") else line)
            blank = not line.strip()
    if lines:
        yield _joined(lines)


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(lines[:-1] if lines and not lines[-1].strip() else lines)
