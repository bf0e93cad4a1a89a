"""Changes to open pages: one Redis stream whose ids a page resumes from, and who is looking at what right now.

Losing it costs speed only: a page whose last id is gone is told `reset` and reads everything again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

import redis.asyncio
from redis import Redis
from redis.exceptions import RedisError

from assistant.clock import utcnow
from assistant.db.session import Event
from assistant.failpoints import failpoint

__all__ = ["Bus", "place_of"]

T = TypeVar("T")
_STREAM = "notifyr:live"
_PRESENCE = "notifyr:presence:"
_DRAFT = "notifyr:draft:"
_STOP = "notifyr:draft-stop:"
_DRAFT_SECONDS = 600
_REMOVED = "notifyr:removed:"
_REMOVED_SECONDS = 600
_MODELS = "notifyr:models"
_KEPT = 10_000
_PRESENCE_SECONDS = 9
_WAIT_MS = 5_000


class Bus:
    """`publish` and presence for threads and tasks (blocking), `subscribe` for the socket's event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, decode_responses=True)

    def publish(self, event: Event) -> str:
        """Append one event; returns its id (`milliseconds-sequence`). Raises `redis.RedisError`."""
        fields: dict[Any, Any] = {"kind": event.kind, "payload": json.dumps(event.payload)}
        return str(self._redis.xadd(_STREAM, fields, maxlen=_KEPT, approximate=True))

    def place(self) -> str:
        """The newest id, for a page that is about to be read: it subscribes after it and misses nothing. Empty when the
        server is away: then there are no live updates, and labels, drafts and sends wait.
        """
        try:
            newest: Any = self._redis.xrevrange(_STREAM, count=1)
        except RedisError:
            return ""
        return str(newest[0][0]) if newest else "0-0"

    async def subscribe(self, after: str = "") -> AsyncIterator[tuple[str, Event]]:
        """Events after an id (empty: from now on), for ever. An id that is unknown or trimmed yields `reset` first.

        Yields kind `tick` when nothing happened for some seconds, so that a caller can look at its own deadlines.
        Raises `redis.RedisError` when the server goes away; the caller resumes with the last id it saw.
        """
        first = True
        async for last, found in self.rounds(after):
            if not found and not first:
                yield last, Event("tick")
            for entry, event in found:
                yield entry, event
            first = False

    async def rounds(self, after: str = "") -> AsyncIterator[tuple[str, list[tuple[str, Event]]]]:
        """As `subscribe`, what came together at a time, each with the last id; at once the id that it starts from."""
        # The client's own patience must outlast the wait, or an idle page is told that the server went away.
        client = redis.asyncio.Redis.from_url(
            self._url, socket_connect_timeout=3, socket_timeout=_WAIT_MS / 1000 + 3, decode_responses=True
        )
        asked: set[asyncio.Future[Any]] = set()
        try:
            last, known = await _heeding(self._start(client, after), asked)
            yield last, [] if known else [(last, Event("reset"))]
            while True:
                found: Any = await _heeding(client.xread({_STREAM: last}, count=200, block=_WAIT_MS), asked)
                read = [(entry, _event(fields)) for entry, fields in _entries(found)] if found else []
                last = read[-1][0] if read else last
                yield last, read
        finally:
            await client.aclose()
            if asked:  # whose connection is gone
                await asyncio.wait(asked, timeout=1)

    def between(self, after: str, until: str) -> list[tuple[str, Event]] | None:
        """Events after one id, up to and with another; None when the first is unknown or trimmed. Raises `redis.RedisError`."""
        newest: Any = self._redis.xrevrange(_STREAM, count=1)
        oldest: Any = self._redis.xrange(_STREAM, count=1)
        tip = newest[0][0] if newest else "0-0"
        if after != tip and (not oldest or not place_of(oldest[0][0]) <= place_of(after) <= place_of(tip)):
            return None
        if place_of(after) >= place_of(until):
            return []
        found: Any = self._redis.xrange(_STREAM, min=f"({after}", max=until)
        return [(entry, _event(fields)) for entry, fields in found]

    async def _start(self, client: redis.asyncio.Redis, after: str) -> tuple[str, bool]:
        newest: Any = await client.xrevrange(_STREAM, count=1)
        tip = newest[0][0] if newest else "0-0"
        if not after:
            return tip, True
        oldest: Any = await client.xrange(_STREAM, count=1)
        if not oldest or place_of(after) > place_of(tip) or place_of(after) < place_of(oldest[0][0]):
            return tip, after == tip
        return after, True

    # -- who is where

    def present(self, thread_id: str, agent_id: str, *, name: str, state: str) -> None:
        """Note that an agent views (`viewing`) or types in (`typing`) a thread; forgotten after 9 s without a repeat."""
        key = _PRESENCE + thread_id
        now = utcnow().timestamp()
        value = json.dumps({"name": name, "state": state, "until": now + _PRESENCE_SECONDS})
        with self._redis.pipeline() as pipe:
            pipe.hset(key, agent_id, value)
            pipe.expire(key, _PRESENCE_SECONDS)
            failpoint("presence.before_note")
            pipe.execute()
            failpoint("presence.after_note")

    def absent(self, thread_id: str, agent_id: str) -> None:
        failpoint("presence.before_leave")
        self._redis.hdel(_PRESENCE + thread_id, agent_id)
        failpoint("presence.after_leave")

    def who(self, thread_id: str) -> dict[str, dict[str, Any]]:
        """Agents at a thread: id -> `{"name", "state"}`. Empty when the server is away: presence is a courtesy."""
        try:
            found: Any = self._redis.hgetall(_PRESENCE + thread_id)
        except RedisError:
            return {}
        return _alive(found)

    def crowds(self, thread_ids: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """`who` of many threads in one round trip; threads with nobody are left out."""
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for thread_id in thread_ids:
                    pipe.hgetall(_PRESENCE + thread_id)
                found: Any = pipe.execute()
        except RedisError:
            return {}
        crowds = {one: _alive(rows) for one, rows in zip(thread_ids, found, strict=True)}
        return {one: agents for one, agents in crowds.items() if agents}

    # -- drafts while they are written

    def write_draft(self, suggestion_id: str, text: str) -> bool:
        """Keep what a model has written so far, for pages that open later. False when somebody asked it to stop."""
        if self._redis.exists(_STOP + suggestion_id):
            return False
        failpoint("draft.before_write")
        self._redis.set(_DRAFT + suggestion_id, text, ex=_DRAFT_SECONDS)
        failpoint("draft.after_write")
        return True

    def read_draft(self, suggestion_id: str) -> str:
        """What is written so far; empty when nothing is, or when the server is away."""
        try:
            return str(self._redis.get(_DRAFT + suggestion_id) or "")
        except RedisError:
            return ""

    def stop_draft(self, suggestion_id: str) -> None:
        """Ask whoever writes this draft to stop with its next piece. Raises `redis.RedisError`."""
        failpoint("draft.before_stop")
        self._redis.set(_STOP + suggestion_id, "1", ex=_DRAFT_SECONDS)
        failpoint("draft.after_stop")

    # -- what was removed a moment ago, for its undo: it is gone by itself, so that removed words are not kept

    def keep_removed(self, name: str, facts: dict[str, str]) -> None:
        """Remember what a removed thing was, for ten minutes. Raises `redis.RedisError`."""
        failpoint("removed.before_keep")
        self._redis.set(_REMOVED + name, json.dumps(facts), ex=_REMOVED_SECONDS)
        failpoint("removed.after_keep")

    def removed(self, name: str) -> dict[str, str]:
        """What it was; empty when that was too long ago, or when the server is away."""
        try:
            found: Any = self._redis.get(_REMOVED + name)
        except RedisError:
            return {}
        facts: dict[str, str] = json.loads(found) if found else {}
        return facts

    # -- models, as the processes that load them say

    def set_model(self, model: str, **fact: str) -> None:
        """Note what a process says of its model: `state` (`loading`, `ready`, `partial`, `off`, `failed`), name and reason."""
        self._redis.hset(_MODELS, model, json.dumps(fact))

    def forget_models(self) -> None:
        """Before the processes start: what those of the last run said holds no more. Raises `redis.RedisError`."""
        self._redis.delete(_MODELS)

    def models(self) -> dict[str, dict[str, str]]:
        """The newest fact of each model; empty when the server is away."""
        try:
            found: Any = self._redis.hgetall(_MODELS)
        except RedisError:
            return {}
        return {model: json.loads(fact) for model, fact in found.items()}

    def close(self) -> None:
        self._redis.close()


def _alive(found: dict[str, str]) -> dict[str, dict[str, Any]]:
    now = utcnow().timestamp()
    rows = {agent: json.loads(value) for agent, value in found.items()}
    return {agent: row for agent, row in rows.items() if row["until"] > now}


async def _heeding(work: Awaitable[T], asked: set[asyncio.Future[Any]]) -> T:
    """`work` in a task of its own, which is in `asked` until it is done.

    A cancellation that falls into the moment in which the client connects or has just sent is swallowed there (Python 3.11's
    `wait_for`), and whoever asked for it waited until the read ended. `asyncio.wait` swallows none.
    """
    task = asyncio.ensure_future(work)
    asked.add(task)
    task.add_done_callback(asked.discard)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    return task.result()


def _entries(found: Any) -> list[tuple[str, dict[str, str]]]:
    """redis-py answers XREAD as a list of pairs (RESP2) or as a mapping (RESP3)."""
    streams = found.values() if isinstance(found, dict) else [pairs for _, pairs in found]
    return [entry for pairs in streams for batch in ([pairs] if isinstance(found, list) else pairs) for entry in batch]


def _event(fields: dict[str, str]) -> Event:
    return Event(fields["kind"], json.loads(fields["payload"]))


def place_of(entry: str) -> tuple[int, int]:
    """An id as what it is ordered by."""
    left, _, right = entry.partition("-")
    return int(left or 0), int(right or 0)
