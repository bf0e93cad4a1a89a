"""What agents add to threads: internal notes, labels, saved replies, files and words of messages not sent yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from assistant.clock import utcnow
from assistant.db.base import Base, Timestamps

__all__ = ["Label", "MessageImage", "NewDraft", "Note", "SavedFilter", "SavedReply", "ThreadLabel", "Upload"]


class Note(Timestamps, Base):
    """Words among agents. A note is no message: nothing that sends or quotes ever reads this table."""

    __tablename__ = "notes"
    thread_id: Mapped[str] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    text: Mapped[str] = mapped_column(Text)
    form_id: Mapped[str] = mapped_column(String(100), unique=True)
    """The form it was written in: posting it twice leaves one note."""
    __table_args__ = (Index("ix_notes_thread", "thread_id", "created_at"),)


class Label(Timestamps, Base):
    """A name that agents sort threads by. `hue` (0 to 7) is its colour; the word always stands beside it."""

    __tablename__ = "labels"
    name: Mapped[str] = mapped_column(String(50), unique=True)
    hue: Mapped[int] = mapped_column(default=0)


class ThreadLabel(Timestamps, Base):
    """A label on a thread."""

    __tablename__ = "thread_labels"
    thread_id: Mapped[str] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    label_id: Mapped[str] = mapped_column(ForeignKey("labels.id", ondelete="CASCADE"), index=True)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    __table_args__ = (UniqueConstraint("thread_id", "label_id"),)


class SavedReply(Timestamps, Base):
    """Words that are used often; `{first_name}` and a few more are filled in when it is inserted."""

    __tablename__ = "saved_replies"
    name: Mapped[str] = mapped_column(String(80), unique=True)
    text: Mapped[str] = mapped_column(Text)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)


class SavedFilter(Timestamps, Base):
    """A view, an order and a search that one agent has given a name; it stands in their rail."""

    __tablename__ = "saved_filters"
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(60))
    view: Mapped[str] = mapped_column(String(20))
    sort: Mapped[str] = mapped_column(String(20))
    q: Mapped[str] = mapped_column(String(200))
    __table_args__ = (UniqueConstraint("agent_id", "name"),)


class Upload(Timestamps, Base):
    """A file for a message that is not sent yet; its bytes are in the blob store. `thread_id` is empty for a new message."""

    __tablename__ = "uploads"
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    thread_id: Mapped[str | None] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    filename: Mapped[str] = mapped_column(String(300))
    content_type: Mapped[str] = mapped_column(String(100))
    size: Mapped[int]
    blob_key: Mapped[str] = mapped_column(String(300))
    __table_args__ = (Index("ix_uploads_owner", "agent_id", "thread_id", "kind"),)


class NewDraft(Base):
    """An agent's unsent new message, which has no thread yet. One an agent."""

    __tablename__ = "new_drafts"
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    fields: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """`to`, `cc`, `bcc`, `subject`, `text` as they were typed."""
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)


class MessageImage(Timestamps, Base):
    """A picture that a mail's HTML names, fetched once because an agent asked for it. `problem` says why there is none."""

    __tablename__ = "message_images"
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    address_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of its URL as the mail has it."""
    blob_key: Mapped[str] = mapped_column(String(300), default="")
    content_type: Mapped[str] = mapped_column(String(40), default="")
    size: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str] = mapped_column(String(60), default="")
    __table_args__ = (UniqueConstraint("message_id", "address_hash"),)
