"""Sending without a person: an admin grants it by intent on the Trust page, and revokes it there or on a receipt."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox import trust
from api.inbox.acting import act_on, field
from api.inbox.admin import Admin, settle, text_of
from assistant.errors import NotAllowed
from assistant.services import policies

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/policies")
async def grant(page: Admin) -> Response:
    """Let drafts for an `intent` leave by themselves, once enough of them were sent clean."""
    form = await page.form()

    def do(session: Session) -> dict[str, Any]:
        if page.container.settings.autopilot == "suggest":
            raise NotAllowed("this server only suggests: NOTIFYR_AUTOPILOT=granted lets an admin grant intents")
        policies.grant(session, text_of(form, "intent"), agent_id=page.agent.id)
        return {}

    return await settle(page, trust.page_of, do, back="/settings/trust?did=saved#intents")


@router.post("/policies/{policy_id}/revoke")
async def revoke(page: Admin, policy_id: Id) -> Response:
    """End a grant at once. `thread_id`: the thread whose receipt it was pressed on; without, the Trust page."""
    form = await page.form()

    def do(session: Session) -> dict[str, Any]:
        intent = policies.get(session, policy_id).intent
        taken = policies.revoke(session, policy_id, agent_id=page.agent.id)
        return {"did": "revoked", "state": intent, "redo": str(taken)}

    if thread_id := field(form, "thread_id"):
        return await act_on(page, form, thread_id, do)
    return await settle(page, trust.page_of, do, back="/settings/trust#intents")
