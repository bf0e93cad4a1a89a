"""Rows to start from in tests of the outbox: one profile, some contacts, one thread each with one inbound message."""

from __future__ import annotations

from dataclasses import dataclass, field

from assistant.clock import new_id
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Message, Thread
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.services import outbox
from assistant.states import Author, Delivery, Direction, TriageState
from assistant.values import Address, MessageClass, OutboundMessage, Receipt

__all__ = ["ScriptedChannel", "add_thread", "queue", "seed", "status_of"]


def add_thread(
    database: Database, *, address: str = "", subject: str = "Where is my parcel?", **inbound: object
) -> str:
    """A thread whose newest message came from `address`. Returns its id."""
    address = address or f"ann{new_id()[-12:]}@example.com"
    with database.transaction() as session:
        profile = session.query(Profile).first()
        if profile is None:
            profile = Profile(channel="email", name="Support", address="support@example.org")
            session.add(profile)
        contact = Contact(display_name="Ann")
        session.add(contact)
        session.flush()
        session.add(Identity(contact_id=contact.id, channel="email", address=address))
        thread = Thread(profile_id=profile.id, contact_id=contact.id, channel="email", subject=subject, message_count=1)
        session.add(thread)
        session.flush()
        values: dict[str, object] = {
            "direction": Direction.INBOUND,
            "author": Author.CONTACT,
            "status": Delivery.RECEIVED,
            "triage": TriageState.DONE,
            "external_id": f"<{new_id()}@example.com>",
            "subject": subject,
            "text": "Hello?",
            "from_address": address,
            "from_name": "Ann",
        }
        session.add(Message(thread_id=thread.id, profile_id=profile.id, **(values | inbound)))
        return thread.id


def seed(database: Database, count: int = 1) -> list[str]:
    return [add_thread(database, address=f"ann{number}@example.com") for number in range(count)]


def queue(
    database: Database,
    thread_id: str,
    *,
    hold: int = 0,
    key: str | None = None,
    message_class: MessageClass = MessageClass.PERSONAL,
    text: str = "Dear Ann, it is on its way.",
) -> str:
    """One reply in the outbox. Returns its id."""
    with database.transaction() as session:
        message = outbox.queue_message(
            session,
            thread_id=thread_id,
            author=Author.AGENT,
            text=text,
            idempotency_key=key,
            hold_seconds=hold,
            message_class=message_class,
        )
        return message.id


def status_of(database: Database, message_id: str) -> Delivery:
    with database.reading() as session:
        return Delivery(session.get_one(Message, message_id).status)


@dataclass
class ScriptedChannel:
    """A channel that raises what it is told to, then accepts; it stands where a carrier would."""

    failures: list[Exception] = field(default_factory=list)
    sent: list[OutboundMessage] = field(default_factory=list)
    receipt: Receipt | None = None

    def take(self, message: OutboundMessage) -> Receipt:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)
        return self.receipt or Receipt(external_id=message.id, detail="250 OK")


def address(value: str) -> Address:
    return Address("email", value)
