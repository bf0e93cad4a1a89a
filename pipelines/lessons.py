"""What people taught, from the rows to the models: operators' examples and agents' corrections of every head."""

from __future__ import annotations

from dataclasses import dataclass

from assistant.db.session import Database
from assistant.services import corrections, intents
from models.heads.intents import Lessons
from models.heads.taught import HEADS, HeadLessons
from pipelines.stages.classify import windows

__all__ = ["HeadsLessons", "IntentLessons", "SpamLessons"]

_MOST = 1000
"""Corrections of one head that are remembered, the newest ones: a process embeds them all when it starts."""


@dataclass(frozen=True, slots=True)
class IntentLessons:
    """Asked before every answer: one small query tells whether anything is new, whichever process changed it."""

    database: Database

    def __call__(self, version: str) -> Lessons | None:
        with self.database.reading() as session:
            if version and intents.generation(session) == version:
                return None
            own = intents.examples(session)
            taught = corrections.lessons(session, "intent")
        return Lessons(
            version=own.version,
            texts=(*own.texts, *[windows(one.subject, one.text)[0] for one in taught]),
            labels=(*own.labels, *[one.label for one in taught]),
        )


@dataclass(frozen=True, slots=True)
class SpamLessons:
    """Mails that agents called spam or ham, newest first: what the judge remembers beside its weights."""

    database: Database

    def __call__(self, version: str) -> Lessons | None:
        with self.database.reading() as session:
            now = corrections.generation(session, "spam")
            if version == now:
                return None
            taught = corrections.lessons(session, "spam")
        texts = tuple(f"{one.subject}\n{one.text}" for one in taught)
        return Lessons(now, texts, tuple(one.label for one in taught))


@dataclass(frozen=True, slots=True)
class HeadsLessons:
    """Corrections of the heads that have no examples of an operator's: kind of reply, urgency, sentiment, language, opt-out."""

    database: Database

    def __call__(self, version: str) -> HeadLessons | None:
        with self.database.reading() as session:
            now = corrections.generation(session, *HEADS)
            if version == now:
                return None
            taught = {head: corrections.lessons(session, head, limit=_MOST) for head in HEADS}
        by_head = {
            head: Lessons(
                now, tuple(windows(one.subject, one.text)[0] for one in found), tuple(one.label for one in found)
            )
            for head, found in taught.items()
        }
        return HeadLessons(now, by_head)
