"""Approved answers: the only source a drafted reply may take facts from."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from assistant.clock import utcnow
from assistant.db.base import Base, Timestamps

__all__ = ["Chunk", "Document"]


class Document(Timestamps, Base):
    __tablename__ = "documents"
    title: Mapped[str] = mapped_column(String(300))
    kind: Mapped[str] = mapped_column(String(20), default="snippet")
    """`snippet`, `file` or `reply` (an accepted reply)."""
    text: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(default=1)
    disabled_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)
    __table_args__ = (UniqueConstraint("title"),)


class Chunk(Timestamps, Base):
    """A piece of a document, the unit of retrieval. The vector index is rebuilt from these rows at will."""

    __tablename__ = "chunks"
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    version: Mapped[int]
    position: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    number: Mapped[int] = mapped_column(BigInteger, unique=True)
    """Point id in the vector index: made from document, version and position, so that a rebuilt index is the same."""
    __table_args__ = (Index("ix_chunks_document", "document_id", "position"),)
