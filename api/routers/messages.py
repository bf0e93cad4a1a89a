"""One message: reading it, taking it back, settling an uncertain one, asking for another suggestion."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.deps import Access, ApiRoute, Caller, Id, Reading, Transaction
from api.routers.common import CHANGED, FAILS, FOUND, IdempotencyKey, etag
from api.schemas import MessageOut, Resolve, SuggestionAsk, SuggestionOut
from assistant.services import outbox, suggestions, threads

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/messages", tags=["messages"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("threads:read"))]
Sender = Annotated[Caller, Depends(Access("messages:send"))]
Asker = Annotated[Caller, Depends(Access("suggestions:write"))]


@router.get("/{message_id}", operation_id="getMessage", responses=FOUND)
def get_message(message_id: Id, caller: Reader, session: Reading) -> MessageOut:
    """One message with its attachments and everything that happened to it."""
    return MessageOut.of(threads.get_message(session, message_id))


@router.post("/{message_id}/cancel", operation_id="cancelMessage", responses=CHANGED)
def cancel_message(message_id: Id, caller: Sender, session: Transaction, key: IdempotencyKey = None) -> MessageOut:
    """Take a message back while it is held. 409 once it is on its way."""
    outbox.cancel(session, message_id, agent_id=caller.require_agent().id)
    session.flush()
    return MessageOut.of(threads.get_message(session, message_id))


@router.post("/{message_id}/send-now", operation_id="sendMessageNow", responses=CHANGED)
def send_now(message_id: Id, caller: Sender, session: Transaction, key: IdempotencyKey = None) -> MessageOut:
    """End the undo window early."""
    outbox.send_now(session, message_id, agent_id=caller.agent_id)
    session.flush()
    return MessageOut.of(threads.get_message(session, message_id))


@router.post("/{message_id}/release", operation_id="releaseMessage", responses=CHANGED)
def release_message(message_id: Id, caller: Sender, session: Transaction, key: IdempotencyKey = None) -> MessageOut:
    """Send a message all the same that is held back because it looks like spam. 409 when it is not held back."""
    outbox.release(session, message_id, agent_id=caller.require_agent().id)
    session.flush()
    return MessageOut.of(threads.get_message(session, message_id))


@router.post("/{message_id}/retry", operation_id="retryMessage", responses=CHANGED)
def retry_message(message_id: Id, caller: Sender, session: Transaction, key: IdempotencyKey = None) -> MessageOut:
    """Try a failed message again. 409 when it has not failed."""
    outbox.retry(session, message_id, agent_id=caller.require_agent().id)
    session.flush()
    return MessageOut.of(threads.get_message(session, message_id))


@router.post("/{message_id}/resolve", operation_id="resolveMessage", responses=CHANGED)
def resolve_message(
    message_id: Id, body: Resolve, caller: Sender, session: Transaction, key: IdempotencyKey = None
) -> MessageOut:
    """Say what became of a message whose outcome is unknown. Only a person decides to send it again."""
    outbox.resolve_unknown(session, message_id, outcome=body.outcome, agent_id=caller.require_agent().id)
    session.flush()
    return MessageOut.of(threads.get_message(session, message_id))


@router.post("/{message_id}/suggestions", operation_id="askForSuggestion", status_code=201, responses=CHANGED)
def ask_for_suggestion(
    message_id: Id,
    body: SuggestionAsk,
    caller: Asker,
    session: Transaction,
    response: Response,
    key: IdempotencyKey = None,
) -> SuggestionOut:
    """Draft another reply; the earlier draft is kept."""
    suggestion = suggestions.regenerate(session, message_id, instruction=body.instruction)
    session.flush()
    response.headers["ETag"] = etag(suggestion.version)
    response.headers["Location"] = f"/api/v1/suggestions/{suggestion.id}"
    return SuggestionOut.of(threads.get_suggestion(session, suggestion.id))
