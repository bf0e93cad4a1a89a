"""Every task: a few lines that take ids and hand over. Running one twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assistant.clock import utcnow
from assistant.services import answers, sweeper
from pipelines import tidying
from pipelines.container import Container

__all__ = ["TASKS"]


def triage(container: Container, message_id: str) -> None:
    """Send one inbound message through the stages; its draft, when one is due, is a task of its own."""
    container.triage.triage(message_id)


def draft(container: Container, suggestion_id: str) -> None:
    """Generate one suggested reply and stream it to the open pages."""
    container.triage.draft(suggestion_id)


def ask(container: Container, message_id: str) -> None:
    """Ask the generator for the intent that the encoder left open."""
    container.triage.ask(message_id)


def rejudge(container: Container, message_id: str) -> None:
    """Judge spam again in the mails like one that an agent called spam or not. Lost, only the later ones are judged by it."""
    container.triage.rejudge(message_id)


def deliver(container: Container, message_id: str) -> None:
    """Hand one queued message to its carrier."""
    container.deliverer.deliver(message_id)


def sweep(container: Container) -> None:
    """Take up what the broker lost: waiting, held and queued rows, and claims whose holder died."""
    with container.database.transaction() as session:
        sweeper.sweep(
            session,
            now=utcnow(),
            repeatable=container.deliverer.repeatable,
            max_attempts=container.settings.max_attempts,
        )
        answers.purge(session)


def tidy(container: Container) -> None:
    """Empty the trash of what was in it for its days, and delete stored bytes that no row names."""
    tidying.empty_trash(container.database, now=utcnow(), days=container.settings.trash_days)
    tidying.tidy(container.database, container.blobs, now=utcnow())


TASKS: dict[str, Callable[..., Any]] = {
    "triage": triage,
    "draft": draft,
    "ask": ask,
    "rejudge": rejudge,
    "deliver": deliver,
    "sweep": sweep,
    "tidy": tidy,
}
