"""The inbound half of the crash paths: receive, triage, ask, rejudge, suggest, review. Each step dies at a failpoint in a forked child.

The models are off: what is tried is the storage of their results; the models themselves have tests of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from email.message import EmailMessage
from email.policy import SMTP
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from assistant.backends.blobs import Blobs
from assistant.clock import utcnow
from assistant.db.access import Agent
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.session import Database
from assistant.db.tables import metadata
from assistant.db.timeline import ThreadEvent
from assistant.errors import Conflict, ModelError
from assistant.services import corrections, profiles, suggestions, sweeper
from assistant.settings import Settings, load_settings
from assistant.states import SuggestionState, TriageState
from assistant.values import Label, Passage, Prompt
from channels.support import mime
from models.asked import FILE, Gain, keep, key_of
from pipelines.inbound import Receiver
from pipelines.mailboxes import Listener
from pipelines.triage import Triage
from tests.faults.reconciler import reconcile


class _Parser:
    """The parser without its child: a fork a round is enough processes."""

    parse = staticmethod(mime.parse)


class Plain:
    """A blob store for what is prepared: obstore's threads would not survive the fork, so no child may find them started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, key: str, content: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def ensure(self, key: str, content: bytes) -> None:
        """It is there."""


class _Parts:
    """What triage takes from the container, with every model off."""

    classifier = embedder = generator = None
    redis_url = ""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database


class Inbound:
    """What the inbound paths share: one database, one blob folder, one mail a round."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.database = Database(url)
        self.ids: list[str] = []

    @cached_property
    def settings(self) -> Settings:
        return load_settings(
            {},
            data_dir=self.folder,
            database_url=self.url,
            mail_address="support@example.org",
            encoder="off",
            generator="off",
        )

    @cached_property
    def blobs(self) -> Blobs:
        return Blobs.open(self.settings)

    @cached_property
    def listener(self) -> Listener:
        return Listener(self.settings, self.database, Receiver(self.database, self.blobs, _Parser()))  # type: ignore[arg-type]

    @cached_property
    def triage(self) -> Triage:
        return Triage(_Parts(self.settings, self.database))  # type: ignore[arg-type]

    def raw(self, number: int) -> bytes:
        return (
            f"From: Ana <ana{number}@example.com>\r\nTo: support@example.org\r\nSubject: Question {number}\r\n"
            f"Message-ID: <q{number}@example.com>\r\n\r\nWhere is order {number}?\r\n"
        ).encode()

    def prepare(self, rounds: int) -> None:
        metadata.create_all(self.database.engine)
        with self.database.transaction() as session:
            profiles.ensure_default(session, self.settings)
        self.ready(rounds + 1)
        self.rehearse(rounds)
        self.database.close()

    def ready(self, rounds: int) -> None:
        """Whatever must be there before the first round."""

    def begin(self) -> None:
        """All is in files."""

    def rehearse(self, number: int) -> None:
        """One round without a death: children inherit compiled statements and imported modules, and live half as long."""
        self.step(number)

    def receive_all(self, rounds: int) -> list[str]:
        listener = self._before_the_forks()
        answers = [listener.store(self.raw(number), ["support@example.org"]) for number in range(rounds)]
        return [answer.rpartition(" ")[2] for answer in answers]

    def _before_the_forks(self) -> Listener:
        receiver = Receiver(self.database, Plain(self.settings.path("blobs")), _Parser())  # type: ignore[arg-type]
        return Listener(self.settings, self.database, receiver)

    def _problems(self, *, source: list[str] | None = None, backlog: bool = False) -> list[str]:
        found = reconcile(
            self.database,
            arrived=Counter(),
            source=source,
            files=self.blobs,
            orphans=False,  # whoever died at one has tried again since
            backlog=backlog,
            now=utcnow(),
        )
        self.database.close()
        return found.problems


class Receive(Inbound):
    """A mail a round, as the listener stores it. The sender who got no 250 sends it again, twice."""

    def ready(self, rounds: int) -> None:
        self.rounds = rounds
        self.mails = [self._mail(number) for number in range(rounds)]  # once: to make one costs as much as to read it

    def raw(self, number: int) -> bytes:
        return self.mails[number]

    def _mail(self, number: int) -> bytes:
        """With an attachment: its bytes are stored apart from the mail's."""
        made = EmailMessage()
        made["From"], made["To"], made["Subject"] = f"ana{number}@example.com", "support@example.org", "Broken"
        made["Message-ID"] = f"<q{number}@example.com>"
        made.set_content(f"Lamp {number} arrived broken; see the picture.")
        made.add_attachment(b"picture %d" % number, maintype="image", subtype="png", filename="lamp.png")
        made.set_boundary("part")  # the sender's next try has the same bytes
        return made.as_bytes(policy=SMTP)

    def rehearse(self, number: int) -> None:
        assert self.listener, "each child would import obstore; only its first call starts threads"
        self._before_the_forks().store(self.raw(number), ["support@example.org"])

    def step(self, number: int) -> None:
        self.listener.store(self.raw(number), ["support@example.org"])
        self.database.close()

    def recover(self) -> None:
        for number in [*range(self.rounds), *range(self.rounds)]:
            self.listener.store(self.raw(number), ["support@example.org"])

    def problems(self) -> list[str]:
        return self._problems(source=[f"<q{number}@example.com>" for number in range(self.rounds)])


class TriageRun(Inbound):
    """A stored mail a round, sent through the stages; the task is then delivered twice more."""

    def ready(self, rounds: int) -> None:
        self.ids = self.receive_all(rounds)

    def step(self, number: int) -> None:
        self.triage.triage(self.ids[number])
        self.database.close()

    def recover(self) -> None:
        for message_id in [*self.ids, *self.ids]:
            self.triage.triage(message_id)

    def problems(self) -> list[str]:
        with self.database.reading() as session:
            states = Counter(session.scalars(select(Message.triage)).all())
        wrong = {state: count for state, count in states.items() if state is not TriageState.DONE}
        return self._problems(backlog=True) + ([f"not triaged: {wrong}"] if wrong else [])


class _Names:
    """A generator that names one intent."""

    name = "names"

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        yield "refund"

    def count(self, text: str) -> int:
        return len(text.split())

    def parameters(self) -> dict[str, Any]:
        return {}


class AskRun(Inbound):
    """A message a round whose intent the encoder left open; a generator is asked, and the task then comes twice more."""

    @cached_property
    def settings(self) -> Settings:
        return super().settings.model_copy(update={"generator": "llama:names"})

    @cached_property
    def triage(self) -> Triage:
        parts = _Parts(self.settings, self.database)
        parts.generator = _Names()  # type: ignore[assignment]
        return Triage(parts)  # type: ignore[arg-type]

    def ready(self, rounds: int) -> None:
        keep(self.settings.path(FILE), Gain(key_of(_Names()), 8.0, 40, 40, 35, 20, 35), spec="llama:names")
        self.ids = self.receive_all(rounds)
        step = {"stage": "classify", "outcome": "ok", "milliseconds": 1.0, "reason": "no clear intent", "score": None}
        labels = [{"name": "intent:refund", "score": 0.4}, {"name": "intent:billing", "score": 0.35}]
        with self.database.transaction() as session:
            session.execute(
                update(Message).values(
                    triage=TriageState.DONE, labels=labels, trace=[step | {"detail": {"abstained": ["intent"]}}]
                )
            )

    def step(self, number: int) -> None:
        self.triage.ask(self.ids[number])
        self.database.close()

    def recover(self) -> None:
        for message_id in [*self.ids, *self.ids]:
            self.triage.ask(message_id)

    def problems(self) -> list[str]:
        with self.database.reading() as session:
            steps = Counter(len(trace) for trace in session.scalars(select(Message.trace)))
            intents = Counter(session.scalars(select(Thread.intent)))
        found = [f"asked twice or never: {steps}"] if set(steps) != {2} else []
        return (
            self._problems(backlog=True) + found + ([f"not claimed: {intents}"] if set(intents) != {"refund"} else [])
        )


class _Judge:
    """A judge of spam that takes everything for it, as if an agent had said so of a mail like it."""

    name = "judge"

    def classify(self, texts: Sequence[str], clues: Sequence[Sequence[str]] = ()) -> list[list[Label]]:
        return self.spam_only(texts, clues)

    def spam_only(self, texts: Sequence[str], clues: Sequence[Sequence[str]]) -> list[list[Label]]:
        return [[Label("spam:spam", 0.98), Label("spam:ham", 0.02)] for _ in texts]

    def faults(self) -> dict[str, ModelError]:
        return {}

    def spam_fault(self, text: str, clues: Sequence[str]) -> str:
        return ""

    def spam_because(self, text: str, clues: Sequence[str]) -> dict[str, Any]:
        return {"stage": "memory", "words": [], "reasons": [], "like": "one (1.00)", "called": "spam"}

    def because(
        self, texts: Sequence[str], labels: Sequence[Label], claims: Mapping[str, str], *, spam: bool
    ) -> tuple[list[str], dict[str, Any]]:
        return [], {}


class _Unread:
    """A blob store in which no raw mail says how it was built."""

    def get(self, key: str) -> bytes:
        return b""


class RejudgeRun(Inbound):
    """Two mails of a campaign a round, one of them called spam; the other is judged again, and the task then comes twice more."""

    @cached_property
    def triage(self) -> Triage:
        parts = _Parts(self.settings, self.database)
        parts.classifier = _Judge()  # type: ignore[assignment]
        parts.blobs = _Unread()  # type: ignore[attr-defined]  # obstore's threads would not survive the fork
        return Triage(parts)  # type: ignore[arg-type]

    def ready(self, rounds: int) -> None:
        stored = self.receive_all(2 * rounds)
        self.ids = stored[::2]
        step = {"stage": "classify", "outcome": "ok", "milliseconds": 1.0, "reason": "no clear intent", "score": 0.1}
        labels = [{"name": "spam:ham", "score": 0.9}, {"name": "spam:spam", "score": 0.1}]
        with self.database.transaction() as session:
            session.execute(
                update(Message).values(
                    triage=TriageState.DONE, labels=labels, trace=[step | {"detail": {"spam": "ham"}}]
                )
            )
            session.execute(update(Thread).values(spam_score=0.1, spam_verdict="ham"))
            for number, message_id in enumerate(stored):
                session.get_one(Message, message_id).new_text = _campaign(number // 2)
            for message_id in self.ids:
                corrections.record(session, message_id, head="spam", label="spam")

    def step(self, number: int) -> None:
        self.triage.rejudge(self.ids[number])
        self.database.close()

    def recover(self) -> None:
        for message_id in [*self.ids, *self.ids]:
            self.triage.rejudge(message_id)

    def problems(self) -> list[str]:
        with self.database.reading() as session:
            moves = Counter(session.scalars(select(ThreadEvent.thread_id)))
            judged = [
                step["detail"]["spam"]
                for message in session.scalars(select(Message).where(Message.id.not_in(self.ids)))
                for step in message.trace
            ]
        wrong = Counter(judged).keys() != {"spam"} or set(moves.values()) != {1} or len(moves) != len(judged)
        found = [f"judged {Counter(judged)}, moved {Counter(moves.values())}"] if wrong else []
        return self._problems(backlog=True) + found


def _campaign(number: int) -> str:
    """Words that no other round has."""
    word = "".join(chr(ord("a") + int(digit)) for digit in f"{number:04}")
    return " ".join(f"{start}{word}" for start in ("win", "gold", "fast", "cash", "luck", "prize", "call", "order"))


class Suggest(Inbound):
    """A suggestion a round, drafted (the approved answer itself, without a generator); the task comes twice more."""

    passage = Passage(text="We ship within 2 working days.", source="Delivery", score=0.9, document_id="d", version=1)

    def ready(self, rounds: int) -> None:
        messages = self.receive_all(rounds)
        for message_id in messages:
            self.triage.triage(message_id)
        for start in range(0, rounds, 100):
            with self.database.transaction() as session:
                for message_id in messages[start : start + 100]:
                    self.ids.append(suggestions.begin(session, message_id, passages=[self.passage]).id)

    def step(self, number: int) -> None:
        self.triage.draft(self.ids[number])
        self.database.close()

    def recover(self) -> None:
        for suggestion_id in [*self.ids, *self.ids]:
            self.triage.draft(suggestion_id)

    def problems(self) -> list[str]:
        with self.database.reading() as session:
            states = Counter(session.scalars(select(Suggestion.state)).all())
        wrong = {state: count for state, count in states.items() if state is not SuggestionState.PROPOSED}
        return self._problems() + ([f"not proposed: {wrong}"] if wrong else [])


class Review(Suggest):
    """A proposed suggestion a round, accepted by an agent whose browser tries again until it gets an answer."""

    def ready(self, rounds: int) -> None:
        super().ready(rounds)
        self.recover_drafts()
        with self.database.transaction() as session:
            session.add(Agent(id="agent", email="bo@example.org", name="Bo"))

    def recover_drafts(self) -> None:
        for suggestion_id in self.ids:
            self.triage.draft(suggestion_id)

    def step(self, number: int) -> None:
        self._accept(self.ids[number])
        self.database.close()

    def _accept(self, suggestion_id: str) -> None:
        with self.database.transaction() as session:
            agent = session.get(Agent, "agent")
            assert agent is not None
            version = suggestions.get(session, suggestion_id).version
            suggestions.accept(session, suggestion_id, agent=agent, version=version, hold_seconds=0)

    def recover(self) -> None:
        for suggestion_id in [*self.ids, *self.ids]:
            try:
                self._accept(suggestion_id)
            except Conflict:
                continue
        with self.database.transaction() as session:
            sweeper.sweep(session, now=utcnow() + timedelta(hours=1))

    def problems(self) -> list[str]:
        with self.database.reading() as session:
            replies = Counter(session.scalars(select(Message.suggestion_id).where(Message.suggestion_id.is_not(None))))
        twice = [one for one, count in replies.items() if count > 1]
        lost = set(self.ids) - set(replies)
        found = [f"{len(twice)} suggestions were queued twice"] if twice else []
        return self._problems() + found + ([f"{len(lost)} accepted suggestions have no reply"] if lost else [])
