"""A profile whose relay refused the password: it sends again after a start with the right one, and by the command."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import select

from assistant.db.access import AuditEntry
from assistant.db.session import Database
from assistant.services import profiles
from assistant.settings import Settings
from assistant.states import Delivery, ProfileState
from channels.twins.smtp_receiver import SmtpReceiver
from pipelines.container import Container, build
from tests.support.outboxes import add_thread, queue, status_of
from tests.support.servers import notifyr

Start = Callable[[str], Container]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SmtpReceiver]:
    """A relay that wants a password over TLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with SmtpReceiver(tls=context, users={"bo": "s3cret"}) as receiver:
        yield receiver


@pytest.fixture
def start(
    sqlite_url: str,
    sqlite_database: Database,
    tmp_path: Path,
    sink: SmtpReceiver,
    make_settings: Callable[..., Settings],
) -> Iterator[Start]:
    """A worker that sends, started with a password for the relay."""
    made: list[Container] = []

    def begin(password: str) -> Container:
        url = f"smtp://bo:{password}@127.0.0.1:{sink.port}"
        container = build(make_settings(database_url=sqlite_url, relay_url=url, relay_ca_file=tmp_path / "ca.pem"))
        container.notice_relay()
        made.append(container)
        return container

    yield begin
    for one in made:
        one.close()


def state(database: Database) -> ProfileState:
    with database.reading() as session:
        (profile,) = profiles.list_profiles(session)
        return ProfileState(profile.state)


def unblocked_by(database: Database) -> list[str]:
    with database.reading() as session:
        asked = select(AuditEntry.actor).where(AuditEntry.action == "profile.unblocked")
        return list(session.scalars(asked.order_by(AuditEntry.created_at, AuditEntry.id)))


def test_a_wrong_password_holds_the_mail_until_a_start_with_the_right_one(
    start: Start, sqlite_database: Database, sink: SmtpReceiver
) -> None:
    message_id = queue(sqlite_database, add_thread(sqlite_database, address="ann@example.com"))
    for _ in range(2):  # a second start with the same wrong password does not ask the relay again
        start("wrong").deliverer.deliver(message_id)
        assert state(sqlite_database) is ProfileState.BLOCKED
    assert (status_of(sqlite_database, message_id), sink.mails) == (Delivery.QUEUED, [])
    assert unblocked_by(sqlite_database) == []
    working = start("s3cret")
    assert state(sqlite_database) is ProfileState.ACTIVE
    working.deliverer.deliver(message_id)
    assert (status_of(sqlite_database, message_id), len(sink.mails)) == (Delivery.SENT, 1)
    assert unblocked_by(sqlite_database) == ["start"]
    with sqlite_database.reading() as session:
        (profile,) = profiles.list_profiles(session)
        assert "s3cret" not in str(profile.config) and "wrong" not in str(profile.config)


def test_the_command_lists_what_is_blocked_and_lets_it_send_again(
    start: Start, sqlite_url: str, sqlite_database: Database, sink: SmtpReceiver, tmp_path: Path
) -> None:
    message_id = queue(sqlite_database, add_thread(sqlite_database, address="ann@example.com"))
    working = start("s3cret")
    sink.users = {"bo": "not yet"}
    working.deliverer.deliver(message_id)
    env = {"NOTIFYR_DATABASE_URL": sqlite_url, "NOTIFYR_DATA_DIR": str(tmp_path / "var")}
    (facts,) = json.loads(notifyr("profiles", "list", "--json", env=env).stdout)
    assert facts["state"] == "blocked" and "535" in facts["reason"]
    assert notifyr("prepare", env=env).returncode == 0
    with sqlite_database.reading() as session:
        assert [one.id for one in profiles.blocked(session)] == [facts["id"]], "a start alone changes nothing"
    sink.users = {"bo": "s3cret"}
    done = notifyr("profiles", "unblock", facts["address"], env=env)
    assert (done.returncode, "active" in done.stdout) == (0, True), done.stderr
    assert notifyr("profiles", "unblock", facts["id"], env=env).returncode == 6, "it sends already"
    assert notifyr("profiles", "unblock", "nobody@example.org", env=env).returncode == 5
    working.deliverer.deliver(message_id)
    assert (status_of(sqlite_database, message_id), len(sink.mails)) == (Delivery.SENT, 1)
    assert unblocked_by(sqlite_database) == ["command-line"]


def test_a_database_that_is_away_stops_no_start(make_settings: Callable[..., Settings]) -> None:
    container = build(make_settings(database_url="postgresql+psycopg://x:y@127.0.0.1:1/z"))
    container.notice_relay()
    container.close()
