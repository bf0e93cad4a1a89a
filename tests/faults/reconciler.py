"""The one reconciler that ends every fault run: it compares what the outside saw with what the database says.

sink's mails == outbox `sent` + `unknown`        received at the source == stored messages
no row leased past its expiry                    no send after a STOP
no orphan files, none missing                    backlog 0
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.contacts import Consent, Identity, Suppression
from assistant.db.inbox import MessageImage, Upload
from assistant.db.messages import Attachment, Message, MessageEvent
from assistant.db.session import Database
from assistant.states import Delivery, Direction, TriageState

__all__ = ["Reconciliation", "reconcile"]

_LEFT = (Delivery.SENT, Delivery.DELIVERED, Delivery.DEFERRED, Delivery.BOUNCED)
_MAY_HAVE_LEFT = (*_LEFT, Delivery.UNKNOWN, Delivery.SENDING)


class Files(Protocol):
    def list(self, prefix: str) -> Iterable[str]: ...


@dataclass
class Reconciliation:
    """Counts for people, and `problems`: every promise that does not hold. A good run has none."""

    sent: int = 0
    unknown: int = 0
    unknown_arrived: int = 0
    waiting: int = 0
    ended: int = 0
    received: int = 0
    files: int = 0
    orphans: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {value}" for name, value in vars(self).items() if isinstance(value, int))
        return f"{counts}; {len(self.problems)} problems" + "".join(f"\n  - {one}" for one in self.problems[:20])


def reconcile(
    database: Database,
    *,
    arrived: Counter[str],
    source: Collection[str] | None = None,
    files: Files | None = None,
    orphans: bool = True,
    backlog: bool = True,
    now: datetime | None = None,
) -> Reconciliation:
    """Compare everything. `arrived`: Message-ID to count at the sink; `source`: Message-IDs that were answered with 250.

    `orphans`: a file that no row names is allowed, as what a refused mail leaves until it is tidied away.
    """
    found = Reconciliation()
    with database.reading() as session:
        _outbox(session, arrived, found)
        _leases(session, now or utcnow(), found)
        _consent(session, found)
        if source is not None:
            _inbox(session, source, found)
        if files is not None:
            _files(session, files, found)
            if found.orphans and not orphans:
                found.problems.append(f"{found.orphans} files belong to no row")
        if backlog:
            _backlog(session, found)
    return found


def _outbox(session: Session, arrived: Counter[str], found: Reconciliation) -> None:
    rows = session.execute(
        select(Message.external_id, Message.status).where(Message.direction == Direction.OUTBOUND)
    ).all()
    ours = {external_id: Delivery(status) for external_id, status in rows}
    for external_id, status in ours.items():
        count = arrived[external_id]
        if status in _LEFT:
            found.sent += 1
            if count != 1:
                found.problems.append(f"{external_id} is {status} and arrived {count} times")
        elif status is Delivery.UNKNOWN:
            found.unknown += 1
            found.unknown_arrived += count
            if count > 1:
                found.problems.append(f"{external_id} is unknown and arrived {count} times")
        elif status not in _MAY_HAVE_LEFT:
            found.waiting += status in (Delivery.QUEUED, Delivery.HELD)
            found.ended += status not in (Delivery.QUEUED, Delivery.HELD)
            if count:
                found.problems.append(f"{external_id} is {status} but arrived {count} times")
    strangers = [one for one in arrived if one not in ours]
    if strangers:
        found.problems.append(f"{len(strangers)} mails arrived that the outbox does not know, like {strangers[0]}")


def _leases(session: Session, now: datetime, found: Reconciliation) -> None:
    expired = session.scalar(
        select(func.count()).where(
            Message.status == Delivery.SENDING, or_(Message.lease_until.is_(None), Message.lease_until < now)
        )
    )
    if expired:
        found.problems.append(f"{expired} messages are leased past their expiry")


def _consent(session: Session, found: Reconciliation) -> None:
    """No attempt was claimed after the STOP, the suppression or the withdrawal was committed."""
    stopped = {row.address: row.created_at for row in session.scalars(select(Suppression))}
    ledger = (
        select(Identity.address, Consent.kind, Consent.created_at)
        .join(Identity, and_(Identity.contact_id == Consent.contact_id, Identity.channel == Consent.channel))
        .order_by(Consent.created_at, Consent.id)
    )
    newest = {address: (kind, at) for address, kind, at in session.execute(ledger)}
    withdrawn = {address: at for address, (kind, at) in newest.items() if kind == "withdrawn"}
    if not stopped and not withdrawn:
        return
    claims = session.execute(
        select(Message.id, Message.to_addresses, Message.cc_addresses, Message.bcc_addresses, MessageEvent.occurred_at)
        .join(MessageEvent, and_(MessageEvent.message_id == Message.id, MessageEvent.kind.startswith("claimed:")))
        .where(Message.direction == Direction.OUTBOUND)
    ).all()
    for message_id, to, cc, bcc, occurred_at in claims:
        for address in {one["address"] for one in (*to, *cc, *bcc)}:
            for said, since in (("was suppressed", stopped.get(address)), ("withdrew consent", withdrawn.get(address))):
                if since is not None and occurred_at > since:
                    found.problems.append(f"{message_id} was claimed after one of its recipients {said}")


def _inbox(session: Session, source: Collection[str], found: Reconciliation) -> None:
    stored = Counter(session.scalars(select(Message.external_id).where(Message.direction == Direction.INBOUND)).all())
    found.received = sum(stored.values())
    lost = [one for one in source if one not in stored]
    if lost:
        found.problems.append(f"{len(lost)} accepted mails are not stored, like {lost[0]}")
    twice = [one for one, count in stored.items() if count > 1 or "#" in one]
    if twice:
        found.problems.append(f"{len(twice)} mails are stored twice, like {twice[0]}")


def _files(session: Session, files: Files, found: Reconciliation) -> None:
    there = set(files.list(""))
    wanted = set(session.scalars(select(Message.raw_key).where(Message.raw_key != "")))
    wanted |= set(session.scalars(select(Attachment.blob_key)))
    wanted |= set(session.scalars(select(Upload.blob_key)))
    wanted |= set(session.scalars(select(MessageImage.blob_key).where(MessageImage.blob_key != "")))
    found.files, found.orphans = len(there), len(there - wanted)
    if missing := wanted - there:
        found.problems.append(f"{len(missing)} stored messages have lost their file, like {min(missing)}")


def _backlog(session: Session, found: Reconciliation) -> None:
    left = session.scalar(
        select(func.count()).where(
            or_(
                and_(Message.direction == Direction.INBOUND, Message.triage == TriageState.WAITING),
                and_(
                    Message.direction == Direction.OUTBOUND,
                    Message.status.in_((Delivery.HELD, Delivery.QUEUED, Delivery.SENDING)),
                ),
            )
        )
    )
    if left:
        found.problems.append(f"{left} rows are still waiting")
