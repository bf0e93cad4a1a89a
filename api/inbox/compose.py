"""Writing: replies, forwards, internal notes, new messages, their files and their drafts.

What was typed and the files that came with it are kept first, in a transaction of their own. Then the message is asked about,
and queued. A refused or questioned send so finds everything where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData, UploadFile

from api.deps import Id
from api.inbox.acting import act_on, field
from api.inbox.shell import Page, SignedIn, go, render
from api.inbox.times import PRESETS, moment
from assistant.backends.blobs import key_of
from assistant.backends.coordination import RULES
from assistant.clock import utcnow
from assistant.errors import InvalidInput, NotifyrError
from assistant.services import composing, drafts, labels, outbox, threads, uploads
from assistant.states import Author, ThreadState
from assistant.values import Address, StoredAttachment
from channels.support.content import file_name, sniffed

__all__ = ["Question", "keep", "router"]

router = APIRouter(include_in_schema=False)
_FIELDS = ("to", "cc", "bcc", "subject")


class Question(NotifyrError):
    """Something looks odd; sending needs a second, deliberate press."""

    code, status, title = "confirm-send", 409, "Send it like this?"


def _kept(kind: str) -> str:
    """The kind that a draft is kept under: a reply and a reply to all share their words."""
    return "reply" if kind == "reply-all" else kind


def _kind(form: FormData) -> str:
    kind = field(form, "kind") or "reply"
    if kind not in composing.KINDS:
        raise InvalidInput("there is no such kind of message")
    return kind


def _typed(form: FormData) -> dict[str, str] | None:
    """Recipients and subject, when the form has them."""
    if "to" not in form:
        return None
    return {name: field(form, name) for name in _FIELDS} | {"mode": field(form, "kind")}


# -- what is not sent yet


@router.post("/inbox/{thread_id}/draft")
async def save_draft(page: SignedIn, thread_id: Id) -> Response:
    """Keep what was typed so far."""
    form = await page.form()

    def run() -> Response:
        kind = field(form, "kind") or "reply"
        with page.container.database.transaction() as session:
            drafts.save(
                session,
                thread_id,
                agent_id=page.agent.id,
                text=field(form, "text"),
                kind="edit" if kind == "edit" else _kept(kind),
                suggestion_id=field(form, "suggestion_id") or None,
                fields=_typed(form),
            )
        return Response(status_code=204)

    return await run_sync(run)


async def _keep_files(page: Page, form: FormData, *, thread_id: str | None, kind: str) -> None:
    """Put the form's files into the blob store and beside the message they are for."""
    try:
        for part in form.getlist("files"):
            if not isinstance(part, UploadFile) or not part.filename:
                continue
            content = await part.read(uploads.LARGEST + 1)
            await run_sync(_keep_file, page, content, part, thread_id, kind)
    finally:
        await form.close()


def _keep_file(page: Page, content: bytes, part: UploadFile, thread_id: str | None, kind: str) -> None:
    key = key_of("parts", content)
    stored = StoredAttachment(
        filename=file_name(part.filename or "") or "file",
        content_type=sniffed(content, (part.content_type or "").partition(";")[0].strip().lower()),
        size=len(content),
        blob_key=key,
    )
    blobs = page.container.blobs
    if stored.size <= uploads.LARGEST:  # a larger one is refused below
        # Before the transaction: on SQLite everybody else would wait for the disk.
        blobs.keep(key, content)
    with page.container.database.transaction() as session:
        uploads.add(session, stored, agent_id=page.agent.id, thread_id=thread_id, kind=kind)
    blobs.ensure(key, content)


@router.post("/inbox/{thread_id}/files")
async def add_files(page: SignedIn, thread_id: Id) -> Response:
    """Files that are chosen, dropped or pasted while one writes."""
    form = await page.form()
    kind = _kind(form)
    problem: NotifyrError | None = None
    try:
        await _keep_files(page, form, thread_id=thread_id, kind=_kept(kind))
    except NotifyrError as error:
        if error.status >= 500:
            raise
        problem = error
    return await run_sync(_files, page, thread_id, _kept(kind), problem)


def _files(page: Page, thread_id: str | None, kind: str, problem: NotifyrError | None = None) -> HTMLResponse:
    with page.container.database.reading() as session:
        found = uploads.of(session, agent_id=page.agent.id, thread_id=thread_id, kind=kind)
    return render("uploads.html", status=problem.status if problem else 200, page=page, uploads=found, problem=problem)


@router.post("/files/{upload_id}/remove")
async def remove_file(page: SignedIn, upload_id: Id) -> Response:
    """Take a file off a message that is not sent yet."""
    await page.form()

    def run() -> Response:
        with page.container.database.transaction() as session:
            gone = uploads.remove(session, upload_id, agent_id=page.agent.id)
            thread_id, kind = gone.thread_id, gone.kind
        if page.request.headers.get("hx-request"):
            return _files(page, thread_id, kind)
        return go(f"/inbox/{thread_id}?compose={kind}" if thread_id else "/compose")

    return await run_sync(run)


# -- in a thread


@router.post("/inbox/{thread_id}/reply")
async def reply(page: SignedIn, thread_id: Id) -> Response:
    """Send a reply, a reply to all or a forward, after the undo window or at a later moment."""
    form = await page.form()
    kind, text = _kind(form), field(form, "text").strip()
    problem: NotifyrError | None = None
    try:
        await run_sync(keep, page, thread_id, _kept(kind), text, _typed(form))
        await _keep_files(page, form, thread_id=thread_id, kind=_kept(kind))
    except NotifyrError as error:
        problem = error
    finally:
        await form.close()
    await run_sync(page.container.limiter.hit, RULES["send"], page.agent.id)

    def do(session: Session) -> dict[str, str]:
        if problem is not None:
            raise problem
        if not text:
            raise InvalidInput("write something first")
        return _send(page, session, form, thread_id, kind, text)

    done = frozenset({"inbox", "review", "unread", "snoozed"}) if field(form, "then") == "done" else frozenset[str]()
    return await act_on(page, form, thread_id, do, advance=done, compose=kind)


def keep(page: Page, thread_id: str, kind: str, text: str, fields: dict[str, str] | None) -> None:
    """Keep what is about to be sent, in a transaction of its own: a refused send must not lose it."""
    page.typed[kind] = text
    if text:
        with page.container.database.transaction() as session:
            drafts.save(session, thread_id, agent_id=page.agent.id, text=text, kind=kind, fields=fields)
    del page.typed[kind]


def _recipients(form: FormData, begun: composing.Outline) -> tuple[list[Address] | None, list[Address], list[Address]]:
    if "to" not in form:
        return None, [], []
    to, cc, bcc = (composing.parse_addresses(field(form, name), known=begun.people) for name in ("to", "cc", "bcc"))
    if not to and not cc and not bcc:
        if begun.kind == "reply":
            return None, [], []
        raise InvalidInput("say who it goes to")
    return to, cc, bcc


def _send(page: Page, session: Session, form: FormData, thread_id: str, kind: str, text: str) -> dict[str, str]:
    begun = composing.outline(session, thread_id, kind)
    to, cc, bcc = _recipients(form, begun)
    if to == []:
        raise InvalidInput("a message needs an address in To")
    files = uploads.of(session, agent_id=page.agent.id, thread_id=thread_id, kind=_kept(kind))
    ticked = {str(value) for value in form.getlist("along")}
    along = [one for one in begun.files if one.blob_key in ticked]
    asked = composing.questions(
        session,
        thread_id,
        text=text,
        recipients=[*(to or []), *cc, *bcc],
        files=len(files) + len(along),
        outsiders=kind != "forward",
    )
    if asked and field(form, "confirmed") != "yes":
        raise Question(". ".join(asked))
    hold, later = _hold(page, form)
    message = outbox.queue_message(
        session,
        thread_id=thread_id,
        author=Author.AGENT,
        agent_id=page.agent.id,
        text=text,
        subject=_subject(form, begun),
        to=to,
        cc=cc,
        bcc=bcc,
        attachments=[*along, *uploads.take(session, agent_id=page.agent.id, thread_id=thread_id, kind=_kept(kind))],
        threaded=kind != "forward",
        idempotency_key=f"page:{field(form, 'form_id')[:64]}:{kind}",
        hold_seconds=hold,
    )
    if _kept(kind) == "reply":
        threads.take_by_reply(session, thread_id, agent=page.agent, by_default=page.container.settings.assign_on_reply)
    for kept in ("reply", "edit") if _kept(kind) == "reply" else (kind,):
        drafts.discard(session, thread_id, agent_id=page.agent.id, kind=kept)
    if field(form, "then") == "done" and threads.get_thread(session, thread_id).state != ThreadState.CLOSED:
        threads.change_state(session, thread_id, state=ThreadState.CLOSED, agent_id=page.agent.id)
    return {"did": "later" if later else "sending", "message": message.id, "thread": thread_id}


def _subject(form: FormData, begun: composing.Outline) -> str | None:
    """The subject as typed; None while a reply has the one it began with."""
    typed = " ".join(field(form, "subject").split())[:1000]
    if begun.kind == "forward":
        return typed
    return typed if typed and typed != " ".join(begun.subject.split())[:1000] else None


def _hold(page: Page, form: FormData) -> tuple[int, bool]:
    """Seconds until it leaves: the undo window, or until the moment that was typed."""
    if field(form, "then") != "later" and not field(form, "later").strip():
        return page.undo_seconds, False
    return math.ceil((moment(field(form, "later"), zone=page.zone) - utcnow()).total_seconds()), True


@router.post("/inbox/{thread_id}/labels")
async def label(page: SignedIn, thread_id: Id) -> Response:
    """Put a label on a thread (`add`), or take one off (`remove`)."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        if off := field(form, "remove"):
            labels.remove(session, thread_id, name=off, agent_id=page.agent.id)
            return {"did": "label-off", "thread": thread_id, "state": off}
        labels.add(session, thread_id, name=field(form, "add"), agent_id=page.agent.id)
        return {"did": "label-on", "thread": thread_id, "state": labels.name_of(field(form, "add"))}

    return await act_on(page, form, thread_id, do)


# -- a new message


def _compose(page: Page, problem: NotifyrError | None = None) -> HTMLResponse:
    with page.container.database.reading() as session:
        typed = dict.fromkeys((*_FIELDS, "text"), "") | drafts.load_new(session, page.agent.id)
        files = uploads.of(session, agent_id=page.agent.id, thread_id=None, kind="new")
    return render(
        "compose.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        presets=PRESETS,
        typed=typed,
        uploads=files,
    )


@router.get("/compose")
def compose_page(page: SignedIn) -> HTMLResponse:
    """A new message, with what was typed before."""
    return _compose(page)


def _new_fields(form: FormData) -> dict[str, str]:
    return {name: field(form, name) for name in (*_FIELDS, "text")}


def _keep_new(page: Page, fields: dict[str, str]) -> None:
    with page.container.database.transaction() as session:
        drafts.save_new(session, page.agent.id, fields)


@router.post("/compose/draft")
async def save_new_draft(page: SignedIn) -> Response:
    """Keep the new message as typed so far."""
    form = await page.form()
    await run_sync(_keep_new, page, _new_fields(form))
    return Response(status_code=204)


@router.post("/compose/files")
async def add_new_files(page: SignedIn) -> Response:
    """Files of the new message."""
    form = await page.form()
    problem: NotifyrError | None = None
    try:
        await _keep_files(page, form, thread_id=None, kind="new")
    except NotifyrError as error:
        if error.status >= 500:
            raise
        problem = error
    return await run_sync(_files, page, None, "new", problem)


@router.post("/compose")
async def send_new(page: SignedIn) -> Response:
    """Send the new message: its first recipient gets a thread."""
    form = await page.form()
    fields = _new_fields(form)
    await run_sync(_keep_new, page, fields)
    await run_sync(page.container.limiter.hit, RULES["send"], page.agent.id)

    def do(session: Session) -> tuple[str, dict[str, str]]:
        to, cc, bcc = (composing.parse_addresses(fields[name]) for name in ("to", "cc", "bcc"))
        subject, text = " ".join(fields["subject"].split())[:1000], fields["text"].strip()
        if not to:
            raise InvalidInput("say who it goes to")
        if not text:
            raise InvalidInput("write something first")
        files = uploads.of(session, agent_id=page.agent.id, thread_id=None, kind="new")
        thread = composing.new_thread(session, to[0], subject=subject)
        asked = composing.questions(session, thread.id, text=text, recipients=to, files=len(files), outsiders=False) + (
            [] if subject else ["It has no subject"]
        )
        if asked and field(form, "confirmed") != "yes":
            raise Question(". ".join(asked))
        hold, later = _hold(page, form)
        message = outbox.queue_message(
            session,
            thread_id=thread.id,
            author=Author.AGENT,
            agent_id=page.agent.id,
            text=text,
            subject=subject,
            to=to,
            cc=cc,
            bcc=bcc,
            attachments=uploads.take(session, agent_id=page.agent.id, thread_id=None, kind="new"),
            threaded=False,
            idempotency_key=f"new:{field(form, 'form_id')[:64]}",
            hold_seconds=hold,
        )
        drafts.save_new(session, page.agent.id, {})
        if message.thread_id != thread.id:  # the same form sent twice: the first message, and no empty thread
            composing.drop_empty(session, thread)
        did = {"did": "later" if later else "sending", "message": message.id, "thread": message.thread_id}
        return message.thread_id, did

    return await _settle_new(page, form, do)


async def _settle_new(page: Page, form: FormData, do: Callable[[Session], tuple[str, dict[str, str]]]) -> Response:
    try:
        await _keep_files(page, form, thread_id=None, kind="new")
    except NotifyrError as error:
        return await run_sync(_compose, page, error)

    def run() -> Response:
        try:
            with page.container.database.transaction() as session:
                thread_id, did = do(session)
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return _compose(page, error)
        return go(f"/inbox/{thread_id}?{urlencode({'view': 'sent'} | did)}")

    return await run_sync(run)
