"""The agents' inbox: lists, threads, and what stands beside them. Every page is whole HTML; scripts only make it quicker."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.deps import Id
from api.inbox import (
    account,
    acts,
    admin,
    compose,
    filters,
    guide,
    intents,
    knowledge,
    learning,
    models,
    moving,
    notices,
    noting,
    policies,
    reading,
    replies,
    review,
    trust,
)
from api.inbox.shell import Page, SignedIn, go, static_file
from api.inbox.views import show
from assistant.errors import StorageError
from assistant.services import merging, threads

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
for _part in (
    acts,
    reading,
    review,
    compose,
    account,
    admin,
    knowledge,
    intents,
    learning,
    models,
    trust,
    replies,
    moving,
    filters,
    guide,
    policies,
    notices,
    noting,
):
    router.routes.extend(_part.router.routes)  # as they stand: see api/main.py


@router.get("/")
def front() -> RedirectResponse:
    return go("/inbox")


@router.get("/static/{name:path}")
def static(name: str, v: str = "") -> Response:
    return static_file(name, v)


@router.get("/inbox")
def inbox(
    page: SignedIn, view: str = "inbox", sort: str = "newest", q: str = "", cursor: str = "", upto: str = ""
) -> HTMLResponse:
    """A list with nothing open: from `cursor` on one page, or as far as `upto`, which names how far down somebody was."""
    return show(page, view=view, sort=sort, q=q, cursor=cursor, upto=upto)


@router.get("/inbox/{thread_id}")
def thread(
    page: SignedIn,
    thread_id: Id,
    view: str = "inbox",
    sort: str = "newest",
    q: str = "",
    cursor: str = "",
    upto: str = "",
    compose: str = "",
) -> Response:
    """A list with one thread open. Opening marks it read. The address of a merged thread leads to the other one."""
    with page.container.database.reading() as session:
        at = merging.now_at(session, thread_id)
        if at and at != thread_id:
            return go(f"/inbox/{at}?{page.request.url.query}")
        unread = threads.get_thread(session, thread_id).unread
    if unread and page.request.headers.get("purpose") != "prefetch":
        _mark_read(page, thread_id)
    return show(page, thread_id=thread_id, view=view, sort=sort, q=q, cursor=cursor, upto=upto, compose=compose)


def _mark_read(page: Page, thread_id: str) -> None:
    """A thread that cannot be marked is read all the same: the page says that nothing can be changed."""
    try:
        with page.container.database.transaction() as session:
            threads.mark_read(session, thread_id, agent_id=page.agent.id)
    except StorageError:
        if not page.read_only:
            raise
