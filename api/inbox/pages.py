"""The agents' inbox: lists, threads, and what stands beside them. Every page is whole HTML; scripts only make it quicker."""

from __future__ import annotations

import base64

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.deps import Id, Parts
from api.inbox import (
    account,
    acts,
    admin,
    compose,
    intents,
    knowledge,
    learning,
    mailhtml,
    models,
    replies,
    review,
    trust,
)
from api.inbox.shell import SignedIn, go, static_file
from api.inbox.views import show
from assistant.db.messages import Message
from assistant.errors import NotFound
from assistant.services import threads

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
router.include_router(acts.router)
router.include_router(review.router)
router.include_router(compose.router)
router.include_router(account.router)
router.include_router(admin.router)
router.include_router(knowledge.router)
router.include_router(intents.router)
router.include_router(learning.router)
router.include_router(models.router)
router.include_router(trust.router)
router.include_router(replies.router)
_INLINE_LIMIT = 3_000_000
"""Bytes of inline pictures that are put into the page of one message."""


@router.get("/")
def front() -> RedirectResponse:
    return go("/inbox")


@router.get("/static/{name:path}")
def static(name: str) -> Response:
    return static_file(name)


@router.get("/inbox")
def inbox(page: SignedIn, view: str = "inbox", sort: str = "newest", q: str = "", cursor: str = "") -> HTMLResponse:
    """A list with nothing open."""
    return show(page, view=view, sort=sort, q=q, cursor=cursor)


@router.get("/inbox/{thread_id}")
def thread(
    page: SignedIn,
    thread_id: Id,
    view: str = "inbox",
    sort: str = "newest",
    q: str = "",
    cursor: str = "",
    compose: str = "",
) -> HTMLResponse:
    """A list with one thread open. Opening marks it read."""
    with page.container.database.reading() as session:
        unread = threads.get_thread(session, thread_id).unread
    if unread and page.request.headers.get("purpose") != "prefetch":
        with page.container.database.transaction() as session:
            threads.mark_read(session, thread_id, agent_id=page.agent.id)
    return show(page, thread_id=thread_id, view=view, sort=sort, q=q, cursor=cursor, compose=compose)


# -- one message


@router.get("/messages/{message_id}/frame")
def frame(page: SignedIn, message_id: Id) -> HTMLResponse:
    """The HTML of a message, made harmless, for the sandboxed frame. Inline pictures come with it; nothing is fetched."""
    with page.container.database.reading() as session:
        message = threads.get_message(session, message_id)
    if not message.html:
        raise NotFound("this message has no HTML")
    body = mailhtml.sanitise(message.html, _inline(page.container, message))
    return HTMLResponse(
        mailhtml.document(body),
        headers={"Content-Security-Policy": mailhtml.FRAME_POLICY, "X-Frame-Options": "SAMEORIGIN"},
    )


@router.get("/messages/{message_id}/raw")
def raw(page: SignedIn, message_id: Id) -> Response:
    """The bytes as they came, as plain text."""
    with page.container.database.reading() as session:
        message = threads.get_message(session, message_id)
    if not message.raw_key:
        raise NotFound("this message has no raw form")
    content = page.container.blobs.get(message.raw_key)[:_INLINE_LIMIT]
    return Response(content, media_type="text/plain; charset=utf-8", headers={"Content-Disposition": "inline"})


def _inline(parts: Parts, message: Message) -> dict[str, str]:
    pictures: dict[str, str] = {}
    room = _INLINE_LIMIT
    for part in message.attachments:
        safe = part.content_type in {"image/png", "image/jpeg", "image/gif", "image/webp"}
        if part.content_id and safe and part.size <= room:
            room -= part.size
            encoded = base64.b64encode(parts.blobs.get(part.blob_key)).decode()
            pictures[part.content_id.strip("<>")] = f"data:{part.content_type};base64,{encoded}"
    return pictures
