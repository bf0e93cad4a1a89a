"""A database that reads and takes no changes: every thread can be read, what cannot be done says why, no words are lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

import httpx
import pytest
from sqlalchemy import event

from assistant.db import session as database_session
from assistant.errors import StorageError
from assistant.services import drafts, threads
from tests.api.conftest import BOTH, World

ENGINES = BOTH
WHY = "the database takes no changes, it is read-only"


@contextmanager
def read_only(world: World) -> Iterator[None]:
    """The engine itself refuses every change, as a standby or a mount without writing does."""
    engine = world.container.database.engine
    sqlite = engine.dialect.name == "sqlite"

    def switch(words: str) -> None:
        engine.dispose()

        def connected(connection: object, _record: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]  # a driver's connection
            cursor.execute(words)
            cursor.close()
            if not sqlite:
                connection.commit()  # type: ignore[attr-defined]

        event.listen(engine, "connect", connected)
        undo.append(connected)

    undo: list[object] = []
    switch("PRAGMA query_only=ON" if sqlite else "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        event.remove(engine, "connect", undo[0])
        engine.dispose()


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data=fields, headers={"accept": "text/html"}, follow_redirects=True)


def enabled(page: str) -> set[str]:
    """Acts of a thread that can be pressed: buttons outside of disabled groups."""
    thread = page[page.index('<main class="thread') :]
    left = re.sub(r'<fieldset class="bare" disabled.*?</fieldset>', "", thread, flags=re.S)
    return set(re.findall(r'data-key="(done|accept|send|dismiss|snooze|regenerate)"', left))


def test_a_refused_reply_says_why_locks_what_cannot_be_done_and_keeps_the_words(world: World) -> None:
    client, thread = world.browser(), world.ids["thread"]
    assert {"done", "accept", "send", "dismiss", "snooze"} <= enabled(client.get(f"/inbox/{thread}").text)
    with read_only(world):
        refused = post(client, f"/inbox/{thread}/reply", text="Words that took an hour", kind="reply", form_id="1")
        page = unescape(refused.text)
        assert refused.status_code == 503
        assert "Read-only." in page and WHY in page
        assert "Words that took an hour</textarea>" in page
        assert enabled(page) == set()
        again = client.get(f"/inbox/{thread}")
        assert again.status_code == 200 and WHY in unescape(again.text) and enabled(again.text) == set()
        assert "Where is my refund" in again.text
    with world.container.database.reading() as session:
        assert all(one.direction == "inbound" for one in threads.messages_of(session, thread))


def test_an_edit_and_a_note_keep_their_words_too(world: World) -> None:
    client = world.browser()
    suggestion, thread = world.suggestion()
    with read_only(world):
        edited = post(client, f"/suggestions/{suggestion}/accept", thread_id=thread, version="1", text="My own words")
        assert edited.status_code == 503 and "My own words</textarea>" in edited.text
        noted = post(client, f"/inbox/{thread}/note", text="Ask Bo about this", form_id="n")
        assert noted.status_code == 503 and "Ask Bo about this</textarea>" in noted.text


def test_acts_come_back_as_soon_as_a_write_works_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, thread = world.browser(), world.ids["thread"]
    with read_only(world):
        assert post(client, f"/inbox/{thread}/act", act="star").status_code == 503
        monkeypatch.setattr(database_session, "_TRY_AGAIN", 0.0)
        assert WHY in client.get(f"/inbox/{thread}").text  # tried again, and still refused
    shown = client.get(f"/inbox/{thread}").text
    assert WHY not in shown and {"done", "accept", "send"} <= enabled(shown)


def test_only_what_makes_a_database_unwritable_is_believed(world: World) -> None:
    database = world.container.database
    with pytest.raises(StorageError), read_only(world), database.transaction() as session:
        drafts.save(session, world.ids["thread"], agent_id=world.ids["admin"], text="x")
    probed: list[str] = []
    assert database.refusal(lambda _: probed.append("once")) == WHY and probed == []
    with database.transaction() as session:
        drafts.save(session, world.ids["thread"], agent_id=world.ids["admin"], text="x")
    assert database.refusal(lambda _: probed.append("once")) == "" and probed == []
