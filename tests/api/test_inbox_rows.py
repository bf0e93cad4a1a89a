"""What a row says: what became of the mail that left, the first words where there is no subject, and that done is done."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from assistant.clock import new_id
from assistant.db.messages import Message
from assistant.states import Author, Delivery, Direction
from channels.base import KEPT_HERE
from tests.api.conftest import BOTH, World

ENGINES = BOTH


def answered(world: World, thread: str, status: Delivery, **values: object) -> None:
    """An outgoing message of a thread, that this became of."""
    with world.container.database.transaction() as session:
        session.add(
            Message(
                id=(identity := new_id()),
                external_id=f"<{identity}@example.org>",
                thread_id=thread,
                profile_id=world.ids["profile"],
                direction=Direction.OUTBOUND,
                author=Author.AGENT,
                status=status,
                text="Here it is.",
                from_address="support@example.org",
                to_addresses=[{"address": "ana@example.net", "name": "Ana"}],
                **values,
            )
        )


def row(client: httpx.Client, view: str, thread: str) -> str:
    page = client.get("/inbox", params={"view": view}).text
    found = re.search(rf'<li class="row[^>]*id="row-{thread}".*?</li>', page, re.DOTALL)
    assert found is not None, (view, thread)
    return unescape(found[0])


@pytest.mark.parametrize(
    ("status", "word", "views"),
    [
        (Delivery.QUEUED, "queued", ("sent", "outbox")),
        (Delivery.SENT, "sent", ("sent",)),
        (Delivery.DELIVERED, "delivered", ("sent",)),
        (Delivery.FAILED, "failed", ("sent", "outbox")),
        (Delivery.UNKNOWN, "unknown", ("sent", "outbox")),
    ],
)
def test_a_row_of_sent_and_outbox_says_what_became_of_the_mail_by_a_word_and_an_icon(
    world: World, status: Delivery, word: str, views: tuple[str, ...]
) -> None:
    thread = world.thread(has_outbound=True)
    answered(world, thread, status)
    client = world.browser()
    for view in views:
        assert re.search(rf'became"><svg.*?</svg>{word}</span>', row(client, view, thread)), view
    assert "became" not in row(client, "inbox", thread)


def test_the_outbox_names_what_is_not_settled_and_sent_the_newest(world: World) -> None:
    thread = world.thread(has_outbound=True)
    for status in (Delivery.FAILED, Delivery.DELIVERED):
        answered(world, thread, status)
    client = world.browser()
    assert "</svg>failed</span>" in row(client, "outbox", thread)
    assert "</svg>delivered</span>" in row(client, "sent", thread)


def test_mail_that_only_lies_here_does_not_read_as_sent(world: World) -> None:
    thread = world.thread(has_outbound=True)
    answered(world, thread, Delivery.SENT, receipt=KEPT_HERE)
    assert "</svg>kept here</span>" in row(world.browser(), "sent", thread)


def test_the_first_words_stand_where_there_is_no_subject(world: World) -> None:
    thread = world.thread(subject="", snippet="Can you call me back?")
    shown = row(world.browser(), "inbox", thread)
    assert shown.count("Can you call me back?") == 2, (
        "in the place of the subject and in the box's name, not beside itself"
    )
    assert re.search(r'row-subject">.*Can you call me back\?', shown)
    assert "No subject" not in shown and 'aria-label="Select Can you call me back?"' in shown
    assert "No subject" in row(world.browser(), "inbox", world.thread(subject="", snippet=""))


def test_what_was_marked_done_is_done_and_not_closed(world: World) -> None:
    client = world.browser()
    thread, other = world.thread(), world.thread()
    client.post(f"/inbox/{thread}/act", data={"act": "done", "view": "all"})
    page = client.get(f"/inbox/{thread}?view=all").text
    assert '<span class="state">done</span>' in page
    assert re.search(r'<span class="quiet">done ·', client.get(f"/inbox/{other}?view=all").text)
