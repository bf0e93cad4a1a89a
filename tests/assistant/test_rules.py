"""Thresholds and exceptions: the nearest rule counts, and a domain stands for its addresses."""

from __future__ import annotations

import pytest

from assistant.db.session import Database
from assistant.errors import InvalidInput, NotFound
from assistant.services import rules


def test_a_label_follows_its_own_threshold_then_its_heads_then_the_default(database: Database) -> None:
    with database.transaction() as session:
        rules.set_threshold(session, head="intent", value=0.6)
        rules.set_threshold(session, head="intent", label="refund", value=0.8)
        rules.set_threshold(session, head="intent", label="refund", value=0.7)
        found = rules.read(session)
    assert found.threshold("intent", "refund", default=0.5) == 0.7
    assert found.threshold("intent", "billing", default=0.5) == 0.6
    assert found.threshold("spam", "spam", default=0.9) == 0.9
    with database.transaction() as session:
        rules.set_threshold(session, head="intent", label="refund", value=None)
        assert rules.threshold(session, "intent", "refund", default=0.5) == 0.6
        with pytest.raises(InvalidInput, match="probability"):
            rules.set_threshold(session, head="spam", value=1.0)


def test_a_label_is_never_claimed_for_an_excepted_address_or_domain(database: Database) -> None:
    with database.transaction() as session:
        one = rules.except_sender(session, sender="Ana@Example.org", head="spam", label="spam")
        assert rules.except_sender(session, sender="ana@example.org", head="spam", label="spam").id == one.id
        rules.except_sender(session, sender="@partner.example", head="spam", label="spam")
        found = rules.read(session)
        assert found.excepted("ANA@example.org", "spam", "spam")
        assert found.excepted("bo@partner.example", "spam", "spam")
        assert not found.excepted("bo@example.org", "spam", "spam")
        assert not found.excepted("ana@example.org", "intent", "refund")
        rules.forget_exception(session, one.id)
        assert not rules.read(session).excepted("ana@example.org", "spam", "spam")
        with pytest.raises(NotFound):
            rules.forget_exception(session, one.id)
        with pytest.raises(InvalidInput, match="address"):
            rules.except_sender(session, sender="everybody", head="spam", label="spam")
