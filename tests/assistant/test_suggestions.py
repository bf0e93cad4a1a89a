"""A suggestion is drafted once and decided once, whoever races; on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import func, select

from assistant import failpoints
from assistant.db.access import Agent
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.session import Database, Event, Job
from assistant.errors import Conflict, InvalidInput, NotAllowed, NotFound, NotifyrError, StaleSuggestion
from assistant.services import contacts, outbox, suggestions
from assistant.states import Delivery, Direction, SuggestionState, TriageState
from assistant.values import Address
from tests.assistant.rows import ANSWER, a_proposal, a_thread, an_agent, an_inbound, finished


class Outgoing:
    """What left a database after its commits."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.events: list[Event] = []


@pytest.fixture
def outgoing(database: Database) -> Iterator[Outgoing]:
    seen = Outgoing()
    database.dispatch, database.announce = seen.jobs.append, seen.events.append
    yield seen


def sent(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).where(Message.direction == Direction.OUTBOUND)) or 0


def thread_of(database: Database) -> Thread:
    with database.reading() as session:
        return session.scalars(select(Thread)).one()


# -- drafting


def test_beginning_twice_is_one_draft_and_one_task(database: Database, outgoing: Outgoing) -> None:
    with database.transaction() as session:
        message = an_inbound(session, a_thread(session), triage=TriageState.DONE)
        first = suggestions.begin(session, message.id, passages=[ANSWER])
        second = suggestions.begin(session, message.id, passages=[ANSWER])
    assert first.id == second.id
    assert [job for job in outgoing.jobs if job.task == "draft"] == [Job("draft", (first.id,))]
    assert suggestions.passages_of(first) == (ANSWER,)
    assert thread_of(database).suggestion_mark == "drafting"


def test_a_proposal_marks_the_thread_and_is_stored_once(database: Database, outgoing: Outgoing) -> None:
    with database.transaction() as session:
        proposal = a_proposal(session)
    with database.transaction() as session:
        again = suggestions.propose(session, proposal.id, turn=finished("other"), milliseconds=1, reasons=[])
    assert not again
    with database.reading() as session:
        stored = suggestions.get(session, proposal.id)
    assert (stored.state, stored.word, stored.version) == (SuggestionState.PROPOSED, "ready", 2)
    assert stored.text.endswith("3 days.")
    thread = thread_of(database)
    assert (thread.suggestion_mark, thread.needs_review) == ("ready", True)
    assert "suggestion.changed" in {event.kind for event in outgoing.events}


def test_a_draft_that_keeps_failing_is_given_up_after_five_tries(database: Database) -> None:
    with database.transaction() as session:
        message = an_inbound(session, a_thread(session), triage=TriageState.DONE)
        suggestion = suggestions.begin(session, message.id, passages=[ANSWER])
    tries = 0
    for _ in range(8):
        with database.transaction() as session:
            tries += suggestions.start(session, suggestion.id) is not None
    assert tries == 5
    thread = thread_of(database)
    assert (thread.suggestion_mark, thread.needs_review) == ("none", True)
    with database.reading() as session:
        assert suggestions.get(session, suggestion.id).reasons == ["drafting failed too often"]


# -- accepting


def test_accepting_sends_the_text_as_it_is(database: Database, outgoing: Outgoing) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with database.transaction() as session:
        message = suggestions.accept(session, proposal.id, agent=agent, version=2, hold_seconds=10)
    assert (message.status, message.text) == (Delivery.HELD, proposal.text)
    assert message.suggestion_id == proposal.id
    assert message.idempotency_key == f"suggestion:{proposal.id}:2"
    with database.reading() as session:
        stored = suggestions.get(session, proposal.id)
    assert (stored.state, stored.edit_share, stored.agent_id) == (SuggestionState.ACCEPTED, 0.0, agent.id)
    assert stored.decided_at is not None
    thread = thread_of(database)
    assert (thread.suggestion_mark, thread.needs_review) == ("none", False)
    assert "deliver" in {job.task for job in outgoing.jobs}


def test_an_edit_is_measured(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with database.transaction() as session:
        text = proposal.text.replace("3 days", "3 working days")
        message = suggestions.accept(session, proposal.id, agent=agent, version=2, text=text, hold_seconds=0)
        stored = suggestions.get(session, proposal.id)
    assert message.text == text
    assert stored.state == SuggestionState.EDITED
    assert stored.edit_share is not None
    assert 0 < stored.edit_share < 0.2
    assert stored.final_text == text


@pytest.mark.parametrize(
    ("draft", "final", "low", "high"),
    [
        ("a b c", "a  b\nc", 0, 0),
        ("a b c d", "a b c e", 0.2, 0.3),
        ("a b", "x y", 1, 1),
        ("", "x", 1, 1),
    ],
)
def test_the_edit_share_counts_words_not_white_space(draft: str, final: str, low: float, high: float) -> None:
    assert low <= suggestions.edit_share(draft, final) <= high


def test_the_second_agent_is_told_who_was_first(database: Database) -> None:
    with database.transaction() as session:
        proposal, bo, ada = a_proposal(session), an_agent(session, "Bo"), an_agent(session, "Ada")
    with database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=bo, version=2, hold_seconds=0)
    with pytest.raises(Conflict, match="Bo already accepted") as caught, database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=ada, version=2, hold_seconds=0)
    assert caught.value.detail == {"agent": "Bo", "state": "accepted", "version": 3}
    assert sent(database) == 1


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Run the acts in threads that start together; their results, or the expected errors they raised, in order."""
    start = threading.Barrier(len(acts))
    results: list[object] = [None] * len(acts)

    def go(place: int) -> None:
        start.wait()
        try:
            results[place] = acts[place]()
        except NotifyrError as error:
            results[place] = error

    threads = [threading.Thread(target=go, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def accepting(database: Database, proposal: Suggestion, agent: Agent) -> Message:
    with database.transaction() as session:
        return suggestions.accept(session, proposal.id, agent=agent, version=2, hold_seconds=0)


def test_two_agents_at_once_send_exactly_one_message(database: Database) -> None:
    for number in range(1, 11):
        with database.transaction() as session:
            proposal = a_proposal(session)
            agents = [an_agent(session, name) for name in ("Bo", "Ada", "Cy")]
        results = at_once(*(partial(accepting, database, proposal, agent) for agent in agents))
        won = [result for result in results if isinstance(result, Message)]
        lost = [result for result in results if isinstance(result, Conflict)]
        assert (len(won), len(lost)) == (1, 2)
        winner = next(agent.name for agent in agents if agent.id == won[0].agent_id)
        assert {error.detail["agent"] for error in lost} == {winner}
        assert sent(database) == number


def arriving(database: Database, thread_id: str) -> None:
    with database.transaction() as session:
        suggestions.expire_open(session, thread_id)
        an_inbound(session, session.get_one(Thread, thread_id))


def test_accepting_while_a_message_arrives_is_either_before_or_refused(database: Database) -> None:
    for _ in range(10):
        with database.transaction() as session:
            proposal, agent = a_proposal(session), an_agent(session)
        result, _ = at_once(
            partial(accepting, database, proposal, agent), partial(arriving, database, proposal.thread_id)
        )
        with database.reading() as session:
            state = suggestions.get(session, proposal.id).state
            count = session.scalar(select(func.count()).where(Message.suggestion_id == proposal.id))
        assert (type(result), state, count) in (
            (Message, SuggestionState.ACCEPTED, 1),
            (StaleSuggestion, SuggestionState.EXPIRED, 0),
        )


def test_an_old_version_is_refused(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with pytest.raises(Conflict, match="changed since you read it"), database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=agent, version=1, hold_seconds=0)
    assert sent(database) == 0


def test_a_suggestion_goes_stale_when_a_message_arrives_and_says_so(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with database.transaction() as session:
        assert suggestions.expire_open(session, proposal.thread_id) == 1
        an_inbound(session, session.get_one(Thread, proposal.thread_id))
    assert thread_of(database).suggestion_mark == "stale"
    with pytest.raises(StaleSuggestion), database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=agent, version=3, hold_seconds=0)
    assert sent(database) == 0


def test_a_contact_who_said_stop_is_not_written_to_and_the_suggestion_stays(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
        contacts.suppress(session, Address("email", "ana@mail.example"), cause="opt-out")
    with pytest.raises(NotAllowed), database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=agent, version=2, hold_seconds=0)
    with database.reading() as session:
        assert suggestions.get(session, proposal.id).state == SuggestionState.PROPOSED
    assert sent(database) == 0


def test_an_empty_reply_is_refused(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with pytest.raises(InvalidInput), database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=agent, version=2, text="  \n", hold_seconds=0)


def test_a_crash_before_the_commit_leaves_nothing_half_done(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    failpoints.arm("review.before_commit=raise")
    with pytest.raises(OSError, match="failpoint"), database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=agent, version=2, hold_seconds=0)
    failpoints.disarm()
    assert sent(database) == 0
    with database.transaction() as session:
        suggestions.accept(session, proposal.id, agent=agent, version=2, hold_seconds=0)
    assert sent(database) == 1


# -- dismissing, undoing, drafting again


def test_a_dismissal_is_undone(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with database.transaction() as session:
        suggestions.reject(session, proposal.id, agent_id=agent.id, version=2, reason="wrong tone")
    thread = thread_of(database)
    assert (thread.suggestion_mark, thread.needs_review) == ("none", False)
    with database.transaction() as session:
        restored = suggestions.restore(session, proposal.id)
        assert (restored.state, restored.version, restored.reject_reason) == (SuggestionState.PROPOSED, 4, "")
    assert thread_of(database).suggestion_mark == "ready"


def test_an_unknown_reason_is_refused(database: Database) -> None:
    with database.transaction() as session:
        proposal = a_proposal(session)
        with pytest.raises(InvalidInput):
            suggestions.reject(session, proposal.id, agent_id="x", version=2, reason="because")


def test_undo_send_brings_the_suggestion_back_and_it_can_be_sent_again(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with database.transaction() as session:
        message = suggestions.accept(session, proposal.id, agent=agent, version=2, hold_seconds=10)
    with pytest.raises(Conflict, match="on its way"), database.transaction() as session:
        suggestions.restore(session, proposal.id)
    with database.transaction() as session:
        outbox.cancel(session, message.id, agent_id=agent.id)
        restored = suggestions.restore(session, proposal.id)
        version = restored.version
    with database.transaction() as session:
        again = suggestions.accept(session, proposal.id, agent=agent, version=version, hold_seconds=0)
    assert again.id != message.id


def test_undo_after_a_newer_message_comes_back_stale(database: Database) -> None:
    with database.transaction() as session:
        proposal, agent = a_proposal(session), an_agent(session)
    with database.transaction() as session:
        suggestions.reject(session, proposal.id, agent_id=agent.id, version=2)
        an_inbound(session, session.get_one(Thread, proposal.thread_id))
    with database.transaction() as session:
        assert suggestions.restore(session, proposal.id).state == SuggestionState.EXPIRED


def test_drafting_again_keeps_the_earlier_draft_and_only_one_is_sent(database: Database) -> None:
    with database.transaction() as session:
        first, bo, ada = a_proposal(session), an_agent(session, "Bo"), an_agent(session, "Ada")
    with database.transaction() as session:
        second = suggestions.regenerate(session, first.message_id, instruction="shorter")
        assert second.id != first.id
        assert suggestions.passages_of(second) == (ANSWER,)
        suggestions.propose(session, second.id, turn=finished("short"), milliseconds=1, reasons=[])
    with database.reading() as session:
        assert suggestions.get(session, first.id).state == SuggestionState.PROPOSED
    with database.transaction() as session:
        suggestions.accept(session, first.id, agent=bo, version=2, hold_seconds=0)
    with pytest.raises(Conflict, match="Bo already accepted"), database.transaction() as session:
        suggestions.accept(session, second.id, agent=ada, version=2, hold_seconds=0)
    with pytest.raises(Conflict), database.transaction() as session:
        suggestions.regenerate(session, first.message_id)
    assert sent(database) == 1


def test_without_a_source_there_is_nothing_to_draft(database: Database) -> None:
    with database.transaction() as session:
        message = an_inbound(session, a_thread(session), triage=TriageState.DONE)
    with pytest.raises(NotFound, match="no passage found"), database.transaction() as session:
        suggestions.regenerate(session, message.id)


def test_what_does_not_exist_is_not_found(database: Database) -> None:
    with database.transaction() as session:
        for act in (
            lambda: suggestions.get(session, "x"),
            lambda: suggestions.begin(session, "x"),
            lambda: suggestions.expire_open(session, "x"),
        ):
            with pytest.raises(NotFound):
                act()
        assert suggestions.start(session, "x") is None
        assert session.scalar(select(func.count()).select_from(Suggestion)) == 0
