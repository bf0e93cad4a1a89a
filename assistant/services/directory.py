"""Looking contacts up, for people and programs. What happens to a contact when mail comes in is in `contacts`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, joinedload

from assistant.db.contacts import Contact, Identity
from assistant.errors import NotFound
from assistant.services.paging import Key, Page, after, bounded, read_cursor, words, write_cursor

__all__ = ["change_contact", "find", "get_contact", "list_contacts"]

_LOOKED_INTO = 20_000
"""Contacts, newest first, among which one is found while somebody types."""

_KEYS = (Key(lambda: Contact.__table__.c.id, "id", descending=True),)


def list_contacts(session: Session, *, search: str = "", cursor: str | None = None, limit: int = 50) -> Page[Contact]:
    """One page of contacts, newest first, with their addresses, in one query."""
    limit = bounded(limit)
    query = select(Contact)
    for word in words(search):
        query = query.where(
            or_(
                Contact.display_name.icontains(word, autoescape=True),
                Contact.id.in_(select(Identity.contact_id).where(Identity.address.icontains(word, autoescape=True))),
            )
        )
    if cursor:
        query = query.where(after(_KEYS, read_cursor(cursor, "contacts", _KEYS)))
    rows = (
        session.scalars(query.order_by(Contact.id.desc()).limit(limit + 1).options(joinedload(Contact.identities)))
        .unique()
        .all()
    )
    more = len(rows) > limit
    return Page(rows[:limit], write_cursor("contacts", (rows[limit - 1].id,)) if more else None)


def find(session: Session, text: str, *, limit: int) -> Sequence[Contact]:
    """The newest contacts with every word of `text` in their name or an address; quick in any house, for a list as one types."""
    people = select(Contact.id, Contact.display_name).order_by(Contact.id.desc()).limit(_LOOKED_INTO).subquery()
    known = select(Identity.contact_id, Identity.address).order_by(Identity.id.desc()).limit(_LOOKED_INTO).subquery()
    query = select(Contact)
    for word in words(text):
        named = select(people.c.id).where(people.c.display_name.icontains(word, autoescape=True))
        called = select(known.c.contact_id).where(known.c.address.icontains(word, autoescape=True))
        query = query.where(or_(Contact.id.in_(named), Contact.id.in_(called)))
    ids = session.scalars(query.with_only_columns(Contact.id).order_by(Contact.id.desc()).limit(limit)).all()
    found = session.scalars(
        select(Contact).where(Contact.id.in_(ids)).order_by(Contact.id.desc()).options(joinedload(Contact.identities))
    )
    return found.unique().all()


def get_contact(session: Session, contact_id: str) -> Contact:
    """A contact with its addresses. Raises `NotFound`."""
    contact = (
        session.scalars(
            select(Contact)
            .where(Contact.id == contact_id)
            .options(joinedload(Contact.identities))
            .execution_options(populate_existing=True)
        )
        .unique()
        .one_or_none()
    )
    if contact is None:
        raise NotFound("there is no such contact")
    return contact


def change_contact(
    session: Session, contact_id: str, *, display_name: str | None = None, note: str | None = None
) -> Contact:
    """Change the name shown for a contact or the note about it; None leaves as it is. Raises `NotFound`."""
    contact = get_contact(session, contact_id)
    if display_name is not None:
        contact.display_name = " ".join("".join(c if c.isprintable() else " " for c in display_name).split())
    if note is not None:
        contact.note = note
    session.flush()
    return contact
