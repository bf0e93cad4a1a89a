"""Second thoughts about a decided suggestion: why it was dismissed."""

from __future__ import annotations

from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from assistant.db.messages import Suggestion
from assistant.db.session import publish
from assistant.errors import Conflict, InvalidInput
from assistant.services.suggestions import REJECT_REASONS, get
from assistant.states import SuggestionState

__all__ = ["give_reason"]


def give_reason(session: Session, suggestion_id: str, *, agent_id: str, reason: str) -> Suggestion:
    """Say why this agent dismissed a suggestion, or say it differently. Raises `NotFound`, `InvalidInput`, `Conflict`.

    A dismissal is stored the moment it is asked for; its reason comes after it or never.
    """
    suggestion = get(session, suggestion_id)
    if reason not in REJECT_REASONS:
        raise InvalidInput(f"reason must be one of {', '.join(REJECT_REASONS)}")
    # One statement decides: a suggestion that was brought back meanwhile, or that failed by itself, keeps what it says.
    done = session.execute(
        update(Suggestion)
        .where(
            Suggestion.id == suggestion_id,
            Suggestion.state == SuggestionState.REJECTED,
            Suggestion.agent_id == agent_id,
            Suggestion.reject_reason.in_(("", *REJECT_REASONS)),
        )
        .values(reject_reason=reason, version=Suggestion.version + 1)
    )
    assert isinstance(done, CursorResult)
    if not done.rowcount:
        raise Conflict("a reason is for a suggestion that you dismissed and that was not brought back since")
    session.refresh(suggestion)
    publish(session, "suggestion.changed", thread_id=suggestion.thread_id, suggestion_id=suggestion.id)
    return suggestion
