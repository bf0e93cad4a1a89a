"""Signing in and out, and the agents of the house."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from api.deps import Access, ApiRoute, Caller, Id, Parts, Reading, Transaction
from api.routers.common import CHANGED, FAILS, IdempotencyKey
from api.schemas import AgentCreate, AgentOut, Link, LinkUse, PasswordChange, SignedIn, SignIn
from api.security import client_network, forget_cookie, session_token, set_cookie, sign_in, sign_in_by_link
from assistant.db.access import Agent, AgentSession
from assistant.services import access

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["access"], route_class=ApiRoute, responses=FAILS)
Anybody = Annotated[Caller, Depends(Access(Access.ANY))]
Signed = Annotated[Caller, Depends(Access())]
Admin = Annotated[Caller, Depends(Access(admin=True))]


@router.post("/auth/sign-in", operation_id="signIn")
def sign_in_with_password(body: SignIn, request: Request, response: Response, parts: Parts) -> SignedIn:
    """Sign a browser in. The answer sets the session cookie; the id is new each time."""
    token, opened, agent = sign_in(
        parts,
        body.email,
        password=body.password,
        network=client_network(request),
        old_token=session_token(request, parts.settings),
    )
    set_cookie(response, parts.settings, token)
    return _signed_in(agent, opened)


@router.post("/auth/link", operation_id="useSignInLink")
def sign_in_with_link(body: LinkUse, request: Request, response: Response, parts: Parts) -> SignedIn:
    """Use a one-time link (first run, invitation, reset)."""
    token, opened, agent = sign_in_by_link(
        parts,
        body.token,
        network=client_network(request),
        password=body.password,
        old_token=session_token(request, parts.settings),
    )
    set_cookie(response, parts.settings, token)
    return _signed_in(agent, opened)


@router.post("/auth/sign-out", operation_id="signOut", status_code=204)
def sign_out(caller: Signed, request: Request, response: Response, session: Transaction, parts: Parts) -> None:
    """Sign this browser out; open live sockets of it close."""
    access.revoke_session(session, session_token(request, parts.settings))
    forget_cookie(response, parts.settings)


@router.get("/auth/me", operation_id="whoAmI")
def me(caller: Anybody) -> SignedIn:
    """Who is calling."""
    if caller.key is not None:
        return SignedIn(agent=AgentOut.of(caller.require_agent()), csrf_token=None, scopes=list(caller.key.scopes))
    assert caller.opened is not None
    return _signed_in(caller.require_agent(), caller.opened)


@router.post("/auth/password", operation_id="changePassword", status_code=204)
def change_password(
    body: PasswordChange, caller: Signed, response: Response, session: Transaction, parts: Parts
) -> None:
    """Change your own password. Every browser is signed out at once, this one too."""
    access.change_password(session, caller.require_agent().id, current=body.current, new=body.new)
    forget_cookie(response, parts.settings)


@router.get("/agents", operation_id="listAgents")
def list_agents(caller: Annotated[Caller, Depends(Access("threads:read"))], session: Reading) -> list[AgentOut]:
    """Every agent, to assign threads to."""
    return [AgentOut.of(agent) for agent in access.agents(session)]


@router.post("/agents", operation_id="createAgent", status_code=201, responses=CHANGED)
def create_agent(
    body: AgentCreate, caller: Admin, session: Transaction, parts: Parts, key: IdempotencyKey = None
) -> Link:
    """Invite an agent. The link in the answer is shown once."""
    agent = access.create_agent(session, body.email, name=body.name, role=body.role, actor=caller.actor)
    return _link(agent, access.create_link(session, agent.id, purpose="invite", actor=caller.actor), parts)


@router.post("/agents/{agent_id}/links", operation_id="createSignInLink", status_code=201, responses=CHANGED)
def create_link(agent_id: Id, caller: Admin, session: Transaction, parts: Parts, key: IdempotencyKey = None) -> Link:
    """A one-time link for an agent who cannot sign in. An older link dies."""
    token = access.create_link(session, agent_id, purpose="reset", actor=caller.actor)
    return _link(access.get_agent(session, agent_id), token, parts)


@router.post("/agents/{agent_id}/disable", operation_id="disableAgent", responses=CHANGED)
def disable_agent(agent_id: Id, caller: Admin, session: Transaction, key: IdempotencyKey = None) -> AgentOut:
    """Close an account. Its browsers, links and keys die at once."""
    return AgentOut.of(access.disable_agent(session, agent_id, actor=caller.actor))


def _signed_in(agent: Agent, opened: AgentSession) -> SignedIn:
    return SignedIn(agent=AgentOut.of(agent), csrf_token=opened.csrf_token, scopes=None)


def _link(agent: Agent, token: str, parts: Parts) -> Link:
    return Link(agent=AgentOut.of(agent), token=token, url=access.link_url(parts.settings.base_url, token))
