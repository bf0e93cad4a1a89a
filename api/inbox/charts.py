"""Small charts as places in an SVG of 320 by 160; the template draws them, and a table says the same in numbers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["HEIGHT", "WIDTH", "diagonal", "dots", "line"]

WIDTH, HEIGHT = 320, 160
_LEFT, _TOP, _RIGHT, _BOTTOM = 34, 10, 8, 24


def line(points: Sequence[tuple[float, float]], *, most: float) -> str:
    """A polyline's `points` for x from 0 to `most` and y from 0 to 1."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(x / max(most, 1e-9), y) for x, y in points))


def dots(points: Sequence[tuple[float, float]], *, most: float = 1) -> list[tuple[str, str]]:
    """Centres for x from 0 to `most` and y from 0 to 1."""
    return [(f"{x:.1f}", f"{y:.1f}") for x, y in (_place(x / max(most, 1e-9), y) for x, y in points)]


def diagonal() -> str:
    """Where stated and true probability are the same."""
    return line([(0, 0), (1, 1)], most=1)


def _place(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * (WIDTH - _LEFT - _RIGHT), _TOP + (1 - y) * (HEIGHT - _TOP - _BOTTOM)
