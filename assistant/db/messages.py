"""Threads, their messages, what happened to each message, the replies suggested for it, and agents' unsent words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column, relationship

from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.base import Base, Timestamps, state_column
from assistant.db.contacts import Contact
from assistant.states import Author, Delivery, Direction, Screening, SuggestionState, ThreadState, TriageState

__all__ = ["Attachment", "DraftText", "Message", "MessageEvent", "Suggestion", "Thread"]


class Thread(Timestamps, Base):
    """A conversation with one contact through one profile.

    The columns after `version` are derived from its messages in the same transaction that changes them, so that the list
    needs one query.
    """

    __tablename__ = "threads"
    profile_id: Mapped[str] = mapped_column(ForeignKey("profiles.id"))
    contact_id: Mapped[str] = mapped_column(ForeignKey("contacts.id"), index=True)
    channel: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(1000), default="")
    base_subject: Mapped[str] = mapped_column(String(1000), default="")
    state: Mapped[ThreadState] = mapped_column(state_column(ThreadState), default=ThreadState.OPEN)
    assignee_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    snoozed_until: Mapped[datetime | None]
    starred: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int] = mapped_column(default=1)

    unread: Mapped[bool] = mapped_column(default=True)
    snippet: Mapped[str] = mapped_column(String(300), default="")
    message_count: Mapped[int] = mapped_column(default=0)
    attachment_count: Mapped[int] = mapped_column(default=0)
    last_message_at: Mapped[datetime] = mapped_column(default=utcnow)
    last_inbound_at: Mapped[datetime | None]
    last_direction: Mapped[Direction] = mapped_column(state_column(Direction, 10), default=Direction.INBOUND)
    has_outbound: Mapped[bool] = mapped_column(default=False)
    intent: Mapped[str] = mapped_column(String(80), default="")
    intent_score: Mapped[float | None]
    urgency: Mapped[str] = mapped_column(String(20), default="")
    reply_intent: Mapped[str] = mapped_column(String(20), default="")
    sentiment: Mapped[str] = mapped_column(String(20), default="")
    language: Mapped[str] = mapped_column(String(8), default="")
    """ISO 639-1 of the newest inbound message."""
    spam_score: Mapped[float | None]
    """Calibrated probability of spam of the newest inbound message."""
    spam_verdict: Mapped[str] = mapped_column(String(10), default="", server_default="")
    """What triage, or an agent after it, made of that: `spam`, `uncertain`, `ham`, or `unknown` (an exception, no judge)."""
    certainty: Mapped[float | None]
    """The least sure decision on the newest message, in [0, 1]: what `least certain` sorts by."""
    suggestion_mark: Mapped[str] = mapped_column(String(20), default="none")
    """One of `ready`, `check`, `drafting`, `stale`, `none`, `sent`."""
    needs_review: Mapped[bool] = mapped_column(default=False)

    contact: Mapped[Contact] = relationship(lazy="raise")
    assignee: Mapped[Agent | None] = relationship(lazy="raise")

    __table_args__ = (
        # The orders of the lists are indexes on expressions: only migration 0007 knows them (`ix_order_*`).
        Index("ix_threads_counts", "state", "unread", "needs_review", "has_outbound", "channel"),
        Index("ix_threads_base_subject", "profile_id", "contact_id", "base_subject"),
    )


class Message(Timestamps, Base):
    """One message in either direction. The outbound row is the outbox: its status says what is left to do."""

    __tablename__ = "messages"
    thread_id: Mapped[str] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    profile_id: Mapped[str] = mapped_column(ForeignKey("profiles.id"))
    direction: Mapped[Direction] = mapped_column(state_column(Direction, 10))
    author: Mapped[Author] = mapped_column(state_column(Author))
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    status: Mapped[Delivery] = mapped_column(state_column(Delivery))
    external_id: Mapped[str] = mapped_column(String(1000))
    """Email: Message-ID with angle brackets. Unique per profile."""
    in_reply_to: Mapped[str] = mapped_column(String(1000), default="")
    references: Mapped[list[Any]] = mapped_column("reference_ids", default=list)
    subject: Mapped[str] = mapped_column(String(1000), default="")
    text: Mapped[str] = mapped_column(Text, default="")
    new_text: Mapped[str] = mapped_column(Text, default="")
    """`text` without quoted history and signature."""
    html: Mapped[str] = mapped_column(Text, default="")
    """As received; sanitised when shown, never before."""
    from_address: Mapped[str] = mapped_column(String(320))
    from_name: Mapped[str] = mapped_column(String(300), default="")
    to_addresses: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"address", "name"}]`"""
    cc_addresses: Mapped[list[Any]] = mapped_column(default=list)
    bcc_addresses: Mapped[list[Any]] = mapped_column(default=list)
    """Only of outbound messages: they get a copy, and no header says so."""
    reply_to_address: Mapped[str] = mapped_column(String(320), default="")
    message_class: Mapped[str] = mapped_column(String(20), default="personal")
    auto_submitted: Mapped[str] = mapped_column(String(40), default="")
    raw_key: Mapped[str] = mapped_column(String(300), default="")
    raw_size: Mapped[int] = mapped_column(default=0)
    content_hash: Mapped[str] = mapped_column(String(64), default="")
    """Of an inbound message's raw bytes. Unique per profile: the same bytes are the same message, whatever was read in them."""
    defects: Mapped[list[Any]] = mapped_column(default=list)
    quarantined: Mapped[bool] = mapped_column(default=False)
    occurred_at: Mapped[datetime] = mapped_column(default=utcnow)
    """When it was received or queued; messages of a thread are shown in this order."""

    backfill: Mapped[bool] = mapped_column(default=False)
    """Mail that was old when it came in: no draft is made of it unless an agent asks, and nothing answers it by itself."""

    # triage (inbound)
    triage: Mapped[TriageState | None] = mapped_column(state_column(TriageState))
    triage_attempts: Mapped[int] = mapped_column(default=0)
    labels: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"name": "spam:ham", "score": 0.98}]`"""
    trace: Mapped[list[Any]] = mapped_column(default=list)

    # delivery (outbound)
    suggestion_id: Mapped[str | None] = mapped_column(String(36))
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    release_at: Mapped[datetime | None]
    """End of the undo window, or the earliest time of the next try."""
    attempts: Mapped[int] = mapped_column(default=0)
    claim_token: Mapped[str | None] = mapped_column(String(36))
    """Fences the claim: only the holder of the newest token may record an outcome."""
    lease_until: Mapped[datetime | None]
    error_code: Mapped[str] = mapped_column(String(60), default="")
    error_detail: Mapped[str] = mapped_column(String(1000), default="")
    settled: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """`{address: why}` of recipients who have it (no reason) or were refused for good, while others were asked to wait."""
    receipt: Mapped[str] = mapped_column(String(1000), default="")
    sent_at: Mapped[datetime | None]
    hinted_at: Mapped[datetime | None]
    """When the sweeper last enqueued a task for this row; it waits before it repeats."""
    screening: Mapped[Screening] = mapped_column(state_column(Screening), default=Screening.NONE)
    """What the look before the first attempt decided; its trail has the parts of the score in words (`screened:...`)."""
    spam_label: Mapped[str] = mapped_column(String(10), default="")
    """`ham` or `spam` of an outbound message; empty where nothing could score it."""
    spam_score: Mapped[float | None]
    """How probable it is, in [0, 1], that its reader takes it for spam."""

    thread: Mapped[Thread] = relationship(lazy="raise")
    attachments: Mapped[list[Attachment]] = relationship(lazy="raise", order_by="Attachment.position")
    events: Mapped[list[MessageEvent]] = relationship(
        lazy="raise", order_by="MessageEvent.occurred_at, MessageEvent.id"
    )

    __table_args__ = (
        UniqueConstraint("profile_id", "external_id"),
        Index(
            "uq_messages_content",
            "profile_id",
            "content_hash",
            unique=True,
            sqlite_where=sql("content_hash != ''"),
            postgresql_where=sql("content_hash != ''"),
        ),
        Index("ix_messages_thread", "thread_id", "occurred_at", "id"),
        Index("ix_messages_due", "status", "release_at"),
        Index("ix_messages_triage", "triage", "created_at"),
        Index("ix_messages_external", "external_id"),
        Index("ix_messages_suggestion", "suggestion_id"),
    )


class Attachment(Timestamps, Base):
    __tablename__ = "attachments"
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(default=0)
    filename: Mapped[str] = mapped_column(String(300), default="")
    content_type: Mapped[str] = mapped_column(String(100), default="application/octet-stream")
    size: Mapped[int] = mapped_column(default=0)
    content_id: Mapped[str] = mapped_column(String(300), default="")
    inline: Mapped[bool] = mapped_column(default=False)
    blob_key: Mapped[str] = mapped_column(String(300))
    risk: Mapped[str | None] = mapped_column(String(200))
    """Why opening it may do harm, in words; empty: nothing was found; None: it came in before anybody looked."""


class MessageEvent(Timestamps, Base):
    """The trail of a message: `queued`, `claimed`, `sent`, `failed`, `bounced` ... `event_id` makes a repeat harmless."""

    __tablename__ = "message_events"
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(200), unique=True)
    kind: Mapped[str] = mapped_column(String(40))
    occurred_at: Mapped[datetime] = mapped_column(default=utcnow)
    actor: Mapped[str] = mapped_column(String(80), default="")
    detail: Mapped[str] = mapped_column(String(1000), default="")
    __table_args__ = (Index("ix_message_events_message", "message_id", "occurred_at"),)


class Suggestion(Timestamps, Base):
    """A drafted reply to one inbound message, and what a person made of it: training data for free."""

    __tablename__ = "suggestions"
    thread_id: Mapped[str] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    state: Mapped[SuggestionState] = mapped_column(state_column(SuggestionState), default=SuggestionState.DRAFTING)
    version: Mapped[int] = mapped_column(default=1)
    """Grows with every change: the ETag, and part of the key that makes a second accept harmless."""
    text: Mapped[str] = mapped_column(Text, default="")
    word: Mapped[str] = mapped_column(String(20), default="check")
    """`ready`, `check` or `weak`: what the list and the card say."""
    confidence: Mapped[float] = mapped_column(default=0.0)
    model: Mapped[str] = mapped_column(String(200), default="")
    prompt_version: Mapped[str] = mapped_column(String(80), default="")
    instruction: Mapped[str] = mapped_column(String(500), default="")
    reasons: Mapped[list[Any]] = mapped_column(default=list)
    """At most three short sentences."""
    citations: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"source", "text", "document_id", "version", "score"}]` in order of their numbers."""
    checks: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"name", "passed", "detail"}]` of the guard."""
    marks: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"at", "number", "start", "end"}]`: citations behind characters of `text`, and the characters of the source."""
    lines: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"message_id", "line", "text"}]`: lines of the thread that are cited, numbered after `citations`."""
    spans: Mapped[list[Any]] = mapped_column(default=list)
    """`[{"start", "end", "kind", "text"}]`: what no source says. It cannot be sent while one is left."""
    trace: Mapped[list[Any]] = mapped_column(default=list)
    """The steps of the drafting, as in `Message.trace`."""
    intent: Mapped[str] = mapped_column(String(80), default="")
    """Of the thread when the draft was made: what outcomes are counted by."""
    estimate: Mapped[float | None]
    """The probability of needing no edit that was shown; None while there were too few outcomes to say one."""
    cached: Mapped[bool] = mapped_column(default=False)
    milliseconds: Mapped[float] = mapped_column(default=0.0)
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    """Starts of the drafting; a draft that kills its worker again and again is given up."""
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    final_text: Mapped[str] = mapped_column(Text, default="")
    edit_share: Mapped[float | None]
    """Normalised edit distance between draft and final text, 0 (as is) to 1."""
    reject_reason: Mapped[str] = mapped_column(String(40), default="")
    decided_at: Mapped[datetime | None]
    policy_id: Mapped[str | None] = mapped_column(String(36))
    """The grant it was sent under without a person; None when a person decided, and after that was taken back."""
    policy_bound: Mapped[float | None]
    """The lower bound of the intent's clean share at that moment."""
    hinted_at: Mapped[datetime | None]
    """When the sweeper last enqueued a task for this row; it waits before it repeats."""

    __table_args__ = (
        Index("ix_suggestions_thread", "thread_id", "created_at"),
        Index("ix_suggestions_message", "message_id"),
        Index("ix_suggestions_state", "state", "created_at"),
        Index("ix_suggestions_decided", "decided_at"),
    )


class DraftText(Timestamps, Base):
    """An agent's unsent words in a thread; they live here so that no reload or crash loses them."""

    __tablename__ = "draft_texts"
    thread_id: Mapped[str] = mapped_column(ForeignKey("threads.id", ondelete="CASCADE"))
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20), default="reply")
    text: Mapped[str] = mapped_column(Text, default="")
    fields: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Recipients and subject as they were typed, where they differ from what the thread says."""
    suggestion_id: Mapped[str | None] = mapped_column(String(36))
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)
    __table_args__ = (UniqueConstraint("thread_id", "agent_id", "kind"),)
