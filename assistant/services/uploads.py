"""Files of messages that are not sent yet. They wait on the server like the words do, and leave with the message."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from assistant.db.inbox import Upload
from assistant.errors import NotFound, TooLarge
from assistant.values import StoredAttachment

__all__ = ["LARGEST", "MOST", "add", "discard", "of", "remove", "take"]

LARGEST = 20_000_000
"""Bytes of all files of one message: base64 makes a third more of it, and many servers take 25 to 35 MB."""
MOST = 20


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
    if len(there) >= MOST:
        raise TooLarge(f"a message has at most {MOST} files")
    if sum(one.size for one in there) + file.size > LARGEST:
        raise TooLarge(f"the files of a message have at most {LARGEST // 1_000_000} MB together")
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


def remove(session: Session, upload_id: str, *, agent_id: str) -> Upload:
    """Take one's own file away. Raises `NotFound`, also for a file of another agent."""
    upload = session.get(Upload, upload_id)
    if upload is None or upload.agent_id != agent_id:
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


def discard(session: Session, *, agent_id: str, thread_id: str | None, kind: str) -> None:
    """Forget the files of a message that will not be sent."""
    session.execute(
        delete(Upload).where(Upload.agent_id == agent_id, Upload.thread_id == thread_id, Upload.kind == kind)
    )
