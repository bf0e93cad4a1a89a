"""Profiles: the accounts that messages come in and leave through. A blocked one holds its messages until a person acts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import utcnow
from assistant.db.messages import Message
from assistant.db.profiles import Profile, ProfileError
from assistant.db.session import enqueue, publish
from assistant.errors import NotFound
from assistant.services import access
from assistant.settings import Settings
from assistant.states import Delivery, ProfileState, transition

__all__ = [
    "block",
    "blocked",
    "by_address",
    "ensure_default",
    "find",
    "get",
    "is_own_address",
    "list_profiles",
    "sends_through",
    "unblock",
]

_ERRORS_SHOWN = 1000


def ensure_default(session: Session, settings: Settings) -> Profile:
    """The email profile of the settings, made when it is not there yet. A changed display name is taken over."""
    address = _normalised(settings.mail_address)
    profile = by_address(session, "email", address)
    if profile is not None:
        if profile.name != settings.mail_name:
            profile.name = settings.mail_name
        return profile
    profile = Profile(channel="email", name=settings.mail_name, address=address)
    try:
        with session.begin_nested():
            session.add(profile)
    except IntegrityError:
        # Another process made it between our look and our insert.
        found = by_address(session, "email", address)
        if found is None:
            raise
        return found
    return profile


def by_address(session: Session, channel: str, address: str) -> Profile | None:
    return session.scalars(
        select(Profile).where(Profile.channel == channel, Profile.address == _normalised(address))
    ).one_or_none()


def get(session: Session, profile_id: str) -> Profile:
    """Raises `NotFound`."""
    profile = session.get(Profile, profile_id)
    if profile is None:
        raise NotFound("there is no such profile")
    return profile


def find(session: Session, name: str) -> Profile:
    """The profile with that id or mail address. Raises `NotFound`, naming those that there are."""
    profile = session.get(Profile, name) or by_address(session, "email", name)
    if profile is None:
        there = ", ".join(one.address for one in list_profiles(session))
        raise NotFound(f"there is no profile {name}; there are {there}")
    return profile


def list_profiles(session: Session) -> Sequence[Profile]:
    """Every profile, oldest first."""
    return session.scalars(select(Profile).order_by(Profile.created_at)).all()


def is_own_address(session: Session, channel: str, address: str) -> bool:
    """True when the address is one of our own: automatic mail to it would be the start of a loop."""
    return by_address(session, channel, address) is not None


def block(session: Session, profile_id: str, *, code: str, text: str) -> None:
    """Stop sending through a profile. Its messages stay queued; nothing is lost and nothing is tried."""
    profile = get(session, profile_id)
    _note_error(session, profile_id, code=code, text=text[:_ERRORS_SHOWN])
    if ProfileState(profile.state) is not ProfileState.ACTIVE:
        return
    profile.state = transition(ProfileState(profile.state), ProfileState.BLOCKED)
    profile.state_reason = f"{code}: {text}"[:500]
    publish(session, "profile.changed", profile_id=profile_id, state=str(profile.state))


def unblock(session: Session, profile_id: str, *, actor: str) -> None:
    """Send through a profile again, and take up the messages it held; who said so is in the audit trail. Raises `Conflict`
    when it is active.
    """
    profile = get(session, profile_id)
    profile.state = transition(ProfileState(profile.state), ProfileState.ACTIVE)
    profile.state_reason = ""
    now = utcnow()
    held = session.scalars(
        select(Message.id)
        .where(Message.profile_id == profile_id, Message.status == Delivery.QUEUED)
        .where((Message.release_at.is_(None)) | (Message.release_at <= now))
        .order_by(Message.occurred_at)
    )
    for message_id in held:
        enqueue(session, "deliver", message_id)
    access.audit(session, actor, action="profile.unblocked", subject=profile_id)
    publish(session, "profile.changed", profile_id=profile_id, state=str(profile.state))


def blocked(session: Session) -> Sequence[Profile]:
    """Profiles that hold their messages: sending was refused, and nobody has said that it may be tried again."""
    return session.scalars(
        select(Profile).where(Profile.state == ProfileState.BLOCKED).order_by(Profile.created_at)
    ).all()


def sends_through(session: Session, profile_id: str, *, relay: str, actor: str) -> bool:
    """Note a mark of the relay that a profile is sent through. A blocked one tries again, once, where it is another relay (or
    another password) than it was blocked at. Returns whether it does.
    """
    profile = get(session, profile_id)
    if profile.config.get("relay") == relay:
        return False
    profile.config = {**profile.config, "relay": relay}
    if ProfileState(profile.state) is not ProfileState.BLOCKED:
        return False
    unblock(session, profile_id, actor=actor)
    return True


def _note_error(session: Session, profile_id: str, *, code: str, text: str) -> None:
    """Count an error that repeats instead of writing it down a thousand times."""
    last = session.scalars(
        select(ProfileError)
        .where(ProfileError.profile_id == profile_id)
        .order_by(ProfileError.created_at.desc(), ProfileError.id.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and (last.code, last.text) == (code, text):
        last.count += 1
        return
    session.add(ProfileError(profile_id=profile_id, code=code, text=text))


def _normalised(address: str) -> str:
    """The domain in lower case; the local part as it is (RFC 5321, section 2.4)."""
    local, _, domain = address.strip().rpartition("@")
    return f"{local}@{domain.lower()}" if local else address.strip()
