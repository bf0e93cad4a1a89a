"""The `notifyr` command. A command's module is imported when its command is run, so that `--help` stays quick.

What a command has to say goes to standard output, everything about how it went to standard error. Exit codes: 0 ok, 1 failed,
2 usage or configuration, 3 partly done, 4 denied, 5 not found, 6 conflict, 7 a dependency is down, 130 interrupted, 141 the
reader of its output has gone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

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
    "profiles": "profiles",
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


class Interrupted(Exception):
    """Ctrl-C. The library would end with the right code and without a word."""


class ReaderGone(Exception):
    """The other end of the pipe was closed, as by `| head -1`."""


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None
    except BrokenPipeError:
        raise ReaderGone from None


class LazyGroup(TyperGroup):
    """A group whose commands are imported one by one."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _named():
            return super().make_context(*args, **options)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the library, with a guess at what was meant: it looks for one only among commands it has loaded."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], [name for name in COMMANDS if name != "prepare"], n=1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

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
        with _named():
            return super().invoke(ctx)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"notifyr {version('notifyr')}")
        raise typer.Exit


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
    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
        ] = False,
    ) -> None:
        """Self-hosted conversational messaging: mail in, triage, suggested replies, review, mail out."""

    return app


def exit_code(error: NotifyrError) -> int:
    """The exit code that says what kind of failure it was."""
    return _BY_STATUS.get(error.status, 1)


def _harden() -> None:
    """What this process and its children write is ours alone, and none leaves an image of its memory when it dies."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Run the command line, and turn an expected failure into words and an exit code."""
    _harden()
    as_json = "--json" in sys.argv
    try:
        sys.exit(create_app()(prog_name="notifyr", standalone_mode=False) or 0)
    except typer.TyperException as error:
        _usage(as_json, error)
    except typer.Abort:
        _fail(as_json, "interrupted", "nothing was entered", 1)
    except ConfigurationError as error:
        _fail(as_json, "configuration", str(error), 2, problems=error.problems)
    except NotifyrError as error:
        _fail(as_json, error.code, error.message, exit_code(error), **error.detail)
    except Interrupted:
        _fail(as_json, "interrupted", "interrupted; what was finished is kept", 130)
    except ReaderGone:
        # Python would flush what is left at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise  # not about a file or a disk: a fault of ours
        _fail(as_json, "system", f"{error.filename or 'the system'}: {error.strerror}", 1)


def _usage(as_json: bool, error: typer.TyperException) -> None:
    """What is wrong with the words of the command, and where to read on."""
    if as_json:
        _fail(as_json, "usage", error.format_message(), error.exit_code)
    show = getattr(error, "show", None)  # its public base only has the words
    show() if show else console.error(error.format_message())
    sys.exit(error.exit_code)


def _fail(as_json: bool, code: str, message: str, status: int, **detail: object) -> None:
    if as_json:
        console.error(json.dumps({"error": {"code": code, "message": message, **detail}}, default=str))
    else:
        console.error(f"notifyr: {message}")
    sys.exit(status)


if __name__ == "__main__":
    main()
