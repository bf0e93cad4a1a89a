"""What admins settle on pages: agents, API keys, the server's settings (to read), the audit trail.

A secret that is shown once stands in the answer to the very post that made it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from api.commands.config import describe
from api.deps import Id
from api.inbox.shell import Page, SignedIn, go, render
from assistant.clock import utcnow
from assistant.errors import InvalidInput, NotAllowed, NotifyrError
from assistant.services import access, audit, profiles

__all__ = ["Admin", "router", "settle", "text_of"]

router = APIRouter(include_in_schema=False)
LIFETIMES = {"never": None, "30 days": timedelta(days=30), "90 days": timedelta(days=90), "1 year": timedelta(days=365)}
OVERLAPS = {"at once": timedelta(), "in 1 hour": timedelta(hours=1), "in 1 day": timedelta(days=1)}
"""When the old secret of a rotated key dies."""


def _admin(page: SignedIn) -> Page:
    if page.agent.role != "admin":
        raise NotAllowed("this page is for admins")
    return page


Admin = Annotated[Page, Depends(_admin)]


def text_of(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


async def settle(
    page: Page, show: Callable[..., HTMLResponse], do: Callable[[Session], dict[str, Any]], *, back: str = ""
) -> Response:
    """Run `do` in a transaction. Its answer, shown once, or the way back; a refusal is the same page with the reason."""

    def run() -> Response:
        try:
            with page.container.database.transaction() as session:
                once = do(session)
        except NotifyrError as error:
            if error.status >= 500:
                raise
            return show(page, problem=error)
        return go(back) if back else show(page, **once)

    return await run_sync(run)


# -- profiles


@router.post("/settings/profiles/{profile_id}/unblock")
async def unblock_profile(page: Admin, profile_id: Id) -> Response:
    """Send through a profile again, and what it held with it. The next refusal blocks it anew."""
    await page.form()

    def run() -> Response:
        with page.container.database.transaction() as session:
            profiles.unblock(session, profile_id, actor=page.agent.id)
        return go("/settings?did=saved")

    return await run_sync(run)


# -- agents


def _agents(page: Page, *, problem: NotifyrError | None = None, link: str = "", invited: str = "") -> HTMLResponse:
    with page.container.database.reading() as session:
        found = access.agents(session)
    return render(
        "admin-agents.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        agents=found,
        link=link,
        invited=invited,
        hours=access.LINK_HOURS,
    )


@router.get("/settings/agents")
def agents_page(page: Admin) -> HTMLResponse:
    return _agents(page)


@router.post("/settings/agents")
async def invite(page: Admin) -> Response:
    """A new agent; the link to hand over is in the answer."""
    form = await page.form()

    def do(session: Session) -> dict[str, Any]:
        agent = access.create_agent(
            session,
            text_of(form, "email"),
            name=text_of(form, "name"),
            role=text_of(form, "role") or "agent",
            actor=page.agent.id,
        )
        return _link(page, session, agent.id, "invite")

    return await settle(page, _agents, do)


def _link(page: Page, session: Session, agent_id: str, purpose: str) -> dict[str, Any]:
    token = access.create_link(session, agent_id, purpose=purpose, actor=page.agent.id)
    agent = access.get_agent(session, agent_id)
    return {"link": access.link_url(page.container.settings.base_url, token), "invited": agent.email}


@router.post("/settings/agents/{agent_id}/link")
async def new_link(page: Admin, agent_id: Id) -> Response:
    """A one-time link for an agent who cannot sign in; an older one dies."""
    await page.form()
    return await settle(page, _agents, lambda session: _link(page, session, agent_id, "reset"))


@router.post("/settings/agents/{agent_id}/{change}")
async def change_agent(page: Admin, agent_id: Id, change: str) -> Response:
    """Close an account (`disable`), open it again (`enable`), or give it the other role (`admin`, `agent`)."""
    await page.form()

    def do(session: Session) -> dict[str, Any]:
        if change == "disable":
            access.disable_agent(session, agent_id, actor=page.agent.id)
        elif change == "enable":
            access.enable_agent(session, agent_id, actor=page.agent.id)
        else:
            access.set_role(session, agent_id, role=change, actor=page.agent.id)
        return {}

    return await settle(page, _agents, do, back="/settings/agents")


# -- API keys


def _keys(page: Page, *, problem: NotifyrError | None = None, secret: str = "", named: str = "") -> HTMLResponse:
    with page.container.database.reading() as session:
        found = access.api_keys(session)
    return render(
        "admin-keys.html",
        status=problem.status if problem else 200,
        page=page,
        problem=problem,
        api_keys=found,
        secret=secret,
        named=named,
        scopes=access.SCOPES,
        lifetimes=LIFETIMES,
        overlaps=OVERLAPS,
        base_url=page.container.settings.base_url,
    )


@router.get("/settings/keys")
def keys_page(page: Admin) -> HTMLResponse:
    return _keys(page)


@router.post("/settings/keys")
async def create_key(page: Admin) -> Response:
    """A new key; its secret is in the answer."""
    form = await page.form()

    def do(session: Session) -> dict[str, Any]:
        lifetime = _choice(LIFETIMES, text_of(form, "lifetime") or "never")
        key, secret = access.create_key(
            session,
            text_of(form, "name"),
            scopes=[str(scope) for scope in form.getlist("scope")],
            actor=page.agent.id,
            agent_id=page.agent.id,
            expires_at=utcnow() + lifetime if lifetime else None,
        )
        return {"secret": secret, "named": key.name}

    return await settle(page, _keys, do)


@router.post("/settings/keys/{key_id}/rotate")
async def rotate_key(page: Admin, key_id: Id) -> Response:
    """A new secret with the same name and scopes."""
    form = await page.form()

    def do(session: Session) -> dict[str, Any]:
        overlap = _choice(OVERLAPS, text_of(form, "overlap") or "at once")
        key, secret = access.rotate_key(session, key_id, actor=page.agent.id, overlap=overlap)
        return {"secret": secret, "named": key.name}

    return await settle(page, _keys, do)


@router.post("/settings/keys/{key_id}/revoke")
async def revoke_key(page: Admin, key_id: Id) -> Response:
    """End a key; the next request with it is refused."""
    await page.form()

    def do(session: Session) -> dict[str, Any]:
        access.revoke_key(session, key_id, actor=page.agent.id)
        return {}

    return await settle(page, _keys, do, back="/settings/keys")


def _choice(table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise InvalidInput(f"choose one of {', '.join(table)}")
    return table[name]


# -- to read


@router.get("/settings/server")
def server_page(page: Admin, q: str = "") -> HTMLResponse:
    """Every setting of the server with its value, its source and how to change it; secrets are masked."""
    rows = describe(page.container.settings)
    found = [row for row in rows if q.lower() in f"{row['name']} {row['description']}".lower()]
    return render("admin-server.html", page=page, problem=None, rows=found, total=len(rows), q=q)


@router.get("/settings/audit")
def audit_page(page: Admin, area: str = "", cursor: str = "") -> HTMLResponse:
    """Who did what, newest first."""
    with page.container.database.reading() as session:
        found = audit.trail(session, area=area, cursor=cursor or None)
    return render(
        "admin-audit.html",
        page=page,
        problem=None,
        entries=found.items,
        more=found.next_cursor,
        area=area,
        areas=audit.AREAS,
    )
