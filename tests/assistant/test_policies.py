"""Sending without a person: only under a grant, only what every rule allows, and a revocation that works at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from assistant.clock import utcnow
from assistant.db.access import AuditEntry
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.session import Database
from assistant.errors import Conflict, NotFound
from assistant.services import attempts, calibration, outbox, policies, suggestions
from assistant.services.autopilot import SendFacts, may_send, sends_needed
from assistant.states import Author, Delivery, SuggestionState, TriageState
from assistant.values import DecisionKind, MessageClass
from tests.assistant.rows import ANSWER, a_thread, an_agent, an_inbound, finished

INTENT = "order_status"
FINE = SendFacts(mode="granted", granted=True, bound=0.93, word="ready")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mode": "suggest"}, "suggest only"),
        ({"granted": False}, "not granted"),
        ({"bound": 0.89}, "89% clean is less than 90%"),
        ({"word": "check"}, "“check”"),
        ({"unsupported": 1}, "no source"),
        ({"failed": ("numbers",)}, "numbers"),
        ({"asked": True}, "an agent asked"),
        ({"person": "somebody is assigned"}, "somebody is assigned"),
    ],
)
def test_each_rule_alone_keeps_a_draft_with_a_person(change: dict[str, object], why: str) -> None:
    assert may_send(FINE).kind is DecisionKind.REPLY
    decision = may_send(replace(FINE, **change))  # type: ignore[arg-type]
    assert decision.kind is DecisionKind.SUGGEST
    assert why in decision.reason


def test_the_clean_sends_that_are_missing_are_counted() -> None:
    missing = sends_needed(10, 12)
    assert missing > 0
    assert calibration.interval(10 + missing, 12 + missing)[0] >= 0.9
    assert calibration.interval(10 + missing - 1, 12 + missing - 1)[0] < 0.9
    assert sends_needed(50, 50) == 0
    assert sends_needed(0, 100_000) == 1000


def decided(database: Database, *, clean: int, count: int) -> None:
    """Earlier outcomes of the intent."""
    with database.transaction() as session:
        message = an_inbound(session, a_thread(session), triage=TriageState.DONE)
        for number in range(count):
            state = SuggestionState.ACCEPTED if number < clean else SuggestionState.EDITED
            session.add(
                Suggestion(
                    thread_id=message.thread_id,
                    message_id=message.id,
                    state=state,
                    confidence=0.9,
                    intent=INTENT,
                    decided_at=utcnow(),
                )
            )


def granted(database: Database) -> str:
    decided(database, clean=60, count=60)
    with database.transaction() as session:
        return policies.grant(session, INTENT, agent_id=an_agent(session).id).id


def drafted(database: Database, **values: object) -> str:
    """A finished draft for the intent, in a thread of its own."""
    with database.transaction() as session:
        thread = a_thread(session)
        thread.intent = INTENT
        for name, value in values.items():
            setattr(thread, name, value)
        message = an_inbound(session, thread, triage=TriageState.DONE)
        suggestion = suggestions.begin(session, message.id, passages=[ANSWER])
        suggestions.propose(session, suggestion.id, turn=finished(confidence=0.95), milliseconds=1, reasons=[])
    return suggestion.id


def sent(database: Database, suggestion_id: str, *, hold: int = 0) -> str:
    with database.transaction() as session:
        return policies.queue(session, suggestion_id, mode="granted", hold_seconds=hold)


def message_of(database: Database, suggestion_id: str) -> Message | None:
    with database.reading() as session:
        return session.scalar(select(Message).where(Message.suggestion_id == suggestion_id))


def suggestion_of(database: Database, suggestion_id: str) -> Suggestion:
    with database.reading() as session:
        return suggestions.get(session, suggestion_id)


def test_a_granted_intent_is_answered_as_automatic_mail_and_marked(database: Database) -> None:
    policy = granted(database)
    suggestion = drafted(database)
    assert sent(database, suggestion, hold=10) == ""
    message = message_of(database, suggestion)
    assert message is not None
    assert (message.author, message.status) == (Author.ASSISTANT, Delivery.HELD)
    assert message.message_class == MessageClass.AUTO_REPLY
    found = suggestion_of(database, suggestion)
    assert (found.state, found.policy_id, found.agent_id) == (SuggestionState.ACCEPTED, policy, None)
    assert found.policy_bound is not None and found.policy_bound > 0.9
    with database.reading() as session:
        assert session.get_one(Thread, message.thread_id).suggestion_mark == "sent"


def test_without_the_setting_a_grant_sends_nothing(database: Database) -> None:
    granted(database)
    suggestion = drafted(database)
    with database.transaction() as session:
        assert "suggest only" in policies.queue(session, suggestion, mode="suggest", hold_seconds=0)
    assert message_of(database, suggestion) is None


def test_an_assigned_thread_stays_with_its_person_and_says_so(database: Database) -> None:
    granted(database)
    with database.transaction() as session:
        agent = an_agent(session).id
    suggestion = drafted(database, assignee_id=agent)
    assert "assigned" in sent(database, suggestion)
    assert message_of(database, suggestion) is None
    assert suggestion_of(database, suggestion).trace[-1]["stage"] == "policy"


def test_what_left_by_itself_proves_nothing_about_itself(database: Database) -> None:
    granted(database)
    for _ in range(3):
        sent(database, drafted(database))
    with database.reading() as session:
        assert calibration.outcomes(session).count == 60


def test_too_few_clean_sends_cannot_be_granted(database: Database) -> None:
    decided(database, clean=20, count=20)
    with database.transaction() as session:
        agent = an_agent(session).id
    with database.transaction() as session, pytest.raises(Conflict, match="more clean sends"):
        policies.grant(session, INTENT, agent_id=agent)
    with database.transaction() as session, pytest.raises(NotFound):
        policies.grant(session, "no such intent", agent_id=agent)


def revoked(database: Database, policy: str) -> int:
    with database.transaction() as session:
        return policies.revoke(session, policy, agent_id=an_agent(session, "Admin").id)


def test_revoking_takes_back_what_waits_and_asks_a_person_again(database: Database) -> None:
    policy = granted(database)
    held, queued = drafted(database), drafted(database)
    sent(database, held, hold=10)
    sent(database, queued)
    assert revoked(database, policy) == 2
    assert revoked(database, policy) == 0
    for one in (held, queued):
        message = message_of(database, one)
        assert message is not None and message.status == Delivery.CANCELLED
        found = suggestion_of(database, one)
        assert (found.state, found.policy_id) == (SuggestionState.PROPOSED, None)
    with database.reading() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "policy.revoked")).one()
    assert (entry.subject, entry.detail) == (INTENT, {"taken_back": 2})


def test_after_a_revocation_the_next_draft_is_a_suggestion(database: Database) -> None:
    policy = granted(database)
    revoked(database, policy)
    suggestion = drafted(database)
    assert "not granted" in sent(database, suggestion)
    assert suggestion_of(database, suggestion).state == SuggestionState.PROPOSED


def test_a_message_that_slipped_past_the_revocation_is_stopped_where_it_is_claimed(database: Database) -> None:
    policy = granted(database)
    suggestion = drafted(database)
    sent(database, suggestion)
    with database.transaction() as session:  # the revocation committed before it saw this message
        policies.get(session, policy).revoked_at = utcnow()
    message = message_of(database, suggestion)
    assert message is not None
    with database.transaction() as session:
        assert attempts.claim(session, message.id, lease_seconds=60) is None
    after = message_of(database, suggestion)
    assert after is not None and (after.status, after.error_code) == (Delivery.CANCELLED, "policy-revoked")
    assert suggestion_of(database, suggestion).state == SuggestionState.PROPOSED


def test_an_agent_takes_a_policys_reply_back_like_any_other(database: Database) -> None:
    granted(database)
    suggestion = drafted(database)
    sent(database, suggestion, hold=10)
    message = message_of(database, suggestion)
    assert message is not None
    with database.transaction() as session:
        outbox.cancel(session, message.id, agent_id=an_agent(session).id)
        suggestions.restore(session, suggestion)
    assert suggestion_of(database, suggestion).policy_id is None
