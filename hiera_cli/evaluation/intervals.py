"""How far a share that was counted may be from the true one."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

Z = 1.959963984540054  # of the normal distribution, for 95%


class Interval(NamedTuple):
    """Bounds of a share, from 0 to 1."""

    low: float
    high: float


def wilson(right: int, of: int) -> Interval:
    """The 95% interval of a share by Wilson's score method, which holds for few images and for shares near 0 and 1.

    (Wilson, 1927.) Of no images: everything from 0 to 1.
    """
    if not of:
        return Interval(0.0, 1.0)
    share = right / of
    centre = share + Z * Z / (2 * of)
    half = Z * sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    scale = 1 + Z * Z / of
    # Rounding is not to put a bound past what was counted.
    return Interval(
        min(max((centre - half) / scale, 0.0), share) if right else 0.0,
        max(min((centre + half) / scale, 1.0), share) if right < of else 1.0,
    )
