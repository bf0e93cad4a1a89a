"""Words and numbers as people read them: ages, sizes, what became of a message, what an error asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.services.attempts import PARTLY
from assistant.states import Delivery, Screening
from channels.base import KEPT_HERE

__all__ = [
    "CHANNEL_WORDS",
    "DID",
    "FILTERS",
    "HELPS",
    "MARKS",
    "MARK_MEANINGS",
    "NEXT_STEPS",
    "PLACES",
    "SETTLED",
    "VIEW_WORDS",
    "age",
    "ago",
    "delivery",
    "initials",
    "size",
    "use_zone",
]

_ZONE: ContextVar[tzinfo] = ContextVar("zone", default=UTC)
_UNDO = timedelta(seconds=60)
"""The longest undo window: what is held longer is sent later."""
VIEW_WORDS: dict[str, tuple[str, str]] = {
    "inbox": ("Inbox", "inbox"),
    "review": ("Needs review", "sparkles"),
    "unread": ("Unread", "mail"),
    "snoozed": ("Snoozed", "clock"),
    "sent": ("Sent", "send"),
    "outbox": ("Outbox", "upload"),
    "done": ("Done", "check"),
    "spam": ("Spam", "shield"),
    "trash": ("Trash", "trash"),
}
"""View -> its name and icon, in the order of the rail."""

CHANNEL_WORDS: dict[str, tuple[str, str]] = {
    "email": ("Email", "mail"),
    "sms": ("SMS", "message-square"),
    "whatsapp": ("WhatsApp", "message-circle"),
}
"""Channel -> its name and icon. A channel that is not here is shown by its own name."""

STATES = {"closed": "done", "trash": "in the trash"}
"""State of a thread -> what a person calls it, where that is not its own name."""

DID = {
    "done": "Done",
    "spam": "Moved to spam",
    "not-spam": "Released to the inbox",
    "trash": "Moved to trash",
    "reopen": "Reopened",
    "snooze": "Snoozed until",
    "star": "Starred",
    "unstar": "Star removed",
    "assign": "Assigned to",
    "unassign": "Assigned to nobody",
    "unread": "Marked as unread",
    "read": "Marked as read",
}
"""An act on a thread -> what is said when it was done, to be followed by the moment or the agent."""

MARKS = {
    "ready": "ready",
    "check": "check",
    "drafting": "drafting",
    "stale": "stale",
    "none": "",
    "sent": "sent by policy",
}

SETTLED = {
    "sent": "Noted: it arrived",
    "failed": "Noted: it did not arrive",
    "resend": "It is sent again",
    "retry": "It is tried again",
}
"""What a person said of a message that failed or whose fate was unknown -> what is said then."""

MARK_MEANINGS = {
    "ready": "The draft is likely to need no edit. Read it and send it.",
    "check": "A draft is there; read it with care, something in it may be missing or unsure.",
    "drafting": "The model is writing.",
    "stale": "They wrote again after this was drafted. Draft again.",
    "no draft": "A person is asked, and nothing could be suggested. The card in the thread says why.",
    "sent": "Sent by policy: it left without a person, and its thread holds a receipt.",
}
"""What the mark of a suggestion means, for the help page."""

PLACES = (
    ("/compose", "New message", False),
    ("/knowledge", "Knowledge", False),
    ("/learning", "Teach the models", False),
    ("/models", "Models", False),
    ("/settings", "Settings", False),
    ("/settings/replies", "Saved replies", False),
    ("/settings/trust", "Trust", False),
    ("/settings/agents", "Agents", True),
    ("/settings/keys", "API keys", True),
    ("/settings/intents", "Intents", True),
    ("/settings/labels", "Model labels", True),
    ("/settings/server", "Server settings", True),
    ("/settings/audit", "Audit trail", True),
)
"""Pages beside the inbox: address, name, for admins only."""

HELPS = (
    ("/help", "Help"),
    ("/help#search", "How to search"),
    ("/help#marks", "What ready, check and stale mean"),
    ("/help#moments", "How to write a moment for snoozing"),
    ("/help#undo", "How undo works"),
    ("/help#alone", "What leaves without a person"),
    ("/settings#keys", "Change keys"),
)
"""What the palette offers as help."""

NEXT_STEPS = {
    "*": "Go back and try again. If it happens again, tell whoever runs this server the request id.",
    "not-found": "It may have been moved or deleted. Go back to the inbox.",
    "not-allowed": "Ask an admin to do this, or to give you the right to.",
    "csrf-token": "The page was open too long. Reload it and try again; what you typed is kept as a draft.",
    "rate-limited": "Wait a moment, then try again.",
    "storage": "The database or the disk is not available. Nothing was changed; try again in a minute.",
    "confirm-send": "Change it, or press Send again if it is meant.",
    "too-large": "Leave a file out, or send a link to it.",
    "invalid-input": "Correct it and try again; what you typed is kept.",
    "conflict": "Somebody else was faster. Reload to see what they did.",
    "stale-suggestion": "Read the newer message, then draft again.",
    "precondition-failed": "Reload to see the change, then decide again.",
    "unknown-host": "Open the address that the server printed at its start.",
}


def use_zone(zone: tzinfo) -> None:
    """The time zone that moments are shown in while one page is rendered."""
    _ZONE.set(zone)


def age(moment: datetime | None) -> str:
    """How long ago, short: `now`, `4 min`, `3 h`, `2 d`, then the date."""
    if moment is None:
        return ""
    seconds = (utcnow() - moment).total_seconds()
    moment = moment.astimezone(_ZONE.get())
    if seconds < -60:
        return moment.strftime("%d %b %H:%M")
    if seconds < 60:
        return "now"
    for limit, unit, name in ((3600, 60, "min"), (86_400, 3600, "h"), (7 * 86_400, 86_400, "d")):
        if seconds < limit:
            return f"{int(seconds // unit)} {name}"
    return moment.strftime("%d %b" if moment.year == utcnow().year else "%d %b %Y")


def ago(moment: datetime | None) -> str:
    """How long ago, within a sentence: `just now`, `4 min ago`, then `on 12 Mar`."""
    words = age(moment)
    if words in ("", "now"):
        return words and "just now"
    return f"{words} ago" if words.endswith((" min", " h", " d")) else f"on {words}"


def exact(moment: datetime | None) -> str:
    return moment.astimezone(_ZONE.get()).strftime("%a %d %b %Y, %H:%M %Z") if moment else ""


def iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def clock(moment: datetime | None) -> str:
    return moment.astimezone(_ZONE.get()).strftime("%H:%M") if moment else ""


def moment_of(text: str) -> datetime | None:
    """An ISO moment of a page's address; None when it is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None


def until(moment: datetime | None) -> str:
    """A moment to come, short: `17:00`, `Tue 9:00`, then the date."""
    if moment is None:
        return ""
    here, now = moment.astimezone(_ZONE.get()), utcnow().astimezone(_ZONE.get())
    day = "" if here.date() == now.date() else here.strftime("%a " if here - now < timedelta(days=6) else "%d %b ")
    return f"{day}{here.hour}:{here:%M}"


def size(count: int) -> str:
    """Bytes for people: `812 B`, `4.1 kB`, `2.3 MB`."""
    for limit, unit in ((1000, "B"), (1_000_000, "kB"), (1_000_000_000, "MB")):
        if count < limit:
            value = count / (limit / 1000)
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def initials(name: str) -> str:
    parts = [part for part in name.replace("@", " ").split() if part[0].isalnum()]
    return "".join(part[0] for part in parts[:2]).upper() or "?"


def hue(name: str) -> int:
    """One of eight avatar colours, always the same for a name."""
    return sum(name.encode()) % 8


def percent(score: float | None) -> str:
    return "" if score is None else f"{score * 100:.0f} %"


def state(name: str) -> str:
    """The state of a thread as a person calls it: what Done leads to is done."""
    return STATES.get(name, name)


def human(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _host(message: Message) -> str:
    first = message.to_addresses[0]["address"] if message.to_addresses else ""
    return str(first).rpartition("@")[2]


def _when(moment: datetime | None) -> str:
    """The time of a moment, with its day when that is not today."""
    today = moment is None or moment.astimezone(_ZONE.get()).date() == utcnow().astimezone(_ZONE.get()).date()
    return clock(moment) if today or moment is None else f"{moment.astimezone(_ZONE.get()):%d %b} {clock(moment)}"


def soon(message: Message) -> bool:
    """Whether a held message waits for undo only, and not for a moment that an agent chose."""
    return message.release_at is not None and message.release_at - message.occurred_at <= _UNDO


def recipients(message: Message) -> str:
    """To, cc and bcc of a message, as one line."""
    rows = (("", message.to_addresses), ("cc ", message.cc_addresses), ("bcc ", message.bcc_addresses))
    return "; ".join(
        mark + ", ".join(one.get("name") or one["address"] for one in stored) for mark, stored in rows if stored
    )


def event(kind: str) -> str:
    """A line of a message's trail: `sent:2` is `sent, try 2`."""
    name, _, rest = kind.partition(":")
    return human(name) + (f", try {rest}" if rest.isdigit() else f": {human(rest)}" if rest else "")


def screened(message: Message) -> str:
    """What the look before sending found, in words; empty before it. `message` has its events loaded."""
    return next((one.detail for one in message.events if one.kind.startswith("screened:")), "")


def delivery(message: Message) -> str:
    """What became of an outgoing message, as one sentence. `message` has its events loaded."""
    at = _when(message.sent_at)
    arrived = max((one.occurred_at for one in message.events if one.kind == "delivered"), default=message.sent_at)
    partly = f"; not to {message.error_detail}" if message.error_code == PARTLY else ""
    leaves = f"at {clock(message.release_at)}" if soon(message) else exact(message.release_at)
    why = message.error_detail or message.error_code
    again = f", retry at {_when(message.release_at)}" if message.release_at else ", will be tried again"
    held = f"held for undo, leaves {leaves}" if soon(message) else f"will be sent {leaves}"
    table: dict[Delivery, str] = {
        Delivery.HELD: "held back, not sent: it looks like spam" if message.screening == Screening.HOLD else held,
        Delivery.QUEUED: f"failed: {why}{again}" if why else "queued",
        Delivery.SENDING: "sending",
        Delivery.SENT: f"{KEPT_HERE} {at}, not sent on: no relay is set"
        if KEPT_HERE in message.receipt
        else f"sent {at} to {_host(message)}{partly}",
        Delivery.DELIVERED: f"delivered {_when(arrived)} to {_host(message)}{partly}",
        Delivery.DEFERRED: f"delayed by the other side: {why}",
        Delivery.BOUNCED: f"bounced: {why}",
        Delivery.REJECTED: f"rejected: {why}",
        Delivery.FAILED: f"failed: {why}",
        Delivery.CANCELLED: "taken back" if message.error_code == "undone" else f"not sent: {why}",
        Delivery.UNKNOWN: "not known whether it arrived: the connection ended before the answer",
    }
    return table.get(message.status, str(message.status))


FILTERS: dict[str, Callable[..., Any]] = {
    "age": age,
    "ago": ago,
    "exact": exact,
    "iso": iso,
    "clock": clock,
    "until": until,
    "moment_of": moment_of,
    "filesize": size,
    "initials": initials,
    "hue": hue,
    "percent": percent,
    "human": human,
    "state": state,
    "delivery": delivery,
    "event": event,
    "recipients": recipients,
    "screened": screened,
    "soon": soon,
}
