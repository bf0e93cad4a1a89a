"""Contacts: an address belongs to one of them, and a STOP beats everything."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from assistant.db.contacts import Consent, Contact
from assistant.db.session import Database
from assistant.services import contacts
from assistant.values import Address

ANN = Address("email", "ann@example.com", "Ann")


def test_an_address_is_resolved_to_the_same_contact_again(database: Database) -> None:
    with database.transaction() as session:
        first = contacts.resolve(session, Address("email", "ann@example.com")).id
    with database.transaction() as session:
        again = contacts.resolve(session, ANN)
        assert (again.id, again.display_name) == (first, "Ann")
    with database.transaction() as session:
        assert contacts.resolve(session, Address("email", "ann@example.com", "Eve")).display_name == "Ann"
        assert contacts.resolve(session, Address("sms", "ann@example.com")).id != first
        assert session.scalar(select(func.count()).select_from(Contact)) == 2


@pytest.mark.parametrize("cause", ["opt-out", "hard-bounce", "complaint", "refused", "manual"])
def test_a_suppressed_address_is_not_written_to_and_the_reason_is_in_words(database: Database, cause: str) -> None:
    with database.transaction() as session:
        contacts.resolve(session, ANN)
        facts = {"channel": "email", "address": ANN.value}
        assert contacts.may_write(session, **facts) is None
        contacts.suppress(session, ANN, cause=cause)
        reason = contacts.may_write(session, **facts)
        assert reason
        assert " " in reason
        assert contacts.may_write(session, **(facts | {"address": "other@example.com"})) is None


def test_the_first_cause_stays_but_an_opt_out_beats_it(database: Database) -> None:
    with database.transaction() as session:
        for cause in ("hard-bounce", "complaint", "opt-out", "manual"):
            contacts.suppress(session, ANN, cause=cause, detail=cause)
        found = contacts.suppression(session, "email", ANN.value)
        assert found is not None
        assert (found.cause, found.detail) == ("opt-out", "opt-out")


def test_the_newest_consent_counts_and_one_message_states_it_once(database: Database) -> None:
    with database.transaction() as session:
        contact = contacts.resolve(session, ANN)
        facts = {"channel": "email", "address": ANN.value}
        for kind, expected in (("granted", True), ("withdrawn", False), ("granted", True), ("withdrawn", False)):
            contacts.record_consent(session, contact.id, channel="email", kind=kind, source="test")
            assert (contacts.may_write(session, **facts) is None) is expected
        assert contacts.may_write(session, **(facts | {"channel": "sms"})) is None
        before = session.scalar(select(func.count()).select_from(Consent))
        for _ in range(3):
            contacts.record_consent(
                session, contact.id, channel="email", kind="withdrawn", source="mail", message_id="m1"
            )
        assert session.scalar(select(func.count()).select_from(Consent)) == (before or 0) + 1
