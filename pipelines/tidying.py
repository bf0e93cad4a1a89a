"""Stored bytes that no row names: left when a process died, or the database refused, between the bytes and the row.

Only what is a day old is looked at. Whoever relies on bytes that were there already looks again once its row is committed
(`Blobs.ensure`); here they are read before they are deleted, and put back when a row has come to name them meanwhile. So of the
two that meet, the later one always sees the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from assistant.backends.blobs import Blobs
from assistant.db.inbox import MessageImage, Upload
from assistant.db.messages import Attachment, Message
from assistant.db.session import Database
from assistant.errors import NotFound

__all__ = ["AGE", "named", "tidy"]

AGE = timedelta(days=1)
_log = structlog.get_logger(__name__)
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


def tidy(database: Database, blobs: Blobs, *, now: datetime) -> int:
    """Delete what no row names and is older than a day. Returns how many. Twice is once."""
    old = {key for key, modified in blobs.entries() if modified <= now - AGE}
    orphans = sorted(old - named(database, old)) if old else []
    taken: dict[str, bytes] = {}
    for key in orphans:
        try:
            taken[key] = blobs.read(key)
        except NotFound:
            continue
        blobs.delete(key)
        if named(database, [key]):
            blobs.put(key, taken.pop(key))
    if taken:
        _log.info("orphans_deleted", count=len(taken))
    return len(taken)
