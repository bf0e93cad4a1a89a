"""Contacts as mail comes and goes: who an address belongs to, what they agreed to, and whom never to write to again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import CompoundSelect, Select, bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.contacts import Consent, Contact, Identity, Suppression
from assistant.db.messages import Message
from assistant.values import Address

__all__ = ["Standing", "may_write", "record_consent", "resolve", "standing", "suppress", "suppression"]

CAUSES = ("opt-out", "hard-bounce", "complaint", "refused", "manual")
_WORDS = {
    "opt-out": "the contact asked not to be written to",
    "hard-bounce": "the address does not exist any more",
    "complaint": "the contact reported our mail as spam",
    "refused": "the other side refuses this address",
    "manual": "an agent blocked this address",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contact agreed to on one channel. `kind`, `source` and `at` of the newest record are empty when there is none."""

    channel: str
    refused: str
    """Why they may not be written to there; empty when they may."""
    kind: str = ""
    source: str = ""
    at: datetime | None = None


def standing(session: Session, contact: Contact) -> list[Standing]:
    """Every channel that a contact is known or has decided on. `contact` has its addresses loaded."""
    newest: dict[str, Consent] = {}
    for record in session.scalars(
        select(Consent).where(Consent.contact_id == contact.id).order_by(Consent.created_at, Consent.id)
    ):
        newest[record.channel] = record
    found = []
    for channel in sorted({one.channel for one in contact.identities} | set(newest)):
        addresses = [one.address for one in contact.identities if one.channel == channel] or [""]
        one = newest.get(channel)
        withdrawn = _WORDS["opt-out"] if one is not None and one.kind == "withdrawn" else ""
        reasons = [withdrawn or may_write(session, channel=channel, address=address) or "" for address in addresses]
        refused = "" if "" in reasons else reasons[0]
        found.append(
            Standing(channel, refused, one.kind, one.source, one.created_at) if one else Standing(channel, refused)
        )
    return found


def resolve(session: Session, address: Address, *, lock: bool = False) -> Contact:
    """The contact of an address, made when it is new. Of two at once, both get the one that came first.

    `lock`: nobody else gets it with a lock before this transaction ends.
    """
    known = _known(session, address, lock=lock)
    if known is not None:
        if address.display_name and not known.display_name:
            known.display_name = address.display_name[:300]
        return known
    try:
        with session.begin_nested():
            contact = Contact(display_name=address.display_name[:300])
            session.add(contact)
            session.flush()
            session.add(
                Identity(
                    contact_id=contact.id,
                    channel=address.channel,
                    address=address.value[:320],
                    display_name=address.display_name[:300],
                )
            )
    except IntegrityError:
        found = _known(session, address, lock=lock)
        if found is None:
            raise
        return found
    return contact


def _ledger(whose: Select[str] | CompoundSelect[str]) -> Select[str, str]:
    return (
        select(Consent.contact_id, Consent.kind)
        .where(Consent.contact_id.in_(whose), Consent.channel == bindparam("channel"))
        .order_by(Consent.created_at, Consent.id)
    )


# Made once: every queued, claimed and sent message asks these, and putting them together cost more than the answer.
_OWNER = select(Identity.contact_id).where(
    Identity.channel == bindparam("channel"), Identity.address == bindparam("address")
)
_ASKED = (
    select(Identity.contact_id)
    .join(Message, Message.from_address == Identity.address)
    .where(
        Identity.channel == bindparam("channel"),
        Message.thread_id == bindparam("thread_id"),
        Message.reply_to_address == bindparam("address"),
    )
)
_LEDGER, _LEDGER_IN_THREAD = _ledger(_OWNER), _ledger(_OWNER.union(_ASKED))
_SUPPRESSION = select(Suppression).where(
    Suppression.channel == bindparam("channel"), Suppression.address == bindparam("address")
)


def suppress(
    session: Session, address: Address, *, cause: str, detail: str = "", message_id: str | None = None
) -> None:
    """Never write to this address again. The first cause stays, except that an opt-out replaces any other."""
    found = suppression(session, address.channel, address.value)
    if found is not None:
        if cause == "opt-out" and found.cause != cause:
            found.cause, found.detail, found.message_id = cause, detail[:500], message_id
        return
    try:
        with session.begin_nested():
            session.add(
                Suppression(
                    channel=address.channel,
                    address=address.value[:320],
                    cause=cause,
                    detail=detail[:500],
                    message_id=message_id,
                )
            )
    except IntegrityError:
        return  # another worker suppressed it at the same moment: what was wanted is true


def suppression(session: Session, channel: str, address: str) -> Suppression | None:
    return session.scalar(_SUPPRESSION, {"channel": channel, "address": address})


def record_consent(
    session: Session, contact_id: str, *, channel: str, kind: str, source: str, message_id: str | None = None
) -> None:
    """Append to the ledger; nothing in it ever changes. The same statement of one message is noted once."""
    if message_id is not None:
        known = session.scalar(
            select(Consent.id).where(
                Consent.contact_id == contact_id,
                Consent.channel == channel,
                Consent.kind == kind,
                Consent.message_id == message_id,
            )
        )
        if known is not None:
            return
    newest = session.scalar(
        select(func.max(Consent.created_at)).where(Consent.contact_id == contact_id, Consent.channel == channel)
    )
    now = utcnow()
    at = now if newest is None else max(now, newest + timedelta(microseconds=1))  # a clock set back changes no order
    session.add(
        Consent(
            contact_id=contact_id,
            channel=channel,
            kind=kind,
            source=source[:200],
            message_id=message_id,
            created_at=at,
        )
    )
    session.flush()


def may_write(session: Session, *, channel: str, address: str, thread_id: str = "") -> str | None:
    """None when this address may be written to, else the reason in words. A withdrawal beats everything.

    It is the withdrawal of whoever the address belongs to, in whatever thread they said it; in `thread_id` also of who asked
    for answers at this address (Reply-To).
    """
    statement = _LEDGER_IN_THREAD if thread_id else _LEDGER
    ledger = session.execute(statement, {"channel": channel, "address": address, "thread_id": thread_id}).all()
    newest = {contact_id: kind for contact_id, kind in ledger}  # noqa: C416  # rows are no pairs to the type checker
    if "withdrawn" in newest.values():
        return _WORDS["opt-out"]
    found = suppression(session, channel, address)
    return _WORDS.get(found.cause, found.cause) if found is not None else None


def _known(session: Session, address: Address, *, lock: bool) -> Contact | None:
    query = (
        select(Contact)
        .join(Identity, Identity.contact_id == Contact.id)
        .where(Identity.channel == address.channel, Identity.address == address.value)
    )
    if lock:
        query = query.with_for_update(key_share=True, of=Contact).execution_options(populate_existing=True)
    return session.scalar(query)
