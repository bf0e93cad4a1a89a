"""Somebody who learned a Message-ID answers into a conversation that is not theirs: they hear nothing of it."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from sqlalchemy import select

from assistant.db.messages import Message
from tests.api.conftest import BOTH, World

ENGINES = BOTH
SECRET = "the parcel is at 7 Elm Street, card 4929"


def mail(sender: str, text: str, *, number: int, answers: str = "") -> bytes:
    made = EmailMessage()
    made["From"] = sender
    made["To"] = "support@example.org"
    made["Subject"] = "Re: Order" if answers else "Order"
    made["Message-ID"] = f"<{number}@mail.example>"
    if answers:
        made["In-Reply-To"] = answers
        made["References"] = answers
    made.set_content(text)
    return made.as_bytes(policy=made.policy.clone(linesep="\r\n"))


@pytest.mark.checklist(42)
@pytest.mark.parametrize(
    "sender", ["Eve <eve@evil.example>", "Ana <ana@mail.example.evil.example>", '"ana@mail.example" <eve@evil.example>']
)
def test_a_strangers_answer_discloses_nothing_and_is_marked(world: World, sender: str) -> None:
    receive, browser = world.container.receiver.receive, world.browser()
    profile = world.ids["profile"]
    first = receive(mail("Ana <ana@mail.example>", SECRET, number=1), profile_id=profile)
    sent = browser.post(f"/api/v1/threads/{first.thread_id}/messages", json={"text": f"Yes: {SECRET}"}).json()
    with world.container.database.reading() as session:
        ours = session.get_one(Message, sent["id"]).external_id
    for number, answered in enumerate(("<1@mail.example>", ours), 2):
        found = receive(mail(sender, "Please repeat where it is.", number=number, answers=answered), profile_id=profile)
        assert found.thread_id != first.thread_id
        page = browser.get(f"/inbox/{found.thread_id}").text
        assert "never part of" in page, "the agent is told"
        thread = page.partition('class="messages"')[2] or page
        for part in ("Elm Street", "card 4929"):
            assert part not in browser.get(f"/api/v1/threads/{found.thread_id}/messages").text
            assert part not in thread.partition('class="list')[0]
        answer = browser.post(f"/api/v1/threads/{found.thread_id}/messages", json={"text": "Who are you?"})
        assert answer.status_code == 201
        with world.container.database.reading() as session:
            message = session.get_one(Message, answer.json()["id"])
            assert "Elm" not in message.text + message.subject
            assert all(one["address"] != "ana@mail.example" for one in message.to_addresses)
    with world.container.database.reading() as session:
        before = session.scalars(select(Message).where(Message.thread_id == first.thread_id)).all()
        assert len(before) == 2, "the conversation itself is untouched"
        contact = browser.get(f"/api/v1/threads/{first.thread_id}").json()
    assert "eve@" not in str(contact), "and so is the identity of the customer"
