"""Settings > Intents: an operator's own intents from examples, in use at the next mail, and a box to try them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox.admin import Admin, settle, text_of
from api.inbox.shell import Page, render
from assistant.clock import monotonic
from assistant.errors import ModelUnavailable, NotFound, NotifyrError
from assistant.services import access, intents, rules
from models.base import OTHER, OUTSIDE
from pipelines.stages.classify import merged, windows

if TYPE_CHECKING:
    from models.heads.labeller import Labeller

__all__ = ["router", "verdict"]

router = APIRouter(include_in_schema=False)
_TRIED = 20_000
"""Characters of a tried mail that are read."""


def _labeller(page: Page) -> Labeller:
    found = page.container.classifier
    if found is None:
        raise ModelUnavailable("the encoder is off (NOTIFYR_ENCODER): intents need it")
    return found


def _page(
    page: Page, *, problem: NotifyrError | None = None, typed: dict[str, str] | None = None, tried: Any = None
) -> HTMLResponse:
    with page.container.database.reading() as session:
        own = intents.listed(session)
        history = {one.id: intents.versions(session, one.id) for one in own}
    model: dict[str, Any] = {"names": (), "accuracy": None, "reason": ""}
    try:
        head = _labeller(page).intents
        model |= {"names": [name for name in head.names() if name not in {one.name for one in own}]}
        model |= {"accuracy": head.accuracy(), "examples": head.examples()}
    except NotifyrError as error:
        model["reason"] = error.message
    return render(
        "intents.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        own=own,
        history=history,
        model=model,
        typed=typed or {},
        tried=tried,
        fewest=intents.FEWEST,
    )


@router.get("/settings/intents")
def intents_page(page: Admin) -> HTMLResponse:
    return _page(page)


@router.post("/settings/intents")
async def define(page: Admin) -> Response:
    """A new intent. What was typed stays in the form when it is refused."""
    form = await page.form()
    typed = {name: text_of(form, name) for name in ("name", "description", "examples")}

    def do(session: Session) -> dict[str, Any]:
        made = intents.define(
            session,
            name=typed["name"],
            description=typed["description"],
            examples=typed["examples"].splitlines(),
            agent_id=page.agent.id,
            reserved=_labeller(page).weights.shipped().labels,
        )
        access.audit(session, page.agent.id, action="intent.defined", subject=made.name)
        return {}

    def show(page: Page, *, problem: NotifyrError) -> HTMLResponse:
        return _page(page, problem=problem, typed=typed)

    return await settle(page, show, do, back="/settings/intents?did=saved")


@router.post("/settings/intents/try")
async def attempt(page: Admin) -> Response:
    """What a mail would get, now: the whole page, of which a script takes only the verdict."""
    form = await page.form()
    subject, text = text_of(form, "subject")[:300], text_of(form, "text")[:_TRIED]
    typed = {"subject": subject, "text": text}

    def run() -> HTMLResponse:
        try:
            return _page(page, typed=typed, tried=verdict(page, subject, text))
        except NotifyrError as error:
            return _page(page, typed=typed, problem=error)

    return await run_sync(run)


@router.post("/settings/intents/{intent_id}")
async def change(page: Admin, intent_id: Id) -> Response:
    """The next version of an intent."""
    form = await page.form()

    def do(session: Session) -> dict[str, Any]:
        found = intents.update(
            session,
            intent_id,
            description=text_of(form, "description"),
            examples=text_of(form, "examples").splitlines(),
            agent_id=page.agent.id,
        )
        access.audit(session, page.agent.id, action="intent.changed", subject=f"{found.name} version {found.version}")
        return {}

    return await settle(page, _page, do, back="/settings/intents?did=saved")


@router.post("/settings/intents/{intent_id}/{switch}")
async def switch(page: Admin, intent_id: Id, switch: str) -> Response:
    """Out of use (`disable`), or back into it (`enable`)."""
    await page.form()
    if switch not in {"enable", "disable"}:
        raise NotFound("there is no such act")

    def do(session: Session) -> dict[str, Any]:
        found = intents.enable(session, intent_id, enabled=switch == "enable")
        access.audit(session, page.agent.id, action=f"intent.{switch}", subject=found.name)
        return {}

    return await settle(page, _page, do, back="/settings/intents")


def verdict(page: Page, subject: str, text: str) -> dict[str, Any]:
    """The labels of a text as triage gives them: claimed or not, why, and how long it took."""
    labeller = _labeller(page)
    started = monotonic()
    shown = windows(subject, text)
    labels = merged(labeller.classify(shown))
    milliseconds = (monotonic() - started) * 1000
    found = [label for label in labels if label.head == "intent"]
    best = found[0]
    inside = next((label.score for label in labels if label.name == "scope:in"), 1.0)
    with page.container.database.reading() as session:
        floor = rules.threshold(session, "intent", best.value, default=page.container.settings.intent_threshold)
    return {
        "intents": found,
        "claimed": best.value != OTHER and best.score >= floor and inside >= OUTSIDE,
        "outside": best.value == OTHER or inside < OUTSIDE,
        "floor": floor,
        "nearest": labeller.nearest(shown[0], best.value),
        "others": [label for label in labels if label.head not in {"intent", "scope"} and label.score >= 0.05],
        "milliseconds": milliseconds,
    }
