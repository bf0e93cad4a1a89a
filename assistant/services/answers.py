"""Stored answers to repeated requests: what makes a POST with an `Idempotency-Key` harmless to repeat.

A key is reserved in a transaction of its own; the answer is written in the transaction of the act itself, so the two exist
together or not at all. A reservation whose request died is taken over after `LEASE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.access import IdempotentAnswer
from assistant.errors import Conflict, InvalidInput

__all__ = ["KEEP", "LEASE", "KeyInUse", "KeyReused", "Stored", "complete", "purge", "release", "reserve"]

KEEP = timedelta(hours=48)
LEASE = timedelta(seconds=60)


class KeyInUse(Conflict):
    code, title, retryable = "idempotency-key-in-use", "The first request with this key is still running", True


class KeyReused(InvalidInput):
    code, title = "idempotency-key-reused", "This key was used with another request"


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer given before: `body` as it was stored (the caller decides how it is protected)."""

    status: int
    body: str
    headers: dict[str, str]


def reserve(session: Session, scope: str, *, key: str, request_hash: str) -> Stored | str:
    """Take the key for one request: the reservation's id, or the answer that an equal request got before.

    Raises `KeyReused` when the earlier request was another one, `KeyInUse` while it is still being worked on.
    """
    now = utcnow()
    mine = IdempotentAnswer(id=new_id(), scope=scope, key=key, request_hash=request_hash, expires_at=now + KEEP)
    session.execute(
        delete(IdempotentAnswer).where(
            IdempotentAnswer.scope == scope,
            IdempotentAnswer.key == key,
            (IdempotentAnswer.expires_at <= now)
            | ((IdempotentAnswer.status == 0) & (IdempotentAnswer.created_at <= now - LEASE)),
        )
    )
    try:
        with session.begin_nested():
            session.add(mine)
    except IntegrityError:
        found = session.scalar(
            select(IdempotentAnswer).where(IdempotentAnswer.scope == scope, IdempotentAnswer.key == key)
        )
        if found is not None and found.request_hash != request_hash:
            raise KeyReused("use a new Idempotency-Key for another request") from None
        if found is None or found.status == 0:
            raise KeyInUse("wait for the first answer, then repeat", delay=1) from None
        return Stored(found.status, found.body, found.headers)
    return mine.id


def complete(session: Session, reservation: str, *, status: int, body: str, headers: dict[str, str]) -> None:
    """Write the answer. Raises `KeyInUse` when the reservation was taken over: the act is then rolled back."""
    done = session.execute(
        update(IdempotentAnswer)
        .where(IdempotentAnswer.id == reservation, IdempotentAnswer.status == 0)
        .values(status=status, body=body, headers=headers)
    )
    assert isinstance(done, CursorResult)
    if done.rowcount != 1:
        raise KeyInUse("this request took too long and another one took its place", delay=1)


def release(session: Session, reservation: str) -> None:
    """Give the key back after a failure: nothing was done, so the same key may be tried again."""
    session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.id == reservation, IdempotentAnswer.status == 0))


def purge(session: Session) -> int:
    """Delete answers past their time. Returns how many."""
    done = session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.expires_at <= utcnow()))
    assert isinstance(done, CursorResult)
    return done.rowcount
