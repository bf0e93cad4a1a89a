"""Promises about time, on a machine that others use at the same moment."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["kept_within"]


def kept_within(seconds: float, attempt: Callable[[], float], *, tries: int = 3) -> None:
    """`attempt` says how long the promise took; one of a few attempts is in time. Each makes what it needs anew.

    Somebody else's turn on the processor can only make an attempt longer: one in time shows that the program can, and a program
    that is too slow is too slow every time.
    """
    took: list[float] = []
    while len(took) < tries:
        took.append(attempt())
        if took[-1] < seconds:
            return
    raise AssertionError(f"promised within {seconds:g} s; took {', '.join(f'{one:.2f}' for one in took)} s")
