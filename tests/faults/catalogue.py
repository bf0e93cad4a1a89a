"""Every crash path, with the failpoints that it dies at."""

from __future__ import annotations

from assistant.failpoints import FAILPOINTS
from tests.faults.api_path import ReplyByApi, ReplyWithFile
from tests.faults.broker_path import Hints
from tests.faults.crashes import CrashPath
from tests.faults.paths import AskRun, Receive, RejudgeRun, Review, Suggest, TriageRun
from tests.faults.send_path import Send
from tests.faults.store_paths import Remember, Search, Tidy
from tests.faults.visit_path import Visit


def _of(prefix: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in FAILPOINTS if name.startswith(prefix)))


_SEND = _of("send.")
# The first commit of a request with a key reserves the key, the second is the act with its answer.
_COMMITS = tuple(f"commit.{side}:{number}" for number in (1, 2) for side in ("before", "after"))


def _blobs(*acts: str) -> tuple[str, ...]:
    return tuple(f"blob.{side}_{act}" for act in acts for side in ("before", "after"))


PATHS = [
    CrashPath("send by relay", (*_SEND, *_of("smtp.")), lambda *at: Send(*at, relay=True)),
    CrashPath("send into the outbox folder", (*_SEND, *_of("folder.")), lambda *at: Send(*at, relay=False)),
    CrashPath("receive", _of("receive."), Receive),
    CrashPath("triage", _of("triage."), TriageRun),
    CrashPath("suggest", _of("suggest."), Suggest),
    CrashPath("ask", _of("ask."), AskRun),
    CrashPath("rejudge", _of("rejudge."), RejudgeRun),
    CrashPath("review", _of("review."), Review),
    CrashPath("reply by the API", _COMMITS, ReplyByApi),
    CrashPath("broker and bus", (*_of("dispatch."), *_of("publish.")), Hints),
]
STORES = [
    CrashPath("reply with a file", _blobs("read", "put", "sync"), ReplyWithFile, 0.02),
    CrashPath("search", _of("index."), Search, 0.02),
    CrashPath("generations in Redis", _of("cache."), Remember, 0.02),
    CrashPath(
        "visit", (*_of("limit."), *_of("presence."), *_of("draft."), *_of("removed."), *_of("fetch.")), Visit, 0.0095
    ),
    CrashPath("tidying", _blobs("read", "move", "delete"), Tidy, 0.02),
]
"""What a death leaves in them is the same beside any database."""
