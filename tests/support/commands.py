"""Many runs of the `notifyr` command from one interpreter: each in a fork, so that a run costs milliseconds, not a start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from api.cli import COMMANDS, create_app
from tests.support.servers import clean_environment

__all__ = ["Ended", "every_command", "example_of", "run_each"]

ROOT = Path(__file__).resolve().parents[2]

DRIVER = r"""
import gc, json, os, signal, sys
import importlib
gc.disable()
import api.cli, assistant.telemetry, rich.console, typer

cases, how, *modules = json.load(sys.stdin), *sys.argv[1:]
for module in [*(f"api.commands.{name}" for name in api.cli.COMMANDS.values()), *modules]:
    importlib.import_module(module)  # once here, not again in every fork
typer.main.get_command(api.cli.create_app()).make_context("notifyr", ["config"], resilient_parsing=True).close()
gc.freeze()  # no fork looks through what it shares, and copies it
os.close(0)
os.open(os.devnull, os.O_RDONLY)

def interrupt_at(name):
    # Ctrl-C as soon as the function of the command runs: nothing is left to luck.
    def look(frame, event, _):
        if event == "call" and frame.f_code.co_name == name and f"{os.sep}commands{os.sep}" in frame.f_code.co_filename:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)
    sys.setprofile(look)

ended = []
for case in cases:
    files = [os.memfd_create(name) for name in ("out", "err")]
    child = os.fork()
    if child == 0:
        out = files[0]
        if how == "closed":
            reader, out = os.pipe()
            os.close(reader)
        os.dup2(out, 1)
        os.dup2(files[1], 2)
        for one in {*files, out}:
            os.close(one)
        sys.argv = ["notifyr", *case["words"]]
        if how == "interrupted":
            interrupt_at(case["function"])
        api.cli.main()
        sys.exit(99)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for one in files:
        os.lseek(one, 0, os.SEEK_SET)
        texts.append(os.fdopen(one, "rb").read().decode())
    ended.append([status, *texts])
json.dump(ended, sys.stdout)
"""


@dataclass(frozen=True)
class Ended:
    """How one run ended."""

    code: int
    out: str
    err: str


def run_each(
    lines: Sequence[Sequence[str]],
    *,
    how: str = "",
    functions: Sequence[str] = (),
    modules: Sequence[str] = (),
    **env: str,
) -> list[Ended]:
    """Run each command line. `how`: `closed` has nobody reading its output, `interrupted` gets Ctrl-C in its function.

    `modules` are imported before the runs, where many of them would import the same heavy ones.
    """
    named = functions or [""] * len(lines)
    cases = [{"words": list(words), "function": name} for words, name in zip(lines, named, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, how, *modules],
        input=json.dumps(cases),
        cwd=ROOT,
        env=clean_environment(**env),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Ended(*row) for row in json.loads(done.stdout)]


def every_command() -> dict[str, Any]:
    """Every command by its full name: groups, and what does something."""
    root = typer.main.get_command(create_app())
    context = root.make_context("notifyr", ["config"], resilient_parsing=True)
    found: dict[str, Any] = {"": root}
    for name in COMMANDS:
        command = root.get_command(context, name)  # type: ignore[attr-defined]
        found[name] = command
        found |= {f"{name} {child}": part for child, part in getattr(command, "commands", {}).items()}
    return found


def example_of(command: Any) -> str:
    """What its help gives as the example, from `notifyr` on."""
    text = " ".join((command.help or "").split()) + " " + (command.epilog or "")
    _, found, example = text.partition("Example: ")
    assert found, f"{command.name} has no example"
    typed = re.search(r"(?:^|\s)(notifyr\s.*)", example)
    assert typed, example
    return typed[1].strip()
