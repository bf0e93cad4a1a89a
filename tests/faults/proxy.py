"""A TCP proxy that does to a connection what networks do. One `Toxic` a connection direction; changeable while it runs.

with FaultProxy(target_port) as proxy:
    proxy.toxics = [Toxic("cut", after=120)]          # both sides closed after 120 bytes from the client
    proxy.toxics = [Toxic("stall", towards="client", seconds=5, after=200)]
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

__all__ = ["FaultProxy", "Toxic"]

Kind = Literal[
    "latency", "bandwidth", "cut", "reset", "black-hole", "half-close", "corrupt", "duplicate-last-answer", "stall"
]
_SLICE = 16_384


@dataclass(frozen=True, slots=True)
class Toxic:
    """One fault. `after`: how many bytes of that direction pass untouched before it begins.

    latency: `seconds` plus up to `jitter` a chunk. bandwidth: `rate` bytes a second. cut: close both sides. reset: the same
    with RST. black-hole: swallow, stay open. half-close: end this direction only. corrupt: flip one bit of the next byte.
    duplicate-last-answer: send the next chunk twice. stall: wait `seconds` once.
    """

    kind: Kind
    towards: Literal["server", "client"] = "server"
    after: int = 0
    seconds: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0


class FaultProxy:
    """Listens on `port` of the loopback interface and forwards to `target` there. Runs in a thread of its own."""

    def __init__(self, target: int, *, seed: int = 0, host: str = "127.0.0.1") -> None:
        """`host`: another address of this machine to listen on."""
        self.target = target
        self.host = host
        self.port = 0
        self.toxics: list[Toxic] = []
        self.connections = 0
        self.passed = {"server": 0, "client": 0}
        """Bytes forwarded in each direction over all connections."""
        self._random = random.Random(seed)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def drop(self) -> None:
        """End every connection that is open."""
        if self._loop is not None:
            for writer in list(self._open):
                self._loop.call_soon_threadsafe(writer.transport.abort)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        ends = (writer, far_writer)
        self._open.update(ends)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, "server", ends)),
            asyncio.create_task(self._pump(far_reader, writer, "client", ends)),
        ]
        try:
            # A proxy that is closed cancels what still runs; nobody waits for it.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            for pump in pumps:
                pump.cancel()
            self._open.difference_update(ends)
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        towards: Literal["server", "client"],
        ends: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        seen = 0
        done: set[Toxic] = set()
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(_SLICE):
                for toxic in [one for one in self.toxics if one.towards == towards and one not in done]:
                    left = toxic.after - seen
                    if left >= len(chunk):
                        continue
                    head, rest = chunk[: max(left, 0)], chunk[max(left, 0) :]
                    rest = await self._apply(toxic, head, rest, writer, ends, done)
                    chunk = head + rest
                seen += len(chunk)
                writer.write(chunk)
                await writer.drain()
                self.passed[towards] += len(chunk)
            writer.write_eof()

    async def _apply(
        self,
        toxic: Toxic,
        head: bytes,
        rest: bytes,
        writer: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
        done: set[Toxic],
    ) -> bytes:
        """What becomes of `rest`, the part of a chunk that the toxic touches. Raises to end the connection."""
        match toxic.kind:
            case "latency":
                await asyncio.sleep(toxic.seconds + self._random.uniform(0, toxic.jitter))
            case "bandwidth":
                await asyncio.sleep(len(rest) / toxic.rate)
            case "stall":
                done.add(toxic)
                await asyncio.sleep(toxic.seconds)
            case "corrupt":
                done.add(toxic)
                return bytes([rest[0] ^ (1 << self._random.randrange(7))]) + rest[1:]
            case "duplicate-last-answer":
                done.add(toxic)
                return rest + rest
            case "black-hole":
                return b""
            case "cut" | "reset" | "half-close":
                writer.write(head)
                await writer.drain()
                if toxic.kind == "half-close":
                    writer.write_eof()
                else:
                    _close(ends, reset=toxic.kind == "reset")
                raise ConnectionAbortedError
        return rest


def _close(ends: tuple[asyncio.StreamWriter, ...], *, reset: bool) -> None:
    for end in ends:
        if reset:
            raw = end.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        else:
            end.close()
