"""What admins settle about labels: from which probability one is claimed, and for whom never."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from assistant.db.learning import LabelThreshold, SenderException
from assistant.db.session import publish
from assistant.errors import InvalidInput, NotFound

__all__ = [
    "Rules",
    "except_sender",
    "exceptions",
    "forget_exception",
    "read",
    "set_threshold",
    "threshold",
    "thresholds",
]

FLOOR, CEILING = 0.05, 0.999


@dataclass(frozen=True, slots=True)
class Rules:
    """Every threshold and exception, read once for a message."""

    thresholds: dict[tuple[str, str], float] = field(default_factory=dict)
    exceptions: frozenset[tuple[str, str, str]] = frozenset()

    def threshold(self, head: str, label: str, *, default: float) -> float:
        """From which probability a label is claimed: its own threshold, its head's, or the default."""
        return self.thresholds.get((head, label), self.thresholds.get((head, ""), default))

    def excepted(self, sender: str, head: str, label: str) -> bool:
        """Whether a label is never claimed for a sender, by its address or its domain."""
        sender = sender.casefold()
        names = (sender, "@" + sender.rpartition("@")[2])
        return any((name, head, label) in self.exceptions for name in names)


def read(session: Session) -> Rules:
    return Rules(
        thresholds={(one.head, one.label): one.threshold for one in session.scalars(select(LabelThreshold))},
        exceptions=frozenset(
            (sender, head, label)
            for sender, head, label in session.execute(
                select(SenderException.sender, SenderException.head, SenderException.label)
            )
        ),
    )


def threshold(session: Session, head: str, label: str, *, default: float) -> float:
    return read(session).threshold(head, label, default=default)


def thresholds(session: Session) -> Sequence[LabelThreshold]:
    """Thresholds that were set, by head and label."""
    return session.scalars(select(LabelThreshold).order_by(LabelThreshold.head, LabelThreshold.label)).all()


def set_threshold(
    session: Session, *, head: str, label: str = "", value: float | None, agent_id: str | None = None
) -> None:
    """Claim a label (empty: every label of the head) from this probability on; None goes back to the default."""
    if value is not None and not FLOOR <= value <= CEILING:
        raise InvalidInput(f"a threshold is a probability from {FLOOR} to {CEILING}")
    session.execute(delete(LabelThreshold).where(LabelThreshold.head == head, LabelThreshold.label == label))
    if value is not None:
        session.add(LabelThreshold(head=head, label=label, threshold=value, agent_id=agent_id))
        session.flush()
    publish(session, "labels.changed")


def exceptions(session: Session) -> Sequence[SenderException]:
    return session.scalars(select(SenderException).order_by(SenderException.sender, SenderException.head)).all()


def except_sender(
    session: Session, *, sender: str, head: str, label: str, agent_id: str | None = None
) -> SenderException:
    """Never claim a label for a sender: an address, or `@domain`. The same again is one."""
    sender = sender.strip().casefold()
    if "@" not in sender or len(sender) > 320 or any(c.isspace() for c in sender):
        raise InvalidInput("name an address like ana@example.org, or a domain like @example.org")
    if not head or not label:
        raise InvalidInput("say which label is never right")
    known = session.scalar(
        select(SenderException).where(
            SenderException.sender == sender, SenderException.head == head, SenderException.label == label
        )
    )
    if known is not None:
        return known
    made = SenderException(sender=sender, head=head, label=label, agent_id=agent_id)
    session.add(made)
    session.flush()
    publish(session, "labels.changed")
    return made


def forget_exception(session: Session, exception_id: str) -> None:
    found = session.get(SenderException, exception_id)
    if found is None:
        raise NotFound("there is no such exception")
    session.delete(found)
    publish(session, "labels.changed")
