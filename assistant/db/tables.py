"""Imports every table once, so that `Base.metadata` is complete (Alembic, tests)."""

from __future__ import annotations

from assistant.db import access, contacts, inbox, knowledge, learning, messages, moves, policies, profiles, timeline
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
    "timeline",
]

metadata = Base.metadata
