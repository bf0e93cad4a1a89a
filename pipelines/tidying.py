"""The end of the trash, and stored bytes that no row names: left when a thread was deleted, a process died, or the database
refused, between the bytes and the row.

Only what is a day old is looked at. Whoever relies on bytes that were there already looks again once its row is committed
(`Blobs.ensure`); here they are put aside before they are deleted, and put back when a row has come to name them meanwhile. So of
the two that meet, the later one always sees the other, and what was killed in between is finished by the next run.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from assistant.backends.blobs import Blobs
from assistant.clock import new_id
from assistant.db.inbox import MessageImage, Upload
from assistant.db.messages import Attachment, Message
from assistant.db.session import Database
from assistant.errors import NotFound
from assistant.services import purging

__all__ = ["AGE", "empty_trash", "named", "tidy"]

AGE = timedelta(days=1)
_log = structlog.get_logger(__name__)
_ASIDE = "aside/"
# A file moves from an upload to an attachment: read in this order, it is found in one of them.
_NAMES = (Upload.blob_key, Attachment.blob_key, Message.raw_key, MessageImage.blob_key)


def named(database: Database, keys: Iterable[str]) -> set[str]:
    """Those of `keys` that some row names."""
    wanted, found = set(keys), set[str]()
    with database.reading() as session:
        for column in _NAMES:
            for part in session.execute(select(column).where(column != "")).yield_per(10_000).partitions():
                found.update(wanted.intersection(row[0] for row in part))
    return found


def empty_trash(database: Database, *, now: datetime, days: int) -> int:
    """Delete for good what has been in the trash for `days`; 0 days keep it for ever. Returns how many threads. Twice is once."""
    gone = 0
    while days:
        with database.transaction() as session:
            some = purging.purge(session, now=now, days=days)
        if not some:
            break
        gone += some
    if gone:
        _log.info("trash_emptied", count=gone)
    return gone


def tidy(database: Database, blobs: Blobs, *, now: datetime) -> int:
    """Delete what no row names and is older than a day. Returns how many. Twice is once."""
    if left := blobs.clear(now - AGE):
        _log.info("staged_files_deleted", count=left)
    old, aside = set[str](), list[str]()
    for key, modified in blobs.entries():
        if key.startswith(_ASIDE):
            aside.append(key)
        elif modified <= now - AGE:
            old.add(key)
    aside += _put_aside(blobs, old - named(database, old)) if old else []
    wanted = named(database, [_home(one) for one in aside]) if aside else set[str]()
    gone = 0
    for one in aside:
        if _home(one) not in wanted:
            blobs.delete(one)
            gone += 1
            continue
        with suppress(NotFound):  # another tidying was faster
            blobs.move(one, _home(one))
    if gone:
        _log.info("orphans_deleted", count=gone)
    return gone


def _put_aside(blobs: Blobs, keys: Iterable[str]) -> list[str]:
    # Under a name that nobody else uses: what another process decides about its own does not touch ours.
    folder, moved = f"{_ASIDE}{new_id()}/", list[str]()
    for key in sorted(keys):
        with suppress(NotFound):
            blobs.move(key, folder + key)
            moved.append(folder + key)
    return moved


def _home(key: str) -> str:
    """The key that something was put aside from."""
    return key.removeprefix(_ASIDE).partition("/")[2]
