"""Frozen values that cross the seams between floors. Channels and models see these, never a database row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

__all__ = [
    "Address",
    "Attachment",
    "Check",
    "CitedLine",
    "Decision",
    "DecisionKind",
    "Draft",
    "InboundMessage",
    "Label",
    "Mark",
    "MessageClass",
    "OutboundMessage",
    "Passage",
    "Prompt",
    "Receipt",
    "Refusal",
    "Span",
    "StoredAttachment",
    "ThreadHeaders",
    "TraceStep",
    "Turn",
    "TurnMessage",
    "Webhook",
]


class MessageClass(StrEnum):
    """What kind of mail an outbound message is. It fixes the headers (RFC 3834 marks, list headers)."""

    PERSONAL = "personal"
    """Written or approved by a human agent."""
    AUTO_REPLY = "auto-reply"
    """Sent by a policy in answer to a message: `Auto-Submitted: auto-replied`."""
    AUTO_GENERATED = "auto-generated"
    """Sent by a workflow: `Auto-Submitted: auto-generated`."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a channel, normalised once at the edge (email: domain in lower case A-labels; phones: E.164)."""

    channel: str
    value: str
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    filename: str
    content_type: str
    """The type found in the content, not the one claimed."""
    content: bytes
    content_id: str = ""
    inline: bool = False
    risk: str = ""
    """Why opening it may do harm, in words; empty when nothing was found."""


@dataclass(frozen=True, slots=True)
class StoredAttachment:
    """An attachment whose bytes are in the blob store."""

    filename: str
    content_type: str
    size: int
    blob_key: str
    content_id: str = ""
    inline: bool = False
    risk: str | None = None
    """As of `Attachment`; None when nobody looked."""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """What came in, normalised. All text is valid Unicode (NFC) without NUL or control characters."""

    channel: str
    external_id: str
    """The carrier's id. Email: Message-ID with its angle brackets, or a hash of the whole message when it has none."""
    sender: Address
    recipients: tuple[Address, ...]
    subject: str
    text: str
    html: str = ""
    attachments: tuple[Attachment, ...] = ()
    reply_to: Address | None = None
    reply_to_id: str = ""
    """Email: the id in In-Reply-To."""
    references: tuple[str, ...] = ()
    received_at: datetime | None = None
    sent_at: datetime | None = None
    auto_submitted: str = ""
    """Empty for a person; else why it is a robot: `auto-replied`, `auto-generated`, `bounce`, `list`, `bulk`, `complaint` ..."""
    raw_key: str = ""
    content_hash: str = ""
    """SHA-256 of the raw bytes, hexadecimal."""
    cc: tuple[Address, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Few named headers that later stages need, in lower case. Never the whole set."""
    defects: tuple[str, ...] = ()
    """What was wrong with the bytes; a message with `quarantine` in it is shown only as raw."""


@dataclass(frozen=True, slots=True)
class ThreadHeaders:
    """Email threading of an answer (RFC 5322, section 3.6.4)."""

    message_id: str
    in_reply_to: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    id: str
    sender: Address
    to: tuple[Address, ...]
    subject: str
    text: str
    html: str = ""
    attachments: tuple[Attachment, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    """In the envelope only: no header names them."""
    thread_headers: ThreadHeaders | None = None
    message_class: MessageClass = MessageClass.PERSONAL
    idempotency_key: str = ""
    created_at: datetime | None = None
    settled: frozenset[str] = frozenset()
    """Recipients of an earlier attempt that have it, or never will: they stand in the headers, not in the envelope."""
    deadline: float | None = None
    """Moment on the monotonic clock after which it must not be handed over any more: the claim may be someone else's."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One recipient that was refused while others were accepted. `bad_address`: writing again is pointless; `later`: not yet."""

    address: str
    detail: str
    bad_address: bool = False
    later: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a carrier said when it accepted: `status` is `sent` or `delivered`."""

    external_id: str
    status: str = "sent"
    detail: str = ""
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Webhook:
    """A request without a web framework. `headers` in lower case, `body` the raw bytes, `url` as the caller saw it."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    url: str


@dataclass(frozen=True, slots=True)
class Label:
    """`name` is `head:class` (`spam:spam`, `intent:refund_status`); `score` a probability in [0, 1]."""

    name: str
    score: float

    @property
    def head(self) -> str:
        return self.name.partition(":")[0]

    @property
    def value(self) -> str:
        return self.name.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of approved knowledge. `score` is the retriever's similarity in [0, 1]."""

    text: str
    source: str
    score: float
    document_id: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a generator is asked. `system` is ours and fixed; `user` carries untrusted text as data only."""

    system: str
    user: str
    version: str
    knowledge_version: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A citation in a draft: number `number` stands behind character `at`; `start` to `end` of the source say the same."""

    at: int
    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CitedLine:
    """A line of an earlier message that a draft repeats a fact from; numbered after the passages. `line` counts from 1."""

    message_id: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a draft that no source supports: a `sentence`, or one `number`, `link`, `name` ... in it."""

    start: int
    end: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    text: str
    model: str
    prompt_version: str
    confidence: float
    citations: tuple[str, ...] = ()
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    marks: tuple[Mark, ...] = ()
    spans: tuple[Span, ...] = ()
    lines: tuple[CitedLine, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One guard's finding on a draft."""

    name: str
    passed: bool
    detail: str = ""


class DecisionKind(StrEnum):
    SUGGEST = "suggest"
    REPLY = "reply"
    HANDOFF = "handoff"
    STOP = "stop"
    """Nothing to do: spam, robot, bounce, or opt-out."""


@dataclass(frozen=True, slots=True)
class Decision:
    kind: DecisionKind
    reason: str


@dataclass(frozen=True, slots=True)
class TraceStep:
    """What one stage did. `milliseconds` is wall time; `outcome` is `ok`, `stop`, `handoff`, `skipped` or `failed`."""

    stage: str
    outcome: str
    milliseconds: float
    reason: str
    score: float | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnMessage:
    """One earlier message of the thread, as the stages see it. `text` has quoted history removed."""

    id: str
    direction: str
    text: str
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange on its way through the stages. Each stage returns a copy with its part filled in."""

    message_id: str
    thread_id: str
    message: InboundMessage
    new_text: str
    """The text of this message without quoted history and signature: what labels are decided on."""
    contact_name: str = ""
    history: tuple[TurnMessage, ...] = ()
    labels: tuple[Label, ...] = ()
    passages: tuple[Passage, ...] = ()
    draft: Draft | None = None
    checks: tuple[Check, ...] = ()
    decision: Decision | None = None
    trace: tuple[TraceStep, ...] = ()

    def label(self, head: str) -> Label | None:
        """The best label of a head, or None when no stage gave one."""
        found = [label for label in self.labels if label.head == head]
        return max(found, key=lambda label: label.score) if found else None
