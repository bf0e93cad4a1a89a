"""Internal notes: words among agents in a thread. They never leave."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from api.deps import Access, ApiRoute, Caller, Id, Reading, Transaction
from api.routers.common import CHANGED, FAILS, FOUND, MOVED, Cursor, IdempotencyKey, Limit
from api.schemas import Listing, listing
from api.schemas_inbox import NoteOut, NoteWrite
from assistant.clock import new_id
from assistant.services import notes

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["notes"], route_class=ApiRoute, responses=FAILS)
Reader = Annotated[Caller, Depends(Access("notes:read"))]
Writer = Annotated[Caller, Depends(Access("notes:write"))]


@router.get(
    "/threads/{thread_id}/notes",
    operation_id="listNotes",
    response_model=Listing[NoteOut],
    responses=FOUND | MOVED,
)
def list_notes(
    thread_id: Id, caller: Reader, session: Reading, cursor: Cursor = "", limit: Limit = 50
) -> dict[str, Any]:
    """One page of a thread's notes, oldest first."""
    return listing(notes.page(session, thread_id, cursor=cursor, limit=limit), NoteOut.of)


@router.post("/threads/{thread_id}/notes", operation_id="writeNote", status_code=201, responses=CHANGED | MOVED)
def write_note(
    thread_id: Id, body: NoteWrite, caller: Writer, session: Transaction, key: IdempotencyKey = None
) -> NoteOut:
    """Write a note for the other agents."""
    by = caller.require_agent().id
    return NoteOut.of(notes.add(session, thread_id, agent_id=by, text=body.text, form_id=f"api:{new_id()}"))


@router.delete("/notes/{note_id}", operation_id="deleteNote", status_code=204, responses=FOUND)
def delete_note(note_id: Id, caller: Writer, session: Transaction) -> None:
    """Take one's own note away. A note of another agent is 404."""
    notes.remove(session, note_id, agent_id=caller.require_agent().id)
