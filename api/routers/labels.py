"""Labels that agents put on threads. Triage's own labels belong to messages and are read there."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from api.deps import Access, ApiRoute, Caller, Id, Reading, Transaction
from api.routers.common import CHANGED, FAILS, FOUND, MOVED, Cursor, IdempotencyKey, Limit
from api.schemas import Listing, listing
from api.schemas_inbox import LabelCount, LabelPut, ThreadLabelOut
from assistant.services import labels

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["labels"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("threads:read"))]
Writer = Annotated[Caller, Depends(Access("threads:write"))]


@router.get("/labels", operation_id="listLabels", response_model=Listing[LabelCount])
def list_labels(caller: Reader, session: Reading, cursor: Cursor = "", limit: Limit = 50) -> dict[str, Any]:
    """One page of all labels in the order of their first use."""
    return listing(labels.page(session, cursor=cursor, limit=limit), LabelCount.of)


@router.get("/threads/{thread_id}/labels", operation_id="listThreadLabels", responses=FOUND | MOVED)
def list_thread_labels(thread_id: Id, caller: Reader, session: Reading) -> list[ThreadLabelOut]:
    """The labels of a thread by name, at most twenty."""
    return [ThreadLabelOut.of(label) for label in labels.on_thread(session, thread_id)]


@router.post("/threads/{thread_id}/labels", operation_id="putLabel", status_code=201, responses=CHANGED | MOVED)
def put_label(
    thread_id: Id, body: LabelPut, caller: Writer, session: Transaction, key: IdempotencyKey = None
) -> ThreadLabelOut:
    """Put a label on a thread; one that is there already stays."""
    return ThreadLabelOut.of(labels.put(session, thread_id, name=body.name, agent_id=caller.agent_id))


@router.delete(
    "/threads/{thread_id}/labels/{label_id}", operation_id="takeLabelOff", status_code=204, responses=FOUND | MOVED
)
def take_label_off(thread_id: Id, label_id: Id, caller: Writer, session: Transaction) -> None:
    """Take a label off a thread. A label that no thread has any more goes away."""
    labels.take_off(session, thread_id, label_id=label_id, agent_id=caller.agent_id)
