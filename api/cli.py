"""The `notifyr` command. A command's module is imported when its command is run, so that `--help` stays quick.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 partly done, 4 denied, 5 not found, 6 conflict, 7 a dependency is
down, 130 interrupted (running it again goes on).
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from api import console
from assistant.errors import ConfigurationError, NotifyrError

__all__ = ["COMMANDS", "create_app", "exit_code", "main"]

COMMANDS: dict[str, str] = {
    "run": "run",
    "demo": "demo",
    "import": "import_mail",
    "classify": "classify",
    "evaluate": "train",
    "train": "train",
    "intents": "intents",
    "knowledge": "knowledge",
    "config": "config",
    "agents": "keys",
    "keys": "keys",
    "migrate": "setup",
    "backup": "backup",
    "restore": "backup",
    "prepare": "setup",
    "api": "serve",
    "worker": "serve",
    "beat": "serve",
    "mailboxes": "serve",
}
"""Command -> the module of `api.commands` that registers it, in the order of `--help`."""

_BY_STATUS = {401: 4, 403: 4, 404: 5, 409: 6, 412: 6, 413: 2, 422: 2, 502: 7, 503: 7}


class LazyGroup(TyperGroup):
    """A group whose commands are imported one by one."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        part = typer.Typer(rich_markup_mode=None)
        part.callback()(lambda: None)  # keeps a module's only command a command
        import_module(f"api.commands.{module}").register(part)
        group = typer.main.get_command(part)
        assert isinstance(group, TyperGroup)
        return group.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Before any command: what is logged goes to standard error, never between the lines of a document."""
        from assistant.logs import configure_logging

        configure_logging("warning", "console")
        return super().invoke(ctx)


def create_app() -> typer.Typer:
    """The root of the command tree."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(epilog="Example: notifyr run")
    def root() -> None:
        """Self-hosted conversational messaging: mail in, triage, suggested replies, review, mail out."""

    return app


def exit_code(error: NotifyrError) -> int:
    """The exit code that says what kind of failure it was."""
    return _BY_STATUS.get(error.status, 1)


def main() -> None:
    """Run the command line, and turn an expected failure into words and an exit code."""
    os.umask(0o077)
    as_json = "--json" in sys.argv
    try:
        create_app()(prog_name="notifyr")
    except ConfigurationError as error:
        _fail(as_json, "configuration", str(error), 2, problems=error.problems)
    except NotifyrError as error:
        _fail(as_json, error.code, error.message, exit_code(error), **error.detail)
    except KeyboardInterrupt:
        _fail(as_json, "interrupted", "interrupted; run it again to go on", 130)


def _fail(as_json: bool, code: str, message: str, status: int, **detail: object) -> None:
    if as_json:
        console.error(json.dumps({"error": {"code": code, "message": message, **detail}}, default=str))
    else:
        console.error(f"notifyr: {message}")
    sys.exit(status)


if __name__ == "__main__":
    main()
