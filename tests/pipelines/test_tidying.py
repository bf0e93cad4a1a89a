"""Stored bytes that no row names go after a day; bytes that a row names, or comes to name meanwhile, never do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from assistant.backends.blobs import Blobs
from assistant.clock import utcnow
from assistant.db.messages import Attachment
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import access, profiles, threads, uploads
from assistant.settings import Settings
from assistant.states import ThreadState
from assistant.values import StoredAttachment
from channels.support import mime
from pipelines import tidying
from pipelines.inbound import Receiver
from pipelines.tidying import AGE, tidy
from tests.support.servers import wait_until

MAIL = b"From: a@example.com\r\nTo: support@example.org\r\nMessage-ID: <t1@example.com>\r\n\r\nHello\r\n"


class _Parser:
    parse = staticmethod(mime.parse)


class House:
    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.blobs = database, Blobs.open(settings)
        self.receiver = Receiver(database, self.blobs, _Parser())
        with database.transaction() as session:
            self.profile_id = profiles.ensure_default(session, settings).id

    def receive(self, raw: bytes = MAIL) -> None:
        self.receiver.receive(raw, profile_id=self.profile_id)

    def tidy(self, **later: float) -> int:
        return tidy(self.database, self.blobs, now=utcnow() + timedelta(**later))


@pytest.fixture
def house(database: Database, settings: Settings) -> House:
    return House(database, settings)


def refuse(patch: pytest.MonkeyPatch, house: House) -> None:
    """A mail whose bytes were stored, and whose row was not."""

    def full(*_: object, **__: object) -> None:
        raise StorageError("the database refused: no space left")

    with patch.context() as broken:
        broken.setattr(house.receiver, "_store", full)
        with pytest.raises(StorageError):
            house.receive()


def test_what_a_refused_mail_left_goes_after_a_day(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, house)
    assert len(list(house.blobs.list())) == 1
    assert house.tidy(hours=23) == 0, "its sender may still try again"
    assert house.tidy(hours=25) == 1
    assert list(house.blobs.list()) == []
    assert house.tidy(hours=25) == 0


def test_what_a_row_names_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, house)
    house.receive()
    assert house.tidy(days=400) == 0
    assert len(list(house.blobs.list())) == 1


@pytest.mark.parametrize(("moment", "gone"), [("move", 0), ("delete", 1)])
def test_a_mail_that_comes_again_while_its_old_bytes_are_tidied_up_keeps_them(
    house: House, monkeypatch: pytest.MonkeyPatch, moment: str, gone: int
) -> None:
    refuse(monkeypatch, house)
    raced = comes_at(monkeypatch, house, moment)
    (key,) = house.blobs.list()
    assert house.tidy(seconds=AGE.total_seconds() + 60) == gone
    assert raced
    assert list(house.blobs.list()) == [key]
    assert house.blobs.get(key) == MAIL


def comes_at(monkeypatch: pytest.MonkeyPatch, house: House, moment: str) -> list[str]:
    """The mail comes right before the first call of a method of the blob store."""
    real: Callable[..., None] = getattr(house.blobs, moment)
    raced = list[str]()

    def meanwhile(*keys: str) -> None:
        if not raced:
            raced.extend(keys)
            house.receive()
        real(*keys)

    monkeypatch.setattr(house.blobs, moment, meanwhile)
    return raced


def test_a_tidying_that_is_killed_in_the_middle_loses_no_accepted_mail(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the bytes were deleted, and only in the memory of the process that died."""
    refuse(monkeypatch, house)
    (key,) = house.blobs.list()
    comes_at(monkeypatch, house, "move")
    real, calls = tidying.named, list[int]()

    def killed(database: Database, keys: Iterable[str]) -> set[str]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(database, keys)

    with monkeypatch.context() as patch:
        patch.setattr(tidying, "named", killed)
        with pytest.raises(KeyboardInterrupt):
            house.tidy(hours=25)
    assert house.tidy(hours=0) == 0
    assert list(house.blobs.list()) == [key]
    assert house.blobs.get(key) == MAIL


def test_what_a_killed_tidying_put_aside_is_deleted_by_the_next(house: House) -> None:
    house.blobs.put("aside/019a/raw/aa/x", b"x")
    assert house.tidy() == 1
    assert list(house.blobs.list()) == []


def test_what_a_killed_write_left_in_the_folder_goes_after_a_day(house: House, settings: Settings) -> None:
    house.receive()
    (key,) = house.blobs.list()
    left = settings.path("blobs") / f"{key}#1"
    left.write_bytes(b"half")
    assert list(house.blobs.list()) == [key], "obstore hides it"
    house.tidy(hours=23)
    assert left.exists()
    assert house.tidy(hours=25) == 0
    assert not left.exists()
    assert house.blobs.get(key) == MAIL


def test_a_write_that_is_killed_leaves_such_a_name(tmp_path: Path) -> None:
    """What obstore calls it is no promise of obstore's."""
    code = (
        "import sys; from pathlib import Path; from assistant.backends.blobs import Blobs\n"
        "Blobs._folder_at(Path(sys.argv[1])).put('a/b', bytes(300_000_000))"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path]) as writer:
        wait_until(lambda: [*tmp_path.glob("a/*")], seconds=30, what="the write")
        writer.kill()
    blobs = Blobs._folder_at(tmp_path)
    assert list(blobs.list()) == []
    assert blobs.clear(utcnow() + timedelta(seconds=5)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mail_whose_bytes_were_tidied_up_before_its_row_was_there_puts_them_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, house)
    real = house.receiver._prepare

    def prepare(*arguments: object) -> object:
        made = real(*arguments)  # type: ignore[arg-type]
        assert house.tidy(hours=25) == 1
        return made

    monkeypatch.setattr(house.receiver, "_prepare", prepare)
    house.receive()
    (key,) = house.blobs.list()
    assert house.blobs.get(key) == MAIL


def test_the_bytes_of_a_purged_thread_go_unless_another_row_names_them(house: House) -> None:
    house.receive()
    with house.database.transaction() as session:
        (thread,) = threads.list_threads(session, "all").items
        threads.change_state(session, thread.id, state=ThreadState.TRASH)
        (message,) = threads.messages_of(session, thread.id)
        shared = f"parts/{message.id}"
        session.add(Attachment(message_id=message.id, filename="a.txt", blob_key=shared, size=5))
        agent = access.create_agent(session, "bo@example.org", name="Bo", role="agent").id
        uploads.add(
            session, StoredAttachment("a.txt", "text/plain", 5, shared), agent_id=agent, thread_id=None, kind="x"
        )
        raw = message.raw_key
    house.blobs.put(shared, b"hello")
    assert sorted(house.blobs.list()) == sorted([raw, shared])
    later = utcnow() + timedelta(days=31)
    assert tidying.empty_trash(house.database, now=later, days=0) == 0, "0 days: for ever"
    assert house.tidy(days=31) == 0
    assert tidying.empty_trash(house.database, now=later, days=30) == 1
    assert house.tidy(days=31) == 1
    assert list(house.blobs.list()) == [shared], "what an agent uploaded is theirs still"
