"""Crash tests at every named failpoint of every path: nothing lost, nothing twice, nothing stuck.

Rounds: 2,000 a path (`TEST_CRASH_ROUNDS`), all of them where every mail and every reply passes, elsewhere as many as a few
seconds allow (`TEST_CRASH_SECONDS` sets the time of either). The seed is printed; `TEST_SEED` sets it.
"""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from assistant.failpoints import FAILPOINTS
from assistant.settings import ROOT
from tests.faults.catalogue import PATHS, STORES
from tests.faults.crashes import Ask, CrashPath, batches, crash
from tests.support.figures import Tell
from tests.support.servers import PostgresServer
from tests.support.stores import in_memory

ROUNDS = int(os.environ.get("TEST_CRASH_ROUNDS", "2000"))
SECONDS = float(os.environ.get("TEST_CRASH_SECONDS", "0"))
"""For each path; without it `_WHOLE` or `_FEW`."""
_WHOLE, _FEW = 600.0, 6.0
"""More than twice what all rounds of a path took beside two more workers (243 s), so that only a very slow machine ends early;
and what the other paths have.
"""
SEED = int(os.environ.get("TEST_SEED", "20261124"))


def test_every_failpoint_belongs_to_a_path_that_dies_there() -> None:
    assert {name.partition(":")[0] for path in PATHS + STORES for name in path.failpoints} == FAILPOINTS


EXTERNAL = {
    "pipelines": r"\.(keep|send|publish|dispatch)$|^run$",
    "assistant/backends/blobs.py": r"^obstore\.(put|get|head|list|delete|rename)$|^_fsync$",
    "assistant/backends/bus.py": r"^(self\._redis|pipe)\.(hdel|set)$",
    "assistant/backends/coordination.py": r"^self\._(limiter\.(hit|clear)|redis\.set)$",
    "channels/support/http.py": r"^client\.(stream|get|post)$",
    "assistant/backends/cache.py": r"^self\._redis\.(set|eval)$|^self\._wait_or_lead$",
    "assistant/backends/vectors.py": r"^(store|self\._store)\.(numbers|upsert|delete|search)$|^self\._open$",
}
"""Calls that change or ask something outside our process, or run the models. A commit has its pair from `committing`."""
WITHIN = {"_wait_or_lead"}
"""Functions whose only caller has the pair round its call of them."""


def test_every_external_call_has_a_failpoint_before_it_and_one_after_it() -> None:
    seen, bare = Counter[str](), []
    for where, pattern in EXTERNAL.items():
        path = ROOT / where
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for function in ast.walk(ast.parse(file.read_text())):
                if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name in WITHIN:
                    continue
                calls = [
                    (node.lineno, ast.unparse(node.func)) for node in ast.walk(function) if isinstance(node, ast.Call)
                ]
                points = [line for line, name in calls if name in {"failpoint", "committing"}]
                for line, name in calls:
                    if re.search(pattern, name):
                        seen[where] += 1
                        if min(points, default=line) >= line or max(points, default=line) <= line:
                            bare.append(f"{file.relative_to(ROOT)}:{line} {name}")
    assert seen["pipelines"] >= 7 and set(seen) == set(EXTERNAL)
    assert bare == []


@pytest.fixture(scope="module")
def dying() -> Iterator[Ask]:
    with batches() as ask:
        yield ask


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", PATHS + STORES, ids=lambda path: path.name)
def test_a_crash_at_any_failpoint_loses_nothing_and_sends_nothing_twice(
    path: CrashPath, dying: Ask, tell: Tell
) -> None:
    # In memory: a killed process leaves what it wrote in the system's cache, so no disk has to be waited for.
    with in_memory("crash") as folder:
        seconds = SECONDS or (_WHOLE if path.whole else _FEW)
        result = crash(path, folder, rounds=int(ROUNDS * path.share), seed=SEED, seconds=seconds, ask=dying)
        tell(f"{result}")
    assert result.problems == []
    assert set(result.killed) == set(path.failpoints), "every name was hit"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_crash_on_postgresql_loses_nothing_and_sends_nothing_twice(
    path: CrashPath, postgres: PostgresServer, dying: Ask, tell: Tell
) -> None:
    """Another engine, another way to die: a server sees the connection of a dead process end, and takes its locks away."""

    def database(folder: Path) -> str:
        name = f"crash_{uuid4().hex}"
        postgres.execute(f"CREATE DATABASE {name}")
        return postgres.url(name)

    with in_memory("crash") as folder:
        rounds, few, seconds = int(ROUNDS * path.share), max(24, 3 * len(path.failpoints)), (SECONDS or _FEW) / 3
        result = crash(
            path, folder, rounds=rounds, seed=SEED, seconds=seconds, ask=dying, database=database, at_once=few
        )
        tell(f"{result}")
    assert result.problems == []
    assert set(result.killed) == set(path.failpoints), "every name was hit"
