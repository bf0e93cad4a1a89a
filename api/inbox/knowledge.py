"""Approved answers on a page: what suggestions may take facts from, and how to add one."""

from __future__ import annotations

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from api.deps import Id
from api.inbox.shell import SignedIn, go, render
from assistant.errors import NotifyrError
from assistant.services import access, knowledge

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/knowledge")
def knowledge_page(page: SignedIn) -> HTMLResponse:
    return _page(page)


def _page(page: Any, problem: NotifyrError | None = None, title: str = "", text: str = "") -> HTMLResponse:
    with page.container.database.reading() as session:
        documents = knowledge.list_documents(session, disabled=True)
    return render(
        "knowledge.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        documents=documents,
        title=title,
        text=text,
    )


@router.post("/knowledge")
async def add(page: SignedIn) -> Response:
    """Add an answer, or a new version of the one with that id."""
    form = await page.form()
    title, text, document_id = (str(form.get(name, "")) for name in ("title", "text", "document_id"))

    def run() -> Response:
        try:
            with page.container.database.transaction() as session:
                if document_id:
                    knowledge.update(session, document_id, text=text, title=title)
                else:
                    knowledge.add(session, title=title, text=text)
                access.audit(session, page.agent.id, action="knowledge.saved", subject=title[:200])
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return _page(page, error, title, text)
        return go("/knowledge?did=saved")

    return await run_sync(run)


@router.post("/knowledge/{document_id}/{switch}")
async def switch(page: SignedIn, document_id: Id, switch: str) -> Response:
    """Take an answer out of use (`disable`), or back into it (`enable`)."""
    await page.form()

    def run() -> Response:
        with page.container.database.transaction() as session:
            (knowledge.enable if switch == "enable" else knowledge.disable)(session, document_id)
            access.audit(session, page.agent.id, action=f"knowledge.{switch}", subject=document_id)
        return go("/knowledge")

    return await run_sync(run)
