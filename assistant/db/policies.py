"""What the assistant may send without a person: one grant an intent, by an admin, until it is revoked."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from assistant.db.base import Base, Timestamps

__all__ = ["Policy"]


class Policy(Timestamps, Base):
    """Drafts for `intent` may be sent by themselves while the lower bound of its clean share is at least `needed`."""

    __tablename__ = "policies"
    intent: Mapped[str] = mapped_column(String(80))
    needed: Mapped[float]
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    """Who granted it."""
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    __table_args__ = (
        Index(
            "uq_policies_granted",
            "intent",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )
