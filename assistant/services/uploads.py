"""Files of messages that are not sent yet. They wait on the server like the words do, and leave with the message."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from assistant.db.inbox import Upload
from assistant.errors import NotFound, TooLarge
from assistant.services.paging import Key, Page, after, bounded, read_cursor, write_cursor
from assistant.values import StoredAttachment

__all__ = ["LARGEST", "MOST", "PROGRAM", "WAITING", "add", "discard", "of", "page", "remove", "take", "take_named"]

LARGEST = 20_000_000
"""Bytes of all files of one message: base64 makes a third more of it, and many servers take 25 to 35 MB."""
MOST = 20
PROGRAM = "api"
"""The kind of what a program uploads: it is named by its id when a message is sent, and stands in nobody's form."""
WAITING = 100
"""Files of a program that may wait at a time."""


def of(session: Session, *, agent_id: str, thread_id: str | None, kind: str) -> Sequence[Upload]:
    """The files that wait for an agent's message, in the order they came."""
    return session.scalars(
        select(Upload)
        .where(Upload.agent_id == agent_id, Upload.thread_id == thread_id, Upload.kind == kind)
        .order_by(Upload.created_at, Upload.id)
    ).all()


def add(session: Session, file: StoredAttachment, *, agent_id: str, thread_id: str | None, kind: str) -> Upload:
    """Keep a file whose bytes are in the blob store. Raises `TooLarge` when the message would have too much."""
    there = of(session, agent_id=agent_id, thread_id=thread_id, kind=kind)
    if kind == PROGRAM:
        if len(there) >= WAITING:
            raise TooLarge(f"{WAITING} files wait already: send or delete some")
    else:
        _check([*(one.size for one in there), file.size])
    upload = Upload(
        agent_id=agent_id,
        thread_id=thread_id,
        kind=kind,
        filename=file.filename,
        content_type=file.content_type,
        size=file.size,
        blob_key=file.blob_key,
    )
    session.add(upload)
    session.flush()
    return upload


def remove(session: Session, upload_id: str, *, agent_id: str, kind: str = "") -> Upload:
    """Take one's own file away. Raises `NotFound`, also for a file of another agent, or of another kind than is said."""
    upload = session.get(Upload, upload_id)
    if upload is None or upload.agent_id != agent_id or kind not in ("", upload.kind):
        raise NotFound("there is no such file of yours")
    session.delete(upload)
    return upload


def take(session: Session, *, agent_id: str, thread_id: str | None, kind: str) -> list[StoredAttachment]:
    """The files for a message that is queued in this transaction; they wait no more."""
    found = [
        StoredAttachment(one.filename, one.content_type, one.size, one.blob_key)
        for one in of(session, agent_id=agent_id, thread_id=thread_id, kind=kind)
    ]
    discard(session, agent_id=agent_id, thread_id=thread_id, kind=kind)
    return found


def take_named(session: Session, ids: Sequence[str], *, agent_id: str) -> list[StoredAttachment]:
    """The files that a program names for a message queued in this transaction, in its order; they wait no more.

    Raises `NotFound` when one is not there (any more) or another agent's, `TooLarge`.
    """
    wanted = list(dict.fromkeys(ids))
    query = select(Upload).where(Upload.id.in_(wanted), Upload.agent_id == agent_id, Upload.kind == PROGRAM)
    found = {one.id: one for one in session.scalars(query.with_for_update())}
    if len(found) != len(wanted):
        raise NotFound("there is no such file of yours")
    _check([one.size for one in found.values()])
    session.execute(delete(Upload).where(Upload.id.in_(wanted)))
    return [
        StoredAttachment(one.filename, one.content_type, one.size, one.blob_key)
        for one in map(found.get, wanted)
        if one
    ]


_KEYS = (Key(lambda: Upload.__table__.c.id, "id"),)


def page(session: Session, *, agent_id: str, cursor: str = "", limit: int = 50) -> Page[Upload]:
    """One page of the files that programs of an agent uploaded and no message took yet, oldest first."""
    limit = bounded(limit)
    query = select(Upload).where(Upload.agent_id == agent_id, Upload.kind == PROGRAM)
    if cursor:
        query = query.where(after(_KEYS, read_cursor(cursor, "uploads", _KEYS)))
    rows = session.scalars(query.order_by(Upload.id).limit(limit + 1)).all()
    return Page(rows[:limit], write_cursor("uploads", (rows[limit - 1].id,)) if len(rows) > limit else None)


def _check(sizes: Sequence[int]) -> None:
    if len(sizes) > MOST:
        raise TooLarge(f"a message has at most {MOST} files")
    if sum(sizes) > LARGEST:
        raise TooLarge(f"the files of a message have at most {LARGEST // 1_000_000} MB together")


def discard(session: Session, *, agent_id: str, thread_id: str | None, kind: str) -> None:
    """Forget the files of a message that will not be sent."""
    session.execute(
        delete(Upload).where(Upload.agent_id == agent_id, Upload.thread_id == thread_id, Upload.kind == kind)
    )
