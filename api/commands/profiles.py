"""`notifyr profiles`: the accounts that mail leaves through, and letting a blocked one send again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api import console
from api.commands.common import Json, opened_container

if TYPE_CHECKING:
    from assistant.db.profiles import Profile

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add `profiles` to the `notifyr` command."""
    group = typer.Typer(
        help="The accounts that mail comes in and leaves through.\n\nExample: notifyr profiles list",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(list_profiles)
    group.command("unblock")(unblock)
    app.add_typer(group, name="profiles")


def list_profiles(as_json: Json = False) -> None:
    """List every profile, whether it may send, and why not.

    Example: notifyr profiles list --json
    """
    from assistant.services import profiles

    with opened_container() as container, container.database.reading() as session:
        found = [_facts(one) for one in profiles.list_profiles(session)]
    console.emit(found, [_line(one) for one in found], as_json=as_json)


def unblock(
    name: Annotated[str, typer.Argument(help="Address or id of the profile.")],
    as_json: Json = False,
) -> None:
    """Let a blocked profile send again, and what it held with it. The next refusal blocks it anew.

    Example: notifyr profiles unblock support@example.org
    """
    from assistant.services import profiles

    with opened_container() as container, container.database.transaction() as session:
        profile = profiles.find(session, name)
        profiles.unblock(session, profile.id, actor="command-line")
        done = _facts(profile)
    console.emit(done, [_line(done)], as_json=as_json)


def _facts(profile: Profile) -> dict[str, Any]:
    return {
        "id": profile.id,
        "channel": profile.channel,
        "address": profile.address,
        "state": str(profile.state),
        "reason": profile.state_reason,
    }


def _line(facts: dict[str, Any]) -> str:
    words = f"{facts['id']}  {facts['channel']:8}  {facts['state']:8}  {facts['address']}"
    return f"{words}  {facts['reason']}" if facts["reason"] else words
