"""Teaching the models: a label set right on a thread, and the queue of messages whose label teaches most."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from api.deps import Id
from api.inbox import charts
from api.inbox.shell import Page, SignedIn, go, render
from assistant.db.messages import Message
from assistant.errors import InvalidInput, NotifyrError
from assistant.services import access, intents, learning, rules, threads, verdicts
from models.clues import REASONS
from models.heads.language import LANGUAGES
from pipelines.stages.classify import FURTHER, OPT_OUT_SURE, OPT_OUT_UNSURE

__all__ = ["choices", "defaults", "in_words", "router", "shown"]

router = APIRouter(include_in_schema=False)
_DECIDED = {
    "words": "its words and how it is built; they were sure enough",
    "encoder": "its words, how it is built, and what it means: words alone had left it open",
    "memory": "what an agent said of a mail like it",
    "words alone": "its words alone, though they leave it open: the part of the model that reads its meaning was missing",
}
"""Stage of the judge of spam -> what decided, for an agent."""
_SAID = {"spam": "spam", "uncertain": "maybe spam", "ham": "not spam", "unknown": "let through"}
"""What triage made of the probability of spam, as the list has it."""
_COUNTED = {
    "#link": "a link",
    "#address": "a mail address",
    "#caps": "a word in capitals",
    "#invisible": "invisible characters",
    "plain": "it is plain text",
    "html": "it is made of HTML",
    "no-name": "its sender has no name",
    "free-sender": "it comes from a free mail service",
    "own-domain": "it comes from a domain of its own",
}
_BUILT = {
    "tag": "HTML tag",
    "h": "header",
    "mailer": "mail program",
    "tld": "sender's domain ends in",
    "link-tld": "a link ends in",
    "from": "sender is called",
}
_VERBS = frozenset({"has", "mixes", "asks", "is", "names"})
_FIXED = {"spam": ("spam", "ham"), "optout": ("yes", "no"), "language": tuple(LANGUAGES)}


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def defaults(page: Page) -> dict[str, float]:
    """From which probability a label of each head is claimed when no admin says otherwise."""
    settings = page.container.settings
    further = dict.fromkeys(("reply_intent", "urgency", "sentiment", "language"), FURTHER)
    return further | {"spam": settings.spam_threshold, "intent": settings.intent_threshold, "optout": OPT_OUT_SURE}


def choices(page: Page, session: Session) -> dict[str, tuple[str, ...]]:
    """The labels of each head, the operator's own intents among them. Without an encoder only what needs none."""
    found = dict(_FIXED)
    own = {one.name for one in intents.listed(session) if one.disabled_at is None}
    try:
        labeller = page.container.classifier
        manifest = labeller.weights.read()[1] if labeller is not None else {"intent": {"labels": []}, "heads": {}}
    except NotifyrError:
        manifest = {"intent": {"labels": []}, "heads": {}}
    found["intent"] = tuple(sorted({*manifest["intent"]["labels"], *own}))
    return found | {head: tuple(spec["labels"]) for head, spec in manifest["heads"].items() if head not in _FIXED}


def shown(page: Page, session: Session, message: Message | None) -> dict[str, Any]:
    """What the context drawer says of a message: every head with its threshold, the reasons, and what may be chosen."""
    if message is None or not message.labels:
        return {"rows": [], "because": [], "weighed": {}, "choices": {}, "spam": {}, "missing": []}
    detail = _detail(message, "classify")
    return {
        "rows": verdicts.of_message(session, message, rules=rules.read(session), defaults=defaults(page)),
        "because": detail.get("because") or [],
        "weighed": detail.get("weighed") or {},
        "choices": choices(page, session),
        "spam": _spam_in_words(message, detail.get("spam_because") or {}),
        "asked_from": OPT_OUT_UNSURE,
        "missing": sorted({str(words) for words in (detail.get("faults") or {}).values()}),
    }


def _detail(message: Message, stage: str) -> dict[str, Any]:
    step: dict[str, Any] = next((one for one in message.trace if one.get("stage") == stage), {})
    return step.get("detail") or {}


def _spam_in_words(message: Message, why: dict[str, Any]) -> dict[str, Any]:
    """Why a message counts as spam or not: who decided, between which probabilities a person is asked, rules, and words with weights."""
    said = str(_detail(message, "classify").get("spam") or "")
    if not why:
        return {"decided": "", "band": [], "said": _SAID.get(said, ""), "excepted": False}
    rule = str(_detail(message, "screen").get("rule") or "")
    return {
        "said": _SAID.get(said, ""),
        "excepted": said == "unknown",  # it was judged, and yet there is no verdict
        "decided": _DECIDED.get(str(why.get("stage")), str(why.get("stage"))),
        "band": why.get("band") or [],
        "rules": [*([f"rule “{rule}” of the first screening"] if rule else []), *(why.get("reasons") or [])],
        "like": why.get("like") or "",
        "words": [(in_words(str(word)), float(weight)) for word, weight in why.get("words") or [] if weight],
    }


def in_words(counted: str) -> str:
    """What the judge of spam counts, as an agent can read it."""
    if counted in _COUNTED:
        return _COUNTED[counted]
    if counted.startswith("#") and counted[1:].isdecimal():
        return f"a number of {counted[1:]} digit{'' if counted[1:] == '1' else 's'}"
    if counted in REASONS:
        return f"it {REASONS[counted]}" if REASONS[counted].split()[0] in _VERBS else REASONS[counted]
    kind, colon, value = counted.partition(":")
    if colon and kind in _BUILT:
        return f"{_BUILT[kind]} {value}"
    return f"how it is built: {counted}" if colon or "=" in counted or "-" in counted else f"“{counted}”"


# -- on a thread


@router.post("/messages/{message_id}/verdict")
async def correct(page: SignedIn, message_id: Id) -> Response:
    """Set one label right; `never` in the form also stops it for this sender."""
    form = await page.form()
    head, label = _text(form, "head"), _text(form, "label")

    def run() -> Response:
        with page.container.database.transaction() as session:
            message = threads.get_message(session, message_id)
            if _text(form, "never"):
                wrong = _text(form, "never")
                rules.except_sender(
                    session, sender=message.from_address, head=head, label=wrong, agent_id=page.agent.id
                )
                access.audit(session, page.agent.id, action="label.never", subject=f"{head}:{wrong}")
                return go(_back(form, message.thread_id, {"did": "never"}))
            if label not in choices(page, session).get(head, ()):
                raise InvalidInput(f"{head} has no such label")
            made = verdicts.correct(session, message_id, head=head, label=label, agent_id=page.agent.id)
        return go(_back(form, message.thread_id, {"did": "corrected", "state": made.id, "thread": message.thread_id}))

    return await run_sync(run)


@router.post("/corrections/{correction_id}/undo")
async def undo(page: SignedIn, correction_id: Id) -> Response:
    """Take a correction back."""
    form = await page.form()

    def run() -> Response:
        with page.container.database.transaction() as session:
            made = verdicts.take_back(session, correction_id, agent_id=page.agent.id)
            thread_id = threads.get_message(session, made.message_id).thread_id
        if _text(form, "from") == "learning":
            return go("/learning?did=undone")
        return go(_back(form, thread_id, {"did": "undone", "thread": thread_id}))

    return await run_sync(run)


def _back(form: FormData, thread_id: str, did: dict[str, str]) -> str:
    query = {name: _text(form, name) for name in ("view", "sort", "q") if _text(form, name)}
    return f"/inbox/{thread_id}?{urlencode(query | did)}"


# -- the queue


def _queue(page: Page, *, problem: NotifyrError | None = None, did: str = "", correction: str = "") -> HTMLResponse:
    with page.container.database.reading() as session:
        asked = learning.queue(session)
        points = learning.curve(session)
        reached = learning.reached(session)
        labels = choices(page, session)["intent"]
    places = [(float(one.answers), one.accuracy) for one in points]
    most = places[-1][0] if places else 1.0
    return render(
        "learning.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        asked=asked,
        labels=labels,
        points=points,
        reached=reached,
        curve=charts.line(places, most=most),
        newest=charts.dots(places[-1:], most=most),  # the first answer is a point, and no line yet
        did=did,
        correction=correction,
    )


@router.get("/learning")
def queue_page(page: SignedIn, did: str = "", correction: str = "") -> HTMLResponse:
    return _queue(page, did=did[:20], correction=correction[:40])


@router.post("/learning/{message_id}")
async def answer(page: SignedIn, message_id: Id) -> Response:
    """Name the intent of one message. An answer that agrees with the model counts too: it is measured with."""
    form = await page.form()
    label = _text(form, "label")

    def run() -> Response:
        try:
            with page.container.database.transaction() as session:
                if label not in choices(page, session)["intent"]:
                    raise InvalidInput("choose an intent, or “other” when it is none of them")
                made = verdicts.correct(session, message_id, head="intent", label=label, agent_id=page.agent.id)
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return _queue(page, problem=error)
        return go(f"/learning?did=answered&correction={made.id}")

    return await run_sync(run)
