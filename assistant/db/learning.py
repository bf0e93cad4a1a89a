"""What people teach the models: corrected labels, intents of their own, thresholds, and senders a label never fits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from assistant.clock import utcnow
from assistant.db.base import Base, Timestamps

__all__ = ["Correction", "Intent", "IntentVersion", "LabelThreshold", "SenderException"]


class Correction(Timestamps, Base):
    """An agent's verdict on one label of one message. The newest one that is not undone counts."""

    __tablename__ = "corrections"
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    head: Mapped[str] = mapped_column(String(40))
    """`spam`, `intent`, `reply_intent` ..."""
    old_label: Mapped[str] = mapped_column(String(80), default="")
    old_score: Mapped[float | None]
    """What the model gave to `old_label`: calibration and the learning curve are drawn from it."""
    new_label: Mapped[str] = mapped_column(String(80))
    sender: Mapped[str] = mapped_column(String(320), default="")
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    held_out: Mapped[bool] = mapped_column(default=False)
    """Kept for measuring; nothing ever learns from it."""
    over_cap: Mapped[bool] = mapped_column(default=False)
    """Beyond what one sender may teach in a day: shown, not learned."""
    undone_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_corrections_message", "message_id", "head"),
        Index("ix_corrections_head", "head", "created_at"),
        Index("ix_corrections_sender", "sender", "created_at"),
    )


class Intent(Timestamps, Base):
    """An intent that an operator defined by examples; it works beside the ones that ship."""

    __tablename__ = "intents"
    name: Mapped[str] = mapped_column(String(60), unique=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    examples: Mapped[list[Any]] = mapped_column(default=list)
    version: Mapped[int] = mapped_column(default=1)
    disabled_at: Mapped[datetime | None]
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)


class IntentVersion(Timestamps, Base):
    """How an intent was defined at each of its versions."""

    __tablename__ = "intent_versions"
    intent_id: Mapped[str] = mapped_column(ForeignKey("intents.id", ondelete="CASCADE"))
    version: Mapped[int]
    description: Mapped[str] = mapped_column(String(500), default="")
    examples: Mapped[list[Any]] = mapped_column(default=list)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    __table_args__ = (UniqueConstraint("intent_id", "version"),)


class LabelThreshold(Timestamps, Base):
    """The probability from which a label is claimed, when an admin has set another than the default."""

    __tablename__ = "label_thresholds"
    head: Mapped[str] = mapped_column(String(40))
    label: Mapped[str] = mapped_column(String(80), default="")
    """Empty: every label of the head."""
    threshold: Mapped[float]
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    __table_args__ = (UniqueConstraint("head", "label"),)


class SenderException(Timestamps, Base):
    """A label that is never claimed for a sender (an address, or `@domain`)."""

    __tablename__ = "sender_exceptions"
    sender: Mapped[str] = mapped_column(String(320))
    head: Mapped[str] = mapped_column(String(40))
    label: Mapped[str] = mapped_column(String(80))
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    __table_args__ = (UniqueConstraint("sender", "head", "label"),)
