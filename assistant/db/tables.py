"""Imports every table once, so that `Base.metadata` is complete (Alembic, tests)."""

from __future__ import annotations

from assistant.db import access, contacts, inbox, knowledge, learning, messages, moves, policies, profiles
from assistant.db.base import Base

__all__ = [
    "access",
    "contacts",
    "inbox",
    "knowledge",
    "learning",
    "messages",
    "metadata",
    "moves",
    "policies",
    "profiles",
]

metadata = Base.metadata
