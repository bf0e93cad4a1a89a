"""Settings > Saved replies: every agent may write them, and the audit trail says who changed which."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.admin import settle, text_of
from api.inbox.shell import Page, SignedIn, render
from assistant.errors import NotifyrError
from assistant.services import access, saved_replies, threads

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_BACK = "/settings/replies?did=saved"


def _page(page: Page, *, problem: NotifyrError | None = None, typed: dict[str, str] | None = None) -> HTMLResponse:
    """`typed`: what a refused form held, with the `id` of the reply it changes (empty: a new one)."""
    with page.container.database.reading() as session:
        replies = saved_replies.every(session)
    return render(
        "replies.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        typed=typed or {"id": "", "name": "", "text": ""},
        replies=replies,
        names=saved_replies.NAMES,
    )


@router.get("/settings/replies")
def replies_page(page: SignedIn) -> HTMLResponse:
    return _page(page)


@router.get("/inbox/{thread_id}/saved-replies")
def to_insert(page: SignedIn, thread_id: Id) -> HTMLResponse:
    """Every saved reply with its names filled in for a thread: read when the list is opened, not with every thread."""
    with page.container.database.reading() as session:
        thread = threads.get_thread(session, thread_id)
        name = thread.contact.display_name
        values = {
            "agent": page.agent.name,
            "name": name,
            "first_name": name.partition(" ")[0],
            "subject": thread.subject,
        }
        filled = [(one.name, saved_replies.fill(one.text, values)) for one in saved_replies.every(session)]
    return render("saved-replies.html", page=page, saved=filled)


async def _save(page: Page, reply_id: str) -> Response:
    form = await page.form()
    typed = {"id": reply_id, "name": text_of(form, "name"), "text": text_of(form, "text")}

    def do(session: Session) -> dict[str, Any]:
        made = saved_replies.save(
            session, name=typed["name"], text=typed["text"], agent_id=page.agent.id, reply_id=reply_id or None
        )
        action = "reply.changed" if reply_id else "reply.written"
        access.audit(session, page.agent.id, action=action, subject=made.name)
        return {}

    def show(page: Page, *, problem: NotifyrError) -> HTMLResponse:
        return _page(page, problem=problem, typed=typed)

    return await settle(page, show, do, back=_BACK)


@router.post("/settings/replies")
async def write(page: SignedIn) -> Response:
    """A new saved reply. What was typed stays in the form when it is refused."""
    return await _save(page, "")


@router.post("/settings/replies/{reply_id}")
async def change(page: SignedIn, reply_id: Id) -> Response:
    """Another name or other words."""
    return await _save(page, reply_id)


@router.post("/settings/replies/{reply_id}/remove")
async def remove(page: SignedIn, reply_id: Id) -> Response:
    await page.form()

    def do(session: Session) -> dict[str, Any]:
        gone = saved_replies.remove(session, reply_id)
        access.audit(session, page.agent.id, action="reply.removed", subject=gone.name)
        return {}

    return await settle(page, _page, do, back="/settings/replies")
