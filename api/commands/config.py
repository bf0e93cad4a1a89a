"""`notifyr config`: are the settings right, and where does each value come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from api import console
from api.commands.common import Json

if TYPE_CHECKING:
    from assistant.settings import Settings

__all__ = ["describe", "register"]


def register(app: typer.Typer) -> None:
    """Add `config check` and `config show`."""
    group = typer.Typer(
        help="Check and show the settings.\n\nExample: notifyr config check",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("check")(check)
    group.command("show")(show)
    app.add_typer(group, name="config")


def check(as_json: Json = False) -> None:
    """Check every setting, the interpreter and the folders, and list all problems at once (exit code 2).

    Then try every server and model file once, and say which answers and what to do about the others (exit code 2).

    Example: NOTIFYR_PORT=99999 notifyr config check
    """
    from dataclasses import asdict

    from api.reach import look
    from api.startup import problems
    from assistant.errors import ConfigurationError
    from assistant.settings import load_settings

    settings = load_settings()
    if found := problems(settings):
        raise ConfigurationError(found)
    parts = look(settings)
    missing = [one for one in parts if one.state == "unreachable"]
    lines = ["The configuration is valid." if not missing else "The settings are valid, but not everything answers."]
    for one in parts:
        lines.append(f"  {one.name:<12}  {one.state:<11}  {one.where}")
        if one.problem:
            lines += [f"{'':16}{one.problem}", f"{'':16}{one.setting}: {one.fix}"]
    document = {"ok": not missing, "problems": [f"{one.setting}: {one.problem}" for one in missing]}
    console.emit(document | {"parts": [asdict(one) for one in parts]}, lines, as_json=as_json)
    if missing:
        raise typer.Exit(2)


def show(as_json: Json = False) -> None:
    """Show every setting with its value and where it comes from; secrets are masked.

    Example: notifyr config show --json
    """
    from assistant.settings import load_settings

    rows = describe(load_settings())
    width = max(len(row["name"]) for row in rows)
    lines = [f"{row['name']:<{width}}  {row['source']:<11}  {row['value']}" for row in rows]
    console.emit({row["name"]: row for row in rows}, lines, as_json=as_json)


def describe(settings: Settings) -> list[dict[str, str]]:
    """Name, value and source of every setting; no secret is in it."""
    from assistant.settings import PREFIX

    return [
        {
            "name": PREFIX + name.upper(),
            "value": _shown(getattr(settings, name)),
            "source": "environment" if name in settings.model_fields_set else "default",
            "description": field.description or "",
        }
        for name, field in type(settings).model_fields.items()
    ]


def _shown(value: object) -> str:
    from pydantic import SecretStr

    if value is None:
        return "(unset)"
    if isinstance(value, SecretStr):
        return console.without_secrets(value.get_secret_value())
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "(none)"
    return str(value) or "(empty)"
