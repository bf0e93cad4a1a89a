"""Internal notes: writing one, taking it away, and undoing either."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.acting import act_on, field
from api.inbox.compose import keep
from api.inbox.shell import SignedIn
from assistant.db.session import after_commit
from assistant.errors import NotFound, NotifyrError
from assistant.services import drafts, notes

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/inbox/{thread_id}/note")
async def note(page: SignedIn, thread_id: Id) -> Response:
    """Write an internal note. It never leaves."""
    form = await page.form()
    text = field(form, "text").strip()
    problem: NotifyrError | None = None
    try:
        await run_sync(keep, page, thread_id, "note", text, None)
    except NotifyrError as error:
        problem = error

    def do(session: Session) -> dict[str, str]:
        if problem is not None:
            raise problem
        form_id = f"note:{field(form, 'form_id')[:80]}"
        made = notes.add(session, thread_id, agent_id=page.agent.id, text=text, form_id=form_id)
        drafts.discard(session, thread_id, agent_id=page.agent.id, kind="note")
        return {"did": "noted", "state": made.id, "thread": thread_id}

    return await act_on(page, form, thread_id, do, compose="note")


@router.post("/notes/{note_id}/undo")
async def undo(page: SignedIn, note_id: Id) -> Response:
    """Take a note back that was just written: its words are in the box again."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        gone = notes.remove(session, note_id, agent_id=page.agent.id)
        drafts.append(session, gone.thread_id, agent_id=page.agent.id, text=gone.text, kind="note")
        return {"did": "note-back", "compose": "note"}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/notes/{note_id}/remove")
async def remove(page: SignedIn, note_id: Id) -> Response:
    """Take one's own note away. Its words are remembered for a few minutes, for the undo, and then nowhere any more."""
    form = await page.form()
    bus = page.container.bus

    def do(session: Session) -> dict[str, str]:
        gone = notes.remove(session, note_id, agent_id=page.agent.id)
        facts = {"thread": gone.thread_id, "agent": page.agent.id, "text": gone.text, "form": gone.form_id}
        after_commit(session, partial(bus.keep_removed, note_id, facts | {"at": gone.created_at.isoformat()}))
        return {"did": "note-removed", "state": note_id, "thread": gone.thread_id}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/notes/{note_id}/restore")
async def restore(page: SignedIn, note_id: Id) -> Response:
    """Undo a removal."""
    form = await page.form()
    facts = await run_sync(page.container.bus.removed, note_id)

    def do(session: Session) -> dict[str, str]:
        if facts.get("agent") != page.agent.id:
            raise NotFound("the words of this note are not kept any more")
        at = datetime.fromisoformat(facts["at"])
        by, text, form_id = page.agent.id, facts["text"], facts["form"]
        notes.put_back(session, note_id, facts["thread"], agent_id=by, text=text, form_id=form_id, at=at)
        return {"did": "undone"}

    return await act_on(page, form, field(form, "thread_id"), do)
