"""Connections to PostgreSQL that wait for nothing for ever.

A network that is gone is noticed by the kernel's timers. A server that stands still on a machine that goes on answering (a
frozen container, a disk that hangs) is not: its kernel takes what we send. So whoever waits looks at the clock, too.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import URL, Engine, create_engine, event

from assistant.clock import monotonic

__all__ = ["engine_of"]

CONNECT_SECONDS = 10
SILENT_SECONDS = 30.0
"""No byte from the server for so long, in the middle of a statement, is as good as no server."""
_LOCK = "10s"
"""For a row or table that somebody else holds."""
_IDLE = "60s"
"""After which a transaction in which nothing is asked is ended by the server: a process of ours that was frozen, or cut off,
would hold its locks until the server's own keepalives gave it up, two hours later."""
_OPTIONS = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 20_000,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""libpq's; milliseconds for the second. One that stands in the URL wins."""


class _Connection(psycopg.Connection[Any]):
    """psycopg's, which gives a silent server up instead of waiting for it."""

    def wait(self, gen: PQGen[Any], *arguments: Any, **named: Any) -> Any:
        return super().wait(self._watched(gen), *arguments, **named)

    def _watched(self, gen: PQGen[Any]) -> PQGen[Any]:
        ready: Any = None
        since = monotonic()
        while True:
            try:
                state = gen.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield state
            if ready:
                since = monotonic()
            elif monotonic() - since > SILENT_SECONDS:
                # Closed, so that the pool throws it away, with all that were opened before this moment.
                self.pgconn.finish()
                raise psycopg.OperationalError(f"the server said nothing for {SILENT_SECONDS:g} s")


def engine_of(url: URL, pool_size: int, *, patient: bool = False) -> Engine:
    """`patient`: for changes of whole tables, which may take their time and wait for any lock."""
    given = {name: value for name, value in _OPTIONS.items() if name not in url.query}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        pool_timeout=10,
        hide_parameters=True,
        connect_args=given,
    )
    event.listen(engine, "connect", _prepare)
    if not patient:
        event.listen(engine, "connect", _limit)
        event.listen(engine, "do_connect", lambda _dialect, _record, args, named: _Connection.connect(*args, **named))
    return engine


def _prepare(connection: Any, _record: object) -> None:
    # Compiling the plan of a search takes 0.4 s, running it less: the estimates that switch that on are far too high here.
    _set(connection, jit="off")


def _limit(connection: Any, _record: object) -> None:
    _set(connection, lock_timeout=_LOCK, idle_in_transaction_session_timeout=_IDLE)


def _set(connection: Any, **values: str) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        for name, value in values.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
