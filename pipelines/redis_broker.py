"""kombu's Redis transport, in which a failed acknowledgement takes no worker's place for good.

A worker that is busy in all its places listens to nothing, so it does not hear that Redis has gone. When it ends a task
meanwhile, the acknowledgement fails and is only logged: kombu still counts the message as being worked on, the worker asks for no
other, and stands still until it is started again, long after Redis is back. Seen with kombu 5.6 and a worker of one place.
"""

from __future__ import annotations

from kombu.transport import redis, virtual

__all__ = ["Transport"]


_LOST = redis.Transport.connection_errors


class _QoS(redis.QoS):
    def ack(self, delivery_tag: str) -> None:
        """Once more on a fresh connection; and whatever comes of that, the place is free.

        What could not be acknowledged is delivered again after the visibility timeout, and finds its work done.
        """
        try:
            super().ack(delivery_tag)
        except _LOST:
            try:
                super().ack(delivery_tag)
            except _LOST:
                virtual.QoS.ack(self, delivery_tag)
                raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except _LOST:
            virtual.QoS.ack(self, delivery_tag)
            raise


class _Channel(redis.Channel):
    QoS = _QoS


class Transport(redis.Transport):
    """`redis.Transport` with that care."""

    Channel = _Channel
