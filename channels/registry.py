"""Which channels there are: a name to the class that speaks to its carrier. The next carrier is one line here."""

from __future__ import annotations

from importlib import import_module

from assistant.errors import ConfigurationError
from channels.base import Channel

__all__ = ["CHANNELS", "channel_class"]

CHANNELS = {"email": ("channels.email", "Email")}
"""Name -> module and class. Imported when it is asked for: a carrier's library costs only who uses it."""


def channel_class(name: str) -> type[Channel]:
    """The class of a channel. Raises `ConfigurationError` naming the ones there are."""
    if name not in CHANNELS:
        raise ConfigurationError([f"there is no channel {name!r}; there are {', '.join(sorted(CHANNELS))}"])
    module, attribute = CHANNELS[name]
    found: type[Channel] = getattr(import_module(module), attribute)
    return found
