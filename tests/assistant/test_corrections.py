"""Corrections: capped, undoable, and a slice that is only measured with."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.services import corrections
from assistant.states import Direction
from tests.assistant.rows import a_thread, an_agent, an_inbound


def learnable(
    session: Session, count: int, *, held_out: bool = False, sender: str = "ana@mail.example"
) -> list[Message]:
    """Messages on the wanted side of the split."""
    thread = a_thread(session)
    texts = (f"text {chr(97 + n % 26) * (n // 26 + 1)}" for n in range(500))
    kept = [one for one in texts if corrections.is_held_out(f"{thread.subject}\n{one}") == held_out][:count]
    labels = [{"name": "intent:refund", "score": 0.7}]
    return [an_inbound(session, thread, one, from_address=sender, labels=labels) for one in kept]


def test_a_correction_keeps_what_the_model_said_and_is_learned(database: Database) -> None:
    with database.transaction() as session:
        (message,) = learnable(session, 1)
        agent = an_agent(session)
        before = corrections.generation(session, "intent")
        made = corrections.record(session, message.id, head="intent", label="warranty", agent_id=agent.id)
        assert (made.old_label, made.old_score, made.new_label) == ("refund", 0.7, "warranty")
        assert corrections.record(session, message.id, head="intent", label="warranty").id == made.id
        assert corrections.generation(session, "intent") != before
        (lesson,) = corrections.lessons(session, "intent")
        assert (lesson.label, lesson.text) == ("warranty", message.new_text)
        assert corrections.lessons(session, "spam") == []


def test_a_second_opinion_replaces_the_first_and_undo_brings_nothing_back(database: Database) -> None:
    with database.transaction() as session:
        (message,) = learnable(session, 1)
        corrections.record(session, message.id, head="intent", label="warranty")
        second = corrections.record(session, message.id, head="intent", label="billing")
        assert [one.label for one in corrections.lessons(session, "intent")] == ["billing"]
        corrections.undo(session, second.id)
        assert corrections.lessons(session, "intent") == []
        with pytest.raises(Conflict):
            corrections.undo(session, second.id)


def test_one_sender_teaches_only_so_much_a_day(database: Database) -> None:
    with database.transaction() as session:
        for message in learnable(session, corrections.CAP + 3):
            corrections.record(session, message.id, head="spam", label="ham")
        (other,) = learnable(session, 1, sender="bo@mail.example")
        assert not corrections.record(session, other.id, head="spam", label="ham").over_cap
        assert len(corrections.lessons(session, "spam")) == corrections.CAP + 1


def test_what_is_held_out_is_never_learned(database: Database) -> None:
    with database.transaction() as session:
        (message,) = learnable(session, 1, held_out=True)
        assert corrections.record(session, message.id, head="intent", label="billing").held_out
        assert corrections.lessons(session, "intent") == []
        assert [one.message_id for one in corrections.lessons(session, "intent", held_out=True)] == [message.id]


def test_a_poisoned_batch_is_taken_back_at_once(database: Database) -> None:
    with database.transaction() as session:
        agent, other = an_agent(session, "mallory@example.org"), an_agent(session, "bo@example.org")
        first, second, third = learnable(session, 3)
        for message, by in ((first, agent), (second, agent), (third, other)):
            corrections.record(session, message.id, head="spam", label="ham", agent_id=by.id)
        assert corrections.undo_batch(session, agent_id=agent.id, since=utcnow() - timedelta(hours=1)) == 2
        assert [one.message_id for one in corrections.lessons(session, "spam")] == [third.id]
        with pytest.raises(InvalidInput, match="whose"):
            corrections.undo_batch(session)


def test_only_mail_that_came_in_has_labels_to_correct(database: Database) -> None:
    with database.transaction() as session:
        ours = an_inbound(session, a_thread(session), direction=Direction.OUTBOUND)
        with pytest.raises(InvalidInput, match="came in"):
            corrections.record(session, ours.id, head="spam", label="ham")
        with pytest.raises(NotFound):
            corrections.record(session, "nothing", head="spam", label="ham")
