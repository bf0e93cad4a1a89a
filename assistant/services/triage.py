"""One inbound message on its way through the stages: read as a `Turn`, saved with everything that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from assistant.db.contacts import Contact
from assistant.db.learning import Correction
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import after_commit, enqueue, publish
from assistant.errors import NotFound
from assistant.services import contacts, suggestions, timeline
from assistant.states import Direction, ThreadState, TriageState
from assistant.telemetry import METRICS
from assistant.values import Address, DecisionKind, InboundMessage, Label, TraceStep, Turn, TurnMessage

__all__ = [
    "BY_ITS_SCORE",
    "MAX_ATTEMPTS",
    "UNFINISHED",
    "answer",
    "describe",
    "describe_spam",
    "is_newest",
    "labelled",
    "opted_out",
    "own_addresses",
    "park",
    "read_turn",
    "save",
    "start",
    "with_labels",
    "withdraw",
]

MAX_ATTEMPTS = 5
UNFINISHED = (TriageState.WAITING, TriageState.PARTIAL)
"""States from which another try may come to more."""
BY_ITS_SCORE = "by its score"
"""Why the program held a thread back, in the thread's own words."""
HISTORY = 6
"""Earlier messages of the thread that the stages see."""


def start(session: Session, message_id: str) -> Turn | None:
    """Count one try and read the turn; None when nothing is left to do. A message that failed too often is parked.

    One that was triaged in part is tried again as often: what was missing may be back.
    """
    tried = session.execute(
        update(Message)
        .where(Message.id == message_id, Message.triage.in_(UNFINISHED))
        .values(triage_attempts=Message.triage_attempts + 1)
    )
    if tried.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE returns a CursorResult
        return None
    attempts = session.scalar(select(Message.triage_attempts).where(Message.id == message_id)) or 0
    if attempts > MAX_ATTEMPTS:
        park(session, message_id, reason=f"gave up after {MAX_ATTEMPTS} tries")
        return None
    return read_turn(session, message_id)


def read_turn(session: Session, message_id: str) -> Turn:
    """A message with its contact and the thread before it."""
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound(f"there is no message {message_id}")
    thread = session.get_one(Thread, message.thread_id)
    contact = session.get_one(Contact, thread.contact_id)
    earlier = session.scalars(
        select(Message)
        .where(
            Message.thread_id == thread.id,
            Message.id != message.id,
            Message.occurred_at <= message.occurred_at,
        )
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(HISTORY)
    ).all()
    return Turn(
        message_id=message.id,
        thread_id=thread.id,
        message=_inbound(message, thread.channel),
        new_text=message.new_text,
        contact_name=contact.display_name or message.from_name,
        history=tuple(
            TurnMessage(id=old.id, direction=old.direction, text=old.new_text or old.text, sender=old.from_address)
            for old in reversed(earlier)
        ),
    )


def own_addresses(session: Session) -> frozenset[str]:
    """The addresses of our own profiles: mail from one of them is a loop."""
    return frozenset(address.casefold() for address in session.scalars(select(Profile.address)))


def save(session: Session, turn: Turn, *, state: TriageState, ask: bool = False) -> bool:
    """Store what the stages found and do what follows from it, once; False when another worker was first.

    `ask`: a generator shall be asked for the intent, which is a task of its own. One that the broker loses leaves it open.
    After an earlier try that came to a part only, the whole replaces it. What follows for the thread is left to whoever has
    taken it up meanwhile.
    """
    # Of the message, not of the turn: an agent may have moved it into another thread meanwhile.
    where = select(Message.thread_id).where(Message.id == turn.message_id).scalar_subquery()
    thread = session.scalars(
        select(Thread).where(Thread.id == where).with_for_update().execution_options(populate_existing=True)
    ).one()
    before, steps = session.execute(select(Message.triage, Message.trace).where(Message.id == turn.message_id)).one()
    again = before == TriageState.PARTIAL
    done = session.execute(
        update(Message)
        .where(
            Message.id == turn.message_id,
            Message.triage.in_(UNFINISHED if state == TriageState.DONE else (TriageState.WAITING,)),
        )
        .values(
            triage=state,
            labels=[asdict(label) for label in turn.labels],
            trace=[asdict(step) for step in turn.trace],
        )
    )
    if done.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE returns a CursorResult
        return False
    message = session.scalars(
        select(Message).where(Message.id == turn.message_id).execution_options(populate_existing=True)
    ).one()
    if opted_out(turn.trace) and not (again and opted_out([TraceStep(**step) for step in steps])):
        withdraw(session, thread, message)
    if is_newest(session, message) and not (again and _taken_up(session, thread, message)):
        _describe(thread, turn, state)
        if _stopped_at(turn, "classify") and thread.state == ThreadState.OPEN:
            thread.state = ThreadState.SPAM
            thread.version += 1
            timeline.noted(session, thread.id, ThreadState.SPAM.value, reason=BY_ITS_SCORE)
        suggestions.refresh_thread(session, thread)
        if turn.decision is not None and turn.decision.kind == DecisionKind.SUGGEST and not message.backfill:
            suggestions.begin(session, message.id, passages=turn.passages)
    if ask and not message.backfill:  # a mailbox that is imported would keep the generator from today's drafts
        enqueue(session, "ask", message.id)
    publish(session, "thread.changed", thread_id=thread.id, reason="triaged")
    after_commit(session, METRICS.triaged.labels(outcome=state.value).inc)
    return True


def labelled(session: Session, message_id: str) -> Turn | None:
    """A message with the labels and steps of its triage; None where it has none, or where a generator was asked already."""
    message = session.get(Message, message_id)
    if message is None or message.triage not in (TriageState.DONE, TriageState.PARTIAL):
        return None
    turn = with_labels(session, message)
    return None if any(step.stage == "ask" for step in turn.trace) else turn


def answer(session: Session, turn: Turn) -> bool:
    """Store what a generator said of a message's intent, once; False when another was first, or triage ran again meanwhile.

    A label that an agent corrected stays as the agent said.
    """
    message = session.scalars(
        select(Message).where(Message.id == turn.message_id).execution_options(populate_existing=True)
    ).one_or_none()
    if message is None:
        return False
    thread = session.get_one(Thread, message.thread_id, with_for_update=True, populate_existing=True)
    session.refresh(message)
    if [step["stage"] for step in message.trace] != [step.stage for step in turn.trace[:-1]]:
        return False
    if _but_intents(message.labels) != _but_intents([asdict(label) for label in turn.labels]):
        return False  # it was judged again meanwhile, like one that an agent called spam or not
    message.labels = [asdict(label) for label in turn.labels]
    message.trace = [asdict(step) for step in turn.trace]
    corrected = session.scalar(select(Correction.id).where(Correction.message_id == message.id).limit(1)) is not None
    if is_newest(session, message) and not corrected:
        _describe(thread, turn, TriageState.PARTIAL if message.triage == TriageState.PARTIAL else TriageState.DONE)
    publish(session, "thread.changed", thread_id=thread.id, reason="triaged")
    return True


def _but_intents(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in labels if not one["name"].startswith("intent:")]


def park(session: Session, message_id: str, *, reason: str) -> None:
    """Leave a message that cannot be triaged to a person. It stays readable; only labels and a suggestion are missing."""
    step = {"stage": "triage", "outcome": "failed", "milliseconds": 0.0, "reason": reason, "score": None, "detail": {}}
    done = session.execute(
        update(Message)
        .where(Message.id == message_id, Message.triage == TriageState.WAITING)
        .values(triage=TriageState.PARKED, trace=[step])
    )
    if done.rowcount != 1:  # type: ignore[attr-defined]  # an UPDATE returns a CursorResult
        return
    message = session.scalars(
        select(Message).where(Message.id == message_id).execution_options(populate_existing=True)
    ).one()
    thread = session.get_one(Thread, message.thread_id, with_for_update=True)
    thread.certainty = 0.0
    suggestions.refresh_thread(session, thread)
    publish(session, "thread.changed", thread_id=thread.id, reason="parked")
    after_commit(session, METRICS.triaged.labels(outcome="parked").inc)


def _describe(thread: Thread, turn: Turn, state: TriageState) -> None:
    intent = turn.label("intent")
    claimed = any(step.stage == "classify" and step.detail.get("intent") for step in turn.trace)
    thread.intent = intent.value if intent and claimed else ""
    thread.intent_score = intent.score if intent else None
    describe_spam(thread, turn, state)
    claims = next((step.detail.get("claims") for step in turn.trace if step.stage == "classify"), None)
    found = claims if isinstance(claims, dict) else {}
    ruled = next((label.value for label in turn.labels if label.head == "urgency" and label.score >= 1), "")
    thread.urgency = ruled or str(found.get("urgency", ""))
    thread.reply_intent, thread.sentiment, thread.language = (
        str(found.get(head, "")) for head in ("reply_intent", "sentiment", "language")
    )


def describe_spam(thread: Thread, turn: Turn, state: TriageState) -> None:
    """What the list says of its newest message as spam, and how sure the least sure decision on that message is."""
    intent = turn.label("intent")
    spam = next((label.score for label in turn.labels if label.name == "spam:spam"), None)
    thread.spam_score = spam
    thread.spam_verdict = next(
        (str(step.detail.get("spam", "")) for step in turn.trace if step.stage == "classify"), ""
    )
    sure = [max(spam, 1 - spam)] if spam is not None else []
    if intent and not _stopped_at(turn, "classify"):
        sure.append(intent.score)
    if _stopped_at(turn, "screen"):
        sure = [1.0]
    thread.certainty = 0.0 if state == TriageState.PARTIAL else min(sure, default=None)


def describe(session: Session, thread: Thread) -> None:
    """Label a thread as its newest inbound message was labelled: after messages were moved out of it or into it."""
    message = session.scalars(
        select(Message)
        .where(Message.thread_id == thread.id, Message.direction == Direction.INBOUND)
        .order_by(Message.occurred_at.desc(), Message.id.desc())
        .limit(1)
    ).one_or_none()
    if message is None or message.triage not in (TriageState.DONE, TriageState.PARTIAL):
        return
    _describe(thread, with_labels(session, message), TriageState(message.triage))


def with_labels(session: Session, message: Message) -> Turn:
    """A message as its stored labels and steps say, with its contact and the thread before it."""
    return replace(
        read_turn(session, message.id),
        labels=tuple(Label(one["name"], one["score"]) for one in message.labels),
        trace=tuple(TraceStep(**step) for step in message.trace),
    )


def _inbound(message: Message, channel: str) -> InboundMessage:
    def addresses(rows: list[dict[str, str]]) -> tuple[Address, ...]:
        return tuple(Address(channel, row.get("address", ""), row.get("name", "")) for row in rows)

    return InboundMessage(
        channel=channel,
        external_id=message.external_id,
        sender=Address(channel, message.from_address, message.from_name),
        recipients=addresses(message.to_addresses),
        cc=addresses(message.cc_addresses),
        subject=message.subject,
        text=message.text,
        html=message.html,
        reply_to=Address(channel, message.reply_to_address) if message.reply_to_address else None,
        reply_to_id=message.in_reply_to,
        references=tuple(message.references),
        received_at=message.occurred_at,
        auto_submitted=message.auto_submitted,
        raw_key=message.raw_key,
        content_hash=message.content_hash,
        defects=(*message.defects, *(("quarantine",) if message.quarantined else ())),
    )


def is_newest(session: Session, message: Message) -> bool:
    """Whether nothing came into its thread after it."""
    newer = select(Message.id).where(
        Message.thread_id == message.thread_id,
        Message.direction == Direction.INBOUND,
        Message.id != message.id,
        (Message.occurred_at > message.occurred_at)
        | ((Message.occurred_at == message.occurred_at) & (Message.id > message.id)),
    )
    return session.scalar(newer.limit(1)) is None


def _taken_up(session: Session, thread: Thread, message: Message) -> bool:
    """Whether somebody has acted on a message: answered it or was offered an answer, corrected a label, put the thread away."""
    answered = select(Message.id).where(
        Message.thread_id == thread.id,
        Message.direction == Direction.OUTBOUND,
        Message.created_at >= message.created_at,
    )
    offered = select(Suggestion.id).where(Suggestion.message_id == message.id)
    corrected = select(Correction.id).where(Correction.message_id == message.id)
    return thread.state != ThreadState.OPEN or any(
        session.scalar(query.limit(1)) is not None for query in (answered, offered, corrected)
    )


def withdraw(session: Session, thread: Thread, message: Message) -> None:
    """Note that whoever wrote a message asked in it not to be written to any more."""
    contacts.record_consent(
        session,
        contacts.resolve(session, Address(thread.channel, message.from_address, message.from_name)).id,
        channel=thread.channel,
        kind="withdrawn",
        source="message",
        message_id=message.id,
    )


def _stopped_at(turn: Turn, stage: str) -> bool:
    return any(step.stage == stage and step.outcome == "stop" for step in turn.trace)


def opted_out(trace: Sequence[TraceStep]) -> bool:
    """By a rule, or by a head that is sure. An opt-out that somebody is unsure about is a person's to decide."""
    return any(
        (step.stage == "screen" and step.detail.get("rule") in ("opt-out", "opt-out-request"))
        or (step.stage == "classify" and step.detail.get("opt_out") == "recorded" and step.outcome != "stop")
        for step in trace
    )
