"""Intents that operators define by examples: versioned, and never two of one name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.learning import Intent, IntentVersion
from assistant.db.session import publish
from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.services import corrections

__all__ = [
    "FEWEST",
    "MOST",
    "Examples",
    "define",
    "enable",
    "examples",
    "generation",
    "get",
    "listed",
    "named",
    "update",
    "versions",
]

FEWEST, MOST = 4, 200
"""Examples of one intent. Eight to sixteen are usual; more than two hundred teach nothing new."""
_LONGEST = 2000
_NAME = re.compile(r"[a-z][a-z0-9_]{1,59}")


@dataclass(frozen=True, slots=True)
class Examples:
    """What the operator's intents are made of. `version` changes exactly when the rest does."""

    version: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]


def define(
    session: Session,
    *,
    name: str,
    examples: Iterable[str],
    description: str = "",
    agent_id: str | None = None,
    reserved: Collection[str] = (),
) -> Intent:
    """Add an intent. `reserved` are the names that ship. Raises `Conflict` for a name or an example that is taken."""
    name = named(name)
    if name in reserved:
        raise Conflict(
            f"an intent named {name} ships with Notifyr: choose another name, or correct its labels on threads"
        )
    if (known := session.scalar(select(Intent).where(Intent.name == name))) is not None:
        state = "" if known.disabled_at is None else " (switched off)"
        raise Conflict(f"there is already an intent named {name}{state}: change that one")
    texts = _checked(examples)
    _unique(session, texts, besides=name)
    made = Intent(name=name, description=_described(description), examples=texts, version=1, agent_id=agent_id)
    session.add(made)
    session.flush()
    _remember(session, made)
    return made


def update(
    session: Session, intent_id: str, *, examples: Iterable[str], description: str = "", agent_id: str | None = None
) -> Intent:
    """Give an intent its next version. The same content again changes nothing."""
    found = get(session, intent_id)
    texts, description = _checked(examples), _described(description)
    if (texts, description) == (found.examples, found.description):
        return found
    _unique(session, texts, besides=found.name)
    found.examples, found.description, found.agent_id = texts, description, agent_id
    found.version += 1
    session.flush()
    _remember(session, found)
    return found


def enable(session: Session, intent_id: str, *, enabled: bool = True) -> Intent:
    """Switch an intent off, or on again. Labels that it gave stay where they are."""
    found = get(session, intent_id)
    if (found.disabled_at is None) != enabled:
        found.disabled_at = None if enabled else utcnow()
        session.flush()
        publish(session, "labels.changed")
    return found


def get(session: Session, intent_id: str) -> Intent:
    found = session.get(Intent, intent_id)
    if found is None:
        raise NotFound("there is no such intent")
    return found


def listed(session: Session) -> Sequence[Intent]:
    """Every intent by name, the ones switched off too."""
    return session.scalars(select(Intent).order_by(Intent.name)).all()


def versions(session: Session, intent_id: str) -> Sequence[IntentVersion]:
    """How an intent was defined, newest first."""
    return session.scalars(
        select(IntentVersion).where(IntentVersion.intent_id == intent_id).order_by(IntentVersion.version.desc())
    ).all()


def examples(session: Session) -> Examples:
    """The examples of every intent in use."""
    rows = [one for one in listed(session) if one.disabled_at is None]
    # A description is an example too: with few others it says most.
    pairs = [(str(text), one.name) for one in rows for text in (*one.examples, one.description) if text]
    return Examples(generation(session), tuple(text for text, _ in pairs), tuple(label for _, label in pairs))


def generation(session: Session) -> str:
    """A short hash that changes exactly when what an intent head learns from changes: intents or corrections."""
    digest = hashlib.sha256(corrections.generation(session, "intent").encode())
    rows = session.execute(select(Intent.id, Intent.version).where(Intent.disabled_at.is_(None)).order_by(Intent.id))
    for intent_id, version in rows:
        digest.update(f"{intent_id}:{version}\n".encode())
    return digest.hexdigest()[:16]


def named(name: str) -> str:
    """A name as it is stored: `Warranty claim` becomes `warranty_claim`. Raises `InvalidInput`."""
    made = re.sub(r"[\s?!.,/&-]+", "_", name.strip().lower()).strip("_")
    if _NAME.fullmatch(made) is None:
        raise InvalidInput("a name has 2 to 60 letters, digits and underscores, and begins with a letter")
    return made


def _checked(texts: Iterable[str]) -> list[str]:
    kept = list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))
    if len(kept) < FEWEST:
        raise InvalidInput(f"an intent needs {FEWEST} different examples or more, best 8 to 16; there are {len(kept)}")
    if len(kept) > MOST:
        raise InvalidInput(f"an intent takes {MOST} examples at most; there are {len(kept)}")
    if any(len(text) > _LONGEST for text in kept):
        raise InvalidInput(f"an example has {_LONGEST} characters at most")
    return kept


def _described(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > 500:
        raise InvalidInput("a description has 500 characters at most")
    return text


def _unique(session: Session, texts: Collection[str], *, besides: str) -> None:
    """One text under two intents teaches neither."""
    wanted = {text.casefold(): text for text in texts}
    for other in listed(session):
        if other.name == besides or other.disabled_at is not None:
            continue
        for text in other.examples:
            if str(text).casefold() in wanted:
                raise Conflict(f"“{text}” is an example of {other.name} already: an example belongs to one intent")


def _remember(session: Session, intent: Intent) -> None:
    session.add(
        IntentVersion(
            intent_id=intent.id,
            version=intent.version,
            description=intent.description,
            examples=intent.examples,
            agent_id=intent.agent_id,
        )
    )
    session.flush()
    publish(session, "labels.changed")
