"""Merging threads and splitting messages off: nothing is lost, later mail follows, and both can be taken back."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assistant.clock import new_id
from assistant.db.access import AuditEntry
from assistant.db.messages import DraftText, Message, Suggestion, Thread
from assistant.db.session import Database
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.services import drafts, inbox, labels, merging, notes, threads
from assistant.states import SuggestionState, ThreadState
from assistant.values import Address, InboundMessage
from tests.assistant.rows import a_thread, an_agent, an_inbound


def _two(session: Session) -> tuple[Thread, Thread, str]:
    """Two threads of one contact, two messages in the first and one in the second, and an agent."""
    first, second = a_thread(session), a_thread(session)
    first.subject, first.base_subject, second.subject, second.base_subject = "Parcel", "parcel", "Invoice", "invoice"
    for thread, text in ((first, "one"), (first, "two"), (second, "three")):
        an_inbound(session, thread, text)
    return first, second, an_agent(session).id


def _texts(session: Session, thread_id: str) -> list[str]:
    return [one.text for one in threads.messages_of(session, thread_id)]


def _mail(number: int, *, reply_to: str = "", references: tuple[str, ...] = (), subject: str) -> InboundMessage:
    return InboundMessage(
        channel="email",
        external_id=f"<later-{number}@mail.example>",
        sender=Address("email", "ana@mail.example"),
        recipients=(Address("email", "support@example.org"),),
        subject=subject,
        text="later",
        reply_to_id=reply_to,
        references=references,
        content_hash=f"{number:064d}",
    )


def _receive(session: Session, thread: Thread, message: InboundMessage) -> str:
    found = inbox.receive(session, profile_id=thread.profile_id, message=message, new_text="later", size=10)
    return found.thread_id


def test_a_merge_moves_everything_and_the_old_id_leads_to_it(database: Database) -> None:
    with database.transaction() as session:
        first, second, agent = _two(session)
        notes.add(session, second.id, agent_id=agent, text="careful", form_id="f")
        drafts.save(session, second.id, agent_id=agent, text="their words")
        drafts.save(session, first.id, agent_id=agent, text="words here")
        for thread, name in ((first, "both"), (second, "both"), (second, "money")):
            labels.add(session, thread.id, name=name, agent_id=agent)
        move = merging.merge(session, second.id, into_id=first.id, reason=" same \n order ", agent_id=agent)
        assert move.reason == "same order"
    with database.reading() as session:
        assert sorted(_texts(session, first.id)) == ["one", "three", "two"]
        into = threads.get_thread(session, first.id)
        assert (into.message_count, into.last_inbound_at is not None) == (3, True)
        assert [one.text for one in notes.of_thread(session, first.id)] == ["careful"]
        assert [one.name for one in labels.of_threads(session, [first.id])[first.id]] == ["both", "money"]
        draft = drafts.load(session, first.id, agent_id=agent)
        assert draft is not None and draft.text == "words here\n\ntheir words"
        with pytest.raises(NotFound):
            threads.get_thread(session, second.id)
        assert merging.now_at(session, second.id) == first.id == merging.now_at(session, first.id)
        assert merging.now_at(session, new_id()) == ""
        assert session.scalars(select(AuditEntry.action)).all().count("thread.merged") == 1
        assert merging.siblings(session, into) == []


def test_a_merge_taken_back_leaves_both_threads_as_they_were(database: Database) -> None:
    with database.transaction() as session:
        first, second, agent = _two(session)
        second.state, second.intent = ThreadState.CLOSED, "invoice"
        for thread in (first, second):
            labels.add(session, thread.id, name="both", agent_id=agent)
        drafts.save(session, second.id, agent_id=agent, text="their words")
        move = merging.merge(session, second.id, into_id=first.id, reason="same", agent_id=agent)
        session.flush()
        merging.undo(session, move.id, agent_id=agent)
        with pytest.raises(Conflict, match="already"):
            merging.undo(session, move.id, agent_id=agent)
    with database.reading() as session:
        assert (_texts(session, first.id), _texts(session, second.id)) == (["one", "two"], ["three"])
        again = threads.get_thread(session, second.id)
        assert (again.state, again.intent, again.subject) == (ThreadState.CLOSED, "invoice", "Invoice")
        assert (again.message_count, threads.get_thread(session, first.id).message_count) == (1, 2)
        found = labels.of_threads(session, [first.id, second.id])
        assert [[one.name for one in found[one_id]] for one_id in (first.id, second.id)] == [["both"], ["both"]]
        assert session.scalars(select(DraftText.thread_id)).all() == [second.id]
        assert merging.moves_of(session, first.id) == []


def test_a_merge_that_an_earlier_release_noted_can_be_taken_back(database: Database) -> None:
    """It knew no verdict on spam."""
    with database.transaction() as session:
        first, second, agent = _two(session)
        first.spam_verdict, second.spam_verdict = "ham", "uncertain"
        move = merging.merge(session, second.id, into_id=first.id, reason="same", agent_id=agent)
        assert first.spam_verdict == "uncertain", "the newer message's goes along"
        into = {name: value for name, value in move.before["into"].items() if name != "spam_verdict"}
        move.before = {name: value for name, value in move.before.items() if name != "spam_verdict"} | {"into": into}
        session.flush()
        merging.undo(session, move.id, agent_id=agent)
    with database.reading() as session:
        assert (_texts(session, first.id), _texts(session, second.id)) == (["one", "two"], ["three"])
        assert threads.get_thread(session, second.id).spam_verdict == ""


@pytest.mark.parametrize("by", ["in-reply-to", "references"])
def test_later_replies_to_either_thread_find_the_merged_one(database: Database, by: str) -> None:
    with database.transaction() as session:
        first, second, agent = _two(session)
        ids = {
            thread.id: session.scalars(
                select(Message.external_id).where(Message.thread_id == thread.id).order_by(Message.occurred_at)
            ).first()
            for thread in (first, second)
        }
        merging.merge(session, second.id, into_id=first.id, reason="same", agent_id=agent)
        for number, (thread_id, subject) in enumerate(((first.id, "Re: Parcel"), (second.id, "Re: Invoice"))):
            one = str(ids[thread_id])
            mail = (
                _mail(number, reply_to=one, subject=subject)
                if by == "in-reply-to"
                else _mail(number, references=(one,), subject=subject)
            )
            assert _receive(session, first, mail) == first.id


def test_a_split_message_gets_a_thread_and_its_replies_follow_it(database: Database) -> None:
    with database.transaction() as session:
        first, _, agent = _two(session)
        message = next(one for one in threads.messages_of(session, first.id) if one.text == "two")
        session.add(Suggestion(thread_id=first.id, message_id=message.id, state=SuggestionState.PROPOSED, text="x"))
        session.flush()
        move = merging.split(session, message.id, reason="another matter", agent_id=agent)
        session.flush()
        later = _mail(1, reply_to=message.external_id, subject="Re: Parcel")
        assert _receive(session, first, later) == move.into_id
        assert session.scalars(select(Suggestion.thread_id)).all() == [move.into_id]
        assert (_texts(session, first.id), sorted(_texts(session, move.into_id))) == (["one"], ["later", "two"])
        with pytest.raises(Conflict, match="only one"):
            merging.split(session, threads.messages_of(session, first.id)[0].id, reason="x", agent_id=agent)
        merging.undo(session, move.id, agent_id=agent)
        session.flush()
        assert sorted(_texts(session, first.id)) == ["later", "one", "two"]
        assert merging.now_at(session, move.into_id) == first.id
        assert session.scalar(select(func.count(Thread.id))) == 2


def test_what_cannot_be_merged_is_refused_and_nothing_moves(database: Database) -> None:
    with database.transaction() as session:
        first, second, agent = _two(session)
        stranger = a_thread(session, address="bo@mail.example")
        an_inbound(session, stranger, "four")
        ids = (first.id, second.id, stranger.id)
    cases: list[tuple[str, str, str, type[Exception]]] = [
        (ids[1], ids[0], "  ", InvalidInput),
        (ids[0], ids[0], "same", InvalidInput),
        (ids[2], ids[0], "same", InvalidInput),
        (ids[0], new_id(), "same", Conflict),
    ]
    for thread_id, into_id, reason, error in cases:
        with pytest.raises(error), database.transaction() as session:
            merging.merge(session, thread_id, into_id=into_id, reason=reason, agent_id=agent)
    with database.reading() as session:
        assert [len(_texts(session, one)) for one in ids] == [2, 1, 1]


def test_merges_in_a_row_are_followed_and_taken_back_from_the_last(database: Database) -> None:
    with database.transaction() as session:
        first, second, agent = _two(session)
        third = a_thread(session)
        an_inbound(session, third, "four")
        one = merging.merge(session, first.id, into_id=second.id, reason="a", agent_id=agent)
        two = merging.merge(session, second.id, into_id=third.id, reason="b", agent_id=agent)
        session.flush()
        assert merging.now_at(session, first.id) == third.id
        with pytest.raises(Conflict, match="take that back first"):
            merging.undo(session, one.id, agent_id=agent)
        merging.undo(session, two.id, agent_id=agent)
        session.flush()
        merging.undo(session, one.id, agent_id=agent)
        assert sorted(map(len, (_texts(session, one_id) for one_id in (first.id, second.id, third.id)))) == [1, 1, 2]
