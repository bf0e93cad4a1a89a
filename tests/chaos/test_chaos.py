"""Chaos: every process is killed at random while mail flows in and replies flow out. Nothing is lost, nothing goes twice.

`TEST_CHAOS_MAILS`, `TEST_CHAOS_KILLS`, `TEST_RECOVERIES` and `TEST_SEED` change the run; counts and seed are printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from assistant.backends.blobs import Blobs
from assistant.db.session import Database
from assistant.errors import StorageError
from tests.faults.reconciler import Reconciliation, reconcile
from tests.support.figures import Tell
from tests.support.installation import Installation, installation
from tests.support.people import Reviewer, Sender
from tests.support.servers import SmtpSink, smtp_sink_server, wait_until
from tests.support.stores import PostgresStore, in_memory

MAILS = int(os.environ.get("TEST_CHAOS_MAILS", "200"))
KILLS = int(os.environ.get("TEST_CHAOS_KILLS", "60"))
RECOVERIES = int(os.environ.get("TEST_RECOVERIES", "4"))
SEED = int(os.environ.get("TEST_SEED", "20261124"))
VICTIMS = ("inbound,outbound", "--queues models", "api.cli api", "valkey", "api.cli mailboxes", "api.cli beat")
STORE = ("postgres backend", "postgres")
QUICK = {"generator": "off", "sweep_seconds": "2", "lease_seconds": "20", "relay_timeout": "5"}


@dataclass
class Chaos:
    """Who is killed, and how often it was."""

    running: Installation
    dice: random.Random
    store: PostgresStore | None = None
    killed: Counter[str] = field(default_factory=Counter)

    def kill(self, kills: int) -> None:
        """Exactly so many SIGKILLs; a victim that is being started again is passed over."""
        end = time.monotonic() + 20 * kills
        while self.killed.total() < kills and time.monotonic() < end:
            time.sleep(self.dice.uniform(0.2, 1.2))
            victims = VICTIMS + (STORE if self.store is not None else ())
            with contextlib.suppress(LookupError, psutil.Error, IndexError):
                self._kill(self.dice.choice(victims))

    def _kill(self, victim: str) -> None:
        if victim == "postgres" and self.store is not None:
            self.store.kill()
            self.store.start()
        elif victim == "postgres backend" and self.store is not None:
            # The server then ends every other session too, and recovers.
            self.dice.choice(self.store.backends()).kill()
        else:
            self.running.child(victim).kill()
        self.killed[victim.removeprefix("api.cli ").rpartition("--queues ")[2]] += 1


def knowledge(running: Installation, folder: Path) -> None:
    answer = folder / "delivery.txt"
    answer.write_text("We ship within 2 working days.")
    running.command("knowledge", "add", "When does my parcel arrive, where is my order", "--file", str(answer))


@contextlib.contextmanager
def engine(name: str) -> Iterator[PostgresStore | None]:
    if name == "sqlite":
        yield None
        return
    with in_memory("pg", owner="postgres") as folder:
        store = PostgresStore(folder).start()
        try:
            yield store
        finally:
            store.stop()


def at_rest(running: Installation, sender: Sender, outside: SmtpSink, mails: int) -> Reconciliation:
    """The reconciliation, once every mail is triaged and every suggestion accepted and handed over."""
    blobs = Blobs.open(running.settings)
    last: list[object] = ["nothing was read"]
    with contextlib.closing(Database(running.settings.sql_url)) as database:

        def settled() -> Reconciliation | None:
            arrived = Counter(str(one.message["Message-ID"]) for one in outside.mails)
            try:
                found = reconcile(database, arrived=arrived, source=sender.accepted, files=blobs)
            except StorageError as error:  # the server that was killed last is still recovering
                last[0] = error
                return None
            last[0] = found
            return found if found.sent + found.unknown >= mails and not found.problems else None

        try:
            found: Reconciliation = wait_until(settled, seconds=300, what="everything at rest")
        except pytest.fail.Exception:
            log = running.settings.data_dir.with_suffix(".log").read_text(errors="replace")
            pytest.fail(f"not at rest within 300 s, of {mails} mails: {last[0]}\n{log[-8000:]}", pytrace=False)
        return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "share"), [("sqlite", 1), ("postgresql", 3)])
def test_killing_any_process_loses_no_mail_and_sends_no_reply_twice(
    name: str, share: int, tmp_path: Path, tell: Tell
) -> None:
    began, mails, kills = time.monotonic(), MAILS // share, max(1, KILLS // share)
    with engine(name) as store, smtp_sink_server() as outside:
        values = QUICK | {"relay_url": outside.url} | ({"database_url": store.url} if store is not None else {})
        with installation(tmp_path / "var", **values) as running:
            knowledge(running, tmp_path)
            chaos, sender, reviewer = Chaos(running, random.Random(SEED), store), Sender(running), Reviewer(running)
            threads = [
                threading.Thread(target=sender.send_all, args=(range(mails),), daemon=True),
                threading.Thread(target=reviewer.work, daemon=True),
            ]
            for thread in threads:
                thread.start()
            chaos.kill(kills)
            threads[0].join(300)
            assert not threads[0].is_alive(), "the sender never got rid of its mail"
            found = at_rest(running, sender, outside, mails)
            reviewer.close()
            threads[1].join(30)
    tell(
        f"chaos on {name}: seed {SEED}, {time.monotonic() - began:.0f} s; {mails} mails in {sender.tries} tries; "
        f"{chaos.killed.total()} killed {dict(chaos.killed)}; {len(reviewer.accepted)} accepted; "
        f"{len(outside.mails)} arrived; answers {dict(Counter(reviewer.statuses))}; {found}"
    )
    arrived = Counter(one.message["Message-ID"] for one in outside.mails)
    assert len(sender.accepted) == found.received == mails
    assert found.problems == []
    assert max(arrived.values(), default=0) <= 1
    assert found.sent + found.unknown == mails
    assert chaos.killed.total() == kills
    assert set(reviewer.statuses) <= {200, 201, 409, 412, 429, 502, 503}, "no failure is an accident"


def everybody(running: Installation) -> list[psutil.Process]:
    """Every process of an installation, the supervisor first, so that nobody starts one again."""
    parent = psutil.Process(running.process.pid)
    return [parent, *parent.children(recursive=True)]


def end_all(processes: list[psutil.Process]) -> None:
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)


@pytest.mark.timeout(600)
def test_it_comes_back_by_itself_after_everything_was_killed_at_once(tmp_path: Path, tell: Tell) -> None:
    """The last round also loses its power: everything is stopped, the folder copied, and the copy is what is left."""
    folder, mails, per_round = tmp_path / "var", 0, 12
    dice, ready, first_send, accepted = random.Random(SEED), [], [], []
    with smtp_sink_server() as outside:
        for number in range(RECOVERIES + 2):
            began, sent_before = time.monotonic(), len(outside.mails)
            with installation(folder, wait_for_models=False, relay_url=outside.url, **QUICK) as running:
                ready.append(time.monotonic() - began)
                if number == 0:
                    knowledge(running, tmp_path)
                sender, reviewer = Sender(running), Reviewer(running)
                work = threading.Thread(target=reviewer.work, daemon=True)
                work.start()
                if number:
                    outside.wait(sent_before + 1, seconds=60)
                    first_send.append(time.monotonic() - began)
                last = number == RECOVERIES + 1
                if not last:
                    feed = threading.Thread(
                        target=sender.send_all, args=(range(mails, mails + per_round),), daemon=True
                    )
                    feed.start()
                    mails += per_round
                    # Some of this round's work is left for the next start.
                    outside.wait(sent_before + 3, seconds=60)
                    time.sleep(dice.uniform(0, 0.5))
                    feed.join(60)
                    processes = everybody(running)
                    if number == RECOVERIES:
                        folder = _lose_power(processes, folder)
                    end_all(processes)
                    accepted += sender.accepted
                else:
                    sender.accepted = accepted
                    found = at_rest(running, sender, outside, mails)
                reviewer.close()
                work.join(30)
    tell(
        f"{RECOVERIES} recoveries and one loss of power, seed {SEED}: ready after "
        f"{', '.join(f'{one:.1f}' for one in ready[1:])} s; first reply out after "
        f"{', '.join(f'{one:.1f}' for one in first_send)} s; {found}"
    )
    assert found.problems == []
    assert found.sent + found.unknown == found.received == mails
    assert max(Counter(one.message["Message-ID"] for one in outside.mails).values()) == 1


def _lose_power(processes: list[psutil.Process], folder: Path) -> Path:
    """What is on the disk at one instant, as another machine would find it."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.suspend()
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("run"))
    return copy
