"""kombu's Redis transport, in which a failed acknowledgement takes no worker's place for good.

A worker that is busy in all its places listens to nothing, so it does not hear that Redis has gone. When it ends a task
meanwhile, the acknowledgement fails and is only logged: kombu still counts the message as being worked on, the worker asks for no
other, and stands still until it is started again, long after Redis is back. Seen with kombu 5.6 and a worker of one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.transport import redis, virtual

__all__ = ["Transport"]


_LOST = redis.Transport.connection_errors


class _QoS(redis.QoS):
    def ack(self, delivery_tag: str) -> None:
        with self._leaving(delivery_tag):
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        with self._leaving(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)

    @contextmanager
    def _leaving(self, delivery_tag: str) -> Iterator[None]:
        """Whatever Redis says, the place is free. It delivers the message again after the visibility timeout: its work is done."""
        try:
            yield
        except _LOST:
            virtual.QoS.ack(self, delivery_tag)
            raise


class _Channel(redis.Channel):
    QoS = _QoS


class Transport(redis.Transport):
    """`redis.Transport` with that care."""

    Channel = _Channel
