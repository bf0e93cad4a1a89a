"""Access rules, on both engines."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.clock import utcnow
from assistant.db.session import Database
from assistant.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from assistant.services import access


def agent(database: Database, email: str = "bo@example.org", role: str = "agent") -> str:
    with database.transaction() as session:
        return access.create_agent(session, email, name="Bo", role=role).id


def test_an_address_belongs_to_one_agent_in_any_case(database: Database) -> None:
    agent(database)
    with database.transaction() as session, pytest.raises(Conflict):
        access.create_agent(session, " BO@example.org", name="Bo")
    with database.reading() as session:
        assert [found.email for found in access.agents(session)] == ["bo@example.org"]


@pytest.mark.parametrize(
    "email", ["", "bo", "bo@", "@example.org", "bo@b o", "bo@x\n", "a@b@c", "x" * 65 + "@example.org"]
)
def test_what_is_not_an_address_is_refused(database: Database, email: str) -> None:
    with database.transaction() as session, pytest.raises(InvalidInput):
        access.create_agent(session, email.rstrip(" "), name="Bo") if email.strip() == email else access.create_agent(
            session, "a b", name="Bo"
        )


@pytest.mark.checklist(8)
def test_passwords_are_argon2id_and_long_enough(database: Database) -> None:
    who = agent(database)
    with database.transaction() as session:
        for short in ("", "x" * 11, "x" * 257):
            with pytest.raises(InvalidInput):
                access.set_password(session, who, password=short, actor="test")
        access.set_password(session, who, password="x" * 12, actor="test")
    with database.reading() as session:
        credentials = access.credentials_of(session, "BO@example.org")
    assert credentials.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert access.password_matches(credentials, "x" * 12)
    assert not access.password_matches(credentials, "x" * 13)
    assert not access.password_matches(access.Credentials(), "x" * 12)


def test_an_agent_without_a_password_cannot_sign_in_with_an_empty_one(database: Database) -> None:
    agent(database)
    with database.reading() as session:
        assert not access.password_matches(access.credentials_of(session, "bo@example.org"), "")


@pytest.mark.checklist(11)
def test_a_key_works_until_it_is_revoked_expires_or_is_rotated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.transaction() as session:
        key, secret = access.create_key(session, "a", scopes=["threads:read"], actor="test")
        soon, expiring = access.create_key(
            session, "b", scopes=["threads:read"], actor="test", expires_at=utcnow() + timedelta(hours=1)
        )
        _, rotated = access.rotate_key(session, key.id, actor="test", overlap=timedelta(minutes=5))
        _, final = access.rotate_key(session, soon.id, actor="test")
    with database.reading() as session:
        assert [access.verify_key(session, s) is not None for s in (secret, expiring, rotated, final)] == [
            True,
            False,
            True,
            True,
        ]
        later = utcnow() + timedelta(minutes=6)
        monkeypatch.setattr(access, "utcnow", lambda: later)
        assert access.verify_key(session, secret) is None
        much_later = utcnow() + timedelta(hours=2)
        monkeypatch.setattr(access, "utcnow", lambda: much_later)
        assert access.verify_key(session, final) is None
        assert access.verify_key(session, rotated) is not None


def test_a_revoked_key_cannot_be_revoked_or_rotated_again(database: Database) -> None:
    with database.transaction() as session:
        key, _ = access.create_key(session, "a", scopes=["threads:read"], actor="test")
        access.revoke_key(session, key.id, actor="test")
        for act in (access.revoke_key, access.rotate_key):
            with pytest.raises(Conflict):
                act(session, key.id, actor="test")
        with pytest.raises(NotFound):
            access.revoke_key(session, "nothing", actor="test")


def test_scopes_are_a_fixed_list(database: Database) -> None:
    with database.transaction() as session:
        for scopes in ([], ["everything"], ["threads:read", "admin"]):
            with pytest.raises(InvalidInput):
                access.create_key(session, "a", scopes=scopes, actor="test")


def test_an_agent_cannot_disable_themselves(database: Database) -> None:
    who = agent(database, role="admin")
    with database.transaction() as session, pytest.raises(Conflict):
        access.disable_agent(session, who, actor=who)


@pytest.mark.checklist(10)
def test_a_disabled_agent_gets_no_link_and_uses_none(database: Database) -> None:
    who = agent(database)
    with database.transaction() as session:
        token = access.create_link(session, who, purpose="reset")
    with database.transaction() as session:
        access.disable_agent(session, who, actor="test")
    with database.transaction() as session, pytest.raises(NotAuthenticated):
        access.use_link(session, token)
    with database.transaction() as session, pytest.raises(Conflict):
        access.create_link(session, who, purpose="reset")


@given(st.text(max_size=120))
@pytest.mark.checklist(11)
def test_no_text_is_taken_for_a_key(sqlite_shared: Database, presented: str) -> None:
    with sqlite_shared.reading() as session:
        assert access.verify_key(session, presented) is None


@pytest.fixture(scope="module")
def sqlite_shared(tmp_path_factory: pytest.TempPathFactory, sqlite_template):  # type: ignore[no-untyped-def]
    import shutil

    path = tmp_path_factory.mktemp("access") / "x.db"
    shutil.copyfile(sqlite_template, path)
    opened = Database(f"sqlite:///{path}")
    yield opened
    opened.close()
