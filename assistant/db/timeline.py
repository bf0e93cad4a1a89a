"""What happened to a thread beside its messages: who took it, who closed it, when it came back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from assistant.db.base import Base, Timestamps

__all__ = ["ThreadEvent"]


class ThreadEvent(Timestamps, Base):
    """One change of assignee or state. `kind`: `assigned`, `unassigned`, or the `ThreadState` that it came into."""

    __tablename__ = "thread_events"
    thread_id: Mapped[str] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    """Who did it; None for the program itself."""
    assignee_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    until: Mapped[datetime | None]
    """Of `snoozed`: when it comes back."""
    reason: Mapped[str] = mapped_column(String(200), default="")
    __table_args__ = (
        Index("ix_thread_events_thread", "thread_id", "created_at"),
        Index("ix_thread_events_kind", "kind", "created_at"),
    )
