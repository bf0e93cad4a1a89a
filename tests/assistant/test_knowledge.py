"""Approved answers: versions, chunks, and what may be cited."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.db.session import Database
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.services import knowledge


def test_an_answer_is_cut_into_chunks_and_found_by_its_numbers(database: Database) -> None:
    with database.transaction() as session:
        document = knowledge.add(session, title=" Where is  my parcel ", text="It takes 3 days.\n\nYou can track it.")
    with database.reading() as session:
        (chunk,) = knowledge.live_chunks(session)
        assert chunk.searchable == "Where is my parcel\nIt takes 3 days. You can track it."
        (found,) = knowledge.passages(session, [(chunk.number, 0.71234), (1, 0.9)])
    assert (found.source, found.document_id, found.version, found.score) == (
        "Where is my parcel",
        document.id,
        1,
        0.7123,
    )


def test_a_change_makes_a_new_version_and_the_old_chunks_are_gone(database: Database) -> None:
    with database.transaction() as session:
        document = knowledge.add(session, title="A", text="old")
        (old,) = knowledge.live_chunks(session)
        knowledge.update(session, document.id, text="new")
    with database.reading() as session:
        (new,) = knowledge.live_chunks(session)
        assert new.number != old.number
        assert knowledge.passages(session, [(old.number, 0.9)]) == ()
        assert knowledge.get(session, document.id).version == 2


def test_the_knowledge_version_changes_exactly_with_the_answers_in_use(database: Database) -> None:
    seen = []

    def note() -> None:
        with database.reading() as session:
            seen.append(knowledge.knowledge_version(session))

    note()
    with database.transaction() as session:
        document = knowledge.add(session, title="A", text="one")
    note()
    with database.transaction() as session:
        knowledge.update(session, document.id, text="one")
    note()
    with database.transaction() as session:
        knowledge.update(session, document.id, text="two")
    note()
    with database.transaction() as session:
        knowledge.disable(session, document.id)
    note()
    with database.transaction() as session:
        knowledge.enable(session, document.id)
    note()
    empty, first, same, second, disabled, enabled = seen
    assert first == same
    assert disabled == empty
    assert enabled == second
    assert len({empty, first, second}) == 3


def test_a_disabled_answer_is_never_cited(database: Database) -> None:
    with database.transaction() as session:
        document = knowledge.add(session, title="A", text="one")
        (chunk,) = knowledge.live_chunks(session)
        knowledge.disable(session, document.id)
    with database.reading() as session:
        assert knowledge.live_chunks(session) == []
        assert knowledge.passages(session, [(chunk.number, 0.9)]) == ()
        assert knowledge.list_documents(session) == []
        assert len(knowledge.list_documents(session, disabled=True)) == 1


def test_seeding_twice_adds_nothing(database: Database) -> None:
    with database.transaction() as session:
        assert knowledge.seed(session, [("A", "one"), ("B", "two")]) == 2
    with database.transaction() as session:
        assert knowledge.seed(session, [("A", "one"), ("B", "two"), ("C", "three")]) == 1


def test_mistakes_have_words(database: Database) -> None:
    with database.transaction() as session:
        knowledge.add(session, title="A", text="one")
        with pytest.raises(Conflict, match="already a document titled 'A'"):
            knowledge.add(session, title="A", text="two")
        with pytest.raises(InvalidInput):
            knowledge.add(session, title=" ", text="two")
        with pytest.raises(InvalidInput):
            knowledge.add(session, title="B", text="  ")
        with pytest.raises(InvalidInput):
            knowledge.add(session, title="B", text="x", kind="rumour")
        with pytest.raises(NotFound):
            knowledge.disable(session, "nothing")


@given(st.text(max_size=3000), st.integers(20, 300))
def test_chunks_are_short_and_lose_no_word(text: str, limit: int) -> None:
    chunks = knowledge.chunk(text, limit=limit)
    assert all(0 < len(chunk) <= limit for chunk in chunks)
    assert "".join("".join(chunks).split()) == "".join(text.split())
