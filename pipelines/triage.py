"""Triage of one message and drafting of one reply: read, close, work without a transaction, save.

`triage` needs no generator and is saved at once; `draft` is a task of its own in the models' queue and streams.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import structlog

from assistant.backends.blobs import Blobs
from assistant.backends.bus import Bus
from assistant.backends.vectors import Vectors
from assistant.clock import monotonic, utcnow
from assistant.db.session import Database, Event, committing, enqueue
from assistant.errors import ModelError, NotFound, StorageError
from assistant.failpoints import failpoint
from assistant.services import corrections, knowledge, policies, rules, suggestions, triage
from assistant.settings import Settings
from assistant.states import TriageState
from assistant.telemetry import METRICS
from assistant.values import Passage, Turn
from channels.support.shape import shape_of
from models.asked import FILE, Gain, kept, key_of
from models.base import Classifier, Embedder, Generator
from models.clues import clues
from models.heads.language import Languages
from pipelines.library import Library
from pipelines.stages.ask import Ask, left_open
from pipelines.stages.classify import Classify, Explaining, told
from pipelines.stages.decide import Decide
from pipelines.stages.draft import Rephrase, warming_prompt
from pipelines.stages.guard import Guard
from pipelines.stages.retrieve import Retrieve
from pipelines.stages.run import Stage, failed_stages, run
from pipelines.stages.screen import Screen

if TYPE_CHECKING:
    from pipelines.rejudging import Rejudging

__all__ = ["Parts", "Triage"]

_log = structlog.get_logger(__name__)
DELTA_SECONDS = 0.05
"""Pieces of a draft are published together this often: a page needs no more."""
SURE = 0.9
"""Probability from which a language counts as told."""
_LANGUAGES = Languages()
CLOCKS = timedelta(minutes=1)
"""How far the clocks of two machines may be apart."""
MOST_WAITING = 50
"""Drafts in the queue beyond which the approved answer is offered as it is: overload sheds suggestions, never mail."""


class Parts(Protocol):
    """What triage takes from the container; models are loaded when they are first asked for."""

    @property
    def settings(self) -> Settings: ...
    @property
    def redis_url(self) -> str: ...
    @property
    def database(self) -> Database: ...
    @property
    def bus(self) -> Bus: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def vectors(self) -> Vectors: ...
    @property
    def classifier(self) -> Classifier | None: ...
    @property
    def embedder(self) -> Embedder | None: ...
    @property
    def generator(self) -> Generator | None: ...


class Triage:
    """The stages on the models of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._loading = threading.Lock()
        self._library: Library | None = None

    # -- one message

    def triage(self, message_id: str) -> None:
        """Label one inbound message, find its sources, decide; a draft that is due becomes a task. Twice is once."""
        started, since = monotonic(), utcnow() - CLOCKS
        failpoint("triage.before_read")
        with self._parts.database.transaction() as session:
            taught = corrections.generation(session, "spam")
            turn = triage.start(session, message_id)
        if turn is None:
            return
        failpoint("triage.before_stages")
        turn = run(turn, self.stages())
        ask = self._asks(turn)
        state = TriageState.PARTIAL if failed_stages(turn) else TriageState.DONE
        with self._parts.database.transaction() as session:
            committing("triage", session)
            triage.save(session, turn, state=state, ask=ask)
        METRICS.triage_seconds.observe(monotonic() - started)
        self._catch_up(taught, since)

    def _catch_up(self, taught: str, since: datetime) -> None:
        """Have the rest of a campaign judged again whose mail was corrected while another was triaged: that one was no candidate yet.

        After the commit: whoever corrects one later finds it.
        """
        with self._parts.database.reading() as session:
            if corrections.generation(session, "spam") == taught:
                return
            missed = corrections.changed_since(session, "spam", since)
        with self._parts.database.transaction() as session:
            for message_id in missed:
                enqueue(session, "rejudge", message_id)

    def _asks(self, turn: Turn) -> bool:
        """Whether a generator is to be asked for the intent: the encoder left it open, and it was measured that asking helps."""
        gain = self._gain() if left_open(turn) else None
        return gain is not None and gain.helps

    def _gain(self) -> Gain | None:
        spec = self._settings.generator
        return kept(self._settings.path(FILE), spec=spec) if spec != "off" else None

    def ask(self, message_id: str) -> None:
        """Ask the generator for the intent of one message, and save what came of it. Twice is once."""
        with self._parts.database.reading() as session:
            turn = triage.labelled(session, message_id)
            if suggestions.waiting_drafts(session) > MOST_WAITING:
                return  # a draft that somebody waits for comes first, and an open intent is one that a person reads
        gain, model = self._gain(), self._generator()
        if turn is None or not left_open(turn) or gain is None or not gain.helps or model is None:
            return
        try:
            known = key_of(model) == gain.generator
        except ModelError as error:  # the intent stays open, as it is for everybody who has no generator
            _log.warning("generator_unavailable", reason=error.message)
            return
        if not known:
            _log.warning("generator_not_measured", model=model.name, fix="notifyr train --only generator")
            return
        rules_now, sender, default = self._rules(), turn.message.sender.value, self._settings.intent_threshold

        def sure(intent: str, score: float) -> bool:
            enough = score >= rules_now.threshold("intent", intent, default=default)
            return enough and not rules_now.excepted(sender, "intent", intent)

        failpoint("ask.before_generate")
        turn = run(turn, (Ask(model, gain, sure),))
        failpoint("ask.after_generate")
        with self._parts.database.transaction() as session:
            committing("ask", session)
            triage.answer(session, turn)

    @cached_property
    def _rejudging(self) -> Rejudging:
        from pipelines.rejudging import Rejudging  # numpy's threads would not survive the fork that makes our processes

        return Rejudging()

    def rejudge(self, message_id: str) -> None:
        """Judge spam again in the mails that are like one that an agent called spam or not, or no longer does. Twice is once."""
        self._rejudging(self._parts.database, self._classify(), message_id)

    def stages(self) -> tuple[Stage, ...]:
        """screen, classify, retrieve, decide. A model that cannot be loaded fails its own stage only."""
        settings = self._settings
        return (
            Screen(own=self._own_addresses),
            self._classify(),
            Retrieve(library=self.library, floor=settings.retrieval_floor, switched_off=settings.encoder == "off"),
            Decide(policy=settings.autopilot),
        )

    def _classify(self) -> Classify:
        settings = self._settings
        return Classify(
            model=self._classifier(),
            spam_threshold=settings.spam_threshold,
            uncertain_band=settings.uncertain_band,
            intent_threshold=settings.intent_threshold,
            switched_off=settings.encoder == "off",
            rules=self._rules,
            clues=self._clues,
        )

    def _clues(self, turn: Turn) -> tuple[str, ...]:
        """With how the mail was built, where its raw bytes can be read; the rest of the clues needs only its row."""
        key = turn.message.raw_key
        try:
            raw = self._parts.blobs.get(key) if key and turn.message.channel == "email" else b""
        except (StorageError, NotFound) as error:
            _log.warning("raw_mail_not_read", message_id=turn.message_id, reason=error.message)
            raw = b""
        return clues(turn.message, shape_of(raw) if raw else ())

    def library(self) -> Library | None:
        """Search in the approved answers, or None without an encoder."""
        with self._loading:
            if self._library is None and (embedder := self._parts.embedder) is not None:
                self._library = Library(self._parts.database, self._parts.vectors, embedder)
            return self._library

    # -- one draft

    def draft(self, suggestion_id: str) -> None:
        """Write one suggested reply, streaming it to the open pages, and save it. Twice is once."""
        started = monotonic()
        with self._parts.database.transaction() as session:
            suggestion = suggestions.start(session, suggestion_id)
            if suggestion is None:
                return
            turn = triage.read_turn(session, suggestion.message_id)
            passages = suggestions.passages_of(suggestion)
            version = knowledge.knowledge_version(session)
            crowded = suggestions.waiting_drafts(session) > MOST_WAITING
            instruction, thread_id = suggestion.instruction, suggestion.thread_id
        deltas = _Deltas(self._parts, thread_id=thread_id, suggestion_id=suggestion_id)
        failpoint("suggest.before_generate")
        stages = (
            Rephrase(
                model=None if crowded else self._generator(),
                limit=self._settings.draft_tokens,
                knowledge_version=version,
                instruction=instruction,
                on_delta=deltas.add,
            ),
            Guard(
                floor=self._settings.retrieval_floor,
                sign_off=sign_off(self._settings.mail_name),
                asked=bool(instruction.strip()),
                same_language=_same_language,
            ),
        )
        try:
            turn = run(with_passages(turn, passages), stages)
        except _Stopped:
            return  # the one who stopped it has stored what was written
        failpoint("suggest.after_generate")
        deltas.flush()
        with self._parts.database.transaction() as session:
            committing("suggest", session)
            if turn.draft is None:
                suggestions.fail(session, suggestion_id, "no passage found")
                return
            if suggestions.propose(
                session,
                suggestion_id,
                turn=turn,
                milliseconds=(monotonic() - started) * 1000,
                reasons=reasons_of(turn),
            ):
                settings = self._settings
                policies.queue(session, suggestion_id, mode=settings.autopilot, hold_seconds=settings.undo_send_seconds)

    # -- models

    def warm(self, queues: Sequence[str]) -> None:
        """Load what these queues need now, and say so: to the pages, to `/readyz` and to `/metrics`."""
        if "inbound" in queues:
            self._load("encoder", self._settings.encoder, self._warm_encoder)
        if "models" in queues:
            self._load("generator", self._settings.generator, self._warm_generator)

    def _load(self, model: str, spec: str, load: Callable[[], tuple[str, str]]) -> None:
        if spec == "off":
            self._announce(model, "off")
            return
        self._announce(model, "loading", name=spec)
        try:
            name, fault = load()
        except (ModelError, StorageError) as error:
            _log.warning("model_failed", model=model, reason=error.message)
            self._announce(model, "failed", name=spec, reason=error.message)
            return
        if fault:
            _log.warning("model_partial", model=model, reason=fault)
        self._announce(model, "partial" if fault else "ready", name=name, reason=fault)

    def _warm_encoder(self) -> tuple[str, str]:
        """Its name, and what of it is missing."""
        classifier = self._parts.classifier
        if classifier is None:
            return "", ""
        classifier.classify(["warm up"])
        model: object = classifier
        lacks = [told(model.faults())] if isinstance(model, Explaining) else []
        try:
            if (library := self.library()) is not None:
                library.refresh()
        except (ModelError, StorageError) as error:
            # The heads are there all the same: what is missing is the search in the approved answers.
            lacks.append(f"approved answers are not searched: {error.message}")
        return classifier.name, "; ".join(one for one in lacks if one)

    def _warm_generator(self) -> tuple[str, str]:
        generator = self._parts.generator
        if generator is None:
            return "", ""
        for _ in generator.stream(warming_prompt(), limit=1):
            break
        return generator.name, ""

    def _announce(self, model: str, state: str, *, name: str = "", reason: str = "") -> None:
        METRICS.model_state.labels(model=model).set(1 if state in {"ready", "partial"} else 0)
        if self._parts.redis_url:
            from redis.exceptions import RedisError

            try:
                self._parts.bus.set_model(
                    model, state=state, name=name, reason=reason, at=utcnow().isoformat(timespec="seconds")
                )
            except RedisError:
                _log.warning("model_state_not_stored", model=model, exc_info=True)
        _announce(self._parts.database, Event("models", {"model": model, "state": state}))

    def _classifier(self) -> Classifier | None:
        try:
            return self._parts.classifier
        except ModelError as error:
            _log.warning("encoder_unavailable", reason=error.message)
            return None

    def _generator(self) -> Generator | None:
        try:
            return self._parts.generator
        except ModelError as error:
            _log.warning("generator_unavailable", reason=error.message)
            return None

    def _rules(self) -> rules.Rules:
        with self._parts.database.reading() as session:
            return rules.read(session)

    def _own_addresses(self) -> frozenset[str]:
        with self._parts.database.reading() as session:
            return triage.own_addresses(session)


class _Stopped(Exception):  # no error: an agent pressed stop
    """Unwinds a generation that is no longer wanted; on its way the generator is closed and free for the next draft."""


@dataclass
class _Deltas:
    """Collects the pieces of one draft and publishes them in few events. Raises `_Stopped` once an agent asked for it."""

    parts: Parts
    thread_id: str
    suggestion_id: str
    whole: str = ""
    sent: int = 0
    last: float = 0.0

    def add(self, piece: str) -> None:
        self.whole += piece
        if monotonic() - self.last >= DELTA_SECONDS:
            self.flush()

    def flush(self) -> None:
        piece = self.whole[self.sent :]
        if not piece:
            return
        if not self._wanted():
            raise _Stopped
        payload = {
            "thread_id": self.thread_id,
            "suggestion_id": self.suggestion_id,
            "text": piece,
            "at": self.sent,
        }
        _announce(self.parts.database, Event("draft.delta", payload))
        self.sent, self.last = len(self.whole), monotonic()

    def _wanted(self) -> bool:
        if not self.parts.redis_url:
            return True
        from redis.exceptions import RedisError

        try:
            return self.parts.bus.write_draft(self.suggestion_id, self.whole)
        except RedisError:
            return True  # as for live text: a bus that is down costs speed only


def _announce(database: Database, event: Event) -> None:
    # A bus that is down costs a page some live text, never the draft.
    try:
        database.announce(event)
    except Exception:  # noqa: BLE001  # whatever the bus raises, the draft goes on; it is logged
        _log.warning("not_announced", kind=event.kind, exc_info=True)


def _same_language(text: str, source: str) -> bool:
    """Whether both are surely not in two languages; short texts count as one."""
    one, other = _LANGUAGES.label([text, source])
    unsure = one is None or other is None or min(one.score, other.score) < SURE
    return unsure or (one is not None and other is not None and one.name == other.name)


def with_passages(turn: Turn, passages: tuple[Passage, ...]) -> Turn:
    return replace(turn, passages=passages, labels=(), trace=(), decision=None)


def sign_off(name: str) -> str:
    return f"Kind regards,\n{name}"


def reasons_of(turn: Turn) -> list[str]:
    """At most three short sentences for the card: the source, how near it is, what the guard says."""
    best = turn.passages[0]
    rivals = [passage for passage in turn.passages[1:] if passage.document_id != best.document_id]
    guard = next((step.reason for step in reversed(turn.trace) if step.stage == "guard"), "")
    found = [f"answers with “{best.source}”, similarity {best.score:.2f}", guard]
    failed = next((step.reason for step in turn.trace if step.outcome == "failed"), "")
    if failed:
        found.append(f"no rewriting: {failed}")
    elif rivals and rivals[0].score > 0.9 * best.score:
        found.append(f"also near: “{rivals[0].source}”, similarity {rivals[0].score:.2f}")
    return found[:3]
