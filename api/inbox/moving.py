"""Merging threads, splitting a message off, and taking either back."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.acting import act_on, field
from api.inbox.shell import SignedIn
from assistant.services import merging

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/inbox/{thread_id}/merge")
async def merge(page: SignedIn, thread_id: Id) -> Response:
    """Put this thread into another of the contact; its address leads there from now on."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        into_id, reason = field(form, "into")[:36], field(form, "reason")
        move = merging.merge(session, thread_id, into_id=into_id, reason=reason, agent_id=page.agent.id)
        session.flush()
        return {"did": "merged", "state": move.id, "thread": into_id}

    return await act_on(page, form, thread_id, do)


@router.post("/messages/{message_id}/split")
async def split(page: SignedIn, message_id: Id) -> Response:
    """Give one message a thread of its own."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        move = merging.split(session, message_id, reason=field(form, "reason"), agent_id=page.agent.id)
        session.flush()
        return {"did": "split", "state": move.id, "thread": move.into_id}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/moves/{move_id}/undo")
async def undo(page: SignedIn, move_id: Id) -> Response:
    """Take a merge or a split back."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        merging.undo(session, move_id, agent_id=page.agent.id)
        return {"did": "undone"}

    return await act_on(page, form, field(form, "thread_id"), do)
