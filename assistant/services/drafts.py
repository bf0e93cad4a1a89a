"""Agents' unsent words, kept on the server so that no reload, crash or newer message loses them."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import DraftText
from assistant.errors import InvalidInput
from assistant.services.threads import get_thread

__all__ = ["LONGEST", "discard", "load", "others", "save"]

LONGEST = 100_000


def save(
    session: Session, thread_id: str, *, agent_id: str, text: str, kind: str = "reply", suggestion_id: str | None = None
) -> DraftText | None:
    """Keep what an agent has typed (`kind`: `reply` or `edit`); an empty text forgets it. Raises `NotFound`, `InvalidInput`."""
    if len(text) > LONGEST:
        raise InvalidInput(f"a draft may have {LONGEST} characters")
    get_thread(session, thread_id)
    if not text.strip():
        discard(session, thread_id, agent_id=agent_id, kind=kind)
        return None
    draft = load(session, thread_id, agent_id=agent_id, kind=kind)
    if draft is None:
        draft = DraftText(thread_id=thread_id, agent_id=agent_id, kind=kind, text=text, suggestion_id=suggestion_id)
        try:
            with session.begin_nested():
                session.add(draft)
        except IntegrityError:
            # The same agent's other tab was first: the newer words win, in the one row there is.
            found = load(session, thread_id, agent_id=agent_id, kind=kind)
            if found is None:
                raise
            draft = found
    draft.text, draft.suggestion_id, draft.updated_at = text, suggestion_id, utcnow()
    session.flush()
    return draft


def load(session: Session, thread_id: str, *, agent_id: str, kind: str = "reply") -> DraftText | None:
    return session.scalar(
        select(DraftText).where(
            DraftText.thread_id == thread_id, DraftText.agent_id == agent_id, DraftText.kind == kind
        )
    )


def others(session: Session, thread_id: str, *, agent_id: str) -> list[DraftText]:
    """Unsent words of other agents in the same thread: shown when one takes over, never lost."""
    return list(
        session.scalars(select(DraftText).where(DraftText.thread_id == thread_id, DraftText.agent_id != agent_id))
    )


def discard(session: Session, thread_id: str, *, agent_id: str, kind: str = "reply") -> None:
    session.execute(
        delete(DraftText).where(
            DraftText.thread_id == thread_id, DraftText.agent_id == agent_id, DraftText.kind == kind
        )
    )
