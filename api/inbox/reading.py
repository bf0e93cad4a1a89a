"""Reading one message: its HTML made harmless in a frame, its pictures when an agent asks for them, its bytes as they came."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from api.deps import Id, Parts
from api.inbox import acting, mailhtml
from api.inbox.shell import SignedIn
from assistant.backends.blobs import key_of
from assistant.db.messages import Message
from assistant.errors import NotFound, NotifyrError
from assistant.services import access, images, threads
from channels.support.content import sniffed

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What a browser draws and nothing can act in. SVG is a document, so it is none of them."""
_INLINE_LIMIT = 3_000_000
"""Bytes of a mail's own pictures that are put into its page."""
_REMOTE_LIMIT = 6_000_000
"""Bytes of fetched pictures of one mail."""
_REMOTE_COUNT = 40
_AT_ONCE = 4
_SECONDS = 20.0


# -- the frame and the bytes


@router.get("/messages/{message_id}/frame")
def frame(page: SignedIn, message_id: Id, part: str = "") -> HTMLResponse:
    """The HTML of a message, made harmless. Its own pictures and those fetched before come with it; nothing is fetched.

    `part`: `new` without the quoted end, `quoted` only that, else all of it.
    """
    with page.container.database.reading() as session:
        message = threads.get_message(session, message_id)
        known = images.of_message(session, message_id)
    if not message.html:
        raise NotFound("this message has no HTML")
    remote: dict[str, str] = {}
    if known:
        for url in mailhtml.remote_images(message.html):
            row = known.get(images.digest(url))
            if row is not None and row.blob_key:
                remote[url] = _data(row.content_type, page.container.blobs.get(row.blob_key))
    body = mailhtml.sanitise(message.html, _inline(page.container, message), remote)
    if part in {"new", "quoted"}:
        body = mailhtml.split_quote(body)[part == "quoted"]
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
        if part.content_id and part.content_type in _PICTURES and part.size <= room:
            room -= part.size
            pictures[part.content_id.strip("<>")] = _data(part.content_type, parts.blobs.get(part.blob_key))
    return pictures


def _data(content_type: str, content: bytes) -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


# -- pictures from elsewhere


@router.post("/messages/{message_id}/images")
async def load_images(page: SignedIn, message_id: Id) -> Response:
    """Fetch the pictures of one message, on the server, and keep them. `always=on`: do so for this sender from now on."""
    form = await page.form()
    parts = page.container

    def read() -> tuple[str, str, list[str]]:
        with parts.database.reading() as session:
            message = threads.get_message(session, message_id)
            known = images.of_message(session, message_id)
        wanted = [url for url in mailhtml.remote_images(message.html) if images.digest(url) not in known]
        return message.thread_id, message.from_address.lower(), wanted

    thread_id, sender, wanted = await run_sync(read)
    pictures = await _fetch(page, wanted)

    def do(session: Session) -> dict[str, str]:
        images.keep(session, message_id, pictures, agent_id=page.agent.id)
        if acting.field(form, "always") == "on":
            agent = access.get_agent(session, page.agent.id)
            trusted = [one for one in agent.preferences.get("images_from", []) if one != sender]
            agent.preferences = agent.preferences | {"images_from": [*trusted, sender][-500:]}
            access.audit(session, page.agent.id, action="images.always", subject=message_id)
        return {}

    def store() -> None:
        for one in pictures:
            if one.content:
                parts.blobs.keep(key_of("images", one.content), one.content)

    await run_sync(store)
    return await acting.act_on(page, form, thread_id, do)


async def _fetch(page: SignedIn, urls: Sequence[str]) -> list[images.Picture]:
    """Each URL fetched by the guarded client, a few at a time. What is no picture, too large or too slow says why."""
    found: dict[str, images.Picture] = {}
    gate = anyio.Semaphore(_AT_ONCE)

    async def one(url: str) -> None:
        async with gate:
            found[url] = await _picture(page, url)

    with anyio.move_on_after(_SECONDS):
        async with anyio.create_task_group() as group:
            for url in urls[:_REMOTE_COUNT]:
                group.start_soon(one, url)
    room = _REMOTE_LIMIT
    kept = []
    for place, url in enumerate(urls):
        picture = found.get(url, images.Picture(url, problem="too many" if place >= _REMOTE_COUNT else "too slow"))
        if len(picture.content) > room:
            picture = images.Picture(url, problem="too large together")
        room -= len(picture.content)
        kept.append(picture)
    return kept


async def _picture(page: SignedIn, url: str) -> images.Picture:
    try:
        answer = await page.container.fetcher.get(
            url, headers={"accept": "image/png, image/jpeg, image/gif, image/webp"}
        )
    except NotifyrError as error:
        return images.Picture(url, problem=error.code)
    if answer.status != 200:
        return images.Picture(url, problem=f"status {answer.status}")
    kind = sniffed(answer.content, "")
    if kind not in _PICTURES:
        return images.Picture(url, problem="no picture")
    return images.Picture(url, content_type=kind, content=answer.content)
