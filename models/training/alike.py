"""Texts that are nearly the same: what `notifyr train --write-split` keeps in one part, and what a split by hand may tear apart."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["READ", "pairs"]

READ = 20_000
"""Characters of a text that are compared."""
_ALIKE = 0.5
"""Share of runs of three words that two texts have in common, from which on they are nearly the same."""
_RUN, _FEWEST = 3, 8
"""Words of a run, and words below which a text must be the same to be alike."""
_BANDS, _ROWS = 16, 4
"""Of the signature: two texts that share half of their runs meet in one band with a probability of 0.64, of two thirds 0.97."""
_PRIME = (1 << 61) - 1
Hashes = npt.NDArray[np.uint64]


def pairs(texts: Sequence[str], sides: Sequence[bool] | None = None) -> list[tuple[int, int]]:
    """Places of texts that are nearly the same, the earlier one first: found by parts of a signature that they share, then compared.

    With `sides` only pairs with one text on each side, which is quicker.
    """
    runs = [_runs(text[:READ]) for text in texts]
    chance = np.random.default_rng(7)
    factors = chance.integers(1, _PRIME, size=(_BANDS * _ROWS, 2), dtype=np.uint64)
    seen: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    found = []
    for place, own in enumerate(runs):
        if not len(own):
            continue
        signature = ((own * factors[:, :1] + factors[:, 1:]) % np.uint64(_PRIME)).min(axis=1)
        near: set[int] = set()
        for band in range(_BANDS):
            key = band, signature[band * _ROWS : (band + 1) * _ROWS].tobytes()
            near.update(seen[key])
            seen[key].append(place)
        if sides is not None:
            near = {other for other in near if sides[other] != sides[place]}
        found += [(other, place) for other in sorted(near) if _shared(runs[other], own) >= _ALIKE]
    return found


def _runs(text: str) -> Hashes:
    """Hashes of the runs of three words of a text, each once; of a short one a hash of the whole, of an empty one none."""
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"\d+", "0", text.casefold()))
    if not words:
        return np.zeros(0, dtype=np.uint64)
    if len(words) < _FEWEST:
        return np.array([zlib.crc32(" ".join(words).encode())], dtype=np.uint64)
    runs = {zlib.crc32(" ".join(words[n : n + _RUN]).encode()) for n in range(len(words) - _RUN + 1)}
    return np.array(sorted(runs), dtype=np.uint64)


def _shared(one: Hashes, other: Hashes) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
