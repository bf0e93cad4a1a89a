"""Who may do what: agents and their passwords, signed-in browsers, one-time links, API keys, and the audit trail.

Secrets are stored only as hashes: passwords by argon2id (parameters of the OWASP password storage sheet), everything else,
which is 256 random bits, by SHA-256. Expired, used and revoked all look like absent to the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import ColumnElement, CursorResult, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assistant.clock import new_id, utcnow
from assistant.db.access import Agent, AgentSession, ApiKey, AuditEntry, SignInLink
from assistant.errors import Conflict, InvalidInput, NotAuthenticated, NotFound

__all__ = [
    "LINK_HOURS",
    "SCOPES",
    "Credentials",
    "agent_of_session",
    "agents",
    "api_keys",
    "audit",
    "change_password",
    "create_agent",
    "create_key",
    "create_link",
    "credentials_of",
    "disable_agent",
    "enable_agent",
    "find_agent",
    "get_agent",
    "is_fresh",
    "link_url",
    "living_sessions",
    "open_session",
    "password_matches",
    "revoke_key",
    "revoke_session",
    "revoke_sessions",
    "rotate_key",
    "set_password",
    "set_role",
    "touch_key",
    "touch_session",
    "use_link",
    "verify_key",
]

SCOPES: dict[str, str] = {
    "threads:read": "Read threads, their messages and attachments.",
    "threads:write": "Change the state, assignment, marks and labels of threads; merge and split them.",
    "notes:read": "Read internal notes.",
    "notes:write": "Write internal notes, and take one's own away.",
    "messages:send": "Write replies, with files, take them back, settle uncertain ones.",
    "suggestions:read": "Read suggested replies.",
    "suggestions:write": "Accept, edit, reject and ask for suggested replies.",
    "replies:read": "Read saved replies.",
    "replies:write": "Write, change and delete saved replies.",
    "contacts:read": "Read contacts and their addresses.",
    "contacts:write": "Change contacts and what they agreed to.",
    "metrics:read": "Read /metrics from another machine.",
}
"""What an API key may be allowed, and what it means."""
LINK_HOURS = {"first-run": 24, "invite": 72, "reset": 1}
"""How long a one-time link of each purpose works."""
PASSWORD_LENGTH = range(12, 257)
_SEEN_EVERY = timedelta(minutes=1)
_KEY = re.compile(r"ntf_([a-z0-9]{10})_([0-9a-f]{64})")
_EMAIL = re.compile(r"[^@\x00-\x20\x7f-\xa0]{1,64}@[^@\x00-\x20\x7f-\xa0]{1,255}")
_ROLES = frozenset({"admin", "agent"})
# 19 MiB, 2 passes, 1 lane: argon2id as OWASP advises; the semaphore bounds the memory that a burst of sign-ins can take.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_at_once = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is needed to check a password without a database: empty when nobody has that address."""

    agent_id: str = ""
    password_hash: str = field(default="", repr=False)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _rows(result: Any) -> int:
    assert isinstance(result, CursorResult)
    return result.rowcount


def audit(session: Session, actor: str, *, action: str, subject: str = "", **detail: Any) -> None:
    """Write one line of the audit trail. Ids and facts only, never a secret or an address."""
    session.add(AuditEntry(actor=actor, action=action, subject=subject, detail=detail))


# -- agents


def create_agent(session: Session, email: str, *, name: str, role: str = "agent", actor: str = "system") -> Agent:
    """A new agent without a password: give them a link. Raises `Conflict` when the address is taken."""
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email):
        raise InvalidInput("that is not an email address")
    if role not in _ROLES:
        raise InvalidInput(f"a role is one of {', '.join(sorted(_ROLES))}")
    agent = Agent(id=new_id(), email=email, name=_one_line(name) or email.partition("@")[0], role=role)
    try:
        with session.begin_nested():
            session.add(agent)
    except IntegrityError:
        raise Conflict("an agent with that address exists") from None
    audit(session, actor, action="agent.created", subject=agent.id, role=role)
    return agent


def agents(session: Session) -> Sequence[Agent]:
    """Every agent, by name."""
    return session.scalars(select(Agent).order_by(Agent.name, Agent.id)).all()


def get_agent(session: Session, agent_id: str) -> Agent:
    agent = session.get(Agent, agent_id)
    if agent is None:
        raise NotFound("there is no such agent")
    return agent


def find_agent(session: Session, agent_id: str | None) -> Agent | None:
    """The agent with that id, who may be disabled; None when there is none."""
    return session.get(Agent, agent_id) if agent_id is not None else None


def disable_agent(session: Session, agent_id: str, *, actor: str) -> Agent:
    """Close an account: its sessions, links and keys die at once."""
    agent = get_agent(session, agent_id)
    if actor == agent_id:
        raise Conflict("you cannot disable yourself; ask another admin")
    if agent.disabled_at is None:
        agent.disabled_at = utcnow()
        revoke_sessions(session, agent_id)
        session.execute(
            update(ApiKey).where(ApiKey.agent_id == agent_id, ApiKey.revoked_at.is_(None)).values(revoked_at=utcnow())
        )
        audit(session, actor, action="agent.disabled", subject=agent_id)
    return agent


def enable_agent(session: Session, agent_id: str, *, actor: str) -> Agent:
    """Open a closed account again. Its old sessions and keys stay dead; the password is the old one."""
    agent = get_agent(session, agent_id)
    if agent.disabled_at is not None:
        agent.disabled_at = None
        audit(session, actor, action="agent.enabled", subject=agent_id)
    return agent


def set_role(session: Session, agent_id: str, *, role: str, actor: str) -> Agent:
    """Make an agent an admin, or an admin an agent. Sessions of the old role end at once."""
    if role not in _ROLES:
        raise InvalidInput(f"a role is one of {', '.join(sorted(_ROLES))}")
    agent = get_agent(session, agent_id)
    if actor == agent_id:
        raise Conflict("you cannot change your own role; ask another admin")
    if agent.role != role:
        agent.role = role
        revoke_sessions(session, agent_id)
        audit(session, actor, action="agent.role", subject=agent_id, role=role)
    return agent


# -- passwords


def credentials_of(session: Session, email: str) -> Credentials:
    """The stored hash for an address. Close the session before `password_matches`: that takes a while on purpose."""
    row = session.execute(
        select(Agent.id, Agent.password_hash).where(Agent.email == email.strip().lower(), Agent.disabled_at.is_(None))
    ).first()
    return Credentials(row.id, row.password_hash) if row is not None else Credentials()


def password_matches(credentials: Credentials, password: str) -> bool:
    """Check a password. An unknown address costs the same time as a known one."""
    known = credentials.password_hash
    try:
        with _at_once:
            _hasher.verify(known or _nobody(), password)
    except (Argon2Error, InvalidHashError):
        return False
    return bool(known)


@cache
def _nobody() -> str:
    return _hasher.hash(secrets.token_hex(32))


def set_password(session: Session, agent_id: str, *, password: str, actor: str) -> None:
    """Store a new password. Every session and open link of the agent dies with the old one."""
    if len(password) not in PASSWORD_LENGTH:
        raise InvalidInput(f"a password has {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters")
    agent = get_agent(session, agent_id)
    with _at_once:
        agent.password_hash = _hasher.hash(password)
    revoke_sessions(session, agent_id)
    audit(session, actor, action="password.changed", subject=agent_id)


def change_password(session: Session, agent_id: str, *, current: str, new: str) -> None:
    """The agent's own change: the current password is asked for once more. Raises `NotAuthenticated`."""
    agent = get_agent(session, agent_id)
    if not password_matches(Credentials(agent.id, agent.password_hash), current):
        raise NotAuthenticated("the current password is not right")
    set_password(session, agent_id, password=new, actor=agent_id)


# -- signed-in browsers


def open_session(session: Session, agent_id: str, *, hours: int, replaces: str = "") -> tuple[str, AgentSession]:
    """A new signed-in browser. Returns the cookie's token, which is stored nowhere. `replaces`: the old token, now dead."""
    if replaces:
        revoke_session(session, replaces)
    token = secrets.token_urlsafe(32)
    opened = AgentSession(
        id=new_id(),
        token_hash=_digest(token),
        agent_id=agent_id,
        csrf_token=secrets.token_urlsafe(32),
        expires_at=utcnow() + timedelta(hours=hours),
    )
    session.add(opened)
    audit(session, agent_id, action="session.opened", subject=opened.id)
    session.flush()
    return token, opened


def agent_of_session(session: Session, token: str) -> tuple[AgentSession, Agent] | None:
    """Whose browser this is, or None. One query, on every request: a revoked session is dead with the next one."""
    if not token:
        return None
    row = session.execute(
        select(AgentSession, Agent)
        .join(Agent, Agent.id == AgentSession.agent_id)
        .where(AgentSession.token_hash == _digest(token), *_alive())
    ).first()
    return (row[0], row[1]) if row is not None else None


def _alive() -> tuple[ColumnElement[bool], ...]:
    return AgentSession.revoked_at.is_(None), AgentSession.expires_at > utcnow(), Agent.disabled_at.is_(None)


def living_sessions(session: Session, tokens: Sequence[str]) -> set[str]:
    """Those of some browsers' tokens that may go on, by `agent_of_session`'s rules, in one query for each 500."""
    by_hash = {_digest(token): token for token in tokens if token}
    hashes = list(by_hash)
    found: set[str] = set()
    for start in range(0, len(hashes), 500):
        found.update(
            session.scalars(
                select(AgentSession.token_hash)
                .join(Agent, Agent.id == AgentSession.agent_id)
                .where(AgentSession.token_hash.in_(hashes[start : start + 500]), *_alive())
            )
        )
    return {by_hash[one] for one in found}


def is_fresh(last: datetime | None) -> bool:
    """Whether a "last used" mark is younger than a minute, so that it need not be written again."""
    return last is not None and utcnow() - last < _SEEN_EVERY


def touch_session(session: Session, session_id: str) -> None:
    """Note that the browser is in use."""
    session.execute(update(AgentSession).where(AgentSession.id == session_id).values(last_seen_at=utcnow()))


def revoke_session(session: Session, token: str) -> None:
    """Sign one browser out."""
    found = session.scalar(
        select(AgentSession).where(AgentSession.token_hash == _digest(token), AgentSession.revoked_at.is_(None))
    )
    if found is not None:
        found.revoked_at = utcnow()
        audit(session, found.agent_id, action="session.closed", subject=found.id)


def revoke_sessions(session: Session, agent_id: str) -> None:
    """Sign every browser of an agent out and void their open links. Open sockets ask again within a second."""
    now = utcnow()
    session.execute(
        update(AgentSession)
        .where(AgentSession.agent_id == agent_id, AgentSession.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    session.execute(
        update(SignInLink).where(SignInLink.agent_id == agent_id, SignInLink.used_at.is_(None)).values(used_at=now)
    )


# -- one-time links


def create_link(session: Session, agent_id: str, *, purpose: str, actor: str = "system") -> str:
    """The token of a link that signs in once (256 random bits, stored hashed). An older open link of the agent dies."""
    if purpose not in LINK_HOURS:
        raise InvalidInput(f"a link is for one of {', '.join(sorted(LINK_HOURS))}")
    agent = get_agent(session, agent_id)
    if agent.disabled_at is not None:
        raise Conflict("that account is disabled")
    now = utcnow()
    session.execute(
        update(SignInLink).where(SignInLink.agent_id == agent_id, SignInLink.used_at.is_(None)).values(used_at=now)
    )
    token = secrets.token_urlsafe(32)
    link = SignInLink(
        id=new_id(),
        token_hash=_digest(token),
        agent_id=agent_id,
        purpose=purpose,
        expires_at=now + timedelta(hours=LINK_HOURS[purpose]),
    )
    session.add(link)
    audit(session, actor, action="link.created", subject=agent_id, purpose=purpose)
    session.flush()
    return token


def link_url(base_url: str, token: str) -> str:
    """The link to hand over. The token is in the fragment, which no server log or referrer ever sees."""
    return f"{base_url}/link#{token}"


def use_link(session: Session, token: str) -> Agent:
    """Use a link up. Of two at once, one wins. Raises `NotAuthenticated` for unknown, used and expired alike."""
    link = session.scalar(select(SignInLink).where(SignInLink.token_hash == _digest(token)))
    now = utcnow()
    used = session.execute(
        update(SignInLink)
        .where(
            SignInLink.id == (link.id if link is not None else ""),
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > now,
        )
        .values(used_at=now)
    )
    agent = session.get(Agent, link.agent_id) if link is not None else None
    if _rows(used) != 1 or agent is None or agent.disabled_at is not None:
        raise NotAuthenticated("this link was used already or has expired; ask for a new one")
    assert link is not None
    audit(session, agent.id, action="link.used", subject=link.id, purpose=link.purpose)
    return agent


# -- API keys


def create_key(
    session: Session,
    name: str,
    *,
    scopes: Iterable[str],
    actor: str,
    agent_id: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret form `ntf_<prefix>_<secret>`, which is shown once."""
    wanted = sorted(set(scopes))
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise InvalidInput(f"unknown scope {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    if not wanted:
        raise InvalidInput("a key needs at least one scope")
    if expires_at is not None and expires_at <= utcnow():
        raise InvalidInput("the expiry must lie in the future")
    prefix = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(10))
    secret = secrets.token_hex(32)
    key = ApiKey(
        id=new_id(),
        name=_one_line(name) or "unnamed",
        prefix=prefix,
        secret_hash=_digest(secret),
        scopes=wanted,
        agent_id=agent_id,
        expires_at=expires_at,
    )
    session.add(key)
    audit(session, actor, action="key.created", subject=key.id, scopes=wanted)
    session.flush()
    return key, f"ntf_{prefix}_{secret}"


def api_keys(session: Session) -> Sequence[ApiKey]:
    """Every key, newest first, revoked ones too."""
    return session.scalars(select(ApiKey).order_by(ApiKey.id.desc())).all()


def verify_key(session: Session, presented: str) -> ApiKey | None:
    """The key behind a secret, or None. The comparison takes the same time for a wrong secret and an unknown prefix."""
    match = _KEY.fullmatch(presented)
    if match is None:
        return None
    key = session.scalar(select(ApiKey).where(ApiKey.prefix == match[1]))
    right = hmac.compare_digest(key.secret_hash if key is not None else _digest(""), _digest(match[2]))
    if key is None or not right or key.revoked_at is not None:
        return None
    if key.expires_at is not None and key.expires_at <= utcnow():
        return None
    return key


def touch_key(session: Session, key_id: str) -> None:
    """Note that the key is in use."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=utcnow()))


def rotate_key(session: Session, key_id: str, *, actor: str, overlap: timedelta = timedelta()) -> tuple[ApiKey, str]:
    """A new secret with the same name and scopes. The old one works for `overlap` more, then never."""
    old = _live_key(session, key_id)
    new, secret = create_key(
        session, old.name, scopes=old.scopes, actor=actor, agent_id=old.agent_id, expires_at=old.expires_at
    )
    end = utcnow() + overlap
    if overlap:
        old.expires_at = min(old.expires_at or end, end)
    else:
        old.revoked_at = end
    audit(session, actor, action="key.rotated", subject=old.id, new=new.id)
    return new, secret


def revoke_key(session: Session, key_id: str, *, actor: str) -> ApiKey:
    key = _live_key(session, key_id)
    key.revoked_at = utcnow()
    audit(session, actor, action="key.revoked", subject=key.id)
    return key


def _live_key(session: Session, key_id: str) -> ApiKey:
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound("there is no such key")
    if key.revoked_at is not None:
        raise Conflict("that key is revoked already")
    return key


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
