"""What people taught, from the rows to the models: operators' examples and agents' corrections of every head."""

from __future__ import annotations

from collections.abc import Sequence
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
            off = {one.name for one in intents.listed(session) if one.disabled_at is not None}
            taught = [one for one in corrections.lessons(session, "intent") if one.label not in off]
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
            taught = corrections.lessons(session, "spam", held_out=None)  # known again, nothing is trained on them
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
            held = {head: corrections.lessons(session, head, held_out=True, limit=_MOST) for head in HEADS}
        return HeadLessons(
            now,
            {head: _lessons(now, found) for head, found in taught.items()},
            {head: _lessons(now, [one for one in found if not one.over_cap]) for head, found in held.items()},
        )


def _lessons(version: str, found: Sequence[corrections.Lesson]) -> Lessons:
    texts = tuple(windows(one.subject, one.text)[0] for one in found)
    return Lessons(version, texts, tuple(one.label for one in found))
