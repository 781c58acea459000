"""The most specific label that is sure enough: a class, or a concept of WordNet's for the classes that it comprises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from hiera_cli import wordnet
from hiera_cli.checkpoints.labels import Label

UNITS = 2**52  # that a score is counted in: sums of whole numbers are the same in any order, so that ties are ties
ROUNDING = 1e-9  # by which a score may miss what is asked: the model's own arithmetic is no more exact


@dataclass(frozen=True, slots=True)
class Answer:
    """What an image may be called. index: of a class, None for a concept."""

    index: int | None
    wnid: str | None
    label: str


class Rollup:
    """All answers that there are for a model's classes, and their scores. labels: of the classes, by place.

    A concept's score is the sum over its classes. Of concepts that comprise the same ones, and of a concept with only
    one, the lowest in the tree stands for all. Those that say nothing of a picture are no answers.
    """

    def __init__(self, labels: Sequence[Label]) -> None:
        found = _answers(labels)
        self._answers = [answer for answer, _ in found]
        self._sizes = np.array([len(places) for _, places in found])
        self._members = np.array([place for _, places in found for place in places])
        self._starts = np.array([0, *accumulate(len(places) for _, places in found)][:-1])

    def best(self, scores: NDArray[np.float64], least: float, most: int) -> list[tuple[Answer, float]]:
        """The answers whose score is at least so much, and their scores: no more than so many.

        scores: of the classes, (classes,). Most specific first: those that comprise the fewest classes; of equals
        the one with the higher score, and then by WordNet id.
        """
        units = np.rint(scores * UNITS).astype(np.int64)
        sums = np.add.reduceat(units[self._members], self._starts)
        reached = np.flatnonzero(sums >= (least - ROUNDING) * UNITS)
        order = reached[np.lexsort((-sums[reached], self._sizes[reached]))[:most]]  # a stable sort
        return [(self._answers[place], min(float(sums[place]) / UNITS, 1.0)) for place in order]


def _answers(labels: Sequence[Label]) -> list[tuple[Answer, tuple[int, ...]]]:
    """Each set of classes that has a name, with that name; in the order of their WordNet ids."""
    places = {label.wnid: place for place, label in enumerate(labels) if label.wnid}
    named: dict[tuple[int, ...], list[str]] = {}
    for wnid, classes in wordnet.classes().items():
        comprised = tuple(sorted(places[each] for each in classes & places.keys()))
        if len(comprised) > 1 and wnid not in wordnet.SAYING_NOTHING:
            named.setdefault(comprised, []).append(wnid)
    found: list[tuple[Answer, tuple[int, ...]]] = []
    for place, label in enumerate(labels):
        found.append((Answer(label.index, label.wnid, label.text), (place,)))
    for comprised, wnids in named.items():
        above = set().union(*(wordnet.above(wnid) for wnid in wnids)) if len(wnids) > 1 else set()
        lowest = wordnet.synsets()[min(wnid for wnid in wnids if wnid not in above)]
        found.append((Answer(None, lowest.wnid, lowest.name), comprised))
    return sorted(found, key=lambda each: (each[0].wnid or "", each[0].index or 0))
