"""What happened in a thread between its messages, written where it happens and read back in one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from sqlalchemy import literal, null, select, union_all
from sqlalchemy.orm import Session

from assistant.db.contacts import Consent
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.timeline import ThreadEvent
from assistant.states import Direction, SuggestionState, ThreadState

__all__ = ["Happening", "changed", "happened", "noted"]

_CARRIERS = frozenset({"bounced", "rejected", "failed", "complained", "unsubscribed"})
"""Kinds of a message's trail that a reader of the thread must not miss."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line. `kind` says what the other fields mean: see `_WORDS` of the page that shows it."""

    kind: str
    at: datetime
    agent_id: str = ""
    """Who did it; empty for the program, or for the contact."""
    other_id: str = ""
    """Of `assigned`: to whom."""
    until: datetime | None = None
    reason: str = ""


def noted(
    session: Session,
    thread_id: str,
    kind: str,
    *,
    agent_id: str | None = None,
    assignee_id: str | None = None,
    until: datetime | None = None,
    reason: str = "",
) -> None:
    """Write one line, in the transaction of the change itself."""
    session.add(
        ThreadEvent(
            thread_id=thread_id, kind=kind, agent_id=agent_id, assignee_id=assignee_id, until=until, reason=reason[:200]
        )
    )


def happened(
    session: Session, thread: Thread, messages: Sequence[Message], drafted: Sequence[Suggestion]
) -> list[Happening]:
    """Everything beside the messages, old to new. `messages` have their events loaded; one query asks for the rest."""
    newest = next((one.id for one in reversed(messages) if one.direction == Direction.INBOUND), "")
    older = [one for one in messages if one.id != newest]  # of the newest one the suggestion card says it
    lines = chain(_rows(session, thread), _reports(messages), _decisions(older), _drafts(drafted))
    return sorted(lines, key=lambda one: one.at)


def _rows(session: Session, thread: Thread) -> list[Happening]:
    """Assignments and states of the thread, and what the contact said about being written to on its channel."""
    ours = select(
        ThreadEvent.kind,
        ThreadEvent.created_at,
        ThreadEvent.agent_id,
        ThreadEvent.assignee_id,
        ThreadEvent.until,
        ThreadEvent.reason,
        ThreadEvent.id,
    ).where(ThreadEvent.thread_id == thread.id)
    theirs = select(
        literal("consent-") + Consent.kind,
        Consent.created_at,
        null(),
        null(),
        null(),
        Consent.source,
        Consent.id,
    ).where(
        Consent.contact_id == thread.contact_id,
        Consent.channel == thread.channel,
        Consent.created_at >= thread.created_at,
    )
    both = union_all(ours, theirs).subquery()
    return [
        Happening(row.kind, row.created_at, row.agent_id or "", row.assignee_id or "", row.until, row.reason)
        for row in session.execute(select(both).order_by(both.c.created_at, both.c.id))
    ]


def _reports(messages: Sequence[Message]) -> list[Happening]:
    """What came back about our messages."""
    return [
        Happening(kind, event.occurred_at, reason=event.detail)
        for message in messages
        if message.direction == Direction.OUTBOUND
        for event in message.events
        if (kind := event.kind.partition(":")[0]) in _CARRIERS
    ]


def _decisions(messages: Sequence[Message]) -> list[Happening]:
    """Mails that triage left to a person or stopped at, with its reason."""
    found = []
    for message in messages:
        step = next((one for one in reversed(message.trace) if one.get("stage") == "decide"), None)
        if step is not None and step.get("outcome") in {"handoff", "stop"}:
            found.append(Happening(f"triage-{step['outcome']}", message.created_at, reason=str(step.get("reason", ""))))
    return found


def _drafts(drafted: Sequence[Suggestion]) -> list[Happening]:
    """Drafts that a policy sent, that the guard or a policy held for a person, and that a person dismissed."""
    found = []
    for one in drafted:
        failed = [
            str(check["name"]) for check in one.checks if not check["passed"] and check["name"] != "nothing added"
        ]
        asked = [str(step["reason"]) for step in one.trace if step.get("stage") == "policy"]
        if failed:
            found.append(Happening("guard", one.created_at, reason=", ".join(failed)))
        elif asked:
            found.append(Happening("policy-held", one.created_at, reason=asked[-1]))
        if one.policy_id and one.decided_at:
            found.append(Happening("policy-sent", one.decided_at, reason=one.intent))
        elif one.state == SuggestionState.REJECTED and one.decided_at:
            found.append(Happening("dismissed", one.decided_at, one.agent_id or "", reason=one.reject_reason))
    return found


def changed(session: Session, thread: Thread, undo: dict[str, object], *, agent_id: str | None, reason: str) -> None:
    """The lines of one change of a thread: `undo` names what was different before."""
    if "assignee_id" in undo:
        kind = "assigned" if thread.assignee_id else "unassigned"
        other = thread.assignee_id or str(undo["assignee_id"])
        noted(session, thread.id, kind, agent_id=agent_id, assignee_id=other, reason=reason)
    if "state" in undo or "snoozed_until" in undo:
        state = ThreadState(thread.state)
        noted(session, thread.id, state.value, agent_id=agent_id, until=thread.snoozed_until, reason=reason)
