"""A backup is taken while everything writes; what is restored from it sends nothing that may have been sent since."""

from __future__ import annotations

import json
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text, update

from assistant.backends.blobs import Blobs
from assistant.clock import new_id, utcnow
from assistant.db.access import AgentSession, SignInLink
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.errors import Conflict
from assistant.services import attempts, outbox, profiles, sweeper
from assistant.settings import Settings
from assistant.states import Delivery, Direction
from assistant.values import Receipt
from channels.support import mime
from pipelines.inbound import Receiver
from pipelines.outbound import Deliverer, Portal, open_channels
from tests.faults.reconciler import reconcile
from tests.support.figures import Tell
from tests.support.outboxes import add_thread, queue
from tests.support.servers import PostgresServer, SmtpSink, notifyr

pytestmark = pytest.mark.timeout(300)


class _Parser:
    parse = staticmethod(mime.parse)


class Office:
    """One installation in this process: mail comes in, replies are queued and go out, all at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.sql_url)
        self.blobs = Blobs.open(settings)
        self.portal = Portal()
        self.deliverer = Deliverer(
            self.database, open_channels(settings), self.portal, self.blobs, settings=self.settings
        )
        self.queued: list[str] = []
        self.received = 0
        self._stop = threading.Event()

    def close(self) -> None:
        self.deliverer.close()
        self.portal.close()
        self.database.close()

    def deliver_all(self) -> None:
        with self.database.transaction() as session:
            sweeper.sweep(session, now=utcnow() + timedelta(hours=1))
        with self.database.reading() as session:
            ids = session.scalars(select(Message.id).where(Message.direction == Direction.OUTBOUND)).all()
        for message_id in ids:
            self.deliverer.deliver(message_id)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self.database.transaction() as session:
            profiles.ensure_default(session, self.settings)
        workers = [threading.Thread(target=work) for work in (self._receive, self._write, self._send)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._stop.set()
            for worker in workers:
                worker.join(30)

    def _receive(self) -> None:
        receiver = Receiver(self.database, self.blobs, _Parser())
        with self.database.transaction() as session:
            profile_id = profiles.ensure_default(session, self.settings).id
        while not self._stop.is_set():
            raw = f"From: c{self.received}@example.com\r\nMessage-ID: <r{self.received}@example.com>\r\n\r\nHello\r\n"
            receiver.receive(raw.encode(), profile_id=profile_id)
            self.received += 1

    def _write(self) -> None:
        threads = [add_thread(self.database) for _ in range(5)]
        while not self._stop.is_set():
            self.queued.append(queue(self.database, threads[len(self.queued) % 5]))
            time.sleep(0.02)

    def _send(self) -> None:
        done = 0
        while not self._stop.is_set():
            # Some way behind, so that at every moment some replies wait.
            if len(self.queued) - done > 8:
                self.deliverer.deliver(self.queued[done])
                done += 1
            time.sleep(0.005)


def environment(settings: Settings) -> dict[str, str]:
    return {"NOTIFYR_DATA_DIR": str(settings.data_dir), "NOTIFYR_DATABASE_URL": settings.sql_url}


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, make_settings: Callable[..., Settings], smtp_sink: SmtpSink
) -> Iterator[tuple[Settings, Settings]]:
    """Settings of an installation with tables, and of an empty one of the same engine."""
    url = request.getfixturevalue(f"{request.param}_url")
    folder, name = tmp_path / "restored", "restored_" + new_id().replace("-", "")
    if request.param == "sqlite":
        other = f"sqlite:///{folder / 'notifyr.db'}"
        yield tuple(_settings(make_settings, smtp_sink, *one) for one in ((tmp_path / "var", url), (folder, other)))  # type: ignore[misc]
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.execute(f"CREATE DATABASE {name}")
    both = ((tmp_path / "var", url), (folder, server.url(name)))
    yield tuple(_settings(make_settings, smtp_sink, *one) for one in both)  # type: ignore[misc]
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _settings(make: Callable[..., Settings], sink: SmtpSink, folder: Path, url: str) -> Settings:
    return make(data_dir=folder, database_url=url, relay_url=sink.url, lease_seconds=30)


def test_nothing_that_predates_a_backup_is_sent_again(
    pair: tuple[Settings, Settings], tmp_path: Path, smtp_sink: SmtpSink, tell: Tell
) -> None:
    first, second = pair
    office, file = Office(first), tmp_path / "backup.tar"
    with office.at_work():
        smtp_sink.wait(15)
        taken = notifyr("backup", str(file), "--json", env=environment(first))
        assert taken.returncode == 0, taken.stderr
        before = len(office.queued)
        smtp_sink.wait(before)  # by now everything that waited in the backup has left
    office.deliver_all()
    office.close()

    done = notifyr("restore", str(file), "--json", env=environment(second))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    after = Office(second)
    sent_before = len(smtp_sink.mails)
    after.deliver_all()
    after.deliver_all()
    arrived = Counter(str(one.message["Message-ID"]) for one in smtp_sink.mails)
    known = _ours(after)
    # Triage does not run here: its backlog is not looked at.
    there = Counter({name: count for name, count in arrived.items() if name in known})
    found = reconcile(after.database, arrived=there, files=after.blobs, backlog=False)
    after.close()
    tell(f"restored {facts['files']} files, {facts['fenced']}; {sent_before} arrived; {found}")
    assert len(smtp_sink.mails) == sent_before, "nothing was sent by the restored installation"
    assert max(arrived.values()) == 1
    assert found.problems == []
    assert found.unknown == facts["fenced"]["replies"] > 0
    assert found.unknown_arrived == found.unknown, "they had all left after the backup was taken"
    assert file.stat().st_mode & 0o077 == 0


def _ours(office: Office) -> set[str]:
    with office.database.reading() as session:
        return set(session.scalars(select(Message.external_id).where(Message.direction == Direction.OUTBOUND)))


def test_a_restored_reply_waits_for_a_person_whatever_state_it_was_in(
    pair: tuple[Settings, Settings], tmp_path: Path
) -> None:
    first, second = pair
    office, file = Office(first), tmp_path / "backup.tar"
    thread_id = add_thread(office.database)
    held, queued, sending, sent = (queue(office.database, thread_id, hold=hold) for hold in (60, 0, 0, 0))
    with office.database.transaction() as session:
        claim = attempts.claim(session, sending, lease_seconds=30)
        session.execute(update(Message).where(Message.id == sent).values(status=Delivery.SENT))
        assert claim is not None
    assert notifyr("backup", str(file), env=environment(first)).returncode == 0
    office.close()
    assert notifyr("restore", str(file), env=environment(second)).returncode == 0
    after = Office(second)
    with after.database.reading() as session:
        rows = {row.id: row for row in session.scalars(select(Message).where(Message.direction == Direction.OUTBOUND))}
        assert session.scalar(select(func.count(AgentSession.id))) == 0
        assert session.scalar(select(func.count(SignInLink.id))) == 0
        assert session.scalar(text("SELECT count(*) FROM alembic_version")) == 1
    assert {rows[one].status for one in (held, queued, sending)} == {Delivery.UNKNOWN}
    assert rows[sent].status == Delivery.SENT
    assert "may have been sent since" in rows[queued].error_detail
    with after.database.transaction() as session:
        assert not attempts.record_sent(session, claim, Receipt(sending)), "the fence came first"
        outbox.resolve_unknown(session, queued, outcome="resend", agent_id=None)
    after.close()


def test_a_restore_goes_only_into_an_empty_installation(pair: tuple[Settings, Settings], tmp_path: Path) -> None:
    first, _ = pair
    file = tmp_path / "backup.tar"
    assert notifyr("backup", str(file), env=environment(first)).returncode == 0
    refused = notifyr("restore", str(file), env=environment(first))
    assert refused.returncode == 6, refused.stderr
    assert "empty installation" in refused.stderr
    assert notifyr("backup", str(file), env=environment(first)).returncode == 6, "an older backup is never replaced"


@pytest.fixture
def backup(sqlite_url: str, settings: Settings, tmp_path: Path) -> Path:
    from pipelines.backups import back_up

    blobs = Blobs.open(settings)
    for number in range(3):
        blobs.keep(_key(b"mail %d" % number), b"mail %d" % number)
    return back_up(settings, tmp_path / "backup.tar").path


def _key(content: bytes) -> str:
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    return f"raw/{digest[:2]}/{digest}.eml"


def empty(make_settings: Callable[..., Settings], tmp_path: Path) -> Settings:
    return make_settings(data_dir=tmp_path / "empty")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_a_backup_cut_short_is_refused_and_leaves_no_database(
    backup: Path, cut: float, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    whole = backup.read_bytes().rstrip(b"\0")
    backup.write_bytes(whole[: int(len(whole) * cut)])
    target = empty(make_settings, tmp_path)
    done = notifyr("restore", str(backup), env={"NOTIFYR_DATA_DIR": str(target.data_dir)})
    assert done.returncode == 2, done.stderr
    with closing(Database(target.sql_url)) as database, database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar() == 0


def test_a_flipped_bit_in_the_database_is_refused(
    backup: Path, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    content = bytearray(backup.read_bytes())
    content[content.index(b"SQLite format 3") + 5000] ^= 1
    backup.write_bytes(content)
    done = notifyr("restore", str(backup), env={"NOTIFYR_DATA_DIR": str(empty(make_settings, tmp_path).data_dir)})
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_a_damaged_mail_is_named_by_backup_and_by_restore(
    backup: Path, settings: Settings, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    content = backup.read_bytes().replace(b"mail 1", b"mail X")
    backup.write_bytes(content)
    done = notifyr("restore", str(backup), env={"NOTIFYR_DATA_DIR": str(empty(make_settings, tmp_path).data_dir)})
    assert done.returncode == 3, done.stderr
    assert _key(b"mail 1") in done.stdout
    settings.path("blobs", _key(b"mail 2")).write_bytes(b"mail Y")
    again = notifyr("backup", str(tmp_path / "second.tar"), env={"NOTIFYR_DATA_DIR": str(settings.data_dir)})
    assert again.returncode == 3
    assert _key(b"mail 2") in again.stdout


def test_a_backup_that_holds_anything_but_files_is_refused(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as tar:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    done = notifyr("restore", str(evil), env={"NOTIFYR_DATA_DIR": str(empty(make_settings, tmp_path).data_dir)})
    assert done.returncode == 2
    assert "kind" in done.stderr


def test_a_dump_that_was_loaded_but_not_finished_is_not_started_on(
    backup: Path, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Between loading and the fence a crash may fall: no version of ours may then run on the rows."""
    from assistant.backends.dumps import load_database

    target = empty(make_settings, tmp_path)
    target.path().mkdir()
    with tarfile.open(backup) as tar:
        tar.extract("database", tmp_path, filter="data")
    load_database(target.sql_url, tmp_path / "database")
    done = notifyr("migrate", env={"NOTIFYR_DATA_DIR": str(target.data_dir)})
    assert done.returncode != 0
    with pytest.raises(Conflict):
        from pipelines.backups import restore

        restore(target, backup)
