"""A reply that looks like spam, as agents and programs meet it: the list, the thread, the buttons, the API."""

from __future__ import annotations

import pytest

from assistant.db.messages import DraftText, Message
from assistant.services import outbox, screening
from assistant.services.screening import Part, Seen
from assistant.states import Author, Delivery, Screening
from tests.api.conftest import BOTH, World

ENGINES = BOTH
SPAM = Seen(0.65, (Part("prize", "it tells of a <prize>", 0.65),))


def screened(world: World, outcome: Screening) -> tuple[str, str]:
    """A reply with this verdict, and its thread."""
    thread_id = world.thread()
    with world.container.database.transaction() as session:
        message = outbox.queue_message(session, thread_id=thread_id, author=Author.AGENT, text="You have won!")
        assert screening.keep(session, message.id, SPAM, outcome)
        if outcome is Screening.WARN:
            message.status = Delivery.SENT
    return message.id, thread_id


def row(world: World, message_id: str) -> Message:
    with world.container.database.reading() as session:
        return session.get_one(Message, message_id)


def test_a_held_reply_says_why_and_offers_two_ways_without_scripts(world: World) -> None:
    message_id, thread_id = screened(world, Screening.HOLD)
    client = world.browser()
    page = client.get(f"/inbox/{thread_id}?view=outbox").text
    assert "held back, not sent: it looks like spam" in page
    assert "it tells of a &lt;prize&gt; (0.65)" in page
    assert "Send anyway" in page and f'action="/messages/{message_id}/release"' in page
    assert f'action="/messages/{message_id}/cancel"' in page
    assert "Send now" not in page and "Undo send" not in page
    assert "held back</span>" in page
    answer = client.post(f"/messages/{message_id}/release", data={"thread_id": thread_id}, follow_redirects=True)
    assert answer.status_code == 200
    found = row(world, message_id)
    assert (found.status, found.screening) == (Delivery.QUEUED, Screening.RELEASED)
    again = client.post(f"/messages/{message_id}/release", data={"thread_id": thread_id}, follow_redirects=True)
    assert again.status_code == 409
    assert "is not held back as spam" in again.text
    trail = client.get("/settings/audit?area=outgoing").text
    assert "outgoing.release" in trail


def test_a_held_reply_that_is_taken_back_leaves_its_words_with_the_agent(world: World) -> None:
    message_id, thread_id = screened(world, Screening.HOLD)
    client = world.browser()
    client.post(f"/messages/{message_id}/cancel", data={"thread_id": thread_id}, follow_redirects=True)
    assert row(world, message_id).status is Delivery.CANCELLED
    with world.container.database.reading() as session:
        assert session.query(DraftText).filter_by(thread_id=thread_id).one().text == "You have won!"


def test_a_marked_reply_and_a_refused_one_say_why(world: World) -> None:
    client = world.browser()
    _, thread_id = screened(world, Screening.WARN)
    page = client.get(f"/inbox/{thread_id}?view=sent").text
    assert "This may be taken for spam." in page
    assert "spam, 0.65: it tells of a &lt;prize&gt; (0.65)" in page
    assert "sent, looks like spam" in page
    _, thread_id = screened(world, Screening.REJECT)
    page = client.get(f"/inbox/{thread_id}?view=outbox").text
    assert (
        "rejected: it looks like spam: it tells of a &lt;prize&gt; (0.65). Write the reply again in other words."
        in page
    )
    assert "Send anyway" not in page and "Try again" not in page


def test_a_program_reads_the_verdict_and_releases_once(world: World) -> None:
    message_id, _ = screened(world, Screening.HOLD)
    client = world.program("threads:read", "messages:send")
    found = client.get(f"/api/v1/messages/{message_id}").json()
    assert (found["status"], found["screening"], found["spam_label"], found["spam_score"]) == (
        "held",
        "hold",
        "spam",
        0.65,
    )
    assert found["events"][-1]["kind"] == "screened:hold"
    # The end of the undo window is not a release.
    assert client.post(f"/api/v1/messages/{message_id}/send-now").status_code == 409
    released = client.post(f"/api/v1/messages/{message_id}/release")
    assert (released.status_code, released.json()["screening"]) == (200, "released")
    assert client.post(f"/api/v1/messages/{message_id}/release").status_code == 409


@pytest.mark.parametrize("status", ["held", "queued"])
def test_a_reply_that_nobody_has_looked_at_has_no_verdict(world: World, status: str) -> None:
    client = world.program("threads:read", "messages:send")
    body = {"text": "Hello Ana", "hold_seconds": 10 if status == "held" else 0}
    made = client.post(f"/api/v1/threads/{world.thread()}/messages", json=body).json()
    assert (made["status"], made["screening"], made["spam_label"], made["spam_score"]) == (status, "", "", None)
    assert client.post(f"/api/v1/messages/{made['id']}/release").status_code == 409
