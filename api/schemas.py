"""Request and response types of `/api/v1`. Requests refuse unknown fields; responses are built here, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints

from assistant.db.access import Agent, ApiKey
from assistant.db.contacts import Contact
from assistant.db.messages import Attachment, Message, MessageEvent, Suggestion, Thread
from assistant.services.paging import Page
from assistant.services.threads import Change
from assistant.states import Author, Delivery, Direction, Screening, SuggestionState, ThreadState, TriageState

__all__ = [
    "EXAMPLE_ID",
    "AgentCreate",
    "AgentOut",
    "ApiKeyCreate",
    "ApiKeyOut",
    "ApiKeyRotate",
    "ApiKeySecret",
    "ContactChange",
    "ContactOut",
    "Counts",
    "In",
    "Link",
    "LinkUse",
    "Listing",
    "MessageOut",
    "Name",
    "Out",
    "PasswordChange",
    "Problem",
    "Ready",
    "Reference",
    "Reply",
    "Resolve",
    "SignIn",
    "SignedIn",
    "SuggestionAccept",
    "SuggestionAsk",
    "SuggestionOut",
    "SuggestionReject",
    "ThreadChange",
    "ThreadChanged",
    "ThreadOut",
    "example",
    "listing",
]

Item = TypeVar("Item")
EXAMPLE_ID = "019a0000-0000-7000-8000-000000000000"
_EMAIL = r"^[^@\x00-\x20\x7f-\xa0]{1,64}@[^@\x00-\x20\x7f-\xa0]{1,255}$"
Scope = Literal[
    "threads:read",
    "threads:write",
    "notes:read",
    "notes:write",
    "messages:send",
    "suggestions:read",
    "suggestions:write",
    "replies:read",
    "replies:write",
    "contacts:read",
    "contacts:write",
    "metrics:read",
]


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004  (pydantic turns only ValueError into an answer)
    return value


Overlap = Annotated[int, Field(ge=0, le=7 * 24 * 3600), BeforeValidator(_number)]
Hold = Annotated[int, Field(ge=0, le=60), BeforeValidator(_number)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Reference = Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]
Email = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=320, pattern=_EMAIL)]
Password = Annotated[str, StringConstraints(min_length=12, max_length=256)]


class In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    model_config = ConfigDict(frozen=True)


def example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


# -- errors and pages


class FieldError(Out):
    pointer: str = Field(description="Where: `/body/text`, `/query/limit` ...")
    message: str


class Problem(Out):
    """What went wrong (RFC 9457). `code` is stable; more members may follow, for example `agent` or `version`."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:notifyr:problem:conflict",
                    "title": "Conflict",
                    "status": 409,
                    "detail": "Bo already accepted this suggestion",
                    "code": "conflict",
                    "request_id": EXAMPLE_ID,
                    "agent": "Bo",
                }
            ]
        },
    )
    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] | None = Field(None, description="With `invalid-input`: every field that is wrong.")


class Listing(Out, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="Hand it back as `cursor` for the next page; null on the last one.")


# -- agents and signing in


class SignIn(In):
    model_config = In.model_config | example(email="ana@example.org", password="correct horse battery")  # noqa: S106  (an example)
    email: Email
    password: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class LinkUse(In):
    model_config = In.model_config | example(token="kB4c...", password="correct horse battery")  # noqa: S106  (an example)
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    password: Password | None = Field(None, description="Set this password at the same time.")


class PasswordChange(In):
    model_config = In.model_config | example(current="correct horse battery", new="staple correct horse")
    current: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    new: Password


class AgentCreate(In):
    model_config = In.model_config | example(email="bo@example.org", name="Bo", role="agent")
    email: Email
    name: Name
    role: Literal["agent", "admin"] = "agent"


class AgentOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    email: str
    name: str
    role: Literal["agent", "admin"]
    disabled: bool
    created_at: datetime

    @classmethod
    def of(cls, agent: Agent) -> AgentOut:
        return cls(
            id=agent.id,
            email=agent.email,
            name=agent.name,
            role="admin" if agent.role == "admin" else "agent",
            disabled=agent.disabled_at is not None,
            created_at=agent.created_at,
        )


class SignedIn(Out):
    agent: AgentOut
    csrf_token: str | None = Field(description="Send it as `X-CSRF-Token` with every change. Null for API keys.")
    scopes: list[str] | None = Field(description="What the API key may do. Null for a signed-in browser.")


class Link(Out):
    agent: AgentOut
    token: str = Field(description="Shown once: the one-time token of the sign-in link.")
    url: str = Field(description="The link to hand over.")


# -- API keys


class ApiKeyCreate(In):
    model_config = In.model_config | example(name="billing export", scopes=["threads:read"])
    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=20)
    expires_at: AwareDatetime | None = None


class ApiKeyRotate(In):
    model_config = In.model_config | example(overlap_seconds=3600)
    overlap_seconds: Overlap = Field(0, description="How long the old secret still works.")


class ApiKeyOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    name: str
    prefix: str = Field(examples=["ntf_k7m2q9x4ab"])
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> ApiKeyOut:
        return cls(
            id=key.id,
            name=key.name,
            prefix=f"ntf_{key.prefix}",
            scopes=list(key.scopes),
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )


class ApiKeySecret(Out):
    key: ApiKeyOut
    secret: str = Field(description="Shown once. Send it as `Authorization: Bearer ...`.")


# -- contacts


class IdentityOut(Out):
    channel: str
    address: str
    display_name: str


class ContactOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    display_name: str
    note: str
    identities: list[IdentityOut]
    created_at: datetime

    @classmethod
    def of(cls, contact: Contact) -> ContactOut:
        return cls(
            id=contact.id,
            display_name=contact.display_name,
            note=contact.note,
            identities=[
                IdentityOut(channel=i.channel, address=i.address, display_name=i.display_name)
                for i in contact.identities
            ],
            created_at=contact.created_at,
        )


class ContactChange(In):
    model_config = In.model_config | example(display_name="Ana Silva", note="prefers mail")
    display_name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=300)] | None = None
    note: Annotated[str, StringConstraints(max_length=2000)] | None = None


# -- threads


class ThreadOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    version: int = Field(description="Grows with every change of state, assignment or mark: the ETag.")
    channel: str
    subject: str
    snippet: str
    state: ThreadState
    unread: bool
    starred: bool
    needs_review: bool
    snoozed_until: datetime | None
    assignee: AgentOut | None
    contact: ContactOut
    message_count: int
    attachment_count: int
    last_message_at: datetime
    last_inbound_at: datetime | None
    last_direction: Direction
    intent: str
    intent_score: float | None
    urgency: str
    spam_score: float | None
    certainty: float | None
    suggestion: str = Field(description="`ready`, `check`, `drafting`, `stale`, `none` or `sent`.")
    created_at: datetime

    @classmethod
    def of(cls, thread: Thread) -> ThreadOut:
        return cls(
            **{
                name: getattr(thread, name)
                for name in cls.model_fields
                if name not in {"assignee", "contact", "suggestion"}
            },
            assignee=AgentOut.of(thread.assignee) if thread.assignee is not None else None,
            contact=ContactOut.of(thread.contact),
            suggestion=thread.suggestion_mark,
        )


class ThreadChange(In):
    """Only the named fields change. `assignee_id: null` takes the thread from everybody."""

    model_config = In.model_config | example(state="closed")
    state: ThreadState | None = None
    snoozed_until: AwareDatetime | None = None
    assignee_id: Annotated[str, StringConstraints(max_length=36)] | None = None
    unread: StrictBool | None = None
    starred: StrictBool | None = None

    def values(self) -> dict[str, Any]:
        """The named fields; null counts only where it means something."""
        named = self.model_dump(exclude_unset=True)
        return {
            name: value
            for name, value in named.items()
            if value is not None or name in {"assignee_id", "snoozed_until"}
        }


class ThreadChanged(Out):
    thread: ThreadOut
    undo: dict[str, Any] = Field(description="Send these as the next change to take this one back.")

    @classmethod
    def of(cls, change: Change) -> ThreadChanged:
        return cls(thread=ThreadOut.of(change.thread), undo=dict(change.undo))


class Counts(Out):
    """How many threads each view holds."""

    inbox: int
    unread: int
    review: int
    spam: int
    sent: int
    snoozed: int
    done: int
    trash: int
    outbox: int
    all: int


# -- messages


class Person(Out):
    address: str
    name: str = ""


class LabelOut(Out):
    name: str
    score: float


class AttachmentOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    filename: str
    content_type: str = Field(description="Found in the content, not the type that was claimed.")
    size: int
    inline: bool
    risk: str | None = Field(
        description="Why opening it may do harm, in words; empty: nothing was found; null: nobody looked."
    )
    url: str

    @classmethod
    def of(cls, attachment: Attachment) -> AttachmentOut:
        return cls(
            id=attachment.id,
            filename=attachment.filename,
            content_type=attachment.content_type,
            size=attachment.size,
            inline=attachment.inline,
            risk=attachment.risk,
            url=f"/api/v1/attachments/{attachment.id}",
        )


class EventOut(Out):
    kind: str
    occurred_at: datetime
    actor: str
    detail: str

    @classmethod
    def of(cls, event: MessageEvent) -> EventOut:
        return cls(kind=event.kind, occurred_at=event.occurred_at, actor=event.actor, detail=event.detail)


class MessageOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    thread_id: str
    direction: Direction
    author: Author
    agent_id: str | None
    status: Delivery
    subject: str
    text: str
    new_text: str = Field(description="`text` without quoted history and signature.")
    html: str = Field(description="As received and NOT safe: sanitise before showing.")
    sender: Person
    to: list[Person]
    cc: list[Person]
    occurred_at: datetime
    sent_at: datetime | None
    release_at: datetime | None = Field(
        description="While `held`: the end of the undo window; null there: it is held back as spam until it is released."
    )
    screening: Screening = Field(
        description="What the look before sending decided about an outbound message; empty before it. The parts of the score "
        "are in the event `screened:...`."
    )
    spam_label: str = Field(description="`ham` or `spam` of an outbound message; empty: not scored.")
    spam_score: float | None = Field(description="How probable it is, from 0 to 1, that its reader takes it for spam.")
    auto_submitted: str
    quarantined: bool
    triage: TriageState | None
    labels: list[LabelOut]
    suggestion_id: str | None
    error_code: str
    error_detail: str
    attempts: int
    attachments: list[AttachmentOut]
    events: list[EventOut]

    @classmethod
    def of(cls, message: Message) -> MessageOut:
        return cls(
            **{
                name: getattr(message, name)
                for name in cls.model_fields
                if name not in {"sender", "to", "cc", "labels", "attachments", "events"}
            },
            sender=Person(address=message.from_address, name=message.from_name),
            to=_people(message.to_addresses),
            cc=_people(message.cc_addresses),
            labels=[LabelOut(name=label["name"], score=label["score"]) for label in message.labels],
            attachments=[AttachmentOut.of(attachment) for attachment in message.attachments],
            events=[EventOut.of(event) for event in message.events],
        )


def _people(stored: Sequence[Any]) -> list[Person]:
    return [Person(address=str(person.get("address", "")), name=str(person.get("name", ""))) for person in stored]


class Reply(In):
    model_config = In.model_config | example(text="Hello Ana, your refund is on its way.")
    text: Text
    subject: Annotated[str, StringConstraints(max_length=900)] | None = None
    upload_ids: list[Reference] = Field(
        default_factory=list, max_length=20, description="Files of yours that wait (see uploads), to send along."
    )
    hold_seconds: Hold | None = Field(None, description="Undo window; default: the server's setting.")


class Resolve(In):
    """What a person found out about a message whose outcome is unknown."""

    model_config = In.model_config | example(outcome="sent")
    outcome: Literal["sent", "resend", "failed"]


# -- suggestions


class CheckOut(Out):
    name: str
    passed: bool
    detail: str


class CitationOut(Out):
    source: str
    text: str
    score: float


class SuggestionOut(Out):
    id: str = Field(examples=[EXAMPLE_ID])
    thread_id: str
    message_id: str
    state: SuggestionState
    version: int = Field(description="The ETag: send it back as `If-Match`.")
    text: str
    word: str = Field(description="`ready`, `check` or `weak`.")
    confidence: float = Field(description="A score between 0 and 1, not a probability.")
    estimate: float | None = Field(
        description="Measured probability of needing no edit; null while too few are decided."
    )
    unsupported: list[str] = Field(description="What no source says: it cannot be sent before this is edited out.")
    model: str
    prompt_version: str
    instruction: str
    reasons: list[str]
    citations: list[CitationOut]
    checks: list[CheckOut]
    cached: bool
    milliseconds: float
    agent_id: str | None
    final_text: str
    edit_share: float | None
    reject_reason: str
    decided_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, suggestion: Suggestion) -> SuggestionOut:
        return cls(
            **{
                name: getattr(suggestion, name)
                for name in cls.model_fields
                if name not in {"reasons", "citations", "checks", "unsupported"}
            },
            reasons=[str(reason) for reason in suggestion.reasons],
            unsupported=[str(span["text"]) for span in suggestion.spans],
            citations=[
                CitationOut(source=c.get("source", ""), text=c.get("text", ""), score=c.get("score", 0.0))
                for c in suggestion.citations
            ],
            checks=[
                CheckOut(name=c.get("name", ""), passed=bool(c.get("passed")), detail=c.get("detail", ""))
                for c in suggestion.checks
            ],
        )


class SuggestionAccept(In):
    model_config = In.model_config | example(text="Hello Ana, your refund is on its way.", hold_seconds=10)
    text: Text | None = Field(None, description="The edited text; absent: the suggestion as it is.")
    hold_seconds: Hold | None = Field(None, description="Undo window; default: the server's setting.")


class SuggestionReject(In):
    model_config = In.model_config | example(reason="wrong tone")
    reason: Literal["", "wrong facts", "wrong tone", "not needed", "unsafe", "language", "other"] = ""


class SuggestionAsk(In):
    model_config = In.model_config | example(instruction="shorter")
    instruction: Annotated[str, StringConstraints(max_length=500)] = ""


# -- health


class Ready(Out):
    status: Literal["ready", "degraded", "down"]
    checks: dict[str, str] = Field(description="Each part with `up` or `down`.")
    models: dict[str, Any] = Field(description="What the workers last said about their models.")


def listing(page: Page[Any], convert: Any) -> dict[str, Any]:
    """A page as the body of an answer."""
    return {"items": [convert(item) for item in page.items], "next_cursor": page.next_cursor}
