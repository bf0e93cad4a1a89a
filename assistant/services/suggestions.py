"""Suggested replies: drafted once, decided once. Every change is conditional on the state it was read in.

Lock order: the thread row first, then the suggestion (PostgreSQL); SQLite has one writer at a time anyway.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.session import after_commit, committing, enqueue, publish
from assistant.errors import Conflict, InvalidInput, NotFound, StaleSuggestion, Unsupported
from assistant.services import calibration, outbox
from assistant.services.autopilot import word_of
from assistant.states import (
    Author,
    Delivery,
    Direction,
    SuggestionState,
    ThreadState,
    TriageState,
    transition,
)
from assistant.telemetry import METRICS
from assistant.values import MessageClass, Passage, Turn

__all__ = [
    "REJECT_REASONS",
    "accept",
    "begin",
    "edit_share",
    "expire_open",
    "fail",
    "get",
    "latest",
    "passages_of",
    "propose",
    "refresh_thread",
    "regenerate",
    "reject",
    "restore",
    "send",
    "start",
    "stop",
    "throw_away",
    "unsupported",
    "waiting_drafts",
]

REJECT_REASONS = ("wrong facts", "wrong tone", "not needed", "unsafe", "language", "other")
OPEN = (SuggestionState.DRAFTING, SuggestionState.PROPOSED)
DECIDED = (SuggestionState.ACCEPTED, SuggestionState.EDITED)
MAX_ATTEMPTS = 5
MAX_TEXT = 100_000


# -- drafting


def begin(session: Session, message_id: str, *, passages: Sequence[Passage] = (), instruction: str = "") -> Suggestion:
    """Open a suggestion for a message and hand its drafting to the models' queue. The one being drafted is returned."""
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(f"there is no message {message_id}")
    thread = _lock_thread(session, message.thread_id)
    drafting = session.scalar(
        select(Suggestion).where(Suggestion.message_id == message_id, Suggestion.state == SuggestionState.DRAFTING)
    )
    if drafting is not None:
        return drafting
    suggestion = Suggestion(
        thread_id=message.thread_id,
        message_id=message_id,
        state=SuggestionState.DRAFTING,
        instruction=instruction[:500],
        intent=thread.intent,
        citations=[asdict(passage) for passage in passages],
    )
    session.add(suggestion)
    session.flush()
    refresh_thread(session, thread)
    enqueue(session, "draft", suggestion.id)
    _changed(session, suggestion, "drafting")
    return suggestion


def start(session: Session, suggestion_id: str) -> Suggestion | None:
    """Count one try at drafting; None when there is nothing left to draft. Gives up after `MAX_ATTEMPTS`."""
    tried = session.execute(
        update(Suggestion)
        .where(Suggestion.id == suggestion_id, Suggestion.state == SuggestionState.DRAFTING)
        .values(attempts=Suggestion.attempts + 1)
    )
    if not _one(tried):
        return None
    suggestion = get(session, suggestion_id)
    if suggestion.attempts > MAX_ATTEMPTS:
        fail(session, suggestion_id, "drafting failed too often")
        return None
    return suggestion


def propose(session: Session, suggestion_id: str, *, turn: Turn, milliseconds: float, reasons: Sequence[str]) -> bool:
    """Store a finished draft. False when the suggestion was decided or went stale meanwhile: nothing changes then."""
    if turn.draft is None:
        raise InvalidInput("there is no draft to propose")
    found = get(session, suggestion_id)
    thread = _lock_thread(session, found.thread_id)
    draft = turn.draft
    estimate = calibration.estimate(calibration.outcomes(session), draft.confidence, intent=found.intent)
    word = word_of(draft.confidence if estimate is None else estimate)
    done = session.execute(
        update(Suggestion)
        .where(Suggestion.id == suggestion_id, Suggestion.state == SuggestionState.DRAFTING)
        .values(
            state=SuggestionState.PROPOSED,
            version=Suggestion.version + 1,
            text=draft.text,
            word="check" if word == "ready" and draft.spans else word,
            confidence=draft.confidence,
            estimate=estimate,
            marks=[asdict(mark) for mark in draft.marks],
            lines=[asdict(line) for line in draft.lines],
            spans=[asdict(span) for span in draft.spans],
            trace=[asdict(step) for step in turn.trace],
            model=draft.model,
            prompt_version=draft.prompt_version,
            cached=draft.cached,
            prompt_tokens=draft.prompt_tokens,
            completion_tokens=draft.completion_tokens,
            reasons=list(reasons)[:3],
            checks=[asdict(check) for check in turn.checks],
            milliseconds=round(milliseconds, 1),
        )
    )
    if not _one(done):
        return False
    suggestion = _fresh(session, suggestion_id)
    refresh_thread(session, thread)
    _changed(session, suggestion, "proposed")
    return True


def fail(session: Session, suggestion_id: str, reason: str) -> None:
    """Give a draft up: the thread stays with a person, and says why there is no suggestion."""
    found = get(session, suggestion_id)
    thread = _lock_thread(session, found.thread_id)
    done = session.execute(
        update(Suggestion)
        .where(Suggestion.id == suggestion_id, Suggestion.state == SuggestionState.DRAFTING)
        .values(
            state=SuggestionState.REJECTED, version=Suggestion.version + 1, reasons=[reason], reject_reason="failed"
        )
    )
    if _one(done):
        suggestion = _fresh(session, suggestion_id)
        refresh_thread(session, thread)
        _changed(session, suggestion, "failed")


def stop(session: Session, suggestion_id: str, *, agent_id: str, text: str) -> Suggestion:
    """End a drafting; `text` is what was written so far, to be taken over or thrown away. Raises `Conflict` when it is done."""
    thread = _lock_thread(session, get(session, suggestion_id).thread_id)
    done = session.execute(
        update(Suggestion)
        .where(Suggestion.id == suggestion_id, Suggestion.state == SuggestionState.DRAFTING)
        .values(
            state=SuggestionState.REJECTED,
            version=Suggestion.version + 1,
            text=text[:MAX_TEXT],
            reject_reason="stopped",
            agent_id=agent_id,
        )
    )
    suggestion = _fresh(session, suggestion_id)
    if not _one(done):
        raise Conflict("the draft is no longer being written", detail={"state": suggestion.state.value})
    refresh_thread(session, thread)
    _changed(session, suggestion, "stopped")
    return suggestion


def throw_away(session: Session, suggestion_id: str) -> Suggestion:
    """Forget what a stopped draft had written. Twice is once."""
    thread = _lock_thread(session, get(session, suggestion_id).thread_id)
    suggestion = _fresh(session, suggestion_id)
    if suggestion.reject_reason not in ("stopped", "thrown away"):
        raise Conflict("only a stopped draft can be thrown away", detail={"state": suggestion.state.value})
    suggestion.text, suggestion.reject_reason = "", "thrown away"
    suggestion.version += 1
    session.flush()
    refresh_thread(session, thread)
    _changed(session, suggestion, "thrown away")
    return suggestion


def regenerate(session: Session, message_id: str, *, instruction: str = "") -> Suggestion:
    """Draft once more from the same passages; the earlier draft stays to compare with. `NotFound` without a source."""
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(f"there is no message {message_id}")
    _lock_thread(session, message.thread_id)
    drafts = session.scalars(
        select(Suggestion)
        .where(Suggestion.message_id == message_id)
        .order_by(Suggestion.created_at.desc(), Suggestion.id.desc())
        .execution_options(populate_existing=True)
    ).all()
    if not drafts or not drafts[0].citations:
        raise NotFound("no passage found: there is nothing to draft from")
    decided = next((draft for draft in drafts if draft.state in DECIDED), None)
    if decided is not None:
        raise _conflict(session, decided)
    earlier = drafts[0]
    if _newer_inbound(session, earlier):
        raise StaleSuggestion("a newer message arrived: open it and draft again there")
    return begin(session, message_id, passages=passages_of(earlier), instruction=instruction)


def passages_of(suggestion: Suggestion) -> tuple[Passage, ...]:
    """The approved passages a suggestion was opened with."""
    return tuple(Passage(**citation) for citation in suggestion.citations)


def unsupported(suggestion: Suggestion, text: str) -> list[str]:
    """What no source says and `text` still holds, each once and in order."""
    words = " ".join(text.split())
    left = []
    for span in suggestion.spans:
        said = " ".join(str(span["text"]).split())
        if re.search(rf"(?<!\w){re.escape(said)}(?!\w)", words):
            left.append(said)
    return list(dict.fromkeys(left))


# -- a person decides


def accept(
    session: Session, suggestion_id: str, *, agent: Agent, version: int, text: str | None = None, hold_seconds: int
) -> Message:
    """Send a suggestion, as it is or as edited, exactly once.

    Raises `Conflict` (its detail names the agent and the state) when somebody decided first, `StaleSuggestion` when a
    newer message arrived, `Unsupported` while something in it has no source, `NotAllowed` when the contact may not be
    written to.
    """
    committing("review", session)
    thread = _lock_thread(session, get(session, suggestion_id).thread_id)
    suggestion = _fresh(session, suggestion_id)
    if suggestion.state != SuggestionState.PROPOSED:
        raise _conflict(session, suggestion)
    final = suggestion.text if text is None else text.strip()
    if not final or len(final) > MAX_TEXT:
        raise InvalidInput(f"a reply needs 1 to {MAX_TEXT} characters")
    if left := unsupported(suggestion, final):
        raise Unsupported(
            f"no source says {', '.join(f'“{one[:60]}”' for one in left[:3])}: edit it out, then send",
            detail={"unsupported": left},
        )
    share = edit_share(suggestion.text, final)
    state = SuggestionState.ACCEPTED if share == 0 else SuggestionState.EDITED
    if _newer_inbound(session, suggestion) and suggestion.state not in DECIDED:
        raise StaleSuggestion("a newer message arrived after this was drafted", detail={"state": "stale"})
    _decide(session, suggestion, version, state=state, agent_id=agent.id, final_text=final, edit_share=share)
    return _queue(session, thread, suggestion, version, author=Author.AGENT, agent_id=agent.id, hold=hold_seconds)


def send(session: Session, suggestion_id: str, *, policy_id: str, bound: float, hold_seconds: int) -> Message:
    """Send a draft as it is, by a policy and without a person; `policies.queue` has asked whether that is allowed.

    Raises `Conflict` when somebody decided first, `NotAllowed` when the contact may not be written to.
    """
    committing("review", session)
    thread = _lock_thread(session, get(session, suggestion_id).thread_id)
    suggestion = _fresh(session, suggestion_id)
    if suggestion.state != SuggestionState.PROPOSED or _newer_inbound(session, suggestion):
        raise _conflict(session, suggestion)
    version = suggestion.version
    _decide(
        session,
        suggestion,
        version,
        state=SuggestionState.ACCEPTED,
        final_text=suggestion.text,
        edit_share=0.0,
        policy_id=policy_id,
        policy_bound=bound,
    )
    return _queue(session, thread, suggestion, version, author=Author.ASSISTANT, agent_id=None, hold=hold_seconds)


def _queue(
    session: Session,
    thread: Thread,
    suggestion: Suggestion,
    version: int,
    *,
    author: Author,
    agent_id: str | None,
    hold: int,
) -> Message:
    """The decided text into the outbox; other drafts for the same message are out of the game."""
    session.execute(
        update(Suggestion)
        .where(Suggestion.message_id == suggestion.message_id, Suggestion.id != suggestion.id, _is_open())
        .values(state=SuggestionState.EXPIRED, version=Suggestion.version + 1)
    )
    message = outbox.queue_message(
        session,
        thread_id=suggestion.thread_id,
        author=author,
        agent_id=agent_id,
        text=suggestion.final_text,
        suggestion_id=suggestion.id,
        idempotency_key=f"suggestion:{suggestion.id}:{version}",
        message_class=MessageClass.PERSONAL if author is Author.AGENT else MessageClass.AUTO_REPLY,
        hold_seconds=hold,
    )
    refresh_thread(session, thread)
    _changed(session, suggestion, suggestion.state.value)
    return message


def reject(session: Session, suggestion_id: str, *, agent_id: str, version: int, reason: str = "") -> Suggestion:
    """Dismiss a suggestion; `reason` is one of `REJECT_REASONS` or empty. Undone by `restore`."""
    if reason and reason not in REJECT_REASONS:
        raise InvalidInput(f"reason must be one of {', '.join(REJECT_REASONS)}")
    committing("review", session)
    thread = _lock_thread(session, get(session, suggestion_id).thread_id)
    suggestion = _fresh(session, suggestion_id)
    _decide(session, suggestion, version, state=SuggestionState.REJECTED, agent_id=agent_id, reject_reason=reason)
    refresh_thread(session, thread)
    _changed(session, suggestion, "rejected")
    return suggestion


def restore(session: Session, suggestion_id: str) -> Suggestion:
    """Undo a decision. A sent reply cannot be undone: cancel it first. Comes back `expired` when the thread moved on."""
    committing("review", session)
    thread = _lock_thread(session, get(session, suggestion_id).thread_id)
    suggestion = _fresh(session, suggestion_id)
    transition(suggestion.state, SuggestionState.PROPOSED)
    alive = exists().where(Message.suggestion_id == suggestion_id, Message.status != Delivery.CANCELLED)
    if suggestion.state in DECIDED and session.scalar(select(alive)):
        raise Conflict("the reply is on its way: take the message back first", detail={"state": suggestion.state.value})
    if not suggestion.text:
        raise Conflict("there is no text to bring back: draft again")
    stale = _newer_inbound(session, suggestion)
    suggestion.state = SuggestionState.EXPIRED if stale else SuggestionState.PROPOSED
    suggestion.version += 1
    suggestion.agent_id, suggestion.final_text, suggestion.edit_share = None, "", None
    suggestion.reject_reason, suggestion.decided_at = "", None
    suggestion.policy_id = suggestion.policy_bound = None
    session.flush()
    refresh_thread(session, thread)
    _changed(session, suggestion, "restored")
    return suggestion


def expire_open(session: Session, thread_id: str, *, but: str = "") -> int:
    """A newer message arrived: what was drafted before it is stale. Returns how many were open. `but`: the newest message."""
    thread = _lock_thread(session, thread_id)
    done = session.execute(
        update(Suggestion)
        .where(Suggestion.thread_id == thread_id, Suggestion.message_id != but, _is_open())
        .values(state=SuggestionState.EXPIRED, version=Suggestion.version + 1)
    )
    count = int(done.rowcount)  # type: ignore[attr-defined]  # an UPDATE returns a CursorResult
    if count:
        refresh_thread(session, thread)
        publish(session, "suggestion.changed", thread_id=thread_id, suggestion_id="")
        after_commit(session, lambda: METRICS.suggestions.labels(outcome="expired").inc(count))
    return count


# -- what the list shows


def refresh_thread(session: Session, thread: Thread) -> None:
    """Derive the thread's mark and `needs_review` from its newest message and suggestion. The only place that does."""
    newest = session.scalars(_newest_inbound(thread.id)).first()
    suggestion = latest(session, thread.id)
    thread.suggestion_mark = _mark(suggestion)
    answered = thread.last_direction == Direction.OUTBOUND
    hidden = thread.state in (ThreadState.SPAM, ThreadState.TRASH, ThreadState.CLOSED)
    thread.needs_review = not (hidden or answered or newest is None) and _asks(newest, suggestion)
    session.flush()


def latest(session: Session, thread_id: str) -> Suggestion | None:
    """The newest suggestion of a thread, whatever became of it."""
    query = select(Suggestion).where(Suggestion.thread_id == thread_id)
    return session.scalars(
        query.order_by(Suggestion.created_at.desc(), Suggestion.id.desc()).execution_options(populate_existing=True)
    ).first()


def get(session: Session, suggestion_id: str) -> Suggestion:
    suggestion = session.get(Suggestion, suggestion_id)
    if suggestion is None:
        raise NotFound(f"there is no suggestion {suggestion_id}")
    return suggestion


def edit_share(draft: str, final: str) -> float:
    """How much was changed, 0 (nothing but white space) to 1 (everything): 1 - difflib's similarity over words."""
    before, after = draft.split(), final.split()
    if before == after:
        return 0.0
    return round(max(1 - difflib.SequenceMatcher(None, before, after, autojunk=False).ratio(), 0.001), 4)


# -- parts


def _decide(session: Session, suggestion: Suggestion, version: int, **values: Any) -> None:
    done = session.execute(
        update(Suggestion)
        .where(
            Suggestion.id == suggestion.id,
            Suggestion.state == SuggestionState.PROPOSED,
            Suggestion.version == version,
        )
        .values(version=Suggestion.version + 1, decided_at=utcnow(), **values)
    )
    if not _one(done):
        raise _conflict(session, _fresh(session, suggestion.id))
    _fresh(session, suggestion.id)


def _conflict(session: Session, suggestion: Suggestion) -> Conflict:
    """Why this suggestion cannot be decided any more, with the name of who did."""
    if suggestion.state == SuggestionState.EXPIRED:
        twin = session.scalars(
            select(Suggestion).where(Suggestion.message_id == suggestion.message_id, Suggestion.state.in_(DECIDED))
        ).first()
        if twin is None:
            return StaleSuggestion("a newer message arrived after this was drafted", detail={"state": "stale"})
        suggestion = twin
    agent = session.get(Agent, suggestion.agent_id) if suggestion.agent_id else None
    name = agent.name if agent else ("The assistant" if suggestion.policy_id else "")
    detail: dict[str, object] = {"state": suggestion.state.value, "version": suggestion.version, "agent": name}
    if suggestion.state == SuggestionState.PROPOSED:
        return Conflict("the suggestion changed since you read it: look again", detail=detail)
    if suggestion.state == SuggestionState.DRAFTING:
        return Conflict("the suggestion is still being drafted", detail=detail)
    return Conflict(f"{name or 'Somebody'} already {suggestion.state.value} this suggestion", detail=detail)


def _asks(message: Message, suggestion: Suggestion | None) -> bool:
    if message.triage == TriageState.PARKED:
        return True
    if message.triage in (None, TriageState.WAITING):
        return False
    if suggestion is None or suggestion.message_id != message.id:
        return any(step.get("stage") == "decide" and step.get("outcome") == "handoff" for step in message.trace)
    return suggestion.state == SuggestionState.PROPOSED or (
        suggestion.state == SuggestionState.REJECTED and suggestion.reject_reason in ("failed", "stopped")
    )


def _mark(suggestion: Suggestion | None) -> str:
    if suggestion is None:
        return "none"
    if suggestion.state == SuggestionState.PROPOSED:
        return "ready" if suggestion.word == "ready" else "check"
    if suggestion.policy_id:
        return "sent"
    return {SuggestionState.DRAFTING: "drafting", SuggestionState.EXPIRED: "stale"}.get(suggestion.state, "none")


def _newest_inbound(thread_id: str) -> Any:
    return (
        select(Message)
        .where(Message.thread_id == thread_id, Message.direction == Direction.INBOUND)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    )


def _newer_inbound(session: Session, suggestion: Suggestion) -> bool:
    newest = session.scalars(_newest_inbound(suggestion.thread_id)).first()
    return newest is not None and newest.id != suggestion.message_id


def _lock_thread(session: Session, thread_id: str) -> Thread:
    thread = session.scalars(
        select(Thread)
        .where(Thread.id == thread_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).first()
    if thread is None:
        raise NotFound(f"there is no thread {thread_id}")
    return thread


def _fresh(session: Session, suggestion_id: str) -> Suggestion:
    return session.scalars(
        select(Suggestion).where(Suggestion.id == suggestion_id).execution_options(populate_existing=True)
    ).one()


def _is_open() -> Any:
    return Suggestion.state.in_(OPEN)


def _one(result: Any) -> bool:
    return bool(result.rowcount == 1)


def _changed(session: Session, suggestion: Suggestion, outcome: str) -> None:
    publish(session, "suggestion.changed", thread_id=suggestion.thread_id, suggestion_id=suggestion.id)
    publish(session, "thread.changed", thread_id=suggestion.thread_id, reason="suggestion")
    after_commit(session, METRICS.suggestions.labels(outcome=outcome).inc)


def waiting_drafts(session: Session) -> int:
    """Drafts in the queue: over a bound, drafting is shed and the approved answer is offered as it is."""
    return session.scalar(select(func.count()).where(Suggestion.state == SuggestionState.DRAFTING)) or 0
