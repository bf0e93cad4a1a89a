"""The list endpoint against an empty route of the same server and against the bare query with the same JSON."""

from __future__ import annotations

import json
import logging
import sqlite3
import statistics
import sys
from collections.abc import Callable
from contextlib import closing

import pytest
import structlog

from assistant.clock import monotonic
from tests.api.conftest import World, statements, world  # noqa: F401  # fixtures of the API's own tests

REQUESTS = 300
THREADS = 2_000


def _p50(act: Callable[[], object]) -> float:
    times = []
    for _ in range(REQUESTS):
        began = monotonic()
        act()
        times.append((monotonic() - began) * 1000)
    return statistics.median(times)


@pytest.mark.slow
def test_the_list_endpoint_against_an_empty_route_and_the_bare_query(
    world: World,  # noqa: F811
    statements: Callable[[], list[str]],  # noqa: F811
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for number in range(THREADS):
        world.thread(subject=f"Thread {number}")
    client = world.program("threads:read")
    url = "/api/v1/threads?view=inbox&limit=50"
    statements()
    answer = client.get(url)
    lists = [one for one in statements() if "FROM threads" in one]
    assert len(answer.json()["items"]) == 50
    assert len(lists) == 1
    listing = _p50(lambda: client.get(url))
    empty = _p50(lambda: client.get("/livez"))
    path = world.container.database.engine.url.database
    with closing(sqlite3.connect(str(path))) as connection:

        def bare() -> str:
            rows = connection.execute(
                "SELECT * FROM threads WHERE state IN ('open', 'pending') ORDER BY last_message_at DESC, id DESC LIMIT 50"
            ).fetchall()
            return json.dumps(rows)

        query = _p50(bare)
    sys.stdout.write(
        f"\n  {THREADS} threads, 50 a page, p50 in ms: list {listing:.2f}, empty route {empty:.2f}, bare query {query:.2f}"
        f"\n  the list takes {listing / empty:.1f} times an empty route and {listing / query:.1f} times the bare query"
        f" ({(listing - empty) / listing:.0%} of it is the list's own)\n"
    )
