"""Wrappers that keep the protocol: a `Generator` goes in, a `Generator` comes out."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any, Protocol

from assistant.telemetry import METRICS
from assistant.values import Prompt
from models.base import Generator

__all__ = ["Cached", "Store", "cache_key"]


class Store(Protocol):
    """Where finished answers are kept: one leader computes, the others wait for it (single flight)."""

    def get_or_compute(self, key: str, compute: Callable[[], tuple[str, bool]]) -> tuple[str, bool]:
        """The answer and whether it was a hit. `compute` returns the answer and whether it may be kept."""


def cache_key(generator: Generator, prompt: Prompt, limit: int, *, tenant: str = "") -> str:
    """SHA-256 over everything that decides an answer, as canonical JSON with text in NFC."""
    asked = {
        "tenant": tenant,
        "model": generator.name,
        "parameters": generator.parameters(),
        "limit": limit,
        **asdict(prompt),
    }
    canonical = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(unicodedata.normalize("NFC", canonical).encode()).hexdigest()


class Cached:
    """Exact answers from a store. A hit is byte-identical and costs no tokens; `generate` says which it was.

    Truncated answers, failures and streams that were closed early are never kept; a temperature above zero bypasses it.
    """

    def __init__(self, generator: Generator, store: Store) -> None:
        self._generator = generator
        self._store = store

    @property
    def name(self) -> str:
        return self._generator.name

    def parameters(self) -> dict[str, Any]:
        return self._generator.parameters()

    def count(self, text: str) -> int:
        return self._generator.count(text)

    def stream(self, prompt: Prompt, *, limit: int) -> Iterator[str]:
        yield self.generate(prompt, limit=limit)[0]

    def generate(
        self, prompt: Prompt, *, limit: int, on_delta: Callable[[str], None] | None = None
    ) -> tuple[str, bool]:
        """The whole answer and whether it came from the cache. `on_delta` sees the pieces as they are made."""

        def compute() -> tuple[str, bool]:
            pieces = []
            with closing(self._generator.stream(prompt, limit=limit)) as stream:  # type: ignore[type-var]
                for piece in stream:
                    pieces.append(piece)
                    if on_delta is not None:
                        on_delta(piece)
            return "".join(pieces), getattr(self._generator, "finish_reason", "stop") == "stop"

        if prompt.temperature > 0:
            METRICS.cache.labels(outcome="bypass").inc()
            return compute()[0], False
        return self._store.get_or_compute(cache_key(self._generator, prompt, limit), compute)
