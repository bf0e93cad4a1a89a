"""What a message is begun with, and what is asked before it is sent: recipients, subject, quoted words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from assistant.clock import new_id
from assistant.db.messages import Message, Thread
from assistant.db.profiles import Profile
from assistant.errors import Conflict, InvalidInput
from assistant.services import contacts, notes, profiles, saved_replies
from assistant.services.addressing import newest_inbound, reply_subject, reply_targets
from assistant.services.threads import get_thread, messages_of
from assistant.states import Direction, ProfileState, ThreadState
from assistant.subjects import base_subject
from assistant.values import Address, StoredAttachment

__all__ = [
    "KINDS",
    "Outline",
    "drop_empty",
    "new_thread",
    "outline",
    "outline_of",
    "parse_addresses",
    "questions",
    "written",
]

KINDS = ("reply", "reply-all", "forward", "note")
"""What can be written in a thread."""
_SEPARATOR = re.compile(r"\"[^\"\n]{0,300}\"|[,;\n]")
_ATTACHED = re.compile(
    r"\b(attached|attachment|attaching|enclosed|see attach|anbei|im anhang|angehängt|ci-joint|pièce jointe|adjunt[oa]|"
    r"em anexo|in allegato|bijgevoegd|bifogat)\b",
    re.I,
)
_MOST = 50


@dataclass(frozen=True, slots=True)
class Outline:
    """How a message begins: recipients and subject as text, words to start from, and files that may come along."""

    kind: str
    to: str = ""
    cc: str = ""
    subject: str = ""
    text: str = ""
    files: tuple[StoredAttachment, ...] = ()
    people: tuple[Address, ...] = ()
    """The addresses in `to` and `cc`, as the carrier named them."""


def outline(session: Session, thread_id: str, kind: str) -> Outline:
    """What a reply, a reply to all or a forward begins with. Raises `NotFound`."""
    own = profiles.list_profiles(session) if kind == "reply-all" else ()
    return outline_of(session, get_thread(session, thread_id), newest_inbound(session, thread_id), own, kind)


def outline_of(session: Session, thread: Thread, parent: Message | None, own: Iterable[Profile], kind: str) -> Outline:
    """The same for who has read the thread, its newest message from outside and our profiles already."""
    if kind == "forward":
        return _forward(session, thread)
    try:
        to = reply_targets(thread, parent)
    except InvalidInput:
        to = []  # nobody can be written to there: the agent says who
    subject = reply_subject(thread.subject, fresh=False)
    if kind != "reply-all" or parent is None:
        return Outline(kind, to=written(to), subject=subject, people=tuple(to))
    taken = {one.address.lower() for one in own} | {one.value.lower() for one in to}
    others: list[list[Address]] = []
    for stored in (parent.to_addresses, parent.cc_addresses):
        found = [Address(thread.channel, one["address"], one.get("name", "")) for one in stored]
        others.append([one for one in found if one.value.lower() not in taken])
        taken |= {one.value.lower() for one in found}
    to = [*to, *others[0]]
    return Outline(kind, to=written(to), cc=written(others[1]), subject=subject, people=(*to, *others[1]))


def _forward(session: Session, thread: Thread) -> Outline:
    messages = messages_of(session, thread.id)
    if not messages:
        return Outline("forward", subject=f"Fwd: {thread.subject}")
    # What they wrote, not what we answered: and never words that are not sent yet.
    last = next((one for one in reversed(messages) if one.direction == Direction.INBOUND), messages[-1])
    recipients = ", ".join(one["address"] for one in last.to_addresses)
    quoted = (
        "\n\n---------- Forwarded message ----------\n"
        f"From: {last.from_name} <{last.from_address}>\nDate: {last.occurred_at:%d %b %Y, %H:%M UTC}\n"
        f"Subject: {last.subject}\nTo: {recipients}\n\n{last.text}"
    )
    files = tuple(StoredAttachment(one.filename, one.content_type, one.size, one.blob_key) for one in last.attachments)
    subject = thread.subject if thread.subject.lower().startswith(("fwd:", "fw:")) else f"Fwd: {thread.subject}"
    return Outline("forward", subject=subject[:1000], text=quoted, files=files)


def written(addresses: Sequence[Address]) -> str:
    """Addresses as they stand in a field: `Ana Silva <ana@example.org>, bo@example.org`."""
    return ", ".join(
        f"{_quoted(one.display_name)} <{one.value}>" if one.display_name else one.value for one in addresses
    )


def _quoted(name: str) -> str:
    plain = name.replace('"', "'").replace("\\", "")
    return f'"{plain}"' if re.search(r"[^\w .'-]", plain) else plain


def parse_addresses(text: str, channel: str = "email", *, known: Sequence[Address] = ()) -> list[Address]:
    """The addresses in a field. Raises `InvalidInput` that names the one that is none.

    `known` are taken as they are when they stand there as `written`: people do write from addresses that no rule allows.
    """
    from email_validator import EmailNotValidError, validate_email

    as_they_are = {written([one]): one for one in known}
    found = []
    for one in _parts(text):
        if one in as_they_are:
            found.append(as_they_are[one])
            continue
        try:
            valid = validate_email(
                one, check_deliverability=False, globally_deliverable=False, allow_display_name=True, strict=True
            )
        except EmailNotValidError:
            raise InvalidInput(f"“{one[:80]}” is not an email address") from None
        found.append(Address(channel, valid.normalized, valid.display_name or ""))
    if len(found) > _MOST:
        raise InvalidInput(f"a message has at most {_MOST} recipients")
    return found


def _parts(text: str) -> list[str]:
    """What stands between commas, semicolons and line ends that are not in quotes."""
    ends = [0, *(at.end() for at in _SEPARATOR.finditer(text) if len(at[0]) == 1), len(text) + 1]
    return [part for start, end in pairwise(ends) if (part := text[start : end - 1].strip())]


def questions(
    session: Session, thread_id: str, *, text: str, recipients: Sequence[Address], files: int, outsiders: bool = True
) -> list[str]:
    """What to ask before sending; empty when nothing looks odd. `outsiders`: whether a new recipient is worth a question."""
    found = []
    own_words = text.partition("---------- Forwarded message")[0]
    if not files and (said := _ATTACHED.search(own_words)):
        found.append(f"You wrote “{said[0]}”, but no file is attached")
    if hole := saved_replies.left_open(text):
        found.append(f"{hole} of a saved reply is not filled in")
    if line := notes.quoted(notes.of_thread(session, thread_id), text):
        found.append(f"These words stand in an internal note: “{line[:80]}”")
    if outsiders and (new := _outsiders(session, thread_id, recipients)):
        found.append(f"{', '.join(new[:3])} {'is' if len(new) == 1 else 'are'} new in this conversation")
    return found


def _outsiders(session: Session, thread_id: str, recipients: Sequence[Address]) -> list[str]:
    thread = get_thread(session, thread_id)
    known = {one.address.lower() for one in thread.contact.identities}
    homes = set()
    for profile in profiles.list_profiles(session):
        known.add(profile.address.lower())
        homes.add(profile.address.rpartition("@")[2].lower())
    for message in session.scalars(select(Message).where(Message.thread_id == thread_id)):
        known |= {message.from_address.lower(), message.reply_to_address.lower()}
        if message.direction == Direction.INBOUND:
            known |= {one["address"].lower() for one in (*message.to_addresses, *message.cc_addresses)}
    return [
        one.value
        for one in recipients
        if one.value.lower() not in known and one.value.rpartition("@")[2].lower() not in homes
    ]


def drop_empty(session: Session, thread: Thread) -> None:
    """Forget a thread of `new_thread` that nothing was written into."""
    session.delete(thread)


def new_thread(session: Session, to: Address, *, subject: str) -> Thread:
    """An empty thread with whom an agent writes to first, through the first profile that can send. Raises `Conflict`."""
    profile = session.scalars(
        select(Profile)
        .where(Profile.channel == to.channel, Profile.state == ProfileState.ACTIVE)
        .order_by(Profile.created_at)
        .limit(1)
    ).one_or_none()
    if profile is None:
        raise Conflict("no profile can send now: see the profiles in the settings")
    contact = contacts.resolve(session, to)
    thread = Thread(
        id=new_id(),
        profile_id=profile.id,
        contact_id=contact.id,
        channel=to.channel,
        subject=subject,
        base_subject=base_subject(subject),
        state=ThreadState.OPEN,
        unread=False,
    )
    session.add(thread)
    session.flush()
    return thread
