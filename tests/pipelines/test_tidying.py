"""Stored bytes that no row names go after a day; bytes that a row names, or comes to name meanwhile, never do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from assistant.backends.blobs import Blobs
from assistant.clock import utcnow
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import profiles
from assistant.settings import Settings
from channels.support import mime
from pipelines.inbound import Receiver
from pipelines.tidying import AGE, tidy

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


@pytest.mark.parametrize("moment", ["read", "delete"])
def test_a_mail_that_comes_again_while_its_old_bytes_are_tidied_up_keeps_them(
    house: House, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    refuse(monkeypatch, house)
    real: Callable[[str], bytes | None] = getattr(house.blobs, moment)
    raced = []

    def meanwhile(key: str) -> bytes | None:
        if not raced:
            raced.append(key)
            house.receive()
        return real(key)

    monkeypatch.setattr(house.blobs, moment, meanwhile)
    assert house.tidy(seconds=AGE.total_seconds() + 60) == 0
    (key,) = house.blobs.list()
    assert (raced, house.blobs.get(key)) == ([key], MAIL)


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
