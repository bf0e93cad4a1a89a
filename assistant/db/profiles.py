"""Profiles: one account on a channel each. Secrets are referenced, never stored here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from assistant.clock import utcnow
from assistant.db.base import Base, Timestamps, state_column
from assistant.states import ProfileState

__all__ = ["Profile", "ProfileError"]


class Profile(Timestamps, Base):
    __tablename__ = "profiles"
    channel: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(320))
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    secret_ref: Mapped[str] = mapped_column(String(300), default="")
    state: Mapped[ProfileState] = mapped_column(state_column(ProfileState), default=ProfileState.ACTIVE)
    state_reason: Mapped[str] = mapped_column(String(500), default="")
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)
    __table_args__ = (UniqueConstraint("channel", "address"),)


class ProfileError(Timestamps, Base):
    __tablename__ = "profile_errors"
    profile_id: Mapped[str] = mapped_column(ForeignKey("profiles.id", ondelete="CASCADE"))
    code: Mapped[str] = mapped_column(String(60))
    text: Mapped[str] = mapped_column(String(1000))
    count: Mapped[int] = mapped_column(default=1)
    __table_args__ = (Index("ix_profile_errors_profile", "profile_id", "created_at"),)
