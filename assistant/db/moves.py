"""Which messages agents moved between threads, so that it can be taken back and old addresses still lead somewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from assistant.db.base import Base, Timestamps

__all__ = ["ThreadMove"]


class ThreadMove(Timestamps, Base):
    """A `merge` (all of `from_id` went into `into_id`, and the thread is gone) or a `split` (one message went into a new thread)."""

    __tablename__ = "thread_moves"
    kind: Mapped[str] = mapped_column(String(20))
    from_id: Mapped[str] = mapped_column(String(36), index=True)
    """Not a foreign key: a merged thread has no row any more."""
    into_id: Mapped[str] = mapped_column(String(36), index=True)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    reason: Mapped[str] = mapped_column(String(300), default="")
    subject: Mapped[str] = mapped_column(String(1000), default="")
    """Of the thread that is gone, or of the new one."""
    moved: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Table -> ids of the rows that went along."""
    before: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Columns of the thread that is gone; what the move changed on the other one stands under `into`."""
    undone_at: Mapped[datetime | None]
