"""Every crash path, with the failpoints that it dies at. Each is imported by the process that runs it: a fork is as quick as that is
small.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from assistant.failpoints import FAILPOINTS
from tests.faults.crashes import CrashPath, CrashRun


def _of(prefix: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in FAILPOINTS if name.startswith(prefix)))


_SEND = _of("send.")
# The first commit of a request with a key reserves the key, the second is the act with its answer.
_COMMITS = tuple(f"commit.{side}:{number}" for number in (1, 2) for side in ("before", "after"))


def _blobs(*acts: str) -> tuple[str, ...]:
    return tuple(f"blob.{side}_{act}" for act in acts for side in ("before", "after"))


def _run(module: str, name: str, **more: Any) -> Callable[[Path, str], CrashRun]:
    def start(folder: Path, url: str) -> CrashRun:
        run: CrashRun = getattr(import_module(f"tests.faults.{module}"), name)(folder, url, **more)
        return run

    return start


def _main(
    name: str, failpoints: tuple[str, ...], start: Callable[[Path, str], CrashRun], share: float = 1.0
) -> CrashPath:
    """A path that every mail and every reply takes: each landing plays all its rounds."""
    return CrashPath(name, failpoints, start, share, whole=True, copied=True)


PATHS = [
    # The rounds of sending are divided between its two carriers.
    _main("send by relay", (*_SEND, *_of("smtp.")), _run("send_path", "Send", relay=True), 0.5),
    _main("send into the outbox folder", (*_SEND, *_of("folder.")), _run("send_path", "Send", relay=False), 0.5),
    _main("receive", _of("receive."), _run("paths", "Receive")),
    _main("triage", _of("triage."), _run("paths", "TriageRun")),
    _main("suggest", _of("suggest."), _run("paths", "Suggest")),
    _main("review", _of("review."), _run("paths", "Review")),
    CrashPath("ask", _of("ask."), _run("paths", "AskRun"), copied=True),
    CrashPath("rejudge", _of("rejudge."), _run("paths", "RejudgeRun"), copied=True),
    CrashPath("reply by the API", _COMMITS, _run("api_path", "ReplyByApi")),
    CrashPath("broker and bus", (*_of("dispatch."), *_of("publish.")), _run("broker_path", "Hints")),
]
STORES = [
    CrashPath("reply with a file", _blobs("read", "put", "sync"), _run("api_path", "ReplyWithFile"), 0.02),
    CrashPath("search", _of("index."), _run("store_paths", "Search"), 0.02),
    CrashPath("generations in Redis", _of("cache."), _run("store_paths", "Remember"), 0.02),
    CrashPath(
        "visit",
        (*_of("limit."), *_of("presence."), *_of("draft."), *_of("removed."), *_of("fetch.")),
        _run("visit_path", "Visit"),
        0.0095,
    ),
    CrashPath("tidying", _blobs("read", "move", "delete"), _run("store_paths", "Tidy"), 0.02),
]
"""What a death leaves in them is the same beside any database."""
