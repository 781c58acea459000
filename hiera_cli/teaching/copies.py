"""Photos that are copies of each other, or nearly, by their features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Distances, of the root mean square of how far photos are from their mean; of two photos at random it is about 1.4.
SAME = 0.01  # the same pixels, but for rounding
ALIKE = 0.05  # the same picture, such as at another size or quality

ROWS, COLUMNS = 1 << 10, 1 << 13  # of distances that are computed at a time: 32 MB


@dataclass(frozen=True)
class Copies:
    """Each photo's original: itself, or an earlier one that it is a copy of.

    originals: (N,), indices. distances: (N,), of a copy to its original as above, 0 for an original.
    """

    originals: NDArray[np.intp]
    distances: NDArray[np.float32]

    @property
    def places(self) -> NDArray[np.intp]:
        """Of the copies."""
        found: NDArray[np.intp] = np.flatnonzero(self.originals != np.arange(len(self.originals)))
        return found


def copies(features: NDArray[np.float32]) -> Copies:
    """Find the copies among photos, in one pass: a photo that is like no original before it is one.

    features: (N, 2, C), of each photo and of its mirror image; a mirrored copy is one, too. Takes N² · C operations,
    and memory for (N, C).
    """
    points = features.mean(axis=1)  # the same for a photo and its mirror image
    centre = points.mean(axis=0)
    points -= centre
    squares = np.einsum("ij,ij->i", points, points)
    # Where all photos are one, what is left of them is rounding.
    unit = max(float(squares.mean()), 1e-6 * float(centre @ centre), 1e-30)
    points /= np.float32(np.sqrt(unit))
    squares /= np.float32(unit)

    count = len(points)
    originals = np.arange(count)
    distances = np.zeros(count, np.float32)
    known = np.empty(count, np.intp)  # the originals so far
    knowns = 0
    for start in range(0, count, ROWS):
        block = np.arange(start, min(start + ROWS, count))
        nearest, best = np.full(len(block), -1), np.full(len(block), np.float32(ALIKE**2))
        for first in range(0, knowns, COLUMNS):
            others = known[first : min(first + COLUMNS, knowns)]
            between = squares[block, None] + squares[others] - 2 * (points[block] @ points[others].T)
            column = between.argmin(axis=1)
            least = between[np.arange(len(block)), column]
            closer = least <= best
            nearest[closer], best[closer] = others[column[closer]], least[closer]
        between = squares[block, None] + squares[block] - 2 * (points[block] @ points[block].T)
        is_original = np.zeros(len(block), bool)
        for row in range(len(block)):
            within = np.flatnonzero(is_original[:row] & (between[row, :row] <= best[row]))
            if len(within):
                column = within[between[row, within].argmin()]
                nearest[row], best[row] = block[column], between[row, column]
            is_original[row] = nearest[row] < 0
        found = nearest >= 0
        originals[block[found]] = nearest[found]
        distances[block[found]] = np.sqrt(np.maximum(best[found], 0))
        new = block[is_original]
        known[knowns : knowns + len(new)] = new
        knowns += len(new)
    return Copies(originals, distances)
