"""The seam between the core and every carrier: one small protocol, capability flags, frozen values on both sides."""

from __future__ import annotations

from enum import Flag, auto
from typing import ClassVar, Protocol

from pydantic import BaseModel

from assistant.values import InboundMessage, OutboundMessage, Receipt, Webhook

__all__ = ["KEPT_HERE", "Capability", "Channel"]

KEPT_HERE = "kept in the outbox folder"
"""In the receipt of a message that left for nowhere: there is no relay, so it lies in a folder of this machine."""


class Capability(Flag):
    """What a carrier can do. A missing one raises `UnsupportedFeature`; nothing is dropped in silence."""

    NONE = 0
    INBOUND = auto()
    HTML = auto()
    ATTACHMENTS = auto()
    SUBJECT = auto()
    RECEIPTS = auto()
    IDEMPOTENCY_KEY = auto()
    """The carrier refuses a second message with the same key, so an uncertain send may be repeated."""


class Channel(Protocol):
    """One carrier. `send` hands one message over; it raises an error of `assistant.errors`, never a foreign one.

    `send` raises `TemporaryChannelError` (nothing was accepted, try later), `UncertainDelivery` (it may have been),
    `RecipientRefused`, `CredentialsRefused` or `PermanentChannelError`.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capability]
    Config: ClassVar[type[BaseModel]]

    async def send(self, message: OutboundMessage) -> Receipt: ...

    def verify(self, webhook: Webhook) -> None:
        """Raise `InvalidSignature` unless the webhook comes from the carrier."""

    def parse(self, webhook: Webhook) -> list[InboundMessage]:
        """The messages in a verified webhook."""

    async def close(self) -> None:
        """Give back connections."""
