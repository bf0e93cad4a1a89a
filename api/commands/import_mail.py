"""`notifyr import`: mail that somebody already has, from .eml files, mbox, Maildir or folders of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
_LARGEST = 256_000_000
"""Bytes of one mail; no server lets a larger one pass. It is not read: it would fill the memory."""
_LINE = 1_000_000
Skip = Callable[[Path, str], None]
"""Told which file cannot be read, or has a mail in it that cannot, and why."""
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
                for batch in _batches(mails_in(paths, job.skip)):
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

    def skip(self, file: Path, words: str) -> None:
        """Leave out what cannot be read, and go on."""
        self.failed += 1
        console.error(f"{file} is left out: {words}")

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


def _refuse(file: Path, words: str) -> None:
    from assistant.errors import InvalidInput

    raise InvalidInput(f"{file}: {words}")


def _silent(file: Path, words: str) -> None:
    """It is told when it is read, not when it is counted."""


def _files(path: Path, skip: Skip) -> Iterator[Path]:
    try:
        if path.is_file():
            yield path
            return
        found = _listed(path)
    except OSError as error:
        skip(path, error.strerror or type(error).__name__)
        return
    for one, folder in found:
        if folder:
            yield from _files(one, skip)
        else:
            yield one


def _listed(path: Path) -> list[tuple[Path, bool]]:
    """What a folder has for us, in order: each path, and whether it is a folder itself."""
    if (path / "cur").is_dir():
        parts = [path / part for part in ("cur", "new") if (path / part).is_dir()]  # some make a part when they need it
        mails = [(one, False) for part in parts for one in sorted(part.iterdir()) if one.is_file()]
        # Maildir++: folders beside it start with a dot.
        return mails + [(one, True) for one in sorted(path.iterdir()) if one.is_dir() and (one / "cur").is_dir()]
    inside = [one for one in sorted(path.iterdir()) if not one.name.startswith(".") and not one.is_symlink()]
    return [
        (one, one.is_dir()) for one in inside if one.is_dir() or (one.is_file() and one.suffix.lower() in _SUFFIXES)
    ]


def _is_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(5) == b"From "


def count_mails(paths: list[Path]) -> int:
    """How many mails there are, for the bar."""
    return sum(_count(file) for path in paths for file in _files(path, _silent))


def _count(file: Path) -> int:
    try:
        if not _is_mbox(file):
            return 1
        return sum(line.startswith(b"From ") for line, fresh in _lines(file) if fresh)
    except OSError:
        return 1


def mails_in(paths: list[Path], skip: Skip = _refuse) -> Iterator[bytes]:
    """The raw bytes of each mail, one at a time."""
    for path in paths:
        for _, _, raw in mails_by_file(path, skip):
            yield raw


def mails_by_file(path: Path, skip: Skip = _refuse) -> Iterator[tuple[Path, int, bytes]]:
    """(file, number in it, bytes) of each mail; the number is 0 in a file that holds one mail only.

    What cannot be read is told to `skip`; without one it raises `InvalidInput`.
    """
    for file in _files(path, skip):
        try:
            if _is_mbox(file):
                for number, raw in enumerate(_mbox(file), 1):
                    if raw is None:
                        skip(file, f"its mail {number} is {_TOO_LARGE}")
                    else:
                        yield file, number, raw
            elif file.stat().st_size > _LARGEST:
                skip(file, f"it is {_TOO_LARGE}")
            else:
                yield file, 0, file.read_bytes()
        except OSError as error:
            skip(file, error.strerror or type(error).__name__)


_TOO_LARGE = f"larger than any mail ({_LARGEST // 1_000_000} MB)"


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Lines, and whether each begins one: an endless line comes in pieces."""
    fresh = True
    with path.open("rb") as file:
        while line := file.readline(_LINE):
            yield line, fresh
            fresh = line.endswith(b"\n")


def _mbox(path: Path) -> Iterator[bytes | None]:
    """Mails of an mbox file (mboxrd: `>From ` in a body loses one mark); None for one that is too large."""
    lines: list[bytes] = []
    size, blank = 0, True
    for line, fresh in _lines(path):
        if fresh and blank and line.startswith(b"From "):
            if size:
                yield _joined(lines) if size <= _LARGEST else None
            lines, size = [], 0
        else:
            marked = fresh and line.startswith(b">") and line.lstrip(b">").startswith(b"From ")
            size += len(line)
            if size <= _LARGEST:
                lines.append(line[1:] if marked else line)
            else:
                lines = []
        blank = fresh and not line.strip()
    if size:
        yield _joined(lines) if size <= _LARGEST else None


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(lines[:-1] if lines and not lines[-1].strip() else lines)
