"""Saved filters: what a list shows, kept under a name in the rail of the agent who named it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.acting import act_on, field
from api.inbox.shell import SignedIn
from assistant.services import saved_filters

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/filters")
async def save(page: SignedIn) -> Response:
    """Keep the list that the form was in, by its `name`."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        made = saved_filters.save(
            session,
            agent_id=page.agent.id,
            name=field(form, "name"),
            view=field(form, "view", "inbox"),
            sort=field(form, "sort", "newest"),
            q=field(form, "q"),
        )
        return {"did": "filter-saved", "state": made.id, "redo": made.name}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/filters/{filter_id}")
async def rename(page: SignedIn, filter_id: Id) -> Response:
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        saved_filters.rename(session, filter_id, agent_id=page.agent.id, name=field(form, "name"))
        return {"did": "saved"}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/filters/{filter_id}/remove")
async def remove(page: SignedIn, filter_id: Id) -> Response:
    """Forget a filter. The list that it showed stays open, so that saving it again takes this back."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        gone = saved_filters.remove(session, filter_id, agent_id=page.agent.id)
        return {"did": "filter-removed", "redo": gone.name}

    return await act_on(page, form, field(form, "thread_id"), do)
