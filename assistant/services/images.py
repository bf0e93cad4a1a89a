"""Pictures that mails name by URL: fetched by the server when an agent asks, kept as bytes, shown from here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.backends.blobs import key_of
from assistant.db.inbox import MessageImage
from assistant.db.session import publish
from assistant.services.threads import get_message

__all__ = ["Picture", "digest", "keep", "loaded", "of_message"]


@dataclass(frozen=True, slots=True)
class Picture:
    """What became of one URL: bytes in the blob store, or the reason why there are none."""

    url: str
    content_type: str = ""
    content: bytes = b""
    problem: str = ""


def digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def keep(session: Session, message_id: str, pictures: Sequence[Picture], *, agent_id: str) -> None:
    """Note what was fetched; a URL that is known already stays as it is. Raises `NotFound`."""
    message = get_message(session, message_id)
    for one in pictures:
        row = MessageImage(
            message_id=message_id,
            address_hash=digest(one.url),
            blob_key=key_of("images", one.content) if one.content else "",
            content_type=one.content_type,
            size=len(one.content),
            problem=one.problem[:60],
        )
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:  # two agents asked at once: either answer is right
            continue
    publish(session, "thread.changed", thread_id=message.thread_id, reason="images", agent_id=agent_id)


def of_message(session: Session, message_id: str) -> dict[str, MessageImage]:
    """What is known, by the hash of its URL."""
    found = session.scalars(select(MessageImage).where(MessageImage.message_id == message_id))
    return {row.address_hash: row for row in found}


def loaded(session: Session, message_ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """For each message whose pictures were asked for: how many came, how many did not."""
    came = func.sum((MessageImage.problem == "").cast(MessageImage.size.type))
    rows = session.execute(
        select(MessageImage.message_id, came, func.count())
        .where(MessageImage.message_id.in_(message_ids))
        .group_by(MessageImage.message_id)
    )
    return {message_id: (int(good), int(total - good)) for message_id, good, total in rows}
