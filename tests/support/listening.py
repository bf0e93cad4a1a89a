"""A running SMTP listener in a thread of the test, and a client that sends exactly the bytes it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

from sqlalchemy import func, select

from assistant.backends.blobs import Blobs
from assistant.backends.coordination import Limiter
from assistant.db.messages import Message
from assistant.db.session import Database
from assistant.services import profiles
from assistant.settings import Settings
from channels.support.child import ParserChild
from pipelines.inbound import Receiver
from pipelines.mailboxes import serve
from tests.support import servers

__all__ = ["Listening", "Wire", "listening", "mail"]

MAIL = b"From: Ann <ann@example.com>\r\nTo: support@example.org\r\nMessage-ID: <%s@example.com>\r\nSubject: Hi\r\n\r\nHello\r\n"


def mail(name: str = "1") -> bytes:
    return MAIL % name.encode()


@dataclass
class Listening:
    port: int
    database: Database
    settings: Settings
    stop: Callable[[], None]
    parser: ParserChild

    def connect(self, seconds: float = 10.0, *, source: str = "127.0.0.1") -> Wire:
        return Wire(self.port, seconds, source)

    def send(
        self, raw: bytes, recipients: tuple[str, ...] = ("support@example.org",), sender: str = "a@b.example"
    ) -> None:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as client:
            client.sendmail(sender, list(recipients), raw)

    def count(self) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(Message)) or 0

    def only(self) -> Message:
        with self.database.reading() as session:
            return session.scalars(select(Message)).one()


class Wire:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, port: int, seconds: float, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds, source_address=(source, 0))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        assert self.answer().startswith("220")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def answer(self) -> str:
        """The next answer, its last line; empty when the server hung up."""
        while True:
            line = self.file.readline().decode()
            if line[3:4] != "-":
                return line.strip()

    def say(self, line: bytes) -> str:
        self.socket.sendall(line + b"\r\n")
        return self.answer()

    def envelope(self, sender: bytes = b"a@b.example", recipient: bytes = b"support@example.org") -> None:
        assert self.say(b"EHLO client.example").startswith("250")
        assert self.say(b"MAIL FROM:<%s>" % sender).startswith("250")
        assert self.say(b"RCPT TO:<%s>" % recipient).startswith("250")

    def begin(self, sender: bytes = b"a@b.example") -> None:
        self.envelope(sender)
        assert self.say(b"DATA").startswith("354")


def _set(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    loop.call_soon_threadsafe(stop.set)


@contextlib.contextmanager
def listening(database: Database, redis_url: str = "") -> Iterator[Callable[[Settings], Listening]]:
    """Start listeners with `start(settings)`; `redis_url` is where they count mails. All are stopped at the end."""
    started: list[Listening] = []

    def start(settings: Settings) -> Listening:
        parser = ParserChild()
        receiver = Receiver(database, Blobs.open(settings), parser)
        with database.transaction() as session:
            profiles.ensure_default(session, settings)
        container: Any = SimpleNamespace(
            settings=settings, database=database, receiver=receiver, limiter=Limiter(redis_url)
        )
        ended: list[Callable[[], None]] = []

        async def main() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            ended.append(lambda: _set(loop, stop))
            await serve(container, stop=stop)

        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()

        def end() -> None:
            if thread.is_alive():
                ended[0]()
                thread.join(30)
                assert not thread.is_alive()
            parser.close()

        where = settings.path("run", "smtp-address")
        servers.wait_until(lambda: where.exists() and where.read_text().strip(), what="the listener's address")
        port = int(where.read_text().strip().rpartition(":")[2])
        started.append(Listening(port, database, settings, end, parser))
        return started[-1]

    yield start
    for one in started:
        one.stop()
