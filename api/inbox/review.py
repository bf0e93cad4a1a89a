"""Deciding on suggestions: accept, edit, dismiss, bring back, draft again."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.acting import act_on, field, number
from api.inbox.diff import word_diff
from api.inbox.shell import Page, SignedIn, render
from assistant.backends.coordination import RULES
from assistant.services import drafts, suggestions, threads

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


def _keep(page: Page, thread_id: str, text: str, suggestion_id: str) -> None:
    """Keep the words of a send before it is tried, in a transaction of their own: a refused send must not lose them."""
    if text:
        with page.container.database.transaction() as session:
            drafts.save(session, thread_id, agent_id=page.agent.id, text=text, kind="edit", suggestion_id=suggestion_id)


@router.post("/suggestions/{suggestion_id}/accept")
async def accept(page: SignedIn, suggestion_id: Id) -> Response:
    """Send the suggestion, as it is or as edited. The second of two agents is told who was first."""
    form = await page.form()
    thread_id = field(form, "thread_id")
    text = field(form, "text") if "text" in form else None
    if text is not None:
        await run_sync(_keep, page, thread_id, text, suggestion_id)
    await run_sync(page.container.limiter.hit, RULES["send"], page.agent.id)

    def do(session: Session) -> dict[str, str]:
        found = threads.get_suggestion(session, suggestion_id)
        message = suggestions.accept(
            session,
            suggestion_id,
            agent=page.agent,
            version=number(form, "version"),
            text=text,
            hold_seconds=page.undo_seconds,
        )
        drafts.discard(session, found.thread_id, agent_id=page.agent.id, kind="edit")
        return {"did": "sending", "message": message.id, "suggestion": suggestion_id, "thread": found.thread_id}

    return await act_on(page, form, thread_id, do, advance=frozenset({"review"}))


@router.post("/suggestions/{suggestion_id}/reject")
async def reject(page: SignedIn, suggestion_id: Id) -> Response:
    """Dismiss; the reason is optional."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        found = suggestions.reject(
            session,
            suggestion_id,
            agent_id=page.agent.id,
            version=number(form, "version"),
            reason=field(form, "reason"),
        )
        return {"did": "dismissed", "suggestion": suggestion_id, "thread": found.thread_id}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/restore")
async def restore(page: SignedIn, suggestion_id: Id) -> Response:
    """Undo a dismissal."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        suggestions.restore(session, suggestion_id)
        return {"did": "undone"}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/diff")
async def diff(page: SignedIn, suggestion_id: Id) -> Response:
    """What an edit changed so far, word by word."""
    form = await page.form()
    with page.container.database.reading() as session:
        before = threads.get_suggestion(session, suggestion_id).text
    after = field(form, "text")
    return render(
        "diff.html", id=suggestion_id, parts=word_diff(before, after), share=suggestions.edit_share(before, after)
    )


@router.post("/messages/{message_id}/regenerate")
async def regenerate(page: SignedIn, message_id: Id) -> Response:
    """Draft again, with an instruction when one is given."""
    form = await page.form()
    instruction = field(form, "instruction")[:500]

    def do(session: Session) -> dict[str, str]:
        suggestions.regenerate(session, message_id, instruction=instruction)
        return {}

    return await act_on(page, form, field(form, "thread_id"), do)
