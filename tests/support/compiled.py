"""SQLAlchemy compiles a statement once for each engine, and each test has an engine of its own: here all of a kind share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

__all__ = ["share_compiled"]

_COMPILED: LRUCache[Any, Any] = LRUCache(4000)


def share_compiled() -> None:
    """For the rest of this process: one cache of compiled statements for every engine on the same kind of database.

    A key of that cache has the dialect in it, which compares by identity. All engines of a run speak to one version of one
    server with the same arguments, so dialects of one class compile alike.
    """
    for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        dialect.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]
        dialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
    Engine._compiled_cache = property(lambda self: _COMPILED, lambda self, own: None)  # type: ignore[assignment]
