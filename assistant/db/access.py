"""Who may do what: agents, their sessions and links, API keys, the audit trail, and stored answers to repeated requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from assistant.clock import utcnow
from assistant.db.base import Base, Timestamps

__all__ = ["Agent", "AgentSession", "ApiKey", "AuditEntry", "IdempotentAnswer", "SignInLink"]


class Agent(Timestamps, Base):
    """A human who reviews and replies. `role` is `admin` or `agent`."""

    __tablename__ = "agents"
    email: Mapped[str] = mapped_column(String(320), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20), default="agent")
    password_hash: Mapped[str] = mapped_column(String(200), default="")
    disabled_at: Mapped[datetime | None]
    undo_seconds: Mapped[int | None]
    preferences: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Theme, density, remapped keys, single-letter keys on or off."""


class AgentSession(Timestamps, Base):
    """A signed-in browser. Only a hash of the cookie's token is stored."""

    __tablename__ = "agent_sessions"
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), index=True)
    csrf_token: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime]
    last_seen_at: Mapped[datetime] = mapped_column(default=utcnow)
    revoked_at: Mapped[datetime | None]


class SignInLink(Timestamps, Base):
    """A one-time link (first run, invitation, reset): hashed, single use, expiring."""

    __tablename__ = "sign_in_links"
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(String(20))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class ApiKey(Timestamps, Base):
    """A key for programs: `prefix` is shown, the secret only once; scopes are `threads:read` and the like."""

    __tablename__ = "api_keys"
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]] = mapped_column(default=list)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Timestamps, Base):
    """Every sign-in, key, setting and release from quarantine."""

    __tablename__ = "audit_entries"
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(200), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (Index("ix_audit_entries_created", "created_at"),)


class IdempotentAnswer(Timestamps, Base):
    """The stored answer to a POST with an `Idempotency-Key`. `status` 0 means: still being worked on."""

    __tablename__ = "idempotent_answers"
    scope: Mapped[str] = mapped_column(String(300))
    """Caller and route."""
    key: Mapped[str] = mapped_column(String(255))
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(default=0)
    body: Mapped[str] = mapped_column(Text, default="")
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    expires_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("scope", "key"),)
