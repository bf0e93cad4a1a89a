"""Suggested replies: reading, accepting, rejecting, bringing back. `If-Match` says which version was read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from sqlalchemy.orm import Session

from api.deps import Access, ApiRoute, Caller, Id, Parts, Reading, Transaction
from api.routers.common import CHANGED, FAILS, FOUND, IdempotencyKey, IfMatch, etag, version_of
from api.routers.threads import hold_seconds
from api.schemas import MessageOut, SuggestionAccept, SuggestionOut, SuggestionReject
from assistant.db.messages import Suggestion
from assistant.errors import Conflict, PreconditionFailed
from assistant.services import suggestions, threads
from assistant.states import SuggestionState

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/suggestions", tags=["suggestions"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("suggestions:read"))]
Writer = Annotated[Caller, Depends(Access("suggestions:write"))]
Accepter = Annotated[Caller, Depends(Access("suggestions:write", rule="send"))]


@router.get("/{suggestion_id}", operation_id="getSuggestion", responses=FOUND)
def get_suggestion(suggestion_id: Id, caller: Reader, session: Reading, response: Response) -> SuggestionOut:
    """One suggestion. The ETag is its version."""
    suggestion = threads.get_suggestion(session, suggestion_id)
    response.headers["ETag"] = etag(suggestion.version)
    return SuggestionOut.of(suggestion)


@router.post("/{suggestion_id}/accept", operation_id="acceptSuggestion", status_code=201, responses=CHANGED)
def accept(
    suggestion_id: Id,
    body: SuggestionAccept,
    if_match: IfMatch,
    caller: Accepter,
    session: Transaction,
    parts: Parts,
    response: Response,
    key: IdempotencyKey = None,
) -> MessageOut:
    """Send the suggestion, as it is or edited. Of two agents one wins; the other gets 409 with the winner's name."""
    _check_version(session, suggestion_id, version_of(if_match))
    agent = caller.require_agent()
    message = suggestions.accept(
        session,
        suggestion_id,
        agent=agent,
        version=version_of(if_match),
        text=body.text,
        hold_seconds=hold_seconds(body.hold_seconds, caller, parts),
    )
    threads.take_by_reply(session, message.thread_id, agent=agent, by_default=parts.settings.assign_on_reply)
    session.flush()
    response.headers["Location"] = f"/api/v1/messages/{message.id}"
    return MessageOut.of(threads.get_message(session, message.id))


@router.post("/{suggestion_id}/reject", operation_id="rejectSuggestion", responses=CHANGED)
def reject(
    suggestion_id: Id,
    body: SuggestionReject,
    if_match: IfMatch,
    caller: Writer,
    session: Transaction,
    response: Response,
    key: IdempotencyKey = None,
) -> SuggestionOut:
    """Dismiss a suggestion. `restore` takes it back."""
    _check_version(session, suggestion_id, version_of(if_match))
    suggestions.reject(
        session,
        suggestion_id,
        agent_id=caller.require_agent().id,
        version=version_of(if_match),
        reason=body.reason,
    )
    return _answer(session, suggestion_id, response)


@router.post("/{suggestion_id}/restore", operation_id="restoreSuggestion", responses=CHANGED)
def restore(
    suggestion_id: Id, caller: Writer, session: Transaction, response: Response, key: IdempotencyKey = None
) -> SuggestionOut:
    """Bring a dismissed suggestion back, or an accepted one whose message was taken back."""
    suggestions.restore(session, suggestion_id)
    return _answer(session, suggestion_id, response)


def _answer(session: Session, suggestion_id: str, response: Response) -> SuggestionOut:
    session.flush()
    suggestion: Suggestion = threads.get_suggestion(session, suggestion_id)
    response.headers["ETag"] = etag(suggestion.version)
    return SuggestionOut.of(suggestion)


def _check_version(session: Session, suggestion_id: str, version: int) -> None:
    """412 when an open suggestion changed since it was read. A decided one is a conflict, which the service names."""
    suggestion = threads.get_suggestion(session, suggestion_id)
    if suggestion.state == SuggestionState.DRAFTING:
        raise Conflict("the suggestion is still being drafted", detail={"state": suggestion.state})
    if suggestion.state == SuggestionState.PROPOSED and suggestion.version != version:
        raise PreconditionFailed(
            "the suggestion changed since you read it; read it again", detail={"version": suggestion.version}
        )
