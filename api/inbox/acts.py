"""What agents do in the inbox. Each act is one form post and one transaction; the answer is the page after it.

A failed act shows the same page with the reason and the status of the error; nothing that was typed is lost.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Callable
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import make_msgid
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from api.deps import Id
from api.inbox.diff import word_diff
from api.inbox.shell import Page, SignedIn, go, render
from api.inbox.views import show
from assistant.backends.coordination import RULES
from assistant.clock import utcnow
from assistant.errors import InvalidInput, NotifyrError, StorageError
from assistant.services import access, drafts, outbox, suggestions, threads
from assistant.states import Author, SuggestionState, ThreadState

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_STATES = {
    "done": ThreadState.CLOSED,
    "reopen": ThreadState.OPEN,
    "spam": ThreadState.SPAM,
    "not-spam": ThreadState.OPEN,
    "trash": ThreadState.TRASH,
}
_WORKED = frozenset({"inbox", "review", "unread"})
_LEAVES = {
    "done": _WORKED | {"snoozed"},
    "snooze": _WORKED,
    "spam": _WORKED,
    "trash": _WORKED | {"spam", "done", "snoozed"},
    "not-spam": frozenset({"spam"}),
    "reopen": frozenset({"snoozed", "done", "trash"}),
}
"""Act -> the views that a thread leaves by it."""


def _field(form: FormData, name: str, default: str = "") -> str:
    value = form.get(name, default)
    return value if isinstance(value, str) else default


def _number(form: FormData, name: str) -> int:
    try:
        return int(_field(form, name))
    except ValueError:
        raise InvalidInput(f"{name} is not a number") from None


async def _act(
    page: Page,
    form: FormData,
    thread_id: str,
    do: Callable[[Session], dict[str, str]],
    *,
    advance: frozenset[str] = frozenset(),
) -> Response:
    """Run `do` in a transaction and go to the page after it; on an error show this page with the reason.

    `advance`: the views in which the next thread is opened, because this one leaves them.
    """
    query = {name: _field(form, name) for name in ("view", "sort", "q") if _field(form, name)}

    def run() -> Response:
        after = thread_id
        if query.get("view") in advance:
            after = _following(page, thread_id, query)
        try:
            with page.container.database.transaction() as session:
                did = do(session)
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return show(page, thread_id=thread_id, problem=error, **query)
        path = f"/inbox/{after}" if after else "/inbox"
        return go(f"{path}?{urlencode(query | did)}")

    return await run_sync(run)


def _following(page: Page, thread_id: str, query: dict[str, str]) -> str:
    """The thread after this one in its list: where the agent goes next. The list itself when there is none."""
    with page.container.database.reading() as session:
        sort = query.get("sort", "newest")
        listed = threads.list_threads(session, query["view"], sort=sort if sort in threads.SORTS else "newest").items
    ids = [one.id for one in listed]
    if thread_id in ids:
        place = ids.index(thread_id)
        rest = ids[place + 1 :] + ids[:place]
        return rest[0] if rest else ""
    return ids[0] if ids else ""


# -- threads


@router.post("/inbox/{thread_id}/act")
async def act(page: SignedIn, thread_id: Id) -> Response:
    """Done, reopen, spam, not spam, trash, star, assign, snooze, unread; and back again."""
    form = await page.form()
    name = _field(form, "act")

    def do(session: Session) -> dict[str, str]:
        before = threads.get_thread(session, thread_id)
        old = before.state.value
        change = _change(session, page, thread_id, name)
        if name == "not-spam":
            access.audit(session, page.agent.id, action="quarantine.release", subject=thread_id)
        return {"did": name, "thread": thread_id, "state": old} if change.undo else {}

    return await _act(page, form, thread_id, do, advance=_LEAVES.get(name, frozenset()))


def _change(session: Session, page: Page, thread_id: str, name: str) -> threads.Change:
    by = page.agent.id
    if name in _STATES:
        return threads.change_state(session, thread_id, state=_STATES[name], agent_id=by)
    simple: dict[str, Callable[[], threads.Change]] = {
        "star": lambda: threads.star(session, thread_id, starred=True, agent_id=by),
        "unstar": lambda: threads.star(session, thread_id, starred=False, agent_id=by),
        "assign": lambda: threads.assign(session, thread_id, assignee_id=by, agent_id=by),
        "unassign": lambda: threads.assign(session, thread_id, assignee_id=None, agent_id=by),
        "unread": lambda: threads.mark_read(session, thread_id, read=False, agent_id=by),
        "snooze": lambda: threads.snooze(session, thread_id, until=_tomorrow(), agent_id=by),
    }
    if name not in simple:
        raise InvalidInput("there is no such act")
    return simple[name]()


def _tomorrow() -> datetime:
    return (utcnow() + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)


@router.post("/inbox/{thread_id}/undo")
async def undo(page: SignedIn, thread_id: Id) -> Response:
    """Put a thread back into the state it had before the last act."""
    form = await page.form()
    state = _field(form, "state")
    if state not in set(ThreadState):
        raise InvalidInput("there is nothing to undo")

    def do(session: Session) -> dict[str, str]:
        threads.change(session, thread_id, agent_id=page.agent.id, state=ThreadState(state), snoozed_until=None)
        return {"did": "undone", "thread": thread_id}

    return await _act(page, form, thread_id, do)


@router.post("/inbox-bulk")
async def bulk(page: SignedIn) -> Response:
    """One act on several threads."""
    form = await page.form()
    name = _field(form, "act")
    ids = [value for value in form.getlist("id") if isinstance(value, str)][:200]

    def do(session: Session) -> dict[str, str]:
        for thread_id in ids:
            _change(session, page, thread_id, name)
        return {"did": f"{name}-{len(ids)}"}

    return await _act(page, form, "", do)


@router.post("/inbox/{thread_id}/draft")
async def save_draft(page: SignedIn, thread_id: Id) -> Response:
    """Keep what was typed so far."""
    form = await page.form()

    def run() -> Response:
        with page.container.database.transaction() as session:
            drafts.save(
                session,
                thread_id,
                agent_id=page.agent.id,
                text=_field(form, "text"),
                kind="edit" if _field(form, "kind") == "edit" else "reply",
                suggestion_id=_field(form, "suggestion_id") or None,
            )
        return Response(status_code=204)

    return await run_sync(run)


def _keep(page: Page, thread_id: str, text: str, suggestion_id: str | None = None) -> None:
    """Keep the words of a send before it is tried, in a transaction of their own: a refused send must not lose them."""
    if not text:
        return
    with page.container.database.transaction() as session:
        drafts.save(
            session,
            thread_id,
            agent_id=page.agent.id,
            text=text,
            kind="edit" if suggestion_id else "reply",
            suggestion_id=suggestion_id,
        )


@router.post("/inbox/{thread_id}/reply")
async def reply(page: SignedIn, thread_id: Id) -> Response:
    """Send what the agent wrote, after the undo window."""
    form = await page.form()
    text = _field(form, "text").strip()
    await run_sync(_keep, page, thread_id, text)
    await run_sync(page.container.limiter.hit, RULES["send"], page.agent.id)

    def do(session: Session) -> dict[str, str]:
        if not text:
            raise InvalidInput("write something first")
        message = outbox.queue_message(
            session,
            thread_id=thread_id,
            author=Author.AGENT,
            agent_id=page.agent.id,
            text=text,
            idempotency_key=f"page:{_field(form, 'form_id')[:64]}",
            hold_seconds=page.undo_seconds,
        )
        for kind in ("reply", "edit"):
            drafts.discard(session, thread_id, agent_id=page.agent.id, kind=kind)
        return {"did": "sending", "message": message.id, "thread": thread_id}

    return await _act(page, form, thread_id, do)


@router.post("/first-mail")
async def first_mail(page: SignedIn) -> Response:
    """The empty inbox' offer: send one real mail through our own listener, as any client would."""
    await page.form()
    settings = page.container.settings
    port = settings.smtp_port
    with contextlib.suppress(OSError, ValueError):
        port = int(settings.path("run", "smtp-address").read_text().rpartition(":")[2])
    mail = EmailMessage()
    mail["From"], mail["To"] = "Ana Silva <ana@example.org>", settings.mail_address
    mail["Subject"], mail["Message-ID"] = "Where is my order?", make_msgid(domain="example.org")
    mail.set_content("Hello,\n\nwhere is my order 48213? It should have arrived on Monday.\n\nAna\n")

    def send() -> None:
        try:
            with smtplib.SMTP(settings.smtp_host, port, timeout=10) as client:
                client.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise StorageError(f"the listener did not take the mail: {type(error).__name__}") from error

    await run_sync(send)
    return go("/inbox")


# -- suggestions


@router.post("/suggestions/{suggestion_id}/accept")
async def accept(page: SignedIn, suggestion_id: Id) -> Response:
    """Send the suggestion, as it is or as edited. The second of two agents is told who was first."""
    form = await page.form()
    thread_id = _field(form, "thread_id")
    text = _field(form, "text") if "text" in form else None
    if text is not None:
        await run_sync(_keep, page, thread_id, text, suggestion_id)
    await run_sync(page.container.limiter.hit, RULES["send"], page.agent.id)

    def do(session: Session) -> dict[str, str]:
        found = threads.get_suggestion(session, suggestion_id)
        message = suggestions.accept(
            session,
            suggestion_id,
            agent=page.agent,
            version=_number(form, "version"),
            text=text,
            hold_seconds=page.undo_seconds,
        )
        drafts.discard(session, found.thread_id, agent_id=page.agent.id, kind="edit")
        return {"did": "sending", "message": message.id, "suggestion": suggestion_id, "thread": found.thread_id}

    return await _act(page, form, thread_id, do, advance=frozenset({"review"}))


@router.post("/suggestions/{suggestion_id}/reject")
async def reject(page: SignedIn, suggestion_id: Id) -> Response:
    """Dismiss; the reason is optional."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        found = suggestions.reject(
            session,
            suggestion_id,
            agent_id=page.agent.id,
            version=_number(form, "version"),
            reason=_field(form, "reason"),
        )
        return {"did": "dismissed", "suggestion": suggestion_id, "thread": found.thread_id}

    return await _act(page, form, _field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/restore")
async def restore(page: SignedIn, suggestion_id: Id) -> Response:
    """Undo a dismissal."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        suggestions.restore(session, suggestion_id)
        return {"did": "undone"}

    return await _act(page, form, _field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/diff")
async def diff(page: SignedIn, suggestion_id: Id) -> Response:
    """What an edit changed so far, word by word."""
    form = await page.form()
    with page.container.database.reading() as session:
        before = threads.get_suggestion(session, suggestion_id).text
    after = _field(form, "text")
    return render(
        "diff.html", id=suggestion_id, parts=word_diff(before, after), share=suggestions.edit_share(before, after)
    )


@router.post("/messages/{message_id}/regenerate")
async def regenerate(page: SignedIn, message_id: Id) -> Response:
    """Draft again, with an instruction when one is given."""
    form = await page.form()
    instruction = _field(form, "instruction")[:500]

    def do(session: Session) -> dict[str, str]:
        suggestions.regenerate(session, message_id, instruction=instruction)
        return {}

    return await _act(page, form, _field(form, "thread_id"), do)


# -- outgoing messages


@router.post("/messages/{message_id}/cancel")
async def cancel(page: SignedIn, message_id: Id) -> Response:
    """Undo send: take the message back, and the suggestion with it. Too late is a conflict that says so."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        message = outbox.cancel(session, message_id, agent_id=page.agent.id)
        if message.suggestion_id:
            found = threads.get_suggestion(session, message.suggestion_id)
            edited = found.final_text if found.state == SuggestionState.EDITED else ""
            session.flush()
            suggestions.restore(session, message.suggestion_id)
            if edited:
                drafts.save(
                    session,
                    message.thread_id,
                    agent_id=page.agent.id,
                    text=edited,
                    kind="edit",
                    suggestion_id=message.suggestion_id,
                )
        else:
            drafts.save(session, message.thread_id, agent_id=page.agent.id, text=message.text)
        return {"did": "taken-back"}

    return await _act(page, form, _field(form, "thread_id"), do)


@router.post("/messages/{message_id}/send-now")
async def send_now(page: SignedIn, message_id: Id) -> Response:
    """End the undo window."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        outbox.send_now(session, message_id, agent_id=page.agent.id)
        return {}

    return await _act(page, form, _field(form, "thread_id"), do)


@router.post("/messages/{message_id}/settle")
async def settle(page: SignedIn, message_id: Id) -> Response:
    """A person decides about a message that failed or whose fate is unknown: sent, failed, or send again."""
    form = await page.form()
    outcome = _field(form, "outcome")

    def do(session: Session) -> dict[str, str]:
        if outcome == "retry":
            outbox.retry(session, message_id, agent_id=page.agent.id)
        else:
            outbox.resolve_unknown(session, message_id, outcome=outcome, agent_id=page.agent.id)
        return {"did": "settled"}

    return await _act(page, form, _field(form, "thread_id"), do)
