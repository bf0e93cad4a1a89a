"""Taking back what a person said of a message whose fate is unknown (`outbox.resolve_unknown`), while nothing followed from it."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from assistant.db.messages import Message, MessageEvent
from assistant.errors import Conflict, NotFound, UncertainDelivery
from assistant.services.outbox_rows import actor_name, announce, changed, note
from assistant.states import Author, Delivery, Direction

__all__ = ["UNDOABLE", "take_back"]

UNDOABLE = {"sent": Delivery.SENT, "failed": Delivery.FAILED}
"""Outcomes that only say something, and the state that each leaves. Sent again cannot be taken back: it may have left."""


def take_back(session: Session, message_id: str, *, agent_id: str) -> Message:
    """Unknown again. Raises `Conflict` when something happened since it was said, `NotFound`."""
    message = session.get(Message, message_id)
    if message is None or message.direction != Direction.OUTBOUND:
        raise NotFound("there is no such message in the outbox")
    trail = session.scalars(
        select(MessageEvent)
        .where(MessageEvent.message_id == message_id)
        .order_by(MessageEvent.occurred_at.desc(), MessageEvent.id.desc())
    ).all()
    said = trail[0].kind.removeprefix("resolved:") if trail else ""
    reason = next((one.detail for one in trail if one.kind.startswith("unknown")), "")
    # Conditional, as every move of the outbox: a retry or a carrier's report at this moment wins or loses whole.
    won = said in UNDOABLE and changed(
        session,
        update(Message)
        .where(Message.id == message_id, Message.status == UNDOABLE[said])
        .values(status=Delivery.UNKNOWN, sent_at=None, error_code=UncertainDelivery.code, error_detail=reason),
    )
    if not won:
        raise Conflict(
            f"this cannot be taken back any more: the message is {message.status}",
            detail={"state": str(message.status)},
        )
    session.refresh(message)
    note(session, message_id, "resolved:taken-back", actor=actor_name(Author.AGENT, agent_id))
    announce(session, message)
    return message
