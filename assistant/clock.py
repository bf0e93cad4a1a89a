"""The only source of time and identity. Everything else asks here."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

__all__ = ["monotonic", "new_id", "utcnow"]


def utcnow() -> datetime:
    """The current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never goes backwards: for leases, timeouts and durations."""
    return time.monotonic()


def new_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7) in its 36-character form: it sorts by creation time."""
    milliseconds = time.time_ns() // 1_000_000
    value = bytearray(milliseconds.to_bytes(6, "big") + os.urandom(10))
    value[6] = (value[6] & 0x0F) | 0x70
    value[8] = (value[8] & 0x3F) | 0x80
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
