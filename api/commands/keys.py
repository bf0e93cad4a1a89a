"""`notifyr keys` and `notifyr agents`: who may come in. Works on the database itself; no server needs to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api import console
from api.commands.common import Json, opened_database

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `keys` and `agents` to the `notifyr` command."""
    keys = typer.Typer(
        help="API keys for programs.\n\nExample: notifyr keys list", no_args_is_help=True, rich_markup_mode=None
    )
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate_key)
    keys.command("revoke")(revoke_key)
    app.add_typer(keys, name="keys")
    agents = typer.Typer(
        help="The people who review and reply.\n\nExample: notifyr agents list",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    agents.command("create")(create_agent)
    agents.command("list")(list_agents)
    agents.command("link")(link_agent)
    agents.command("disable")(disable_agent)
    app.add_typer(agents, name="agents")


@contextmanager
def _transaction() -> Iterator[tuple[Session, str]]:
    """A transaction on the database of the settings, and the URL of the inbox."""
    with opened_database() as (settings, database), database.transaction() as session:
        yield session, settings.base_url


def _scopes(incomplete: str) -> list[str]:
    from assistant.services.access import SCOPES

    return [scope for scope in SCOPES if scope.startswith(incomplete)]


def _key(key: Any) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": f"ntf_{key.prefix}",
        "scopes": list(key.scopes),
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def _key_line(key: dict[str, Any]) -> str:
    state = "revoked" if key["revoked_at"] else "live"
    return f"{key['id']}  {key['prefix']}  {state:8}{key['name']}  [{', '.join(key['scopes'])}]"


def _secret_line(made: dict[str, Any]) -> str:
    return f"{_key_line(made)}\n\n  {made['secret']}\n\nIt is shown this once: keep it now."


def _agent_by(session: Session, email: str) -> Any:
    from assistant.errors import NotFound
    from assistant.services import access

    live = [agent for agent in access.agents(session) if agent.disabled_at is None]
    for agent in live:
        if email and agent.email == email.strip().lower():
            return agent
    admins = [agent for agent in live if agent.role == "admin"]
    if not email and admins:
        return min(admins, key=lambda agent: agent.created_at)
    raise NotFound("there is no such agent; list them with: notifyr agents list")


def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str], typer.Option(help="What it may do; repeat it.", autocompletion=_scopes)],
    days: Annotated[int, typer.Option(help="Days until it expires; 0 means never.", min=0, max=3650)] = 0,
    agent: Annotated[str, typer.Option(help="Address of the agent it acts for; default: the first admin.")] = "",
    as_json: Json = False,
) -> None:
    """Make an API key. Its secret is printed once.

    Example: notifyr keys create "billing export" --scope threads:read --scope contacts:read
    """
    from datetime import timedelta

    from assistant.clock import utcnow
    from assistant.services import access

    with _transaction() as (session, _):
        key, secret = access.create_key(
            session,
            name,
            scopes=scope,
            actor="command-line",
            agent_id=_agent_by(session, agent).id,
            expires_at=utcnow() + timedelta(days=days) if days else None,
        )
        made = _key(key) | {"secret": secret}
    console.emit(made, [_secret_line(made)], as_json=as_json)


def list_keys(as_json: Json = False) -> None:
    """List every key with its scopes and last use.

    Example: notifyr keys list --json
    """
    from assistant.services import access

    with _transaction() as (session, _):
        found = [_key(key) for key in access.api_keys(session)]
    console.emit(found, [_key_line(item) for item in found], as_json=as_json)


def rotate_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, from `notifyr keys list`.")],
    overlap: Annotated[int, typer.Option(help="Seconds the old secret still works.", min=0, max=604_800)] = 0,
    as_json: Json = False,
) -> None:
    """Give a key a new secret.

    Example: notifyr keys rotate 019a0000-0000-7000-8000-000000000000 --overlap 3600
    """
    from datetime import timedelta

    from assistant.services import access

    with _transaction() as (session, _):
        key, secret = access.rotate_key(session, key_id, actor="command-line", overlap=timedelta(seconds=overlap))
        made = _key(key) | {"secret": secret}
    console.emit(made, [_secret_line(made)], as_json=as_json)


def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, from `notifyr keys list`.")], as_json: Json = False
) -> None:
    """End a key. The next request with it is refused.

    Example: notifyr keys revoke 019a0000-0000-7000-8000-000000000000
    """
    from assistant.services import access

    with _transaction() as (session, _):
        found = _key(access.revoke_key(session, key_id, actor="command-line"))
    console.emit(found, [_key_line(found)], as_json=as_json)


def _agent(agent: Any, link: str = "") -> dict[str, Any]:
    found = {
        "id": agent.id,
        "email": agent.email,
        "name": agent.name,
        "role": agent.role,
        "disabled_at": agent.disabled_at,
    }
    return found | {"link": link} if link else found


def _agent_line(agent: dict[str, Any]) -> str:
    line = f"{agent['id']}  {agent['role']:6} {agent['email']}  {agent['name']}"
    if agent["disabled_at"]:
        line += "  (disabled)"
    if "link" in agent:
        line += f"\n\n  {agent['link']}\n\nIt signs in once: hand it over now."
    return line


def create_agent(
    email: Annotated[str, typer.Argument(help="Address they sign in with.")],
    name: Annotated[str, typer.Option(help="Name shown to the others; default: from the address.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="May manage agents and keys.")] = False,
    as_json: Json = False,
) -> None:
    """Make an agent and print their one-time sign-in link.

    Example: notifyr agents create bo@example.org --name Bo
    """
    from assistant.services import access

    with _transaction() as (session, url):
        agent = access.create_agent(session, email, name=name, role="admin" if admin else "agent", actor="command-line")
        token = access.create_link(session, agent.id, purpose="invite", actor="command-line")
        found = _agent(agent, access.link_url(url, token))
    console.emit(found, [_agent_line(found)], as_json=as_json)


def link_agent(
    email: Annotated[str, typer.Argument(help="Address of the agent; default: the first admin.")] = "",
    as_json: Json = False,
) -> None:
    """Print a new one-time sign-in link for an agent. An older link dies.

    Example: notifyr agents link bo@example.org
    """
    from assistant.services import access

    with _transaction() as (session, url):
        agent = _agent_by(session, email)
        token = access.create_link(session, agent.id, purpose="reset", actor="command-line")
        found = _agent(agent, access.link_url(url, token))
    console.emit(found, [_agent_line(found)], as_json=as_json)


def list_agents(as_json: Json = False) -> None:
    """List the agents.

    Example: notifyr agents list
    """
    from assistant.services import access

    with _transaction() as (session, _):
        found = [_agent(agent) for agent in access.agents(session)]
    console.emit(found, [_agent_line(item) for item in found], as_json=as_json)


def disable_agent(email: Annotated[str, typer.Argument(help="Address of the agent.")], as_json: Json = False) -> None:
    """Close an account: its browsers, links and keys die at once.

    Example: notifyr agents disable bo@example.org
    """
    from assistant.services import access

    with _transaction() as (session, _):
        found = _agent(access.disable_agent(session, _agent_by(session, email).id, actor="command-line"))
    console.emit(found, [_agent_line(found)], as_json=as_json)
