"""The fence of a restore: what the backup calls unsent may have been sent since, so a person decides about each of it.

A backup is a picture of the past. Replies that were waiting when it was taken have probably left by now; sessions and links
that were ended or used since are valid in it. Neither may come to life again by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from assistant.db.access import AgentSession, AuditEntry, SignInLink
from assistant.db.messages import Message
from assistant.errors import UncertainDelivery
from assistant.services.outbox_rows import note
from assistant.states import Delivery, Direction

__all__ = ["Fenced", "fence"]

_UNSENT = (Delivery.HELD, Delivery.QUEUED, Delivery.SENDING)


@dataclass(frozen=True, slots=True)
class Fenced:
    """How many rows the fence changed."""

    replies: int = 0
    sessions: int = 0
    links: int = 0


def fence(session: Session, *, taken_at: datetime) -> Fenced:
    """Make every unsent reply `unknown`, and end every session and link. Running it twice changes nothing more."""
    ids = session.scalars(
        select(Message.id).where(Message.direction == Direction.OUTBOUND, Message.status.in_(_UNSENT))
    ).all()
    since = taken_at.strftime("%Y-%m-%d %H:%M UTC")
    for message_id in ids:
        session.execute(
            update(Message)
            .where(Message.id == message_id)
            .values(
                status=Delivery.UNKNOWN,
                release_at=None,
                lease_until=None,
                # Without its token a worker that is still running somewhere can record nothing.
                claim_token=None,
                error_code=UncertainDelivery.code,
                error_detail=f"restored from a backup of {since}: it may have been sent since",
            )
            .execution_options(synchronize_session=False)
        )
        note(session, message_id, "unknown:restored", actor="restore")
    fenced = Fenced(len(ids), _delete(session, AgentSession), _delete(session, SignInLink))
    session.add(AuditEntry(actor="restore", action="restored", subject=since, detail={"unknown": len(ids)}))
    return fenced


def _delete(session: Session, table: type[AgentSession | SignInLink]) -> int:
    done = session.execute(delete(table))
    assert isinstance(done, CursorResult)
    return done.rowcount
