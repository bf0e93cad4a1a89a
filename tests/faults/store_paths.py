"""The crash paths of the stores that are no truth: the vector index, the generations in Redis, and files that are tidied away.

The models are stand-ins that answer at once and always alike: what is tried is what a death leaves in the stores.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge  # noqa: F401  # a child must not spend its life on importing it
from redis import Redis
from sqlalchemy import select

import pipelines.triage
from assistant.backends.blobs import Blobs, key_of
from assistant.backends.cache import GenerationCache
from assistant.backends.vectors import Vectors
from assistant.clock import utcnow
from assistant.db.messages import Message, Suggestion
from assistant.services import knowledge
from assistant.values import Passage, Prompt
from models.base import Vectors as Matrix
from models.wrappers import Cached
from pipelines.library import Library
from pipelines.tidying import AGE, named, tidy
from pipelines.triage import Triage
from tests.faults.paths import Inbound, Suggest, _Parts
from tests.support.servers import valkey_server


class _Words:
    """A vector for each text that is its own: a fixed random direction."""

    name, dimensions = "words@1", 32

    def embed(self, texts: Sequence[str]) -> Matrix:
        rows = [np.random.default_rng(list(text.encode())).normal(size=self.dimensions) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


class Search(Inbound):
    """An answer is written anew each round, and found by a process that opens an index which another one may have died in."""

    LANES = 4
    """No more rounds run at once, and an index belongs to one process: each has the folder of its lane."""

    def ready(self, rounds: int) -> None:
        with self.database.transaction() as session:
            for number in range(rounds):
                self.ids.append(knowledge.add(session, title=f"Lamp {number}", text=f"It is lamp {number}.").id)

    def rehearse(self, number: int) -> None:
        self._write(number)  # no index: its engine starts threads

    def step(self, number: int) -> None:
        self._write(number)
        self._found(number, number % self.LANES)
        self.database.close()

    def recover(self) -> None:
        for number in range(len(self.ids)):
            self._write(number)

    def problems(self) -> list[str]:
        wrong = [
            f"lane {lane} finds {found} for answer {number}"
            for lane in range(self.LANES)
            for number in range(lane, len(self.ids), self.LANES)
            if (found := self._found(number, lane)) != (self.ids[number], self._text(number))
        ]
        for lane in range(self.LANES):
            opened = Vectors(self.folder / f"vectors-{lane}")
            with self.database.reading() as session:
                texts = {chunk.number: chunk.searchable for chunk in knowledge.live_chunks(session)}
            opened.sync(encoder="words@1", dimensions=32, version="end", texts=lambda: texts, embed=_Words().embed)  # noqa: B023
            assert opened._store is not None
            if (there := opened._store.numbers()) != texts.keys():
                wrong.append(f"the index of lane {lane} holds {len(there)} of {len(texts)} answers")
            opened.close()
        return self._problems() + wrong

    def _text(self, number: int) -> str:
        return f"It is lamp {number}, and it shines."

    def _write(self, number: int) -> None:
        with self.database.transaction() as session:
            knowledge.update(session, self.ids[number], text=self._text(number))

    def _found(self, number: int, lane: int) -> tuple[str, str]:
        """What is nearest to an answer's own words."""
        opened = Vectors(self.folder / f"vectors-{lane}")
        try:
            library = Library(self.database, opened, _Words())
            best = library.search(f"Lamp {number}\n{self._text(number)}", limit=1, floor=-1.0)[0]
        finally:
            opened.close()
        return best.document_id, best.text


class _Generator:
    """Rewrites the approved answer, always alike, and long enough for the lease of whoever waits to be renewed."""

    name = "stand-in@1"

    def parameters(self) -> dict[str, Any]:
        return {}

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        order = re.search(r"order (\w+)", prompt.user)
        assert order is not None
        yield f"Thank you for asking about order {order.group(1)}. "
        time.sleep(0.1)
        yield prompt.user.rpartition("Approved answer:\n")[2]

    def count(self, text: str) -> int:
        return len(text.split())


class Remember(Suggest):
    """A draft a round, by a generator whose answers Redis keeps. Some mails have the same words: one leads, one waits."""

    WORDS = ("alpha", "beta", "gamma", "delta", "omega")
    passage = Passage(text="We ship within two working days.", source="Delivery", score=0.9, document_id="d", version=1)

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        self.servers = ExitStack()
        self.redis_url = self.servers.enter_context(valkey_server())

    @cached_property
    def triage(self) -> Triage:
        parts = _Parts(self.settings, self.database)
        # The lease is short, so that a follower does not wait for a dead leader longer than a round takes.
        store = GenerationCache(self.redis_url, seconds=3600, lease_seconds=0.2, patience_seconds=20)
        parts.generator = Cached(_Generator(), store)  # type: ignore[assignment]
        return Triage(parts)  # type: ignore[arg-type]

    def ready(self, rounds: int) -> None:
        pipelines.triage.MOST_WAITING = rounds  # all wait at once, and none gets the approved answer for it
        super().ready(rounds)

    def raw(self, number: int) -> bytes:
        return super().raw(number).replace(b"order %d" % number, b"order " + self._order(number).encode())

    def _order(self, number: int) -> str:
        same = number if number % 4 > 1 else number - number % 4
        return "".join(self.WORDS[same // len(self.WORDS) ** place % len(self.WORDS)] for place in range(4))

    def rehearse(self, number: int) -> None:
        super().rehearse(number)
        del self.triage  # with its connection to Redis, which no child may inherit

    def problems(self) -> list[str]:
        wrong = []
        with self.database.reading() as session:
            drafts = session.execute(
                select(Suggestion.text, Suggestion.model, Message.new_text).join(
                    Message, Message.id == Suggestion.message_id
                )
            ).all()
        for text, model, asked in drafts:
            order = asked.rpartition("order ")[2].strip("?\r\n ")
            if model != _Generator.name or f"about order {order}." not in text:
                wrong.append(f"{model} answered {asked!r} with {text!r}")
        if len(drafts) != len(self.ids):
            wrong.append(f"{len(drafts)} of {len(self.ids)} drafts")
        with Redis.from_url(self.redis_url) as client:
            kept = [key for key in client.scan_iter("notifyr:gen:*") if not key.startswith(b"notifyr:gen:lead:")]
            if len(kept) != len({self._order(number) for number in range(len(self.ids))}):
                wrong.append(f"{len(kept)} answers are kept for {len(self.ids)} mails")
            endless = [key for key in client.scan_iter("notifyr:gen:*") if int(str(client.ttl(key))) < 0]
            wrong += [f"{len(endless)} keys would stay for ever"] * bool(endless)
            time.sleep(0.4)
            held = list(client.scan_iter("notifyr:gen:lead:*"))
            wrong += [f"{len(held)} leases outlive who held them"] * bool(held)
        self.servers.close()
        return super().problems() + wrong


class Tidy(Inbound):
    """A blob folder a round, with what nobody names, what a row names, and what an earlier tidying put aside and died."""

    KEPT, LOST = b"a mail that is named by its row", b"what nobody names"

    def ready(self, rounds: int) -> None:
        self.rounds = rounds
        self.kept = key_of("raw", self.raw(0), suffix=".eml")
        self.receive_all(1)
        long_ago = time.time() - 2 * AGE.total_seconds()
        for number in range(rounds):
            files = {
                self.kept: self.raw(0),
                key_of("parts", self.LOST): self.LOST,
                f"aside/0/{key_of('parts', b'put aside')}": b"put aside",
            }
            for key, content in files.items():
                path = self._folder(number) / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, (long_ago, long_ago))
            # One that was put aside although a row names it goes back.
            if number % 2:
                aside = self._folder(number) / "aside" / "1" / self.kept
                aside.parent.mkdir(parents=True)
                (self._folder(number) / self.kept).rename(aside)

    def rehearse(self, number: int) -> None:
        named(self.database, [self.kept])

    def step(self, number: int) -> None:
        tidy(self.database, self._blobs(number), now=utcnow())
        self.database.close()

    def recover(self) -> None:
        for number in range(self.rounds):
            tidy(self.database, self._blobs(number), now=utcnow() + timedelta(seconds=1))

    def problems(self) -> list[str]:
        wrong: Counter[str] = Counter()
        for number in range(self.rounds):
            store = self._blobs(number)
            there = set(store.list())
            if self.kept not in there or store.get(self.kept) != self.raw(0):
                wrong["a named file is gone"] += 1
            if there - {self.kept}:
                wrong[f"{sorted(there - {self.kept})} are left"] += 1
        self.database.close()
        return [f"{count} times: {words}" for words, count in wrong.items()]

    def _folder(self, number: int) -> Path:
        return self.folder / f"files-{number}"

    def _blobs(self, number: int) -> Blobs:
        return Blobs.at(f"file://{self._folder(number)}")
