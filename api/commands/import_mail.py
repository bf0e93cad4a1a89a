"""`notifyr import`: mail that somebody already has, from .eml files, mbox, Maildir or folders of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api import console
from api.commands.common import PARTLY, Json, existing, opened_container
from assistant.clock import monotonic

if TYPE_CHECKING:
    from assistant.db.session import Database
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
    triage: Annotated[
        bool, typer.Option(help="Label the mail as it comes in. No reply is ever drafted for it.")
    ] = True,
    profile: Annotated[str, typer.Option(help="Mailbox to put it into: its address or id. Default: the first.")] = "",
    label: Annotated[str, typer.Option(help="Label to put on every thread that mail comes into.")] = "",
    as_json: Json = False,
) -> None:
    """Bring in mail you already have. A second run adds nothing; a run that was cut off is simply started again.

    Imported mail is never shown as new and never answered by itself: an agent may ask for a draft in its thread.

    Example: notifyr import --label archive ~/Maildir old.mbox
    """
    from assistant.services import labels, profiles

    existing(*paths)
    wanted = labels.name_of(label) if label else ""
    with opened_container() as container:
        with container.database.transaction() as session:
            first = profiles.ensure_default(session, container.settings)
            into = profiles.find(session, profile).id if profile else first.id
        job = _Import(container.receiver, container.database, into, triage=triage, label=wanted)
        try:
            with console.progress(quiet=as_json) as progress:
                bar = progress.add_task("importing", total=count_mails(paths))
                for batch in _batches(mails_in(paths)):
                    job.take(batch)
                    progress.advance(bar, len(batch))
        except KeyboardInterrupt:
            console.error(f"stopped after {job.added} new mails; run the same command again to go on")
            raise typer.Exit(130) from None
    console.emit(job.counts(), [job.words()], as_json=as_json)
    if job.failed:
        raise typer.Exit(PARTLY if job.added or job.known else 1)


class _Import:
    """One run: what it was told, and what came of it so far."""

    def __init__(self, receiver: Receiver, database: Database, profile_id: str, *, triage: bool, label: str) -> None:
        self._receiver = receiver
        self._database = database
        self._profile_id = profile_id
        self._triage = triage
        self._label = label
        self._threads: set[str] = set()
        self._began = monotonic()
        self.added = self.known = self.failed = 0

    def take(self, batch: list[bytes]) -> None:
        """Store a batch, then label its threads: also of mail that was there, should an earlier run have ended between."""
        from assistant.services import labels

        found = self._stored(batch)
        self.added += sum(one.created for one in found)
        self.known += sum(not one.created for one in found)
        self.failed += len(batch) - len(found)
        into = {one.thread_id for one in found}
        self._threads |= {one.thread_id for one in found if one.created}
        if self._label:
            with self._database.transaction() as session:
                for thread_id in sorted(into):
                    labels.add(session, thread_id, name=self._label, agent_id=None)

    def _stored(self, batch: list[bytes]) -> list[Received]:
        """What came of each mail; the failed ones are told and left out. One that is in the way does not stop the others."""
        from assistant.errors import NotifyrError

        try:
            return self._receiver.receive_many(batch, profile_id=self._profile_id, backfill=True, triage=self._triage)
        except NotifyrError as error:
            if len(batch) == 1:
                console.error(f"a mail could not be stored: {error.message}")
                return []
        return [one for raw in batch for one in self._stored([raw])]

    def counts(self) -> dict[str, float]:
        seconds = monotonic() - self._began
        return {
            "added": self.added,
            "known": self.known,
            "failed": self.failed,
            "threads": len(self._threads),
            "seconds": round(seconds, 1),
            "mails_per_second": round((self.added + self.known) / seconds, 1),
        }

    def words(self) -> str:
        counts = self.counts()
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.added} mails added to {len(self._threads)} threads, {self.known} were there already{failed}; "
            f"{counts['seconds']:g} s, {counts['mails_per_second']:g} mails/s"
        )


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
