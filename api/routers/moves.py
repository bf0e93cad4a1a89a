"""Merging two threads of one contact, splitting a message off, and taking either back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from api.deps import Access, ApiRoute, Caller, Id, Transaction
from api.routers.common import CHANGED, FAILS, MOVED, IdempotencyKey
from api.schemas_inbox import MergeInto, MoveOut, Split
from assistant.services import merging, threads

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["threads"], route_class=ApiRoute, responses=FAILS)
Writer = Annotated[Caller, Depends(Access("threads:write"))]


@router.post("/threads/{thread_id}/merge", operation_id="mergeThread", status_code=201, responses=CHANGED | MOVED)
def merge_thread(
    thread_id: Id, body: MergeInto, caller: Writer, session: Transaction, key: IdempotencyKey = None
) -> MoveOut:
    """Put everything of this thread into another one of the same contact. From then on its id leads there (308)."""
    for one in (thread_id, body.into_id):
        threads.get_thread(session, one)
    by = caller.require_agent().id
    move = merging.merge(session, thread_id, into_id=body.into_id, reason=body.reason, agent_id=by)
    session.flush()
    return MoveOut.of(move)


@router.post("/messages/{message_id}/split", operation_id="splitMessage", status_code=201, responses=CHANGED)
def split_message(
    message_id: Id, body: Split, caller: Writer, session: Transaction, key: IdempotencyKey = None
) -> MoveOut:
    """Give a received message a thread of its own. 409 when it is alone in its thread."""
    move = merging.split(session, message_id, reason=body.reason, agent_id=caller.require_agent().id)
    session.flush()
    return MoveOut.of(move)


@router.post("/moves/{move_id}/undo", operation_id="undoMove", responses=CHANGED)
def undo_move(move_id: Id, caller: Writer, session: Transaction, key: IdempotencyKey = None) -> MoveOut:
    """Take a merge or a split back, once. 409 when a later move is in the way."""
    move = merging.undo(session, move_id, agent_id=caller.require_agent().id)
    session.flush()
    return MoveOut.of(move)
