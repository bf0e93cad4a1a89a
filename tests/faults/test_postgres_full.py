"""PostgreSQL on a file system that fills up: a clear refusal, nothing lost, and it goes on when there is space again."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from assistant.backends.blobs import Blobs
from assistant.db.messages import Message
from assistant.db.migrate import migrate
from assistant.db.session import Database
from assistant.errors import StorageError
from assistant.services import profiles
from assistant.settings import Settings
from channels.support import mime
from pipelines.inbound import Receiver
from tests.faults.house import as_root, fill
from tests.faults.reconciler import reconcile
from tests.support.figures import Tell
from tests.support.servers import temporary_folder, wait_until
from tests.support.stores import PostgresStore

pytestmark = pytest.mark.timeout(180)
LARGE = 3_000_000
"""Characters of a mail that no segment of the log has room for: they were made with 1 MB each."""


class _Parser:
    parse = staticmethod(mime.parse)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own. Needs root, a `sudo` that asks for no password, or `unshare -rm`."""
    disk = folder / "disk"
    disk.mkdir()
    command = as_root("mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "notifyr-tests", str(disk))
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.fail(
            "a small file system cannot be mounted: run this test as root or with sudo, outside an unprivileged container"
        )
    try:
        yield disk
    finally:
        subprocess.run(as_root("umount", "-l", str(disk)), check=False)


def mail(number: int, size: int = 10) -> bytes:
    dice = random.Random(number)
    words = "\r\n".join(
        "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=70)) for _ in range(size // 72 + 1)
    )
    head = f"From: c{number}@example.com\r\nTo: support@example.org\r\nMessage-ID: <d{number}@example.com>\r\n\r\n"
    return head.encode() + words.encode() + b"\r\n"


def test_a_full_disk_under_postgresql_is_a_clear_refusal_and_costs_nothing_that_was_kept(
    make_settings: Callable[..., Settings], tell: Tell
) -> None:
    with temporary_folder("pgfull") as folder:
        folder.chmod(0o755)
        with small_disk(folder, "220m") as disk:
            store = PostgresStore(disk, segment_mb=1).start()
            try:
                _fill_and_free(store, disk, make_settings(database_url=store.url), tell)
            finally:
                store.stop()


def _fill_and_free(store: PostgresStore, disk: Path, settings: Settings, tell: Tell) -> None:
    migrate(store.url)
    database = Database(store.url, pool_size=2)
    receiver = Receiver(database, Blobs.open(settings), _Parser())
    with database.transaction() as session:
        profile_id = profiles.ensure_default(session, settings).id
    kept, words = list[str](), list[str]()

    def receive(number: int, size: int = 10) -> bool:
        try:
            receiver.receive(mail(number, size), profile_id=profile_id)
        except StorageError as error:
            assert (error.status, error.retryable) == (503, True)
            words.append(error.message)
            return False
        kept.append(f"<d{number}@example.com>")
        return True

    assert all(receive(number) for number in range(5))
    fill(disk / "filler")
    large = [receive(number, LARGE) for number in range(10, 13)]
    small = [receive(number) for number in range(20, 30)]
    (disk / "filler").unlink()
    restarted = not store.alive()
    if (
        restarted
    ):  # its log could not grow: it stops rather than lose anything, and whoever supervises it starts it again
        store.start()
    wait_until(lambda: receive(99), seconds=60, what="a mail after there was space again")
    assert receive(10, LARGE), "the same mail, sent again"
    with database.reading() as session:
        stored = set(session.scalars(select(Message.external_id)))
    blobs = Blobs.open(settings)
    found = reconcile(database, arrived=Counter(), source=kept, files=blobs, backlog=False)  # there is no worker
    database.close()
    tell(
        f"full disk: {sum(large)} of 3 large and {sum(small)} of 10 small mails kept meanwhile, "
        f"{len(words)} refused; restarted: {restarted}; first words: {words[0][:120]!r}"
    )
    assert large == [False] * 3, "it said yes to what cannot have been kept"
    assert any("No space left" in one for one in words), words
    assert stored == set(kept), "exactly what was answered with yes is there"
    assert found.problems == []
