"""What all live sockets of one process share: one reader of the bus, and one look at their sessions every half second.

A frame is written once, however many pages are open. Frames travel together: a page that gets several at once gets them as
one list, since what a send costs is hardly its length.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from redis.exceptions import RedisError

from assistant.backends.bus import Bus, place_of
from assistant.db.session import Database, Event
from assistant.errors import StorageError
from assistant.services import access

__all__ = ["Gone", "Hub"]

CHECK_SECONDS = 0.5
BEHIND = 5_000
"""Frames that wait for one page; one that is further behind is closed and resumes by its last id."""
_PAGES_A_SECOND = 2_000
"""Sends of one process that are enough: with many pages open, each round waits a little and takes more along."""


class Gone(Exception):  # no error: the socket ends, and this is how it says so
    """A socket cannot go on; `code` is the one to close it with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(eq=False)
class _Page:
    """What one socket has not sent yet."""

    waiting: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    end: int = 0
    """The close code, once there is one."""

    def take(self, frames: list[tuple[tuple[int, int], str]]) -> None:
        """Keep what is new. A page that is too far behind is closed, and nothing is kept for one that is."""
        if self.end:
            return
        self.waiting += frames
        self.news.set()
        if len(self.waiting) > BEHIND:
            self.waiting.clear()
            self.close(1013)

    def close(self, code: int) -> None:
        self.end = self.end or code
        self.news.set()


class Hub:
    """`frames` for what happens, `session` for whether a socket may go on. Runs only while a socket is open."""

    def __init__(self, bus: Bus, database: Database) -> None:
        self._bus = bus
        self._database = database
        self._pages: set[_Page] = set()
        self._sessions: dict[str, set[asyncio.Future[int]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._at = "0-0"
        """The id up to which everything was handed to the pages."""

    # -- frames

    async def frames(self, after: str = "") -> AsyncGenerator[str, None]:
        """Texts to send, one object or a list of them, after an id (empty: from now on). Raises `Gone` at the end."""
        page = _Page()
        self._pages.add(page)
        try:
            await self._follow()
            page.waiting.clear()  # from here on it gets what is new; what was before is looked up below
            place, seen = self._at, place_of(after or "0-0")
            if after and (missed := await self._missed(after, place)):
                yield _text([_frame(*one) for one in missed])
            while not page.end:
                await page.news.wait()
                page.news.clear()
                waiting, page.waiting = page.waiting, []
                new = [text for at, text in waiting if at > seen]
                if new:
                    yield new[0] if len(new) == 1 else _text(new)
            raise Gone(page.end)
        except RedisError:
            raise Gone(1012) from None
        finally:
            self._pages.discard(page)
            if not self._pages and self._reader is not None:
                self._reader.cancel()
                self._reader = self._started = None

    async def _missed(self, after: str, until: str) -> list[tuple[str, Event]]:
        found = await run_sync(self._bus.between, after, until)
        return [(until, Event("reset"))] if found is None else found

    async def _follow(self) -> None:
        """Until the reader runs; it is started when this is the first page. Raises `redis.RedisError`."""
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._reader = asyncio.create_task(self._read(self._started))
        await asyncio.shield(self._started)

    async def _read(self, started: asyncio.Future[None]) -> None:
        try:
            async for last, found in self._bus.rounds():
                self._at = last
                if not started.done():
                    started.set_result(None)
                frames = [(place_of(entry), _frame(entry, event)) for entry, event in found]
                for page in self._pages if frames else ():
                    page.take(frames)
                if frames:
                    await asyncio.sleep(len(self._pages) / _PAGES_A_SECOND)
        except RedisError:
            pass  # every page is told to come back, below
        finally:
            if self._started is started:
                self._reader = self._started = None
                for page in self._pages:
                    page.close(1012)
            if not started.done():
                started.set_exception(RedisError("the server is away"))
                started.exception()  # nobody may be waiting

    # -- sessions

    @contextmanager
    def session(self, token: str) -> Iterator[asyncio.Future[int]]:
        """A future that gets the close code when the browser session of `token` has ended."""
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._sessions.setdefault(token, set()).add(ended)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        try:
            yield ended
        finally:
            ended.cancel()
            self._sessions[token].discard(ended)
            if not self._sessions[token]:
                del self._sessions[token]
            if not self._sessions and self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            tokens = list(self._sessions)
            try:
                code, alive = 1008, await run_sync(self._alive, tokens)
            except StorageError:
                code, alive = 1012, set()  # who cannot be recognised comes back, and is asked then
            for token in tokens:
                for ended in self._sessions.get(token, ()) if token not in alive else ():
                    if not ended.done():
                        ended.set_result(code)

    def _alive(self, tokens: list[str]) -> set[str]:
        with self._database.reading() as session:
            return access.living_sessions(session, tokens)


def _frame(entry: str, event: Event) -> str:
    return json.dumps({"id": entry, "kind": event.kind, **event.payload})


def _text(frames: list[str]) -> str:
    return frames[0] if len(frames) == 1 else f"[{','.join(frames)}]"
