"""Deciding on suggestions: stop, accept, edit, dismiss, bring back, draft again; and taking over from who writes."""

from __future__ import annotations

from functools import partial

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.acting import act_on, field, number
from api.inbox.card import changes_of
from api.inbox.compose import Question
from api.inbox.shell import Page, SignedIn, render
from assistant.backends.coordination import RULES
from assistant.db.messages import Suggestion
from assistant.db.session import after_commit
from assistant.errors import Conflict, NotFound, NotifyrError
from assistant.services import composing, drafts, review, suggestions, threads
from assistant.states import SuggestionState, ThreadState

__all__ = ["Replying", "router"]

router = APIRouter(include_in_schema=False)


class Replying(Conflict):
    """Another agent is writing: sending needs one deliberate press more."""

    code, title = "replying", "Somebody else is replying"


def _keep(page: Page, thread_id: str, text: str, suggestion_id: str) -> None:
    """Keep the words of a send before it is tried, in a transaction of their own: a refused send must not lose them."""
    page.typed["edit"] = text
    if text:
        with page.container.database.transaction() as session:
            drafts.save(session, thread_id, agent_id=page.agent.id, text=text, kind="edit", suggestion_id=suggestion_id)
    del page.typed["edit"]


def _asked(session: Session, thread_id: str, text: str) -> None:
    """Raises `Question` when edited words look odd: a file that is not there, words of an internal note."""
    if asked := composing.questions(session, thread_id, text=text, recipients=(), files=0, outsiders=False):
        raise Question(". ".join(asked), detail={"of": "edit"})


def _unlocked(page: Page, thread_id: str) -> None:
    """Raises `Replying` while another agent types in this thread."""
    crowd = page.container.bus.who(thread_id)
    name = next(
        (one["name"] for agent, one in crowd.items() if agent != page.agent.id and one["state"] == "typing"), ""
    )
    if name:
        raise Replying(f"{name} is replying in this thread", detail={"replying": name})


@router.post("/suggestions/{suggestion_id}/accept")
async def accept(page: SignedIn, suggestion_id: Id) -> Response:
    """Send the suggestion, as it is or as edited (`then=done`: and be done). The second of two agents is told who was first."""
    form = await page.form()
    thread_id = field(form, "thread_id")
    text = field(form, "text") if "text" in form else None
    problem: NotifyrError | None = None
    try:
        if text is not None:
            await run_sync(_keep, page, thread_id, text, suggestion_id)
    except NotifyrError as error:
        problem = error
    await run_sync(page.container.limiter.hit, RULES["send"], page.agent.id)
    override, done = bool(field(form, "override")), field(form, "then") == "done"

    def do(session: Session) -> dict[str, str]:
        if problem is not None:
            raise problem
        found = threads.get_suggestion(session, suggestion_id)
        if text is not None and field(form, "confirmed") != "yes":
            _asked(session, found.thread_id, text)
        if not override and found.state == SuggestionState.PROPOSED:
            _unlocked(page, found.thread_id)
        message = suggestions.accept(
            session,
            suggestion_id,
            agent=page.agent,
            version=number(form, "version"),
            text=text,
            hold_seconds=page.undo_seconds,
        )
        threads.take_by_reply(
            session, found.thread_id, agent=page.agent, by_default=page.container.settings.assign_on_reply
        )
        drafts.discard(session, found.thread_id, agent_id=page.agent.id, kind="edit")
        if done and threads.get_thread(session, found.thread_id).state != ThreadState.CLOSED:
            threads.change_state(session, found.thread_id, state=ThreadState.CLOSED, agent_id=page.agent.id)
        return {"did": "sending", "message": message.id, "suggestion": suggestion_id, "thread": found.thread_id}

    leaves = frozenset({"inbox", "review", "unread", "snoozed"}) if done else frozenset({"review"})
    return await act_on(page, form, thread_id, do, advance=leaves)


@router.post("/suggestions/{suggestion_id}/stop")
async def stop(page: SignedIn, suggestion_id: Id) -> Response:
    """Stop the model; what it has written stays on the card."""
    form = await page.form()
    bus = page.container.bus

    def do(session: Session) -> dict[str, str]:
        suggestions.stop(session, suggestion_id, agent_id=page.agent.id, text=bus.read_draft(suggestion_id))
        after_commit(session, partial(bus.stop_draft, suggestion_id))
        return {}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/throw-away")
async def throw_away(page: SignedIn, suggestion_id: Id) -> Response:
    """Forget what a stopped draft had written."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        suggestions.throw_away(session, suggestion_id)
        return {}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/take")
async def take(page: SignedIn, suggestion_id: Id) -> Response:
    """Write on from a stopped draft: its words become the agent's own reply, behind what is there already."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        found = threads.get_suggestion(session, suggestion_id)
        drafts.append(session, found.thread_id, agent_id=page.agent.id, text=found.text)
        suggestions.throw_away(session, suggestion_id)
        return {"compose": "reply"}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/inbox/{thread_id}/take-over")
async def take_over(page: SignedIn, thread_id: Id) -> Response:
    """Put another agent's unsent words behind one's own. Theirs stay where they are."""
    form = await page.form()
    wanted = field(form, "draft")

    def do(session: Session) -> dict[str, str]:
        found = next(
            (one for one in drafts.others(session, thread_id, agent_id=page.agent.id) if one.id == wanted), None
        )
        if found is None:
            raise NotFound("those words are no longer there: they were sent or thrown away")
        drafts.append(session, thread_id, agent_id=page.agent.id, text=found.text)
        return {"did": "taken-over", "compose": "reply"}

    return await act_on(page, form, thread_id, do)


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


@router.post("/suggestions/{suggestion_id}/reason")
async def reason_of(page: SignedIn, suggestion_id: Id) -> Response:
    """Say why a suggestion was dismissed, after it was. The same toast goes on: its undo brings the suggestion back."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        found = review.give_reason(session, suggestion_id, agent_id=page.agent.id, reason=field(form, "reason"))
        return {"did": "dismissed", "suggestion": suggestion_id, "thread": found.thread_id}

    return await act_on(page, form, field(form, "thread_id"), do)


def _again(found: Suggestion) -> dict[str, str]:
    """What the toast needs to offer the act once more."""
    return {"suggestion": found.id, "thread": found.thread_id, "version": str(found.version)}


@router.post("/suggestions/{suggestion_id}/restore")
async def restore(page: SignedIn, suggestion_id: Id) -> Response:
    """Undo a dismissal."""
    form = await page.form()

    def do(session: Session) -> dict[str, str]:
        reason = threads.get_suggestion(session, suggestion_id).reject_reason
        found = suggestions.restore(session, suggestion_id)
        return {"did": "undone", "redo": "dismiss", "state": reason, **_again(found)}

    return await act_on(page, form, field(form, "thread_id"), do)


@router.post("/suggestions/{suggestion_id}/diff")
async def diff(page: SignedIn, suggestion_id: Id) -> Response:
    """What an edit changed so far, word by word."""
    form = await page.form()
    with page.container.database.reading() as session:
        found = threads.get_suggestion(session, suggestion_id)
    return render("diff.html", **changes_of(found, field(form, "text")))


@router.post("/messages/{message_id}/regenerate")
async def regenerate(page: SignedIn, message_id: Id) -> Response:
    """Draft again, with an instruction when one is given."""
    form = await page.form()
    instruction = (field(form, "wish") or field(form, "instruction"))[:500]

    def do(session: Session) -> dict[str, str]:
        suggestions.regenerate(session, message_id, instruction=instruction)
        return {}

    return await act_on(page, form, field(form, "thread_id"), do)
