"""Signing in and out, one-time links, and an agent's own settings."""

from __future__ import annotations

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import FormData

from api.deps import Parts, caller_of, container_of
from api.forms import read_form
from api.inbox import keys, notices
from api.inbox.shell import SignedIn, Visitor, go, render
from api.inbox.times import zone_of
from api.security import client_network, forget_cookie, session_token, set_cookie, sign_in, sign_in_by_link
from assistant.db.access import Agent
from assistant.errors import InvalidInput, NotifyrError
from assistant.services import access, profiles

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
_THEMES = ("auto", "light", "dark")
_DENSITIES = ("comfortable", "compact")


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _local(url: str) -> str:
    """Only paths of this server: no open redirect."""
    plain = url.startswith("/") and not url.startswith(("//", "/\\")) and not any(ord(c) < 33 for c in url)
    return url if plain else "/inbox"


# -- signing in (public: nobody has a session or a token yet; the Gate has checked Origin)


@router.get("/sign-in")
def sign_in_page(request: Request, next: str = "/inbox") -> Response:  # noqa: A002  # the query's name
    if (caller := caller_of(request)) is not None and caller.opened is not None:
        return go(_local(next))
    return render("sign-in.html", page=Visitor(), next=_local(next), problem=None, email="")


@router.post("/sign-in")
async def sign_in_act(request: Request, parts: Parts) -> Response:
    form = await read_form(request, files=0, fields=10)
    email, target = _text(form, "email"), _local(_text(form, "next"))

    def run() -> Response:
        try:
            token, _, _ = sign_in(
                parts,
                email,
                password=_text(form, "password"),
                network=client_network(request),
                old_token=session_token(request, parts.settings),
            )
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return render(
                "sign-in.html", status=error.status, page=Visitor(), next=target, problem=error, email=email[:320]
            )
        answer = go(target)
        set_cookie(answer, parts.settings, token)
        return answer

    return await run_sync(run)


@router.get("/link")
def link_page() -> HTMLResponse:
    """Where a one-time link leads. Its token is in the fragment; opening the page uses nothing up."""
    return render("link.html", page=Visitor(), problem=None)


@router.post("/link")
async def link_act(request: Request, parts: Parts) -> Response:
    """Use the link up: set a password and sign in."""
    form = await read_form(request, files=0, fields=10)

    def run() -> Response:
        try:
            token, _, _ = sign_in_by_link(
                parts,
                _text(form, "token"),
                network=client_network(request),
                password=_text(form, "password") or None,
                old_token=session_token(request, parts.settings),
            )
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return render("link.html", status=error.status, page=Visitor(), problem=error)
        answer = go("/inbox")
        set_cookie(answer, parts.settings, token)
        return answer

    return await run_sync(run)


@router.post("/sign-out")
async def sign_out(page: SignedIn) -> Response:
    await page.form()
    settings = page.container.settings

    def run() -> None:
        with page.container.database.transaction() as session:
            access.revoke_session(session, session_token(page.request, settings))
            access.audit(session, page.agent.id, action="sign-out")

    await run_sync(run)
    answer = go("/sign-in")
    forget_cookie(answer, settings)
    return answer


# -- settings


@router.get("/settings")
def settings_page(page: SignedIn) -> HTMLResponse:
    return _settings(page)


def _settings(page: Any, problem: NotifyrError | None = None, typed: FormData | None = None) -> HTMLResponse:
    """`typed`: a refused form. What stands in it stays there, and the refusal beside its field (`detail["field"]`)."""
    kept = {name: value for name, value in typed.items() if isinstance(value, str)} if typed is not None else {}
    with page.container.database.reading() as session:
        accounts = profiles.list_profiles(session)
    return render(
        "settings.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        typed=kept,
        profiles=accounts,
        themes=_THEMES,
        densities=_DENSITIES,
        notices=notices.CHOICES,
        all_keys=keys.remapped(page.preferences.get("keys", {})),
        clashes=keys.conflicts(keys.remapped(page.preferences.get("keys", {}))),
        models=page.container.bus.models(),
    )


@router.post("/settings")
async def save_settings(page: SignedIn) -> Response:
    """Appearance, sending and keys of the signed-in agent."""
    form = await page.form()

    def run() -> Response:
        try:
            with page.container.database.transaction() as session:
                agent = access.get_agent(session, page.agent.id)
                before = _kept(agent)
                _save(page, form, agent)
                after = _kept(agent)
                if changed := sorted(name for name, value in after.items() if value != before.get(name)):
                    access.audit(session, agent.id, action="settings.changed", subject=agent.id, names=changed)
        except InvalidInput as error:
            return _settings(page, error, form)
        return go("/settings?did=saved")

    return await run_sync(run)


def _kept(agent: Agent) -> dict[str, Any]:
    return {"undo_seconds": agent.undo_seconds, "name": agent.name, **agent.preferences}


def _save(page: Any, form: FormData, agent: Any) -> None:
    changed = {
        key.act: wanted
        for key in keys.KEYS
        if (wanted := _text(form, f"key-{key.act}").strip()) and wanted != key.keys and len(wanted) <= 20
    }
    if clashes := keys.conflicts(keys.remapped(changed)):
        one, other = clashes[0]
        beside: dict[str, object] = {"field": f"key-{other if other in changed else one}"}
        raise InvalidInput(f"{one} and {other} would share their keys: choose another for one of them", detail=beside)
    undo = _text(form, "undo_seconds")
    if undo and not (undo.isdigit() and int(undo) <= 60):
        raise InvalidInput("the undo window is 0 to 60 seconds", detail={"field": "undo_seconds"})
    agent.undo_seconds = int(undo) if undo else None
    kept = agent.preferences.get("images_from", [])
    agent.preferences = agent.preferences | {
        "theme": _text(form, "theme") if _text(form, "theme") in _THEMES else "auto",
        "density": _text(form, "density") if _text(form, "density") in _DENSITIES else "comfortable",
        "notify": _text(form, "notify") if _text(form, "notify") in notices.CHOICES else "off",
        "letters": _text(form, "letters") == "on",
        "keys": changed,
        "assign_on_reply": {"on": True, "off": False}.get(_text(form, "assign_on_reply")),
        "zone": _zone(_text(form, "zone")),
        "images_from": [one for one in kept if one not in form.getlist("images-off")],
    }
    if name := " ".join(_text(form, "name").split())[:200]:
        agent.name = name


def _zone(name: str) -> str:
    """A time zone's name; empty: what the browser says. Raises `InvalidInput`."""
    name = name.strip()
    if name and str(zone_of(name)) != name:
        words = f"“{name[:60]}” is no time zone: write one like Europe/Lisbon, or leave it empty"
        raise InvalidInput(words, detail={"field": "zone"})
    return name


@router.post("/settings/password")
async def change_password(page: SignedIn) -> Response:
    """A new password ends every other session of this agent."""
    form = await page.form()
    container = container_of(page.request)

    def run() -> Response:
        try:
            with container.database.transaction() as session:
                access.change_password(
                    session, page.agent.id, current=_text(form, "current"), new=_text(form, "password")
                )
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return _settings(page, error)
        return go("/sign-in")

    return await run_sync(run)
