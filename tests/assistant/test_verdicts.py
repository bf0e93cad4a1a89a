"""A corrected label is true of the thread at once, and taken back it is the model's again."""

from __future__ import annotations

import pytest

from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.errors import InvalidInput
from assistant.services import contacts, verdicts
from assistant.services.rules import Rules
from tests.assistant.rows import a_thread, an_agent, an_inbound

LABELS = [
    {"name": "spam:ham", "score": 0.97},
    {"name": "intent:refund", "score": 0.55},
    {"name": "intent:billing", "score": 0.3},
    {"name": "urgency:normal", "score": 0.5},
    {"name": "optout:no", "score": 0.8},
    {"name": "scope:in", "score": 0.4},
]
TRACE = [{"stage": "classify", "detail": {"claims": {"intent": "refund"}, "opt_out": ""}}]


def test_a_verdict_says_whether_it_was_claimed_and_what_came_next(database: Database) -> None:
    with database.transaction() as session:
        message = an_inbound(session, a_thread(session), labels=LABELS, trace=TRACE)
        found = {
            one.head: one
            for one in verdicts.of_message(
                session, message, rules=Rules({("urgency", ""): 0.9}), defaults={"intent": 0.5}
            )
        }
    assert list(found) == ["spam", "intent", "urgency", "optout"]
    assert (found["intent"].claimed, found["intent"].others) == (True, (("billing", 0.3),))
    assert (found["urgency"].claimed, found["urgency"].threshold) == (False, 0.9)


def test_a_correction_changes_the_thread_and_undo_brings_the_claim_back(database: Database) -> None:
    with database.transaction() as session:
        thread, agent = a_thread(session), an_agent(session)
        message = an_inbound(session, thread, labels=LABELS, trace=TRACE)
        thread.intent = "refund"
        made = verdicts.correct(session, message.id, head="intent", label="warranty", agent_id=agent.id)
        assert thread.intent == "warranty"
        assert verdicts.of_message(session, message, rules=Rules(), defaults={})[1].correction is made
        verdicts.take_back(session, made.id)
        assert thread.intent == "refund"
        with pytest.raises(InvalidInput, match="which label"):
            verdicts.correct(session, message.id, head="weather", label="rain", agent_id=agent.id)


def test_an_older_message_does_not_change_what_the_thread_is_about(database: Database) -> None:
    with database.transaction() as session:
        thread, agent = a_thread(session), an_agent(session)
        old = an_inbound(session, thread, labels=LABELS, trace=TRACE)
        thread.message_count += 1
        an_inbound(session, thread, labels=LABELS, trace=TRACE)
        thread.intent = "refund"
        verdicts.correct(session, old.id, head="intent", label="warranty", agent_id=agent.id)
        assert thread.intent == "refund"


def test_a_corrected_opt_out_stops_sends_and_a_wrong_one_lets_them_go_on(database: Database) -> None:
    with database.transaction() as session:
        thread, agent = a_thread(session), an_agent(session)
        message: Message = an_inbound(session, thread, labels=LABELS, trace=TRACE)
        facts = {"channel": "email", "address": "ana@mail.example"}
        yes = verdicts.correct(session, message.id, head="optout", label="yes", agent_id=agent.id)
        assert contacts.may_write(session, **facts) is not None
        verdicts.take_back(session, yes.id)
        assert contacts.may_write(session, **facts) is None


def test_an_opt_out_of_another_day_is_not_given_back(database: Database) -> None:
    with database.transaction() as session:
        thread, agent = a_thread(session), an_agent(session)
        contacts.record_consent(session, thread.contact_id, channel="email", kind="withdrawn", source="page")
        message = an_inbound(session, thread, labels=LABELS, trace=TRACE)
        verdicts.correct(session, message.id, head="optout", label="no", agent_id=agent.id)
        reason = contacts.may_write(session, channel="email", address="ana@mail.example")
        assert reason is not None
