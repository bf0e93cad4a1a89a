"""What a test counted or measured, for people: kept with its result and printed at the end of the run, whatever process ran it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["PROPERTY", "Tell"]

PROPERTY = "figure"

Tell = Callable[[str], None]
"""The fixture `tell`: one line of the summary."""
