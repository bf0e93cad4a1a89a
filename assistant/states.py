"""States and the moves between them. `transition` refuses every move that is not listed."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from assistant.errors import Conflict

__all__ = [
    "Author",
    "Delivery",
    "Direction",
    "Engagement",
    "ProfileState",
    "Screening",
    "SuggestionState",
    "ThreadState",
    "TriageState",
    "transition",
]


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Author(StrEnum):
    """Who wrote a message: the person outside, a human agent, or the assistant (by policy)."""

    CONTACT = "contact"
    AGENT = "agent"
    ASSISTANT = "assistant"


class Delivery(StrEnum):
    RECEIVED = "received"
    HELD = "held"
    """Queued with an undo window: the sweeper or the delayed task releases it. Without its end: held back as spam, for an agent."""
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Screening(StrEnum):
    """What the look at an outgoing message before it is sent decided about it, once."""

    NONE = ""
    """Nobody has looked yet."""
    ALLOW = "allow"
    WARN = "warn"
    """Sent, with a mark that says why a reader may take it for spam."""
    HOLD = "hold"
    """Not sent until an agent releases it."""
    REJECT = "reject"
    RELEASED = "released"
    """It was held, and an agent said to send it all the same."""


class Engagement(StrEnum):
    OPENED = "opened"
    CLICKED = "clicked"
    REPLIED = "replied"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"


class ThreadState(StrEnum):
    OPEN = "open"
    PENDING = "pending"
    SNOOZED = "snoozed"
    CLOSED = "closed"
    SPAM = "spam"
    TRASH = "trash"


class ProfileState(StrEnum):
    ACTIVE = "active"
    BLOCKED = "blocked"
    EXPIRED = "expired"
    DISABLED = "disabled"


class SuggestionState(StrEnum):
    DRAFTING = "drafting"
    PROPOSED = "proposed"
    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    EXPIRED = "expired"


class TriageState(StrEnum):
    """Where an inbound message stands on its way through the stages."""

    WAITING = "waiting"
    DONE = "done"
    PARTIAL = "partial"
    """Some stage was not available; the others did their part, and the trace names the missing one."""
    PARKED = "parked"
    """It failed too often; a person decides."""


_DELIVERY: dict[Delivery, frozenset[Delivery]] = {
    Delivery.RECEIVED: frozenset(),
    Delivery.HELD: frozenset({Delivery.QUEUED, Delivery.CANCELLED, Delivery.REJECTED}),
    Delivery.QUEUED: frozenset(
        {Delivery.SENDING, Delivery.HELD, Delivery.CANCELLED, Delivery.FAILED, Delivery.REJECTED}
    ),
    Delivery.SENDING: frozenset(
        {Delivery.SENT, Delivery.QUEUED, Delivery.FAILED, Delivery.REJECTED, Delivery.UNKNOWN, Delivery.CANCELLED}
    ),
    # To `UNKNOWN` only when a person takes back that it arrived, or that it did not.
    Delivery.SENT: frozenset(
        {Delivery.DELIVERED, Delivery.DEFERRED, Delivery.BOUNCED, Delivery.REJECTED, Delivery.UNKNOWN}
    ),
    Delivery.DEFERRED: frozenset({Delivery.DELIVERED, Delivery.BOUNCED, Delivery.REJECTED}),
    Delivery.DELIVERED: frozenset({Delivery.BOUNCED}),
    Delivery.BOUNCED: frozenset(),
    Delivery.REJECTED: frozenset(),
    Delivery.FAILED: frozenset({Delivery.QUEUED, Delivery.UNKNOWN}),
    Delivery.CANCELLED: frozenset(),
    Delivery.UNKNOWN: frozenset(
        {Delivery.SENT, Delivery.QUEUED, Delivery.FAILED, Delivery.DELIVERED, Delivery.BOUNCED}
    ),
}
_THREAD: dict[ThreadState, frozenset[ThreadState]] = {state: frozenset(ThreadState) - {state} for state in ThreadState}
_SUGGESTION: dict[SuggestionState, frozenset[SuggestionState]] = {
    SuggestionState.DRAFTING: frozenset({SuggestionState.PROPOSED, SuggestionState.EXPIRED, SuggestionState.REJECTED}),
    SuggestionState.PROPOSED: frozenset(
        {SuggestionState.ACCEPTED, SuggestionState.EDITED, SuggestionState.REJECTED, SuggestionState.EXPIRED}
    ),
    # Undo within the send window and undo of a dismissal bring a suggestion back.
    SuggestionState.ACCEPTED: frozenset({SuggestionState.PROPOSED}),
    SuggestionState.EDITED: frozenset({SuggestionState.PROPOSED}),
    SuggestionState.REJECTED: frozenset({SuggestionState.PROPOSED, SuggestionState.EXPIRED}),
    SuggestionState.EXPIRED: frozenset(),
}
_PROFILE: dict[ProfileState, frozenset[ProfileState]] = {
    ProfileState.ACTIVE: frozenset({ProfileState.BLOCKED, ProfileState.EXPIRED, ProfileState.DISABLED}),
    ProfileState.BLOCKED: frozenset({ProfileState.ACTIVE, ProfileState.DISABLED}),
    ProfileState.EXPIRED: frozenset({ProfileState.ACTIVE, ProfileState.DISABLED}),
    ProfileState.DISABLED: frozenset({ProfileState.ACTIVE}),
}

_MOVES: dict[type[StrEnum], dict[StrEnum, frozenset[StrEnum]]] = {
    Delivery: _DELIVERY,  # type: ignore[dict-item]  # dict is invariant; each table is keyed by its own enum
    ThreadState: _THREAD,  # type: ignore[dict-item]
    SuggestionState: _SUGGESTION,  # type: ignore[dict-item]
    ProfileState: _PROFILE,  # type: ignore[dict-item]
}

State = TypeVar("State", Delivery, ThreadState, SuggestionState, ProfileState)


_LOOK = "Reload the page to see it as it is now."
_WORDS: dict[type[StrEnum], tuple[str, dict[str, tuple[str, str]]]] = {
    Delivery: (
        "message",
        {
            Delivery.RECEIVED: ("came in", "Reply to it instead."),
            Delivery.HELD: ("is held", "Its thread says for how long, or what it looks like: release it there."),
            Delivery.QUEUED: ("waits to be sent", _LOOK),
            Delivery.SENDING: ("is being sent", "Wait a moment: its row says what became of it."),
            Delivery.SENT: ("was sent", "Write again if something in it was wrong."),
            Delivery.DELIVERED: ("was delivered", "Write again if something in it was wrong."),
            Delivery.DEFERRED: ("was put off by their server", _LOOK),
            Delivery.BOUNCED: ("came back", "Check the address, and write again."),
            Delivery.REJECTED: ("was refused", "Its thread says by whom and why: write again."),
            Delivery.FAILED: ("could not be sent", _LOOK),
            Delivery.CANCELLED: ("was taken back", "Its words are in your reply: send them from there."),
            Delivery.UNKNOWN: ("may have been sent", "Say first what became of it, in its thread."),
        },
    ),
    ThreadState: (
        "thread",
        {
            ThreadState.OPEN: ("is open", _LOOK),
            ThreadState.PENDING: ("waits for an answer", _LOOK),
            ThreadState.SNOOZED: ("is snoozed", _LOOK),
            ThreadState.CLOSED: ("is done", _LOOK),
            ThreadState.SPAM: ("is held as spam", _LOOK),
            ThreadState.TRASH: ("is in the trash", _LOOK),
        },
    ),
    SuggestionState: (
        "suggestion",
        {
            SuggestionState.DRAFTING: ("is being written", "Wait until it is there, or stop it."),
            SuggestionState.PROPOSED: ("waits for a decision", _LOOK),
            SuggestionState.ACCEPTED: ("was accepted", "Its message is in the thread."),
            SuggestionState.EDITED: ("was edited and sent", "Its message is in the thread."),
            SuggestionState.REJECTED: ("was dismissed", "Undo the dismissal, or draft again."),
            SuggestionState.EXPIRED: (
                "is stale: they wrote again after it",
                "Read the newer message, then draft again.",
            ),
        },
    ),
    ProfileState: (
        "profile",
        {
            ProfileState.ACTIVE: ("sends", _LOOK),
            ProfileState.BLOCKED: ("is stopped because its server refused us", _LOOK),
            ProfileState.EXPIRED: ("is stopped because its credentials ended", _LOOK),
            ProfileState.DISABLED: ("is switched off", "An admin can switch it on in the settings."),
        },
    ),
}
"""What a person calls it, what is said of each of its states, and what can be done then. Equal words are one key: a table each."""


def transition(current: State, new: State) -> State:
    """Return `new` when the move is allowed, else raise `Conflict` in a sentence: what it is now, and what can be done."""
    if new in _MOVES[type(current)][current]:
        return new
    what, said = _WORDS[type(current)]
    now, step = said[current]
    already = " already" if current is new else ""
    facts: dict[str, object] = {"state": current.value, "wanted": new.value}
    raise Conflict(f"this {what} {now}{already}, so nothing was changed. {step}", detail=facts)
