"""The models on a page: what they are worth, whether their probabilities hold, whether the mail has changed; and their thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from api.deps import Id
from api.inbox import charts
from api.inbox.admin import Admin, settle, text_of
from api.inbox.learning import choices, defaults
from api.inbox.shell import Page, SignedIn, render
from assistant.clock import utcnow
from assistant.errors import InvalidInput, NotifyrError
from assistant.services import access, corrections, learning, rules, verdicts
from models.asked import FILE, kept
from models.training.card import Row
from models.training.card import rows as measured

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
T = TypeVar("T")


@router.get("/models")
def models_page(page: SignedIn, head: str = "intent") -> HTMLResponse:
    """Model card, live calibration, drift, shares of the stages."""
    head = head if head in verdicts.HEADS else "intent"
    with page.container.database.reading() as session:
        bins = learning.calibration(session, head)
        weeks = learning.drift(session, head)
        shares = learning.stages(session)
        silent = learning.abstentions(session)
        decided = learning.decided(session)
        reached = learning.reached(session, head)
    card = _card(page)
    return render(
        "models.html",
        page=page,
        head=head,
        heads=verdicts.HEADS,
        card=card,
        states=page.container.bus.models(),
        bins=bins,
        gap=_gap(bins),
        measured_gap=_measured_gap(card["measured"], head),
        reached=reached,
        dots=charts.dots([(one.claimed, one.right) for one in bins]),
        diagonal=charts.diagonal(),
        weeks=weeks,
        shares=shares,
        silent=silent,
        decided=decided,
        asked=_asked(page),
    )


def _asked(page: Page) -> str:
    """Whether the generator is asked for intents that the encoder leaves open, and what that rests on."""
    spec = page.container.settings.generator
    if spec == "off":
        return "There is no generator to ask for intents that stay open."
    gain = kept(page.container.settings.path(FILE), spec=spec)
    if gain is None:
        return "The generator is not asked for intents that stay open: it was not measured (notifyr train --only generator)."
    found = f"of {gain.asked} examples left open, {gain.before} were right before its word and {gain.after} after it"
    return (
        f"The generator is asked for intents that stay open: {found}."
        if gain.helps
        else f"The generator is not asked for intents that stay open, because it does not help: {found}."
    )


def _card(page: Page) -> dict[str, Any]:
    """The facts of the weights, as their own manifests give them, and what they were measured at. `reasons` says what is missing."""
    reasons: list[str] = []
    card: dict[str, Any] = {"encoder": None, "labels": {"intent": {}, "heads": {}}, "measured": []}
    try:
        labeller = page.container.classifier
        if labeller is None:
            return card | {"reasons": ["the encoder is off (NOTIFYR_ENCODER)"]}
        reasons += list(dict.fromkeys(fault.message for fault in labeller.weights.faults().values()))
        card["measured"] = _or_none(lambda: measured(labeller.encoder.folder), reasons) or []
        card["encoder"] = _or_none(labeller.encoder.facts, reasons)
        read = _or_none(labeller.weights.read, [])  # `faults` has told why
        card["labels"] = read[1] if read is not None else card["labels"]
    except NotifyrError as error:
        reasons.append(error.message)
    return card | {"reasons": reasons}


def _or_none(read: Callable[[], T], reasons: list[str]) -> T | None:
    """What is read, or None with the reason noted: one damaged file leaves the rest of the page."""
    try:
        return read()
    except NotifyrError as error:
        reasons.append(error.message)
        return None


def _gap(bins: Sequence[learning.Bin]) -> float | None:
    """How far what was stated is from what was right, in the mean of the answers: the calibration error of this installation."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.claimed - one.right) for one in bins) / total if total else None


def _measured_gap(measured: Sequence[Row], head: str) -> float | None:
    """The calibration error that the model card has for a head."""
    name = {"spam": "mail", "intent": "intents"}.get(head, head)
    return next((row.calibration_error for row in measured if row.name == name), None)


# -- thresholds and exceptions


def _labels(page: Page, *, problem: NotifyrError | None = None) -> HTMLResponse:
    with page.container.database.reading() as session:
        set_here = rules.thresholds(session)
        exceptions = rules.exceptions(session)
        offered = choices(page, session)
    return render(
        "label-rules.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        heads=verdicts.HEADS,
        defaults=defaults(page),
        thresholds=set_here,
        exceptions=exceptions,
        choices=offered,
    )


@router.get("/settings/labels")
def labels_page(page: Admin) -> HTMLResponse:
    return _labels(page)


@router.post("/settings/labels")
async def set_threshold(page: Admin) -> Response:
    """From which probability a label is claimed; an empty one goes back to the default."""
    form = await page.form()
    head, label, typed = text_of(form, "head"), text_of(form, "label"), text_of(form, "threshold")

    def do(session: Session) -> dict[str, Any]:
        if head not in verdicts.HEADS or (label and label not in choices(page, session).get(head, ())):
            raise InvalidInput("there is no such label")
        rules.set_threshold(session, head=head, label=label, value=_share(typed), agent_id=page.agent.id)
        subject = f"{head}:{label or '*'} {typed or 'default'}"
        access.audit(session, page.agent.id, action="label.threshold", subject=subject)
        return {}

    return await settle(page, _labels, do, back="/settings/labels?did=saved")


@router.post("/settings/labels/never")
async def never(page: Admin) -> Response:
    """A label that is never claimed for a sender."""
    form = await page.form()
    head, _, label = text_of(form, "label").partition(":")

    def do(session: Session) -> dict[str, Any]:
        rules.except_sender(session, sender=text_of(form, "sender"), head=head, label=label, agent_id=page.agent.id)
        access.audit(session, page.agent.id, action="label.never", subject=f"{head}:{label}")
        return {}

    return await settle(page, _labels, do, back="/settings/labels?did=saved")


@router.post("/settings/labels/take-back")
async def take_back(page: Admin) -> Response:
    """Undo everything that one sender's mail, or one agent, taught in the last days: a poisoned batch."""
    form = await page.form()
    sender, agent, days = text_of(form, "sender"), text_of(form, "agent"), text_of(form, "days")

    def do(session: Session) -> dict[str, Any]:
        if not days.isdecimal() or not 1 <= int(days) <= 3650:
            raise InvalidInput("say how many days to take back, from 1 on")
        who = next((one.id for one in access.agents(session) if agent and one.email == agent.casefold()), "")
        if agent and not who:
            raise InvalidInput("there is no agent with that address")
        since = utcnow() - timedelta(days=int(days))
        count = corrections.undo_batch(session, agent_id=who, sender=sender, since=since)
        subject = f"{count} of {agent or sender}, {days} days"
        access.audit(session, page.agent.id, action="label.taken-back", subject=subject[:200])
        return {}

    return await settle(page, _labels, do, back="/settings/labels?did=undone")


@router.post("/settings/labels/{exception_id}/forget")
async def forget(page: Admin, exception_id: Id) -> Response:
    """The label may be claimed for that sender again."""
    await page.form()

    def do(session: Session) -> dict[str, Any]:
        rules.forget_exception(session, exception_id)
        access.audit(session, page.agent.id, action="label.again", subject=exception_id)
        return {}

    return await settle(page, _labels, do, back="/settings/labels")


def _share(typed: str) -> float | None:
    """`75`, `75 %` and `0.75` are the same; nothing is None. Raises `InvalidInput`."""
    text = typed.removesuffix("%").strip().replace(",", ".")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise InvalidInput("a threshold is a number of per cent, like 75") from None
    return value / 100 if value > 1 else value
