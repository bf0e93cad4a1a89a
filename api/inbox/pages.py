"""The agents' inbox: lists, threads, and what stands beside them. Every page is whole HTML; scripts only make it quicker."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.orm import Session

from api.deps import Id, Parts
from api.inbox import account, acts, knowledge, mailhtml, words
from api.inbox.shell import Page, SignedIn, go, render, static_file
from assistant.db.messages import Message, Suggestion, Thread
from assistant.errors import NotFound
from assistant.services import contacts, directory, drafts, suggestions, threads
from assistant.states import Delivery, Direction, SuggestionState

__all__ = ["router", "show"]

router = APIRouter(include_in_schema=False)
router.include_router(acts.router)
router.include_router(account.router)
router.include_router(knowledge.router)
_INLINE_LIMIT = 3_000_000
"""Bytes of inline pictures that are put into the page of one message."""
_UNFOLDED = 4
"""Messages of a long thread that are open: the newest ones."""


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
    page: SignedIn, thread_id: Id, view: str = "inbox", sort: str = "newest", q: str = "", cursor: str = ""
) -> HTMLResponse:
    """A list with one thread open. Opening marks it read."""
    with page.container.database.reading() as session:
        unread = threads.get_thread(session, thread_id).unread
    if unread and page.request.headers.get("purpose") != "prefetch":
        with page.container.database.transaction() as session:
            threads.mark_read(session, thread_id, agent_id=page.agent.id)
    return show(page, thread_id=thread_id, view=view, sort=sort, q=q, cursor=cursor)


def show(
    page: Page,
    *,
    thread_id: str = "",
    view: str = "inbox",
    sort: str = "newest",
    q: str = "",
    cursor: str = "",
    problem: Any = None,
) -> HTMLResponse:
    """The whole inbox page. `problem` is an error of the act that led here; it is shown and decides the status."""
    view = view if view in threads.VIEWS else "inbox"
    sort = sort if sort in threads.SORTS else "newest"
    container = page.container
    with container.database.reading() as session:
        listed = threads.list_threads(
            session, view, sort=sort, cursor=cursor or None, filters=threads.Filters(search=q[:200])
        )
        values: dict[str, Any] = {
            "counts": threads.counts(session),
            "rows": listed.items,
            "next_cursor": listed.next_cursor,
            "open": _thread(session, page, thread_id) if thread_id else None,
        }
    query = {"view": view, "sort": sort, "q": q}
    tail = urlencode({name: value for name, value in query.items() if value and value not in ("newest",)})
    return render(
        "inbox.html",
        status=problem.status if problem is not None else 200,
        page=page,
        view=view,
        sort=sort,
        q=q,
        tail=tail,
        problem=problem,
        here=f"/inbox{'/' + thread_id if thread_id else ''}?{tail}",
        models=container.bus.models(),
        smtp=_smtp(page),
        views=words.VIEW_WORDS,
        sorts=threads.SORTS,
        marks=words.MARKS,
        did=_did(page),
        **values,
    )


def _thread(session: Session, page: Page, thread_id: str) -> dict[str, Any]:
    found = threads.get_thread(session, thread_id)
    messages = threads.messages_of(session, thread_id)
    drafted = threads.suggestions_of(session, thread_id)
    newest = next((m for m in reversed(messages) if m.direction == Direction.INBOUND), None)
    mine = drafts.load(session, thread_id, agent_id=page.agent.id)
    editing = drafts.load(session, thread_id, agent_id=page.agent.id, kind="edit")
    current = _current(drafted)
    return {
        "thread": found,
        "messages": messages,
        "folded": max(0, len(messages) - _UNFOLDED) if len(messages) > _UNFOLDED + 2 else 0,
        "newest": newest,
        "suggestion": current,
        "earlier": [one for one in drafted if current is None or one.id != current.id],
        "card": _card(found, newest, current),
        "reply": mine.text if mine else "",
        "edit": editing.text if editing and current and editing.suggestion_id == current.id else None,
        "contact": directory.get_contact(session, found.contact_id),
        "blocked": _blocked(session, found),
        "present": page.container.bus.who(thread_id),
        "held": [m for m in messages if m.status == Delivery.HELD],
        "images": {m.id: mailhtml.blocked_images(m.html) for m in messages if m.html},
    }


def _current(drafted: Any) -> Suggestion | None:
    """The suggestion the card is about: the newest one."""
    return drafted[0] if drafted else None


def _card(thread: Thread, newest: Message | None, suggestion: Suggestion | None) -> str:
    """Which face the card shows: `proposed`, `drafting`, `stale`, `failed`, `rejected`, `sent`, `none` or nothing at all."""
    if newest is None:
        return ""
    if suggestion is None or suggestion.message_id != newest.id:
        return "stale" if suggestion is not None and suggestion.state == SuggestionState.EXPIRED else "none"
    faces = {
        SuggestionState.PROPOSED: "proposed",
        SuggestionState.DRAFTING: "drafting",
        SuggestionState.EXPIRED: "stale",
        SuggestionState.REJECTED: "failed" if suggestion.reject_reason == "failed" else "rejected",
    }
    return faces.get(suggestion.state, "sent")


def _blocked(session: Session, thread: Thread) -> str:
    """Why this contact may not be written to on this channel; empty when one may."""
    address = next(
        (one.address for one in thread.contact.identities if one.channel == thread.channel),
        "",
    )
    return contacts.may_write(session, contact_id=thread.contact_id, channel=thread.channel, address=address) or ""


def _did(page: Page) -> dict[str, str]:
    """What the last act did, from the query: the toast offers to undo it. Nothing here is trusted, only shown."""
    names = ("did", "thread", "message", "suggestion", "state", "version")
    return {name: page.request.query_params.get(name, "")[:64] for name in names}


def _smtp(page: Page) -> dict[str, Any]:
    settings = page.container.settings
    try:
        port = int(settings.path("run", "smtp-port").read_text())
    except (OSError, ValueError):
        port = settings.smtp_port
    return {"host": settings.smtp_host, "port": port, "address": settings.mail_address}


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
    import base64

    pictures: dict[str, str] = {}
    room = _INLINE_LIMIT
    for part in message.attachments:
        safe = part.content_type in {"image/png", "image/jpeg", "image/gif", "image/webp"}
        if part.content_id and safe and part.size <= room:
            room -= part.size
            encoded = base64.b64encode(parts.blobs.get(part.blob_key)).decode()
            pictures[part.content_id.strip("<>")] = f"data:{part.content_type};base64,{encoded}"
    return pictures
