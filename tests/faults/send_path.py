"""The outbound half of the crash paths: a queued message a round, to a relay or into the outbox folder."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from assistant.clock import utcnow
from assistant.db.session import Database
from assistant.db.tables import metadata
from assistant.services import outbox, sweeper
from assistant.settings import Settings, load_settings
from channels.twins.smtp_receiver import SmtpReceiver
from pipelines.outbound import Deliverer, Portal, open_channels
from tests.faults.reconciler import reconcile
from tests.support.outboxes import add_thread


class Send:
    """One queued message a round, delivered by a real child to a mail server in another process' thread."""

    PER_THREAD = 20

    def __init__(self, folder: Path, url: str, *, relay: bool) -> None:
        self.folder = folder
        self.url = url
        self.relay = relay
        self.journal = folder / "journal.jsonl"
        self.receiver: SmtpReceiver | None = None
        self.messages: list[str] = []
        # Children inherit the engine with its compiled statements, but never an open connection.
        self.database = Database(url)
        self.port = 0

    @cached_property
    def settings(self) -> Settings:
        relay = {"relay_url": f"smtp://127.0.0.1:{self.port}"} if self.relay else {}
        own = {"data_dir": self.folder, "database_url": self.url, "mail_address": "support@example.org"}
        return load_settings({}, lease_seconds=60, **own, **relay)

    def prepare(self, rounds: int) -> None:
        if self.relay:
            self.receiver = SmtpReceiver(journal=self.journal).start()
            self.port = self.receiver.port
        metadata.create_all(self.database.engine)
        for start in range(0, rounds + 1, self.PER_THREAD):
            thread_id = add_thread(self.database)
            with self.database.transaction() as session:
                for _ in range(start, min(start + self.PER_THREAD, rounds + 1)):
                    self.messages.append(_queue(session, thread_id))
        self._deliver(self.messages[-1:])
        if self.receiver is not None:
            self.receiver.stop()

    def begin(self) -> None:
        if self.receiver is not None:
            self.receiver.start()  # on its port, with the mail that it has

    def step(self, number: int) -> None:
        self._deliver([self.messages[number]])

    def _deliver(self, ids: list[str]) -> None:
        portal, channels = Portal(), open_channels(self.settings)
        deliverer = Deliverer(self.database, channels, portal, _NoFiles(), settings=self.settings)
        for message_id in ids:
            deliverer.deliver(message_id)
        deliverer.close()
        portal.close()
        self.database.close()

    def recover(self) -> None:
        repeatable = () if self.relay else ("email",)
        with self.database.transaction() as session:
            # In passes, because one sweep takes a bounded number of rows.
            while (
                swept := sweeper.sweep(session, now=utcnow() + timedelta(hours=1), repeatable=repeatable)
            ).unknown or (swept.retried):
                pass
        # Every task twice, as a broker may do.
        self._deliver([*self.messages, *self.messages])
        if self.receiver is not None:
            self.receiver.stop()

    def problems(self) -> list[str]:
        found = reconcile(self.database, arrived=self._arrived(), now=utcnow())
        self.database.close()
        sys.stdout.write(f"{found}\n")
        total = found.sent + found.unknown
        lost = [f"{len(self.messages) - total} of {len(self.messages)} messages are neither sent nor unknown"]
        return found.problems + (lost if total != len(self.messages) else [])

    def _arrived(self) -> Counter[str]:
        if self.receiver is not None:
            return self.receiver.counts()
        return Counter(f"<{file.name}>" for file in (self.folder / "outbox" / "new").iterdir())


def _queue(session: object, thread_id: str) -> str:
    from assistant.states import Author

    message = outbox.queue_message(session, thread_id=thread_id, author=Author.AGENT, text="On its way.")  # type: ignore[arg-type]
    return message.id


class _NoFiles:
    def get(self, key: str) -> bytes:
        raise KeyError(key)
