"""People outside: contacts, the addresses they are known by, what they agreed to, and what must never be written to again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from assistant.clock import utcnow
from assistant.db.base import Base, Timestamps

__all__ = ["Consent", "Contact", "Identity", "Suppression"]


class Contact(Timestamps, Base):
    __tablename__ = "contacts"
    display_name: Mapped[str] = mapped_column(String(300), default="")
    note: Mapped[str] = mapped_column(String(2000), default="")
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)
    identities: Mapped[list[Identity]] = relationship(lazy="raise", order_by="Identity.id")

    __table_args__ = (Index("ix_contacts_display_name", "display_name"),)


class Identity(Timestamps, Base):
    """One address of a contact on one channel."""

    __tablename__ = "identities"
    contact_id: Mapped[str] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"), index=True)
    channel: Mapped[str] = mapped_column(String(20))
    address: Mapped[str] = mapped_column(String(320))
    display_name: Mapped[str] = mapped_column(String(300), default="")
    __table_args__ = (UniqueConstraint("channel", "address"),)


class Consent(Timestamps, Base):
    """An immutable record: `kind` is `granted` or `withdrawn`; the newest per channel counts."""

    __tablename__ = "consents"
    contact_id: Mapped[str] = mapped_column(ForeignKey("contacts.id", ondelete="CASCADE"))
    channel: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(200))
    message_id: Mapped[str | None] = mapped_column(String(36))
    __table_args__ = (Index("ix_consents_contact_channel", "contact_id", "channel", "created_at"),)


class Suppression(Timestamps, Base):
    """An address that is not written to. `cause`: `opt-out`, `hard-bounce`, `complaint`, `refused`, `manual`."""

    __tablename__ = "suppressions"
    channel: Mapped[str] = mapped_column(String(20))
    address: Mapped[str] = mapped_column(String(320))
    cause: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str] = mapped_column(String(500), default="")
    message_id: Mapped[str | None] = mapped_column(String(36))
    __table_args__ = (UniqueConstraint("channel", "address"),)
