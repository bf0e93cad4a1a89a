"""Sending without a person: grants by intent, the sending under one, and taking a grant back.

A grant counts at three moments, so that a revocation works at once: when a draft is finished, when the message is claimed
for its carrier, and in the revocation itself, which takes back what still waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.policies import Policy
from assistant.errors import Conflict, NotAllowed, NotFound
from assistant.services import access, calibration, outbox, suggestions
from assistant.services.autopilot import NEEDED, Mode, SendFacts, may_send, sends_needed
from assistant.states import Delivery, ThreadState
from assistant.values import DecisionKind

__all__ = ["every", "get", "give_back", "grant", "granted", "holds", "queue", "revoke"]

_WAITING = (Delivery.HELD, Delivery.QUEUED)


def get(session: Session, policy_id: str) -> Policy:
    """Raises `NotFound`."""
    policy = session.get(Policy, policy_id)
    if policy is None:
        raise NotFound("there is no such policy")
    return policy


def granted(session: Session, intent: str) -> Policy | None:
    """The grant of an intent that is not revoked."""
    return session.scalar(select(Policy).where(Policy.intent == intent, Policy.revoked_at.is_(None)))


def every(session: Session) -> Sequence[Policy]:
    """Grants that are not revoked, by intent."""
    return session.scalars(select(Policy).where(Policy.revoked_at.is_(None)).order_by(Policy.intent)).all()


def grant(session: Session, intent: str, *, agent_id: str) -> Policy:
    """Let drafts for an intent leave by themselves. Raises `Conflict` while too few were sent clean. Twice is once."""
    if (known := granted(session, intent)) is not None:
        return known
    reach = next((one for one in calibration.reach(calibration.outcomes(session)) if one.intent == intent), None)
    if reach is None:
        raise NotFound("nothing was decided for this intent yet")
    if more := sends_needed(reach.clean, reach.count):
        raise Conflict(f"{intent} needs {more} more clean sends before it can be granted")
    policy = Policy(intent=intent, needed=NEEDED, agent_id=agent_id)
    try:
        with session.begin_nested():
            session.add(policy)
    except IntegrityError:  # another admin was as quick
        found = granted(session, intent)
        if found is None:
            raise
        return found
    access.audit(session, agent_id, action="policy.granted", subject=intent, bound=round(reach.bound, 4))
    return policy


def revoke(session: Session, policy_id: str, *, agent_id: str) -> int:
    """End a grant and take back what waits under it: those drafts ask a person again. Returns how many. Twice is once."""
    policy = get(session, policy_id)
    if policy.revoked_at is not None:
        return 0
    policy.revoked_at, policy.revoked_by = utcnow(), agent_id
    session.flush()
    waiting = session.execute(
        select(Message.id, Suggestion.id)
        .join(Suggestion, Suggestion.id == Message.suggestion_id)
        .where(Suggestion.policy_id == policy_id, Message.status.in_(_WAITING))
    ).all()
    taken = 0
    for message_id, suggestion_id in waiting:
        try:
            with session.begin_nested():
                outbox.cancel(session, message_id, agent_id=agent_id)
        except Conflict:
            continue  # a worker claimed it in this moment
        give_back(session, suggestion_id)
        taken += 1
    access.audit(session, agent_id, action="policy.revoked", subject=policy.intent, taken_back=taken)
    return taken


def queue(session: Session, suggestion_id: str, *, mode: Mode, hold_seconds: int) -> str:
    """Queue a finished draft when every rule allows it. Returns why not, or an empty text when it is in the outbox."""
    if mode == "suggest":
        return may_send(SendFacts()).reason
    suggestion = suggestions.get(session, suggestion_id)
    policy = granted(session, suggestion.intent or "other")
    reach = {one.intent: one.bound for one in calibration.reach(calibration.outcomes(session))}
    bound = reach.get(suggestion.intent or "other", 0.0)
    decision = may_send(
        SendFacts(
            mode=mode,
            granted=policy is not None,
            bound=bound,
            needed=policy.needed if policy is not None else NEEDED,
            word=suggestion.word,
            unsupported=len(suggestion.spans),
            failed=tuple(one["name"] for one in suggestion.checks if not one["passed"]),
            asked=bool(suggestion.instruction),
            person=_person(session, suggestion),
        )
    )
    if decision.kind is not DecisionKind.REPLY or policy is None:
        return _noted(suggestion, decision.reason)
    try:
        with session.begin_nested():
            suggestions.send(
                session, suggestion_id, policy_id=policy.id, bound=round(bound, 4), hold_seconds=hold_seconds
            )
    except (Conflict, NotAllowed) as error:
        return _noted(suggestion, f"policy: {error.message}")
    return ""


def _noted(suggestion: Suggestion, reason: str) -> str:
    """Why a person is asked after all, among the steps that the card lists."""
    step = {"stage": "policy", "outcome": "handoff", "reason": reason, "milliseconds": 0.0}
    suggestion.trace = [*suggestion.trace, step]
    return reason


def holds(session: Session, suggestion_id: str | None) -> bool:
    """Whether a message of the assistant may still leave: its grant is not revoked. Asked when it is claimed."""
    suggestion = session.get(Suggestion, suggestion_id or "")
    policy = session.get(Policy, suggestion.policy_id or "", populate_existing=True) if suggestion else None
    return policy is not None and policy.revoked_at is None


def give_back(session: Session, suggestion_id: str | None) -> None:
    """The message was taken back: its draft asks a person again, or is stale when a newer message came."""
    if suggestion_id:
        suggestions.restore(session, suggestion_id)


def _person(session: Session, suggestion: Suggestion) -> str:
    """Why a person has this thread; empty when nobody has."""
    thread = session.get_one(Thread, suggestion.thread_id)
    if thread.state not in (ThreadState.OPEN, ThreadState.PENDING):
        return f"the thread is {thread.state}"
    if thread.assignee_id:
        return "somebody is assigned"
    earlier = session.scalar(
        select(Suggestion.id).where(
            Suggestion.message_id == suggestion.message_id,
            Suggestion.id != suggestion.id,
            Suggestion.agent_id.is_not(None),
        )
    )
    return "an agent has decided about an earlier draft" if earlier else ""
