"""What agents do in the inbox. Each act is one form post and one transaction; the answer is the page after it.

A failed act shows the same page with the reason and the status of the error; nothing that was typed is lost.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import make_msgid

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from api.deps import Id
from api.inbox.acting import act_on, field
from api.inbox.shell import Page, SignedIn, go
from api.inbox.times import moment
from assistant.clock import utcnow
from assistant.errors import InvalidInput, StorageError
from assistant.services import drafts, labels, outbox, settling, suggestions, threads, verdicts
from assistant.states import SuggestionState, ThreadState

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_STATES = {
    "done": ThreadState.CLOSED,
    "reopen": ThreadState.OPEN,
    "spam": ThreadState.SPAM,
    "not-spam": ThreadState.OPEN,
    "trash": ThreadState.TRASH,
}
_UNDOABLE = 100
"""Threads of one act that its undo may name in an address."""
_NOBODY = "nobody"
"""In place of an agent's id: the thread is given back."""
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


# -- threads


@dataclass(frozen=True, slots=True)
class Act:
    """One act as a form asks for it. `assignee`: an agent's id, of `assign`. `until`: a moment, of `snooze`."""

    name: str
    assignee: str = ""
    until: datetime | None = None


def _name(form: FormData) -> str:
    """Which act a form asks for. A button that names an agent or a moment needs no act beside it."""
    name, assignee = field(form, "act"), field(form, "assignee")
    name = name or ("assign" if assignee else "snooze" if field(form, "until") else "")
    return "unassign" if name == "assign" and assignee == _NOBODY else name


def _asked(page: Page, form: FormData) -> Act:
    """What a form asks for. Raises `InvalidInput` for a moment that nobody understands."""
    name = _name(form)
    if name == "assign":
        return Act(name, field(form, "assignee")[:36] or page.agent.id)
    return Act(name, until=_until(page, form)) if name == "snooze" else Act(name)


@router.post("/inbox/{thread_id}/act")
async def act(page: SignedIn, thread_id: Id) -> Response:
    """Done, reopen, spam, not spam, trash, star, assign, snooze, unread; and back again."""
    form = await page.form()
    name = _name(form)

    def do(session: Session) -> dict[str, str]:
        asked = _asked(page, form)
        before = threads.get_thread(session, thread_id)
        old, slept = before.state.value, before.snoozed_until
        change = _change(session, page, thread_id, asked)
        if not change.undo:
            return {}
        did = {"did": name, "thread": thread_id, "state": old} | _with(asked)
        if name not in _STATES and name != "snooze":
            did |= {"was": _before(change, slept)}
        elif slept is not None:
            did["back"] = slept.isoformat()
        return did

    # A thread that was marked as unread would be read again by looking at it.
    return await act_on(page, form, thread_id, do, advance=_LEAVES.get(name, frozenset()), leave=name == "unread")


def _with(asked: Act) -> dict[str, str]:
    """What else an act needs to be done again."""
    found = {"to": asked.assignee} if asked.assignee else {}
    return found | ({"until": asked.until.isoformat()} if asked.until else {})


def _change(session: Session, page: Page, thread_id: str, asked: Act) -> threads.Change:
    by, name = page.agent.id, asked.name
    if name in _STATES:
        change = threads.change_state(session, thread_id, state=_STATES[name], agent_id=by)
        if name in ("spam", "not-spam"):
            verdicts.moved(session, change, agent_id=by)
        return change
    simple: dict[str, Callable[[], threads.Change]] = {
        "star": lambda: threads.star(session, thread_id, starred=True, agent_id=by),
        "unstar": lambda: threads.star(session, thread_id, starred=False, agent_id=by),
        "assign": lambda: threads.assign(session, thread_id, assignee_id=asked.assignee or by, agent_id=by),
        "unassign": lambda: threads.assign(session, thread_id, assignee_id=None, agent_id=by),
        "unread": lambda: threads.mark_read(session, thread_id, read=False, agent_id=by),
        "read": lambda: threads.mark_read(session, thread_id, read=True, agent_id=by),
        "snooze": lambda: threads.snooze(session, thread_id, until=asked.until or utcnow(), agent_id=by),
    }
    if name not in simple:
        raise InvalidInput("there is no such act")
    return simple[name]()


def _until(page: Page, form: FormData) -> datetime:
    """Until when to snooze: a preset's moment, or what was typed, in the time zone of who typed it."""
    if chosen := field(form, "until"):
        with contextlib.suppress(ValueError):
            at = datetime.fromisoformat(chosen[:40])
            return at if at.tzinfo else at.replace(tzinfo=page.zone)
    return moment(chosen or field(form, "when") or "tomorrow 9:00", zone=page.zone)


@router.post("/inbox/{thread_id}/undo")
async def undo(page: SignedIn, thread_id: Id) -> Response:
    """Take the last act on a thread back: `was` names the act that does it, else `state` what the thread was."""
    form = await page.form()
    state, was = field(form, "state"), field(form, "was")
    if not was and state not in set(ThreadState):
        raise InvalidInput("there is nothing to undo")

    def do(session: Session) -> dict[str, str]:
        if was:
            _restore_one(session, page, thread_id, was)
        else:
            _put_back(session, page, thread_id, state, field(form, "back"))
        return {"did": "undone", "thread": thread_id} | {name: field(form, name) for name in ("redo", "until", "to")}

    return await act_on(page, form, thread_id, do)


def _put_back(session: Session, page: Page, thread_id: str, state: str, slept: str) -> None:
    """Into the state it was in. A sleep that would have ended meanwhile has ended: the thread is open."""
    back, until = ThreadState(state), None
    if back is ThreadState.SNOOZED:
        until = _moment(slept)
        if until is None or until <= utcnow():
            back, until = ThreadState.OPEN, None
    held = threads.get_thread(session, thread_id).state == ThreadState.SPAM
    if held != (back is ThreadState.SPAM):
        verdicts.take_back_spam(session, thread_id, spam=held, agent_id=page.agent.id)
    threads.change(session, thread_id, agent_id=page.agent.id, state=back, snoozed_until=until)


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text[:40])
    except ValueError:
        return None
    return at if at.tzinfo else None


@router.post("/inbox-bulk")
async def bulk(page: SignedIn) -> Response:
    """One act on several threads, or on the one that the keys stand on. `open` is the thread that is read meanwhile."""
    form = await page.form()
    ids = [value for value in form.getlist("id") if isinstance(value, str)]
    ids = (ids or [one for one in field(form, "ids")[:8_000].split(".") if one])[:200]
    name, opened = _name(form), field(form, "open")[:36]
    gone = opened in ids and (name == "unread" or field(form, "view") in _LEAVES.get(name, frozenset()))

    def do(session: Session) -> dict[str, str]:
        if name in {"label", "unlabel"}:
            return _label_all(session, page, form, ids)
        if name == "restore":
            return _restore(session, page, form)
        asked = _asked(page, form)
        back: dict[str, list[str]] = {}
        for thread_id in ids:
            slept = threads.get_thread(session, thread_id).snoozed_until
            change = _change(session, page, thread_id, asked)
            if change.undo:
                back.setdefault(_before(change, slept), []).append(thread_id)
        done = sum(len(some) for some in back.values())
        was = ";".join(f"{before}:{'.'.join(some)}" for before, some in back.items())
        did = {"did": "bulk", "state": name, "redo": str(len(ids)), "was": was if done <= _UNDOABLE else ""}
        return did | _with(asked)

    return await act_on(page, form, opened, do, leave=gone)


def _before(change: threads.Change, slept: datetime | None) -> str:
    """What takes an act back: a state to return to (`snoozed@` with its moment), or another act (`assign@` with its agent)."""
    if "state" in change.undo or "snoozed_until" in change.undo:
        state = ThreadState(change.undo.get("state", change.thread.state))
        # The parts of what can be undone are told apart by colons and dots: the moment has neither.
        return f"{state.value}@{slept.astimezone(UTC):%Y%m%dT%H%M%SZ}" if slept is not None else state.value
    if "unread" in change.undo:
        return "unread" if change.undo["unread"] else "read"
    if "starred" in change.undo:
        return "star" if change.undo["starred"] else "unstar"
    return f"assign@{change.undo['assignee_id']}" if change.undo.get("assignee_id") else "unassign"


def _restore_one(session: Session, page: Page, thread_id: str, before: str) -> None:
    name, _, rest = before.partition("@")
    if name in set(ThreadState):
        _put_back(session, page, thread_id, name, rest)
    else:
        _change(session, page, thread_id, Act(name, assignee=rest))


def _restore(session: Session, page: Page, form: FormData) -> dict[str, str]:
    """Take an act on many threads back; `was` says what each was before."""
    restored: list[str] = []
    for part in field(form, "was")[:8_000].split(";"):
        before, _, ids = part.partition(":")
        for thread_id in filter(None, ids.split(".")):
            _restore_one(session, page, thread_id, before)
            restored.append(thread_id)
    return {"did": "undone-all", "was": ".".join(restored)} | {
        name: field(form, name) for name in ("redo", "until", "to")
    }


def _label_all(session: Session, page: Page, form: FormData, ids: list[str]) -> dict[str, str]:
    label = labels.name_of(field(form, "label"))
    did = {"state": label, "was": ".".join(ids[:_UNDOABLE])}
    if field(form, "act") == "label":
        at = labels.add_all(session, ids, name=label, agent_id=page.agent.id)
        return did | {"did": "labelled", "version": at.isoformat(), "redo": str(len(ids))}
    try:
        at = datetime.fromisoformat(field(form, "at"))
        labels.take_back(session, name=label, agent_id=page.agent.id, at=at.astimezone(UTC))
    except ValueError:
        raise InvalidInput("there is nothing to undo") from None
    return did | {"did": "undone-all", "redo": "label" if ids else ""}


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
            again = suggestions.restore(session, message.suggestion_id)
            if not edited:
                version = str(again.version)
                return {"did": "taken-back", "suggestion": again.id, "version": version, "thread": again.thread_id}
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

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/messages/{message_id}/send-now")
async def send_now(page: SignedIn, message_id: Id) -> Response:
    """End the undo window."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        outbox.send_now(session, message_id, agent_id=page.agent.id)
        return {}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/messages/{message_id}/release")
async def release(page: SignedIn, message_id: Id) -> Response:
    """Send anyway what is held back because it looks like spam."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        outbox.release(session, message_id, agent_id=page.agent.id)
        return {}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/messages/{message_id}/settle")
async def settle(page: SignedIn, message_id: Id) -> Response:
    """A person decides about a message that failed or whose fate is unknown: sent, failed, or send again."""
    form = await page.form()
    outcome = field(form, "outcome")

    def do(session: Session) -> dict[str, str]:
        if outcome == "retry":
            outbox.retry(session, message_id, agent_id=page.agent.id)
        else:
            outbox.resolve_unknown(session, message_id, outcome=outcome, agent_id=page.agent.id)
        return {"did": "settled", "state": outcome, "message": message_id}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/messages/{message_id}/unsettle")
async def unsettle(page: SignedIn, message_id: Id) -> Response:
    """Take back that a message arrived, or that it did not."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        settling.take_back(session, message_id, agent_id=page.agent.id)
        return {"did": "undone"}

    return await act_on(page, form, field(form, "thread_id"), do)
