"""What became of the mail of each thread, as one word with an icon: the rows of Sent and Outbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy.orm import Session

from assistant.services import outbox_rows
from assistant.states import Delivery, Screening
from channels.base import KEPT_HERE

__all__ = ["VIEWS", "Became", "became"]

VIEWS = frozenset({"sent", "outbox"})
"""The lists whose rows say it."""


class Became(NamedTuple):
    """The word a person reads, its icon, and the class of its colour."""

    word: str
    icon: str
    tone: str = ""


_WORDS: Mapping[Delivery, Became] = MappingProxyType(
    {
        Delivery.HELD: Became("held", "clock", "chip-warn"),
        Delivery.QUEUED: Became("queued", "upload"),
        Delivery.SENDING: Became("sending", "upload"),
        Delivery.SENT: Became("sent", "send"),
        Delivery.DELIVERED: Became("delivered", "check", "mark-ready"),
        Delivery.DEFERRED: Became("delayed", "clock", "chip-warn"),
        Delivery.BOUNCED: Became("bounced", "triangle-alert", "chip-bad"),
        Delivery.REJECTED: Became("rejected", "triangle-alert", "chip-bad"),
        Delivery.FAILED: Became("failed", "triangle-alert", "chip-bad"),
        Delivery.CANCELLED: Became("taken back", "undo-2"),
        Delivery.UNKNOWN: Became("unknown", "info", "chip-warn"),
    }
)
_HELD_BACK = Became("held back", "shield-alert", "chip-bad")
"""It looks like spam and waits for an agent."""
_WARNED = Became("sent, looks like spam", "shield-alert", "chip-warn")
_KEPT = Became("kept here", "inbox", "chip-warn")
"""No relay is set: it lies in the outbox folder and went nowhere."""


def became(session: Session, thread_ids: Iterable[str], view: str) -> dict[str, Became]:
    """What became of the newest outgoing message of each thread; in the outbox, of the newest that is not settled."""
    ids = list(thread_ids)
    if view not in VIEWS or not ids:
        return {}
    rows = outbox_rows.outcomes(session, ids, unsettled=view == "outbox")
    return {
        thread_id: _became(status, receipt, screening)
        for thread_id, status, receipt, screening in rows
        if status in _WORDS
    }


def _became(status: Delivery, receipt: str, screening: Screening) -> Became:
    if status is Delivery.HELD and screening is Screening.HOLD:
        return _HELD_BACK
    if status is Delivery.SENT and KEPT_HERE in receipt:
        return _KEPT
    return _WARNED if status is Delivery.SENT and screening is Screening.WARN else _WORDS[status]
