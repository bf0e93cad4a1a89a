"""How sure a share is that was counted."""

from __future__ import annotations

import math

__all__ = ["interval"]


def interval(clean: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); `(0, 1)` without outcomes."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, clean / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)
