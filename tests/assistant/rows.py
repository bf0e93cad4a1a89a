"""Rows for tests of services, made directly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.access import Agent
from assistant.db.contacts import Contact, Identity
from assistant.db.messages import Message, Suggestion, Thread
from assistant.db.profiles import Profile
from assistant.states import Author, Delivery, Direction, TriageState
from assistant.values import Check, Draft, Passage, Turn
from tests.pipelines.turns import turn

__all__ = ["ANSWER", "a_proposal", "a_thread", "an_agent", "an_inbound", "finished"]

ANSWER = Passage("We ship within 3 days.", "Shipping", 0.7, "d", 1)


def a_thread(session: Session, *, address: str = "ana@mail.example") -> Thread:
    """A thread without messages; the profile and the contact of that address are made once."""
    profile = session.scalar(select(Profile).where(Profile.address == "support@example.org"))
    if profile is None:
        profile = Profile(channel="email", name="Support", address="support@example.org")
        session.add(profile)
    contact_id = session.scalar(select(Identity.contact_id).where(Identity.address == address))
    if contact_id is None:
        contact = Contact(display_name="Ana Costa")
        session.add(contact)
        session.flush()
        session.add(Identity(contact_id=contact.id, channel="email", address=address))
        contact_id = contact.id
    thread = Thread(profile_id=profile.id, contact_id=contact_id, channel="email", subject="Parcel")
    session.add(thread)
    session.flush()
    return thread


def an_inbound(session: Session, thread: Thread, text: str = "Where is my parcel?", **values: Any) -> Message:
    """A message as `inbox.receive` leaves it; one made later is later, in whatever thread.

    Writing a row takes longer than the microseconds that keep a thread's messages apart where a test stops the clock.
    """
    count = thread.message_count
    message = Message(
        **{
            "thread_id": thread.id,
            "profile_id": thread.profile_id,
            "direction": Direction.INBOUND,
            "author": Author.CONTACT,
            "status": Delivery.RECEIVED,
            "external_id": f"<{new_id()}@mail.example>",
            "subject": thread.subject,
            "text": text,
            "new_text": text,
            "from_address": "ana@mail.example",
            "triage": TriageState.WAITING,
            "occurred_at": utcnow() + timedelta(microseconds=count),
        }
        | values
    )
    session.add(message)
    thread.message_count += 1
    thread.last_direction = Direction.INBOUND
    session.flush()
    return message


def an_agent(session: Session, name: str = "Bo") -> Agent:
    agent = Agent(email=f"{new_id()}@example.org", name=name)
    session.add(agent)
    session.flush()
    return agent


def finished(text: str = "Hello Ana,\n\nWe ship within 3 days.", *, confidence: float = 0.8) -> Turn:
    """A turn whose draft passed the guard."""
    draft = Draft(text=text, model="llama", prompt_version="p1", confidence=confidence)
    return turn(passages=(ANSWER,), draft=draft, checks=(Check("numbers", True),))


def a_proposal(session: Session, *, thread: Thread | None = None, text: str = "Where is my parcel?") -> Suggestion:
    """A thread with one triaged message and one suggestion ready to be decided."""
    from assistant.services import suggestions

    thread = thread or a_thread(session)
    message = an_inbound(session, thread, text, triage=TriageState.DONE)
    suggestion = suggestions.begin(session, message.id, passages=[ANSWER])
    assert suggestions.propose(session, suggestion.id, turn=finished(), milliseconds=1800.0, reasons=["because"])
    return suggestions.get(session, suggestion.id)
