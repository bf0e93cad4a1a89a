"""Agents' unsent words, kept on the server so that no reload, crash or newer message loses them."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.inbox import NewDraft
from assistant.db.messages import DraftText, Suggestion
from assistant.errors import InvalidInput, NotFound
from assistant.services.threads import get_thread

__all__ = ["KINDS", "LONGEST", "append", "discard", "load", "load_new", "others", "save", "save_new"]

LONGEST = 100_000
KINDS = ("reply", "edit", "forward", "note")
_LONGEST_FIELD = 10_000


def save(
    session: Session,
    thread_id: str,
    *,
    agent_id: str,
    text: str,
    kind: str = "reply",
    suggestion_id: str | None = None,
    fields: Mapping[str, str] | None = None,
) -> DraftText | None:
    """Keep what an agent has typed (`kind`: one of `KINDS`); an empty text forgets it. Raises `NotFound`, `InvalidInput`.

    `fields`: recipients and subject as typed; None leaves what is there.
    """
    if kind not in KINDS:
        raise InvalidInput(f"a draft is one of {', '.join(KINDS)}")
    if len(text) > LONGEST:
        raise InvalidInput(f"a draft may have {LONGEST} characters")
    get_thread(session, thread_id)
    if suggestion_id is not None:
        of_it = select(Suggestion.id).where(Suggestion.id == suggestion_id, Suggestion.thread_id == thread_id)
        if session.scalar(of_it) is None:
            raise NotFound("there is no such suggestion")
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
    if fields is not None:
        draft.fields = {name: value[:_LONGEST_FIELD] for name, value in fields.items()}
    session.flush()
    return draft


def append(session: Session, thread_id: str, *, agent_id: str, text: str, kind: str = "reply") -> None:
    """Put a text behind the agent's unsent words of this kind, a line between."""
    own = load(session, thread_id, agent_id=agent_id, kind=kind)
    before = f"{own.text.rstrip()}\n\n" if own is not None and own.text.strip() else ""
    save(session, thread_id, agent_id=agent_id, text=before + text, kind=kind)


def load(session: Session, thread_id: str, *, agent_id: str, kind: str = "reply") -> DraftText | None:
    return session.scalar(
        select(DraftText).where(
            DraftText.thread_id == thread_id, DraftText.agent_id == agent_id, DraftText.kind == kind
        )
    )


def others(session: Session, thread_id: str, *, agent_id: str) -> list[DraftText]:
    """Unsent words of other agents to the contact of this thread: offered to who takes over, never lost."""
    return list(
        session.scalars(
            select(DraftText)
            .where(
                DraftText.thread_id == thread_id, DraftText.agent_id != agent_id, DraftText.kind.in_(("reply", "edit"))
            )
            .order_by(DraftText.updated_at.desc())
        )
    )


def load_new(session: Session, agent_id: str) -> dict[str, str]:
    """An agent's unsent new message: `to`, `cc`, `bcc`, `subject`, `text`. Empty when there is none."""
    found = session.get(NewDraft, agent_id)
    return dict(found.fields) if found is not None else {}


def save_new(session: Session, agent_id: str, fields: Mapping[str, str]) -> None:
    """Keep an agent's new message as typed; nothing typed forgets it. Raises `InvalidInput`."""
    if sum(map(len, fields.values())) > LONGEST:
        raise InvalidInput(f"a draft may have {LONGEST} characters")
    found = session.get(NewDraft, agent_id)
    if not any(value.strip() for value in fields.values()):
        if found is not None:
            session.delete(found)
        return
    if found is None:
        try:
            with session.begin_nested():
                session.add(found := NewDraft(agent_id=agent_id, fields=dict(fields)))
        except IntegrityError:
            found = session.get_one(NewDraft, agent_id, populate_existing=True)
    found.fields = dict(fields)


def discard(session: Session, thread_id: str, *, agent_id: str, kind: str = "reply") -> None:
    session.execute(
        delete(DraftText).where(
            DraftText.thread_id == thread_id, DraftText.agent_id == agent_id, DraftText.kind == kind
        )
    )
