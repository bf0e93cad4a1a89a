"""Saved replies: words that are used often. Two programs that edit one at the same time: the second gets 412."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from api.deps import Access, ApiRoute, Caller, Id, Reading, Transaction
from api.routers.common import CHANGED, FAILS, FOUND, Cursor, IdempotencyKey, IfWords, Limit, etag
from api.schemas import Listing, listing
from api.schemas_inbox import SavedReplyOut, SavedReplyWrite
from assistant.services import access, saved_replies

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/saved-replies", tags=["saved replies"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("replies:read"))]
Writer = Annotated[Caller, Depends(Access("replies:write"))]


@router.get("", operation_id="listSavedReplies", response_model=Listing[SavedReplyOut])
def list_saved_replies(caller: Reader, session: Reading, cursor: Cursor = "", limit: Limit = 50) -> dict[str, Any]:
    """One page of the saved replies, oldest first."""
    return listing(saved_replies.page(session, cursor=cursor, limit=limit), SavedReplyOut.of)


@router.get("/{reply_id}", operation_id="getSavedReply", responses=FOUND)
def get_saved_reply(reply_id: Id, caller: Reader, session: Reading, response: Response) -> SavedReplyOut:
    """One saved reply. The ETag changes with its words."""
    reply = saved_replies.get(session, reply_id)
    response.headers["ETag"] = etag(saved_replies.tag_of(reply))
    return SavedReplyOut.of(reply)


@router.post("", operation_id="writeSavedReply", status_code=201, responses=CHANGED)
def write_saved_reply(
    body: SavedReplyWrite, caller: Writer, session: Transaction, response: Response, key: IdempotencyKey = None
) -> SavedReplyOut:
    """A new saved reply. 409 when the name is taken."""
    by = caller.require_agent().id
    reply = saved_replies.save(session, name=body.name, text=body.text, agent_id=by)
    access.audit(session, caller.actor, action="reply.written", subject=reply.name)
    response.headers["ETag"] = etag(saved_replies.tag_of(reply))
    response.headers["Location"] = f"/api/v1/saved-replies/{reply.id}"
    return SavedReplyOut.of(reply)


@router.put("/{reply_id}", operation_id="changeSavedReply", responses=CHANGED)
def change_saved_reply(
    reply_id: Id,
    body: SavedReplyWrite,
    if_match: IfWords,
    caller: Writer,
    session: Transaction,
    response: Response,
) -> SavedReplyOut:
    """Another name or other words. 412 when somebody changed it since it was read."""
    reply = saved_replies.save(
        session,
        name=body.name,
        text=body.text,
        agent_id=caller.require_agent().id,
        reply_id=reply_id,
        tag=if_match.strip('"'),
    )
    access.audit(session, caller.actor, action="reply.changed", subject=reply.name)
    response.headers["ETag"] = etag(saved_replies.tag_of(reply))
    return SavedReplyOut.of(reply)


@router.delete("/{reply_id}", operation_id="deleteSavedReply", status_code=204, responses=CHANGED)
def delete_saved_reply(reply_id: Id, if_match: IfWords, caller: Writer, session: Transaction) -> None:
    """Delete a saved reply. 412 when somebody changed it since it was read."""
    gone = saved_replies.remove(session, reply_id, tag=if_match.strip('"'))
    access.audit(session, caller.actor, action="reply.removed", subject=gone.name)
