"""What carriers report about a message after it left, and the fold that makes a status of it.

Reports come late, twice and out of order. `fold` is therefore a join over a lattice: the same set of events gives the same
outcome in any order and with any repeats, and an outcome never goes backwards.

    sent < deferred < delivered < rejected < bounced          (delivery; the highest one reported counts)
    opened, clicked, replied, complained, unsubscribed        (engagement; a set, beside delivery)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from assistant.states import Delivery, Engagement

__all__ = ["DeliveryEvent", "EventKind", "Outcome", "advance", "fold"]


class EventKind(StrEnum):
    """Our words for what a carrier reports. A word that a carrier invents tomorrow becomes `unknown` with its raw kept."""

    SENT = "sent"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    BOUNCED = "bounced"
    OPENED = "opened"
    CLICKED = "clicked"
    REPLIED = "replied"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    UNKNOWN = "unknown"


_DELIVERY: dict[EventKind, Delivery] = {
    EventKind.SENT: Delivery.SENT,
    EventKind.DEFERRED: Delivery.DEFERRED,
    EventKind.DELIVERED: Delivery.DELIVERED,
    EventKind.REJECTED: Delivery.REJECTED,
    EventKind.BOUNCED: Delivery.BOUNCED,
}
_ENGAGEMENT: dict[EventKind, Engagement] = {
    EventKind.OPENED: Engagement.OPENED,
    EventKind.CLICKED: Engagement.CLICKED,
    EventKind.REPLIED: Engagement.REPLIED,
    EventKind.COMPLAINED: Engagement.COMPLAINED,
    EventKind.UNSUBSCRIBED: Engagement.UNSUBSCRIBED,
}
_RANK: dict[Delivery, int] = {status: rank for rank, status in enumerate(_DELIVERY.values())}
_BEFORE_REPORTS = frozenset({Delivery.SENDING, Delivery.UNKNOWN})
"""A report proves that the message left, whatever our own record says."""


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """One report. `event_id` is the carrier's, or derived from the whole report: a repeat has the same one."""

    event_id: str
    kind: EventKind
    external_id: str
    """The message it is about, by the carrier's id (email: our Message-ID)."""
    occurred_at: datetime
    address: str = ""
    reason: str = ""
    """Our word for why: `bad-address`, `mailbox-full`, `policy`, `spam`, `expired` ..."""
    detail: str = ""
    """The carrier's own words."""
    raw_key: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a set of events adds up to. `status` is None when none of them is about delivery."""

    status: Delivery | None = None
    engagement: frozenset[Engagement] = field(default_factory=frozenset)


def fold(events: Iterable[DeliveryEvent]) -> Outcome:
    """The outcome of a set of events, whatever their order and however often each one came."""
    kinds = {event.kind for event in events}
    statuses = [_DELIVERY[kind] for kind in kinds if kind in _DELIVERY]
    return Outcome(
        status=max(statuses, key=_RANK.__getitem__, default=None),
        engagement=frozenset(_ENGAGEMENT[kind] for kind in kinds if kind in _ENGAGEMENT),
    )


def advance(current: Delivery, outcome: Outcome) -> Delivery:
    """The status after `outcome`: never behind `current`, and only for messages that have left or may have."""
    if outcome.status is None:
        return current
    if current in _BEFORE_REPORTS:
        return outcome.status
    if current not in _RANK:
        return current
    return max(current, outcome.status, key=_RANK.__getitem__)
