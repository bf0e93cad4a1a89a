"""An agent's verdict on one mail is the verdict on the rest of its campaign that is here already; undone it gives all of it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import event, select

import pipelines.triage
from assistant.clock import new_id
from assistant.db.access import AuditEntry
from assistant.db.contacts import Consent
from assistant.db.messages import DraftText, Message, Thread
from assistant.db.session import Database, Job
from assistant.db.timeline import ThreadEvent
from assistant.services import campaigns, corrections, rules, suggestions, threads, verdicts
from assistant.services import triage as triage_service
from assistant.settings import ROOT, Settings
from assistant.states import Author, Delivery, Direction, ThreadState, TriageState
from assistant.values import Turn
from models.features import HEAD, TAIL, hashed
from models.memory import likeness
from pipelines.container import Container, build
from pipelines.stages.run import Stage, noted
from pipelines.tasks import TASKS
from pipelines.triage import Triage
from tests.assistant.rows import ANSWER, a_thread, an_agent, an_inbound, finished
from tests.pipelines.test_spam_corrections import SHOUT, arrived, pitch
from tests.support.figures import Tell

QUESTIONS = (
    "Hello, where is my parcel 4411? It should have come on Monday.",
    "Good morning, the invoice of March names the wrong address. Can you send it once more?",
)


class Office:
    """A worker with the encoder that ships, whose tasks are run when they are asked for."""

    def __init__(self, container: Container) -> None:
        self.container, self.jobs = container, list[Job]()
        container.database.dispatch = self.jobs.append
        with container.database.transaction() as session:
            self.agent = an_agent(session).id

    def mail(self, text: str, sender: str) -> str:
        message_id = arrived(self.container, text, sender)
        self.container.triage.triage(message_id)
        return message_id

    def work(self) -> int:
        """Every task on the rest of a campaign that was handed out, by a process that has judged nothing yet."""
        asked = [job.args for job in self.jobs if job.task == "rejudge"]
        self.jobs.clear()
        worker = Triage(self.container)
        for (message_id,) in asked:
            worker.rejudge(message_id)
        return len(asked)

    def act(self, message_id: str, *, spam: bool) -> None:
        """What the acts Spam and Not spam of the inbox do."""
        with self.container.database.transaction() as session:
            thread_id = session.get_one(Message, message_id).thread_id
            state = ThreadState.SPAM if spam else ThreadState.OPEN
            threads.change_state(session, thread_id, state=state, agent_id=self.agent)
            verdicts.call_spam(session, thread_id, spam=spam, agent_id=self.agent)

    def row(self, message_id: str) -> tuple[Message, Thread]:
        with self.container.database.reading() as session:
            message = session.get_one(Message, message_id)
            return message, session.get_one(Thread, message.thread_id)

    def states(self, message_ids: list[str]) -> list[str]:
        return [self.row(one)[1].state.value for one in message_ids]

    def detail(self, message_id: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.row(message_id)[0].trace if one["stage"] == "classify")
        return found["detail"] | {"outcome": found["outcome"], "score": found["score"]}

    def lines(self, message_id: str) -> list[tuple[str, str, str | None]]:
        thread_id = self.row(message_id)[1].id
        with self.container.database.reading() as session:
            found = select(ThreadEvent).where(ThreadEvent.thread_id == thread_id).order_by(ThreadEvent.created_at)
            return [(one.kind, one.reason, one.agent_id) for one in session.scalars(found)]

    def everything(self) -> list[Any]:
        """All that a task might change."""
        with self.container.database.reading() as session:
            return [
                session.execute(select(Message.id, Message.labels, Message.trace).order_by(Message.id)).all(),
                session.execute(select(*Thread.__table__.columns).order_by(Thread.id)).all(),
                session.execute(select(*ThreadEvent.__table__.columns).order_by(ThreadEvent.id)).all(),
                session.execute(select(*AuditEntry.__table__.columns).order_by(AuditEntry.id)).all(),
            ]


@pytest.fixture
def office(make_settings: Callable[..., Settings], sqlite_url: str) -> Iterator[Office]:
    settings = make_settings(
        database_url=sqlite_url, encoder=f"onnx:{ROOT / 'deploy/weights/encoder'}", generator="off"
    )
    built = build(settings)
    yield Office(built)
    built.close()


def answered(office: Office, message_id: str) -> None:
    with office.container.database.transaction() as session:
        message = session.get_one(Message, message_id)
        session.add(
            Message(
                thread_id=message.thread_id,
                profile_id=message.profile_id,
                direction=Direction.OUTBOUND,
                author=Author.AGENT,
                status=Delivery.SENT,
                external_id=f"<{new_id()}@example.org>",
                from_address="support@example.org",
                text="Thank you, we look at it.",
            )
        )


def test_one_correction_moves_exactly_the_open_rest_of_its_campaign_and_undo_brings_it_back(office: Office) -> None:
    first, *rest = [office.mail(pitch(number), f"c{number}@many.example") for number in range(6)]
    others = [office.mail(text, f"o{number}@mail.example") for number, text in enumerate(QUESTIONS)]
    replied = office.mail(pitch(6), "r@mail.example")
    answered(office, replied)
    # Of the same campaign, and yet less like the others than they are among themselves: called no spam, it speaks for itself.
    kept = office.mail(
        f"{pitch(7)}\nPS: the minutes of our walk among roses, hedges and sheds are enclosed.", "k@a.example"
    )
    with office.container.database.transaction() as session:
        verdicts.correct(session, kept, head="spam", label="ham", agent_id=office.agent)
        suggestion = suggestions.begin(session, rest[0], passages=[ANSWER])
        assert suggestions.propose(session, suggestion.id, turn=finished(), milliseconds=1.0, reasons=["because"])
    office.work()
    before = {one: office.detail(one) for one in rest}
    assert office.states([first, *rest, *others, replied, kept]) == ["open"] * 10

    office.act(first, spam=True)
    assert office.work() == 1
    assert office.states([first, *rest]) == ["spam"] * 6
    assert office.states([*others, replied, kept]) == ["open"] * 4
    assert all("judged_again" not in office.detail(one) for one in others)
    for one in rest:
        (message, thread), detail = office.row(one), office.detail(one)
        assert (detail["spam"], detail["outcome"], detail["judged_again"]) == ("spam", "stop", True)
        assert detail["spam_because"]["stage"] == "memory" and detail["because"][-1] == "spam decided by: memory"
        assert {"name": "spam:spam", "score": detail["score"]} in message.labels
        assert (thread.spam_verdict, thread.spam_score, thread.needs_review) == ("spam", detail["score"], False)
        assert thread.certainty == detail["score"] > 0.9
        assert office.lines(one)[-1] == ("spam", "like one an agent called spam", None)

    with office.container.database.transaction() as session:
        thread_id = session.get_one(Message, first).thread_id
        verdicts.take_back_spam(session, thread_id, spam=True, agent_id=office.agent)
        threads.change_state(session, thread_id, state=ThreadState.OPEN, agent_id=office.agent)
    assert office.work() == 1
    assert office.states([first, *rest]) == ["open"] * 6
    for one in rest:
        detail = office.detail(one)
        assert [detail[name] for name in ("spam", "outcome", "because")] == [
            before[one][name] for name in ("spam", "outcome", "because")
        ]
        assert detail["score"] == pytest.approx(before[one]["score"], abs=1e-4)
        assert office.lines(one)[-1] == ("open", "like one an agent called no spam", None), "of the one that was kept"
    assert office.row(rest[0])[1].needs_review, "what was suggested is there again"
    with office.container.database.reading() as session:
        released = session.scalars(select(AuditEntry).where(AuditEntry.action == "quarantine.release")).all()
    by_the_program = [one.subject for one in released if one.actor == "system"]
    assert sorted(by_the_program) == sorted(office.row(one)[1].id for one in rest)


def test_where_nothing_else_was_said_the_undo_is_what_the_thread_names(office: Office) -> None:
    first, other = (office.mail(pitch(number), f"c{number}@many.example") for number in range(2))
    steps = [step["stage"] for step in office.row(other)[0].trace]
    office.act(first, spam=True)
    office.work()
    with office.container.database.transaction() as session:
        made = corrections.newest(session, first, "spam")
        assert made is not None
        verdicts.take_back(session, made.id, agent_id=office.agent)
    office.work()
    assert office.lines(other)[-1] == ("open", "what an agent said of one like it was taken back", None)
    assert [step["stage"] for step in office.row(other)[0].trace] == steps


def test_running_it_twice_changes_nothing(office: Office) -> None:
    campaign = [office.mail(pitch(number), f"c{number}@many.example") for number in range(3)]
    office.act(campaign[0], spam=True)
    office.work()
    once = office.everything()
    events: list[Any] = []
    office.container.database.announce = events.append
    Triage(office.container).rejudge(campaign[0])
    TASKS["rejudge"](office.container, campaign[0])
    TASKS["rejudge"](office.container, campaign[0])
    assert office.everything() == once and events == [] and office.states(campaign) == ["spam"] * 3


def test_a_bulk_of_corrections_judges_the_rest_of_its_campaign_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails = [office.mail(pitch(number), f"c{number}@many.example") for number in range(5)]
    with office.container.database.transaction() as session:
        for one in mails[:3]:
            corrections.record(session, one, head="spam", label="spam", agent_id=office.agent)
    judge, shown = office.container.classifier, list[int]()
    assert judge is not None
    real = judge.spam_only
    monkeypatch.setattr(judge, "spam_only", lambda texts, clues: shown.append(len(texts)) or real(texts, clues))
    worker = Triage(office.container)
    for one in mails[:3]:
        worker.rejudge(one)
    assert shown == [2] and office.states(mails[3:]) == ["spam"] * 2


def held(office: Office, count: int) -> list[str]:
    """A campaign that triage itself holds."""
    with office.container.database.transaction() as session:
        rules.set_threshold(session, head="spam", label="spam", value=0.6)
    shout = SHOUT.replace("friend", "{name}")
    found = [office.mail(shout.format(name=name), f"{name}@win.example") for name in ("Ada", "Bo", "Cy", "Dee")[:count]]
    assert office.states(found) == ["spam"] * count
    return found


def test_a_release_from_quarantine_brings_back_what_the_program_held_and_nothing_that_an_agent_did(
    office: Office,
) -> None:
    first, by_an_agent, second, third = held(office, 4)
    with office.container.database.transaction() as session:
        # Opened and put away again by hand, without a word on spam: an agent's decision all the same.
        for state in (ThreadState.OPEN, ThreadState.SPAM):
            thread_id = session.get_one(Message, by_an_agent).thread_id
            threads.change_state(session, thread_id, state=state, agent_id=office.agent)
    office.act(first, spam=False)
    assert office.work() == 1
    assert office.states([first, second, third, by_an_agent]) == ["open", "open", "open", "spam"]
    assert office.lines(second)[-1] == ("open", "like one an agent called no spam", None)
    assert office.detail(by_an_agent)["spam"] == "ham", "what is said of it is new, where it lies is the agent's"
    _, thread = office.row(second)
    assert thread.spam_verdict == "ham" and thread.needs_review, "nobody has looked for an answer"
    with office.container.database.transaction() as session:
        made = corrections.newest(session, first, "spam")
        assert made is not None
        verdicts.take_back(session, made.id, agent_id=office.agent)
    office.work()
    assert office.states([first, second, third]) == ["spam"] * 3
    assert office.lines(second)[-1] == ("spam", "by its score", None)
    assert not any(step["stage"] == "decide" for step in office.row(second)[0].trace)


@pytest.mark.parametrize("deed", ["assigned", "starred", "reopened", "corrected", "dismissed", "writing", "pending"])
def test_a_thread_that_somebody_works_on_stays_where_it_is(office: Office, deed: str) -> None:
    first, other = (office.mail(pitch(number), f"c{number}@many.example") for number in range(2))
    with office.container.database.transaction() as session:
        thread_id = session.get_one(Message, other).thread_id
        if deed == "assigned":
            threads.assign(session, thread_id, assignee_id=office.agent, agent_id=office.agent)
        elif deed == "starred":
            threads.star(session, thread_id, agent_id=office.agent)
        elif deed == "pending":
            threads.change_state(session, thread_id, state=ThreadState.PENDING)
        elif deed == "reopened":
            for state in (ThreadState.CLOSED, ThreadState.OPEN):
                threads.change_state(session, thread_id, state=state, agent_id=office.agent)
        elif deed == "corrected":
            verdicts.correct(session, other, head="intent", label="refund", agent_id=office.agent)
        elif deed == "dismissed":
            drafted = suggestions.begin(session, other, passages=[ANSWER])
            suggestions.propose(session, drafted.id, turn=finished(), milliseconds=1.0, reasons=["because"])
            suggestions.reject(session, drafted.id, agent_id=office.agent, version=drafted.version)
        else:
            session.add(DraftText(thread_id=thread_id, agent_id=office.agent, text="Dear office,"))
    intent = office.row(other)[1].intent
    office.act(first, spam=True)
    office.work()
    _, thread = office.row(other)
    assert thread.state == ("pending" if deed == "pending" else "open")
    assert thread.spam_verdict == "spam" and thread.intent == intent, "only what is said of spam is new"


def test_the_thresholds_exceptions_and_rules_of_triage_hold_here_too(office: Office) -> None:
    first = office.mail(pitch(0), "c0@many.example")
    excepted = office.mail(pitch(1), "friend@many.example")
    asks_out = office.mail(f"{pitch(2)} Take me off your list.", "out@many.example")
    known = arrived(office.container, QUESTIONS[0], "known@many.example")
    answered(office, known)
    with office.container.database.transaction() as session:
        thread = session.get_one(Thread, session.get_one(Message, known).thread_id)
        again = an_inbound(session, thread, pitch(3), from_address="known@many.example", subject="Entry").id
        rules.except_sender(session, sender="friend@many.example", head="spam", label="spam")
    office.container.triage.triage(again)
    office.act(first, spam=True)
    office.work()
    assert office.states([excepted, asks_out, again]) == ["open"] * 3
    assert [office.detail(one)["spam"] for one in (excepted, asks_out, again)] == ["unknown", "spam", "uncertain"]
    assert office.row(again)[1].spam_verdict == "uncertain"


def test_what_one_sender_taught_beyond_the_cap_moves_nothing(office: Office) -> None:
    words = ("gardens", "boats", "violins", "tyres", "tiles")
    with office.container.database.transaction() as session:
        for word in words[: corrections.CAP]:
            message = an_inbound(session, a_thread(session), f"{word} {word}", from_address="flood@one.example")
            corrections.record(session, message.id, head="spam", label="spam", agent_id=office.agent)
    first, other = office.mail(pitch(0), "flood@one.example"), office.mail(pitch(1), "c1@many.example")
    office.work()
    office.act(first, spam=True)
    before = office.everything()
    assert office.work() == 1
    assert office.everything() == before and office.states([other]) == ["open"]


def test_a_batch_that_is_taken_back_gives_the_rest_of_its_campaigns_back(office: Office) -> None:
    first, other = (office.mail(pitch(number), f"c{number}@many.example") for number in range(2))
    office.act(first, spam=True)
    office.work()
    assert office.states([other]) == ["spam"]
    with office.container.database.transaction() as session:
        corrections.record(session, other, head="intent", label="refund", agent_id=office.agent)
        assert corrections.undo_batch(session, agent_id=office.agent) == 2
    assert office.work() == 1, "only what was said of spam is asked again"
    assert office.states([other]) == ["open"]


def test_a_correction_that_comes_meanwhile_is_not_overwritten(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (office.mail(pitch(number), f"c{number}@many.example") for number in range(2))
    office.act(first, spam=True)
    office.jobs.clear()
    judge = office.container.classifier
    assert judge is not None
    real = judge.spam_only

    def slow(texts: Any, clues: Any) -> Any:
        found = real(texts, clues)
        with office.container.database.transaction() as session:
            made = corrections.newest(session, first, "spam")
            assert made is not None
            corrections.undo(session, made.id)
        return found

    monkeypatch.setattr(judge, "spam_only", slow)
    Triage(office.container).rejudge(first)
    assert office.states([other]) == ["open"] and office.detail(other)["spam"] != "spam"
    assert [job.args for job in office.jobs if job.task == "rejudge"] == [(first,)] * 2, "the undo's, and its own again"


@pytest.mark.parametrize("back", [False, True])
def test_a_mail_that_is_triaged_while_one_like_it_is_corrected_is_not_missed(
    office: Office, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    known = office.mail(pitch(3), "a@one.example")
    if back:
        office.act(known, spam=True)
        office.work()
    late = arrived(office.container, pitch(7), "b@two.example")
    run = pipelines.triage.run

    def corrected_meanwhile(turn: Turn, stages: Sequence[Stage]) -> Turn:
        found = run(turn, stages)
        office.act(known, spam=not back)
        assert office.work() == 1  # which finds nothing: the late one is no candidate yet
        return found

    monkeypatch.setattr(pipelines.triage, "run", corrected_meanwhile)
    office.container.triage.triage(late)
    monkeypatch.undo()
    assert office.states([late]) == ["spam" if back else "open"], "as it was judged before the correction"
    assert office.work() == 1
    assert office.states([late]) == ["open" if back else "spam"]
    office.mail(QUESTIONS[0], "c@three.example")
    assert office.work() == 0, "nothing was corrected meanwhile"


def test_a_held_opt_out_is_heard_when_its_mail_is_let_out(office: Office) -> None:
    first, other = held(office, 2)
    with office.container.database.transaction() as session:
        message = session.get_one(Message, other)
        message.trace = [
            step | {"detail": step["detail"] | {"opt_out": "recorded"}} if step["stage"] == "classify" else step
            for step in message.trace
        ]
    office.act(first, spam=False)
    office.work()
    assert office.states([other]) == ["open"]
    with office.container.database.reading() as session:
        assert session.scalars(select(Consent.message_id)).all() == [other]
    assert office.row(other)[0].trace[-1]["reason"] == "asks not to be written to: recorded"


def test_what_a_generator_says_of_a_mail_that_was_judged_again_meanwhile_is_dropped(office: Office) -> None:
    first, other = (office.mail(pitch(number), f"c{number}@many.example") for number in range(2))
    with office.container.database.reading() as session:
        turn = triage_service.labelled(session, other)
    assert turn is not None
    office.act(first, spam=True)
    office.work()
    with office.container.database.transaction() as session:
        assert not triage_service.answer(session, noted(turn, "ask", "ok", "intent refund"))
    assert office.detail(other)["spam"] == "spam"


def test_an_inbox_of_two_thousand_threads_is_looked_through_with_one_query(database: Database, tell: Tell) -> None:
    with database.transaction() as session:
        first = an_inbound(session, a_thread(session), pitch(0))
        profile, contact = first.profile_id, session.get_one(Thread, first.thread_id).contact_id
        rows = [Thread(profile_id=profile, contact_id=contact, channel="email", spam_score=0.1) for _ in range(2000)]
        session.add_all(rows)
        session.flush()
        session.add_all(
            Message(
                thread_id=thread.id,
                profile_id=profile,
                direction=Direction.INBOUND,
                author=Author.CONTACT,
                status=Delivery.RECEIVED,
                external_id=f"<{number}@mail.example>",
                from_address="ana@mail.example",
                new_text=f"Where is my parcel? {number} " + "x" * (40_000 if number == 7 else 0) + " in the end",
                triage=TriageState.DONE,
            )
            for number, thread in enumerate(rows)
        )
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with database.reading() as session:
        found = campaigns.candidates(session, but=first.id, front=HEAD, back=TAIL)
        asked = [one for one in statements if one.lstrip().startswith("SELECT")]
        whole = session.scalars(select(Message.new_text).where(Message.new_text.like("%xxxx%"))).one()
    tell(f"{len(found)} mails, {len(asked)} query")
    assert len(found) == 2000 and len(asked) == 1
    (long,) = [one.text for one in found if "xxxx" in one.text]
    assert len(long) == HEAD + TAIL + 1
    (same,) = likeness(hashed(long), [hashed(f"\n{whole}")])
    assert same == 1.0, "what is left out is not read of the whole one either"
