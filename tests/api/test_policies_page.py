"""Granting and revoking on pages: admins only, audited, and a receipt in the place of the card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

import pytest

from assistant.clock import utcnow
from assistant.db.messages import Message, Suggestion
from assistant.services import policies
from assistant.states import Delivery, SuggestionState
from tests.api.conftest import BOTH, World

ENGINES = BOTH

INTENT = "order_status"


@contextmanager
def automatic(world: World) -> Iterator[None]:
    """The server runs with NOTIFYR_AUTOPILOT=granted."""
    settings = world.container.settings
    object.__setattr__(world.container, "settings", settings.model_copy(update={"autopilot": "granted"}))
    try:
        yield
    finally:
        object.__setattr__(world.container, "settings", settings)


def decided(world: World, count: int) -> None:
    identity, thread_id = world.suggestion(intent=INTENT)
    with world.container.database.transaction() as session:
        message_id = session.get_one(Suggestion, identity).message_id
        session.add_all(
            Suggestion(
                thread_id=thread_id,
                message_id=message_id,
                state=SuggestionState.ACCEPTED,
                confidence=0.9,
                intent=INTENT,
                decided_at=utcnow(),
            )
            for _ in range(count)
        )


def granted(world: World) -> str:
    decided(world, 60)
    with world.container.database.transaction() as session:
        return policies.grant(session, INTENT, agent_id=world.ids["admin"]).id


def receipt(world: World) -> tuple[str, str]:
    """A reply that a policy has put into the outbox, and its thread."""
    identity, thread_id = world.suggestion(intent=INTENT, estimate=0.95)
    with world.container.database.transaction() as session:
        assert policies.queue(session, identity, mode="granted", hold_seconds=30) == ""
    return identity, thread_id


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def card(page: str) -> str:
    found = re.search(r'<section class="suggestion.*?</section>', page, re.DOTALL)
    assert found
    return found[0]


def test_a_reply_sent_by_policy_leaves_a_receipt_with_policy_and_bound(world: World) -> None:
    granted(world)
    _, thread_id = receipt(world)
    client = world.browser()
    shown = card(client.get(f"/inbox/{thread_id}").text)
    words = text_of(shown)
    assert "sent by policy" in words and "order status" in words
    assert "Granted by Admin" in words
    assert "At least 94 % of them were sent without an edit" in words and "90 % are needed" in words
    assert "Revoke for this intent" in words
    assert 'data-key="accept"' not in shown
    row = re.search(rf'id="row-{thread_id}".*?</li>', client.get("/inbox").text, re.DOTALL)
    assert row and "sent by policy" in row[0]


def test_revoking_on_the_receipt_takes_the_waiting_reply_back_and_is_audited(world: World) -> None:
    policy = granted(world)
    identity, thread_id = receipt(world)
    client = world.browser()
    answer = client.post(f"/policies/{policy}/revoke", data={"thread_id": thread_id}, follow_redirects=True)
    assert "Revoked for order status. 1 reply that waited was taken back." in text_of(answer.text)
    assert 'data-key="accept"' in card(answer.text)
    with world.container.database.reading() as session:
        message = session.query(Message).filter_by(suggestion_id=identity).one()
        assert message.status == Delivery.CANCELLED
    audit = text_of(client.get("/settings/audit").text)
    assert "policy.revoked" in audit or "policy revoked" in audit


def test_a_receipt_of_a_revoked_policy_says_so(world: World) -> None:
    policy = granted(world)
    identity, thread_id = receipt(world)
    with world.container.database.transaction() as session:
        session.query(Message).filter_by(suggestion_id=identity).one().status = Delivery.SENT
        policies.revoke(session, policy, agent_id=world.ids["admin"])
    words = text_of(card(world.browser().get(f"/inbox/{thread_id}").text))
    assert "Revoked just now by Admin" in words and "Revoke for this intent" not in words


def test_an_agent_reads_the_receipt_and_cannot_revoke(world: World) -> None:
    policy = granted(world)
    _, thread_id = receipt(world)
    agent = world.browser("agent@example.org")
    assert "An admin can revoke this" in text_of(card(agent.get(f"/inbox/{thread_id}").text))
    assert agent.post(f"/policies/{policy}/revoke", data={"thread_id": thread_id}).status_code == 403


def test_the_trust_page_grants_and_revokes_only_where_the_server_lets_it(world: World) -> None:
    decided(world, 60)
    client = world.browser()
    assert "suggest only" in text_of(client.get("/settings/trust").text)
    refused = client.post("/policies", data={"intent": INTENT})
    assert refused.status_code == 403 and "NOTIFYR_AUTOPILOT=granted" in text_of(refused.text)
    with automatic(world):
        assert 'action="/policies"' in client.get("/settings/trust").text
        page = client.post("/policies", data={"intent": INTENT}, follow_redirects=True).text
        assert "granted by Admin" in text_of(page)
        revoke = re.search(r'action="(/policies/[^"]+/revoke)"', page)
        assert revoke
        page = client.post(revoke[1], follow_redirects=True).text
    assert "granted by" not in text_of(page)


@pytest.mark.parametrize(("count", "words"), [(5, "needs 30 more clean sends"), (60, "60 of 60 sent clean")])
def test_a_card_says_how_far_its_intent_is(world: World, count: int, words: str) -> None:
    decided(world, count)
    _, thread_id = world.suggestion(intent=INTENT)
    assert words in text_of(card(world.browser().get(f"/inbox/{thread_id}").text))
