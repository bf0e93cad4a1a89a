"""From bytes to a row: the raw mail first, then one transaction; reports change only what we sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Column, MetaData, Table, func, insert, inspect, select

from assistant import failpoints
from assistant.backends.blobs import Blobs
from assistant.clock import new_id, utcnow
from assistant.db.contacts import Suppression
from assistant.db.messages import Attachment, Message
from assistant.db.migrate import _config, migrate
from assistant.db.profiles import Profile
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import contacts, inbox, outbox, profiles
from assistant.settings import Settings
from assistant.states import Author, Delivery, Direction
from channels.support import child
from channels.support.child import ParserChild
from pipelines.inbound import Receiver

CORPUS = sorted((Path(__file__).resolve().parents[1] / "data" / "mime").iterdir())
SAMPLES = sorted((Path(__file__).resolve().parents[2] / "channels" / "twins" / "mails").glob("*.eml"))
RAW = b"From: Ann <ann@example.com>\r\nMessage-ID: <1@example.com>\r\nSubject: Hi\r\n\r\nHello\r\n\r\n> old\r\n"


@pytest.fixture(scope="module")
def parser() -> Iterator[ParserChild]:
    one = ParserChild()
    yield one
    one.close()


@pytest.fixture
def profile(database: Database, settings: Settings) -> str:
    with database.transaction() as session:
        return profiles.ensure_default(session, settings).id


@pytest.fixture
def receiver(database: Database, blobs: Blobs, parser: ParserChild) -> Receiver:
    return Receiver(database, blobs, parser)


def count(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Message)) or 0


@pytest.mark.parametrize("broken", [0, 1], ids=["the first time", "the second time"])
def test_a_mail_that_breaks_its_parser_once_is_stored_once(
    database: Database, blobs: Blobs, parser: ParserChild, profile: str, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """Regression: what could not be read was stored beside the same mail that could, whichever of them came first."""
    receiver = Receiver(database, blobs, parser)
    stored = []
    for delivery in range(3):
        with monkeypatch.context() as patch:
            if delivery == broken:
                patch.setattr(child._Child, "parse", lambda *_: None)
            stored.append(receiver.receive(RAW, profile_id=profile))
    assert [one.created for one in stored] == [True, False, False]
    assert len({(one.message_id, one.thread_id) for one in stored}) == 1
    assert count(database) == 1
    with database.reading() as session:
        assert session.scalars(select(Message.quarantined)).one() is (broken == 0)


def test_of_two_processes_that_store_a_mail_at_once_one_of_which_cannot_read_it_one_stores_it(
    database: Database, blobs: Blobs, parser: ParserChild, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has looked before the other wrote: their ids differ, so only the content can tell that they are the same."""
    receiver = Receiver(database, blobs, parser)
    with monkeypatch.context() as patch:
        patch.setattr(child._Child, "parse", lambda *_: None)
        first = receiver.receive(RAW, profile_id=profile)
    looks, looked = iter([True]), inbox._identity

    def blind(*facts: Any) -> tuple[str, Any]:
        return (facts[2].external_id, None) if next(looks, False) else looked(*facts)

    monkeypatch.setattr(inbox, "_identity", blind)
    again = receiver.receive(RAW, profile_id=profile)
    assert (again.message_id, again.created) == (first.message_id, False)
    assert count(database) == 1


def test_another_mail_with_the_same_id_is_another_message_and_each_profile_has_its_own(
    database: Database, receiver: Receiver, profile: str
) -> None:
    with database.transaction() as session:
        other = Profile(channel="email", name="Sales", address="sales@example.org")
        session.add(other)
        session.flush()
        elsewhere = other.id
    receiver.receive(RAW, profile_id=profile)
    changed = RAW.replace(b"Hello", b"Other")
    assert [receiver.receive(changed, profile_id=profile).created for _ in range(2)] == [True, False]
    assert [receiver.receive(RAW, profile_id=elsewhere).created for _ in range(2)] == [True, False]
    assert count(database) == 3
    with database.reading() as session:
        query = select(Message.external_id).where(Message.profile_id == profile).order_by(Message.external_id)
        ids = session.scalars(query).all()
    assert ids == ["<1@example.com>", f"<1@example.com>#{hashlib.sha256(changed).hexdigest()[:16]}"]


def test_a_mail_that_an_earlier_release_stored_twice_is_known_after_the_upgrade(
    database: Database, receiver: Receiver, profile: str
) -> None:
    first = receiver.receive(RAW, profile_id=profile)
    with database.engine.begin() as connection:
        row = connection.execute(select(Message.__table__)).mappings().one()
        command.downgrade(_config(connection), "0012")
        columns = [Column(one["name"], one["type"]) for one in inspect(connection).get_columns("messages")]
        earlier = Table("messages", MetaData(), *columns)
        again = {"id": new_id(), "external_id": "<again@example.com>", "created_at": utcnow() + timedelta(seconds=1)}
        values = dict(row) | again
        connection.execute(insert(earlier), {name: value for name, value in values.items() if name in earlier.c})
    migrate(database.engine)
    stored = receiver.receive(RAW, profile_id=profile)
    assert (stored.message_id, stored.created) == (first.message_id, False)
    with database.reading() as session:
        hashes = session.execute(select(Message.id, Message.content_hash)).all()
    assert sorted(map(tuple, hashes)) == sorted(
        [(first.message_id, hashlib.sha256(RAW).hexdigest()), (again["id"], "")]
    )


def test_the_raw_mail_and_its_row_belong_together(
    receiver: Receiver, database: Database, blobs: Blobs, profile: str
) -> None:
    found = receiver.receive(RAW, profile_id=profile)
    with database.reading() as session:
        row = session.get_one(Message, found.message_id)
    assert blobs.get(row.raw_key) == RAW
    assert (row.raw_size, row.content_hash) == (len(RAW), hashlib.sha256(RAW).hexdigest())
    assert (row.text, row.new_text) == ("Hello\n\n> old", "Hello")


def test_attachments_are_stored_once_under_their_content(
    receiver: Receiver, database: Database, blobs: Blobs, profile: str
) -> None:
    for number in range(2):
        written = EmailMessage(policy=SMTP)
        written["From"] = "ann@example.com"
        written["Message-ID"] = f"<{number}@example.com>"
        written.set_content("see file")
        written.add_attachment(b"\x89PNG\r\n\x1a\n" + b"x" * 50, maintype="image", subtype="png", filename="a.png")
        receiver.receive(written.as_bytes(), profile_id=profile)
    with database.reading() as session:
        parts = session.scalars(select(Attachment)).all()
    assert [(one.filename, one.content_type, one.size) for one in parts] == [("a.png", "image/png", 58)] * 2
    assert list(blobs.list("parts")) == [parts[0].blob_key]
    assert len(blobs.get(parts[0].blob_key)) == 58


@pytest.mark.parametrize("place", ["before_blob", "after_blob", "before_commit"])
def test_a_failure_leaves_no_row_and_the_next_try_none_twice(
    receiver: Receiver, database: Database, blobs: Blobs, profile: str, place: str
) -> None:
    failpoints.arm(f"receive.{place}=raise")
    with pytest.raises(StorageError):
        receiver.receive(RAW, profile_id=profile)
    assert count(database) == 0
    assert receiver.receive(RAW, profile_id=profile).created
    assert not receiver.receive(RAW, profile_id=profile).created
    assert count(database) == 1
    assert len(list(blobs.list("raw"))) == 1


@pytest.mark.checklist(1)
def test_odd_mails_and_samples_are_all_stored_and_a_second_time_known(
    receiver: Receiver, database: Database, profile: str
) -> None:
    raws = list(dict.fromkeys(path.read_bytes() for path in [*CORPUS, *SAMPLES]))
    for raw in raws:
        receiver.receive(raw, profile_id=profile)
    assert count(database) == len(raws)
    assert not any(one.created for one in receiver.receive_many(raws, profile_id=profile))
    assert count(database) == len(raws)


@pytest.mark.checklist(2)
def test_a_mail_larger_than_the_parser_takes_is_kept_and_quarantined(
    receiver: Receiver, database: Database, blobs: Blobs, profile: str
) -> None:
    raw = b"From: ann@example.com\r\nSubject: big\r\n\r\n" + b"x" * 50_000_000
    found = receiver.receive(raw, profile_id=profile)
    with database.reading() as session:
        row = session.get_one(Message, found.message_id)
    assert (row.quarantined, row.subject, row.from_address) == (True, "big", "ann@example.com")
    assert row.defects == ["larger than 35000000 bytes", "quarantine", "no message-id"]
    assert len(blobs.get(row.raw_key)) == len(raw)


# -- delivery reports


@pytest.fixture
def sent(receiver: Receiver, database: Database, profile: str) -> tuple[str, str]:
    """(id, Message-ID) of a reply that the relay has taken."""
    found = receiver.receive(RAW, profile_id=profile)
    with database.transaction() as session:
        reply = outbox.queue_message(session, thread_id=found.thread_id, author=Author.AGENT, text="On its way.")
    with database.transaction() as session:
        row = session.get_one(Message, reply.id)
        row.status = Delivery.SENT
        return row.id, row.external_id


def report(original: str, *, action: str = "failed", status: str = "5.1.1", to: str = "ann@example.com") -> bytes:
    return (
        "From: MAILER-DAEMON@mx.example\r\nMessage-ID: <dsn@mx.example>\r\nSubject: Undelivered\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; {to}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; {status} no\r\n\r\n"
        f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: {original}\r\n--b--\r\n"
    ).encode()


def outcome(database: Database, message_id: str) -> tuple[Delivery, str | None]:
    with database.reading() as session:
        row = session.get_one(Message, message_id)
        found = session.scalar(select(Suppression.cause))
        return Delivery(row.status), found


def test_a_bad_address_bounces_the_message_and_is_never_written_to_again(
    receiver: Receiver, database: Database, profile: str, sent: tuple[str, str]
) -> None:
    receiver.receive(report(sent[1]), profile_id=profile)
    assert outcome(database, sent[0]) == (Delivery.BOUNCED, "hard-bounce")
    with database.reading() as session:
        assert contacts.suppression(session, "email", "ann@example.com") is not None
        assert session.scalar(select(func.count()).where(Message.direction == Direction.OUTBOUND)) == 1


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        ("failed", "5.2.2", Delivery.BOUNCED),
        ("failed", "5.7.1", Delivery.BOUNCED),
        ("failed", "4.4.7", Delivery.BOUNCED),
        ("delayed", "4.4.1", Delivery.DEFERRED),
        ("delivered", "2.0.0", Delivery.DELIVERED),
        ("relayed", "2.0.0", Delivery.SENT),
        ("expanded", "2.0.0", Delivery.SENT),
    ],
)
def test_other_reports_say_nothing_about_the_address(
    receiver: Receiver, database: Database, profile: str, sent: tuple[str, str], action: str, status: str, expected: Delivery
) -> None:  # fmt: skip
    receiver.receive(report(sent[1], action=action, status=status), profile_id=profile)
    assert outcome(database, sent[0]) == (expected, None)


def test_a_report_about_mail_that_we_never_sent_changes_nothing(
    receiver: Receiver, database: Database, profile: str, sent: tuple[str, str]
) -> None:
    for original in ("<somebody@else.example>", "<1@example.com>", ""):
        receiver.receive(report(original).replace(b"dsn@", b"x%d@" % len(original)), profile_id=profile)
    assert outcome(database, sent[0]) == (Delivery.SENT, None)


def test_a_report_cannot_block_somebody_whom_the_message_was_not_for(
    receiver: Receiver, database: Database, profile: str, sent: tuple[str, str]
) -> None:
    receiver.receive(report(sent[1], to="victim@example.net"), profile_id=profile)
    with database.reading() as session:
        assert contacts.suppression(session, "email", "victim@example.net") is None
