"""What stands between the messages of a thread: notes, merges and splits, and what happened, each at its moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from api.inbox.words import human, until
from assistant.db.messages import Message
from assistant.services.timeline import Happening

__all__ = ["Between", "between", "folded"]

_ALONE = "the program"
_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "assigned": ("user-plus", "{who} assigned this to {other}"),
        "unassigned": ("user-plus", "{who} took the assignment from {other}"),
        "open": ("inbox", "{who} opened this again"),
        "pending": ("clock", "{who} set this to pending"),
        "snoozed": ("clock", "{who} snoozed this until {until}"),
        "closed": ("check", "{who} marked this done"),
        "spam": ("shield-alert", "{who} marked this as spam"),
        "trash": ("trash-2", "{who} put this into the trash"),
        "consent-withdrawn": ("shield-alert", "Opt-out: they are not to be written to here any more"),
        "consent-granted": ("check", "Consent: they may be written to here"),
        "bounced": ("triangle-alert", "Bounced"),
        "rejected": ("triangle-alert", "Rejected by the other side"),
        "failed": ("triangle-alert", "Delivery failed"),
        "complained": ("triangle-alert", "Reported as spam by the recipient"),
        "unsubscribed": ("shield-alert", "The recipient unsubscribed"),
        "triage-handoff": ("user", "Left to a person"),
        "triage-stop": ("shield-alert", "No draft was made"),
        "guard": ("shield-alert", "The guard held the model's words back, the approved answer stands in their place"),
        "policy-held": ("shield-alert", "No policy sent the draft: a person decides"),
        "policy-sent": ("sparkles", "The assistant sent a reply by policy"),
        "dismissed": ("x", "{who} dismissed the suggestion"),
    }
)
"""Kind -> icon and sentence. A kind that is not here is shown by its own name, never hidden."""
_UNFOLDED = 3
"""Lines of one place that are open; earlier ones fold."""


@dataclass(frozen=True, slots=True)
class Between:
    """One thing between messages. `kind`: `note`, `move` or `event`; `row` is it, `words` and `icon` are of an event."""

    kind: str
    at: datetime
    row: Any
    icon: str = ""
    words: str = ""


def between(
    messages: Sequence[Message],
    *,
    notes: Sequence[Any],
    moves: Sequence[Any],
    events: Sequence[Happening],
    names: Mapping[str, str],
) -> dict[str, list[Between]]:
    """By the message that they follow, old to new. What came before the first message follows it too. `names`: agents."""
    lines = [
        *(Between("note", one.created_at, one) for one in notes),
        *(Between("move", one.created_at, one) for one in moves),
        *(Between("event", one.at, one, *_said(one, names)) for one in events),
    ]
    found: dict[str, list[Between]] = {}
    for line in sorted(lines, key=lambda one: one.at):
        before = [one for one in messages if one.created_at <= line.at] or messages[:1]
        if before:
            found.setdefault(before[-1].id, []).append(line)
    return found


def folded(lines: Sequence[Between]) -> tuple[list[Between], list[Between]]:
    """The events of one place that fold away, and everything that stays: notes, moves and the newest events."""
    events = [one for one in lines if one.kind == "event"]
    away = events[:-_UNFOLDED] if len(events) > _UNFOLDED + 1 else []
    gone = {id(one) for one in away}
    return away, [one for one in lines if id(one) not in gone]


def _said(one: Happening, names: Mapping[str, str]) -> tuple[str, str]:
    icon, sentence = _WORDS.get(one.kind, ("info", human(one.kind).capitalize()))
    who = names.get(one.agent_id, "A former agent") if one.agent_id else _ALONE.capitalize()
    other = names.get(one.other_id, "a former agent")
    if one.agent_id and one.agent_id == one.other_id:
        sentence = {"assigned": "{who} took this", "unassigned": "{who} gave this back"}[one.kind]
    words = sentence.format(who=who, other=other, until=until(one.until))
    return icon, f"{words}: {_reason(one)}" if one.reason else words


def _reason(one: Happening) -> str:
    said: dict[str, Callable[[str], str]] = {
        "policy-sent": human,
        "consent-withdrawn": _source,
        "consent-granted": _source,
    }
    return said.get(one.kind, str)(one.reason)


def _source(source: str) -> str:
    """Where a consent came from, without the id of the message that an agent read it in."""
    if source.startswith("agent about"):
        return "an agent read it in a message"
    return "heard in a message" if source == "message" else source
