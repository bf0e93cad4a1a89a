"""Chaos: every process is killed at random while mail flows in and replies flow out. Nothing is lost, nothing goes twice.

`TEST_CHAOS_MAILS`, `TEST_CHAOS_KILLS` and `TEST_SEED` change the run; the counts and the seed are printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import smtplib
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from assistant.backends.blobs import Blobs
from assistant.db.session import Database
from tests.faults.reconciler import reconcile
from tests.support.installation import Installation, installation, mail
from tests.support.servers import SmtpSink, smtp_sink_server, wait_until

MAILS = int(os.environ.get("TEST_CHAOS_MAILS", "200"))
KILLS = int(os.environ.get("TEST_CHAOS_KILLS", "24"))
SEED = int(os.environ.get("TEST_SEED", "20261124"))
VICTIMS = ("inbound,outbound", "--queues models", "api.cli api", "valkey", "api.cli mailboxes", "api.cli beat")


class Sender:
    """A mail client: hands every mail over until it is answered with 250."""

    def __init__(self, running: Installation) -> None:
        self.running = running
        self.accepted: list[str] = []
        self.tries = 0

    def send_all(self) -> None:
        for number in range(MAILS):
            text = f"Hello, when does my parcel {number} arrive?\n"
            message = mail(f"Customer {number} <c{number}@customer.example>", f"Parcel {number}", text)
            while True:
                self.tries += 1
                try:
                    self.running.send(message)
                except (OSError, smtplib.SMTPException):
                    time.sleep(0.3)
                    continue
                self.accepted.append(str(message["Message-ID"]))
                break


class Reviewer:
    """An agent's program: accepts what it finds, and repeats a request that got no answer under the same key."""

    def __init__(self, running: Installation, secret: str) -> None:
        self.client = httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {secret}"}, timeout=10)
        self.accepted: set[str] = set()
        self.stop = threading.Event()

    def work(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                self.once()
            time.sleep(0.3)

    def once(self) -> int:
        """Accept one page of suggestions; how many were found."""
        listed = self._get("/api/v1/threads?view=review&limit=20")["items"]
        for thread in listed:
            for suggestion in self._get(f"/api/v1/threads/{thread['id']}/suggestions"):
                if suggestion["state"] == "proposed" and suggestion["id"] not in self.accepted:
                    self._accept(suggestion)
        return len(listed)

    def _get(self, url: str) -> Any:
        answer = self.client.get(url)
        if answer.status_code in {429, 500, 502, 503}:
            time.sleep(1)
        return answer.raise_for_status().json()

    def _accept(self, suggestion: dict[str, object]) -> None:
        answer = self.client.post(
            f"/api/v1/suggestions/{suggestion['id']}/accept",
            json={"hold_seconds": 0},
            headers={"If-Match": f'"{suggestion["version"]}"', "Idempotency-Key": str(suggestion["id"])},
        )
        if answer.status_code == 429:
            time.sleep(float(answer.headers["retry-after"]))
        elif answer.status_code == 201:
            self.accepted.add(str(suggestion["id"]))


def _kill(running: Installation, dice: random.Random, killed: Counter[str]) -> None:
    victim = dice.choice(VICTIMS)
    with contextlib.suppress(LookupError, psutil.Error):
        running.child(victim).kill()
        killed[victim.rpartition(" ")[2]] += 1


@pytest.mark.timeout(900)
def test_killing_any_process_loses_no_mail_and_sends_no_reply_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(SEED)
    killed: Counter[str] = Counter()
    folder = tmp_path / "var"
    answer = tmp_path / "delivery.txt"
    answer.write_text("We ship within 2 working days.")
    with (
        smtp_sink_server() as outside,
        installation(
            folder, generator="off", relay_url=outside.url, sweep_seconds="2", lease_seconds="20", relay_timeout="5"
        ) as running,
    ):
        running.command("knowledge", "add", "When does my parcel arrive, where is my order", "--file", str(answer))
        scopes = ("threads:read", "suggestions:read", "suggestions:write")
        made = running.command("keys", "create", "chaos", *(x for one in scopes for x in ("--scope", one)), "--json")
        sender, reviewer = Sender(running), Reviewer(running, json.loads(made)["secret"])
        threads = [threading.Thread(target=sender.send_all), threading.Thread(target=reviewer.work)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.4, 2.0))
            _kill(running, dice, killed)
        threads[0].join(300)
        assert not threads[0].is_alive(), "the sender never got rid of its mail"
        database = Database(running.settings.sql_url)
        blobs = Blobs.open(running.settings)
        found = wait_until(
            lambda: _settled(database, blobs, sender, outside, reviewer), seconds=300, what="everything at rest"
        )
        reviewer.stop.set()
        threads[1].join(30)
        reviewer.client.close()
        database.close()
    with capsys.disabled():
        sys.stdout.write(
            f"\n  chaos: seed {SEED}; {MAILS} mails in {sender.tries} tries; killed {dict(killed)}; "
            f"{len(reviewer.accepted)} accepted; {len(outside.mails)} arrived; {found}\n"
        )
    arrived = Counter(one.message["Message-ID"] for one in outside.mails)
    assert len(sender.accepted) == MAILS
    assert found.received == MAILS
    assert found.problems == []
    assert max(arrived.values(), default=0) <= 1
    assert found.sent + found.unknown == MAILS
    assert sum(killed.values()) >= KILLS // 2


def _settled(database: Database, blobs: Blobs, sender: Sender, outside: SmtpSink, reviewer: Reviewer) -> object:
    """The reconciliation, once every mail is triaged and every suggestion accepted and handed over; else None."""
    arrived = Counter(str(one.message["Message-ID"]) for one in outside.mails)
    found = reconcile(database, arrived=arrived, source=sender.accepted, files=blobs)
    return found if found.sent + found.unknown >= MAILS and not found.problems else None
