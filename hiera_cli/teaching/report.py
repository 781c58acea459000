"""What was taught, how right it is by cross-validation, and what of the photos is to be mistrusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiera_cli.evaluation.intervals import Interval, wilson
from hiera_cli.teaching.copies import SAME, Copies
from hiera_cli.teaching.fit import Fitted, Tried

FEW = 10  # photos of a class: fewer tell little of it, and its accuracy next to nothing
SURE = 0.9  # the probability from which cross-validation is sure of a class


@dataclass(frozen=True)
class ClassFacts:
    """A class. photos: that it was taught from. right: of these, by cross-validation."""

    label: str
    photos: int
    right: int


@dataclass(frozen=True)
class Confusion:
    """Photos of a class that cross-validation takes for those of another."""

    label: str
    taken_for: str
    photos: int


@dataclass(frozen=True)
class Twins:
    """Two photos that are one, or nearly.

    same: whether they are the same but for rounding, of the photo or of its mirror image.
    """

    path: str
    label: str
    other_path: str
    other_label: str
    same: bool


@dataclass(frozen=True)
class Doubtful:
    """A photo that cross-validation is sure to be of another class than its own. score: of the class it looks like."""

    path: str
    label: str
    looks_like: str
    score: float


@dataclass(frozen=True)
class Taught:
    """What came of it.

    right: photos that cross-validation labels as they are. log_loss: its mean, in nats. searched: photos by which the
    strength was chosen. copies: photos that are another one of their class, or nearly. repeated: classes whose photos
    all are one, or nearly. confusions, doubtful: the most first. few: classes of few photos.
    """

    photos: int
    failed: int
    classes: tuple[ClassFacts, ...]
    strength: float
    tried: tuple[Tried, ...]
    searched: int
    folds: int
    right: int
    log_loss: float
    confusions: tuple[Confusion, ...]
    few: tuple[ClassFacts, ...]
    twins: tuple[Twins, ...]
    copies: tuple[Twins, ...]
    doubtful: tuple[Doubtful, ...]
    repeated: tuple[ClassFacts, ...]

    @property
    def accuracy(self) -> float:
        """Of cross-validation, from 0 to 1."""
        return self.right / self.photos

    @property
    def interval(self) -> Interval:
        """Of the accuracy, 95%."""
        return wilson(self.right, self.photos)

    @property
    def class_accuracy(self) -> float:
        """The mean of the classes' accuracies, from 0 to 1."""
        return sum(each.right / each.photos for each in self.classes) / len(self.classes)


def report(
    names: tuple[str, ...], paths: list[str], targets: NDArray[np.intp], fitted: Fitted, copies: Copies, failed: int
) -> Taught:
    """Put together what is told. names: of the classes. paths, targets: of the photos. failed: how many had none."""
    found = fitted.probabilities.argmax(axis=1)
    own = fitted.probabilities[np.arange(len(targets)), targets].astype(np.float64)
    right = np.bincount(targets[found == targets], minlength=len(names)).tolist()
    counts = np.bincount(targets, minlength=len(names)).tolist()
    classes = tuple(map(ClassFacts, names, counts, right))
    twins = _twins(names, paths, targets, copies)
    # Their copies are in several folds, as a class has to be learnt from to be known.
    repeated = [
        label
        for label in range(len(names))
        if (own_copies := copies.originals[targets == label]).min() == own_copies.max()
    ]
    apart = {names[label] for label in repeated}
    return Taught(
        photos=len(targets),
        failed=failed,
        classes=classes,
        strength=fitted.strength,
        tried=fitted.tried,
        searched=fitted.searched,
        folds=fitted.folds,
        right=sum(right),
        log_loss=float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean()),
        confusions=_confusions(names, targets, found),
        few=tuple(each for each in classes if each.photos < FEW),
        twins=tuple(each for each in twins if each.label != each.other_label),
        copies=tuple(each for each in twins if each.label == each.other_label and each.label not in apart),
        doubtful=_doubtful(names, paths, targets, fitted.probabilities),
        repeated=tuple(classes[label] for label in repeated),
    )


def _confusions(names: tuple[str, ...], targets: NDArray[np.intp], found: NDArray[np.intp]) -> tuple[Confusion, ...]:
    wrong = found != targets
    pairs, counts = np.unique(targets[wrong] * len(names) + found[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    places = ((*divmod(int(pairs[each]), len(names)), int(counts[each])) for each in order)
    return tuple(Confusion(names[label], names[taken_for], count) for label, taken_for, count in places)


def _twins(names: tuple[str, ...], paths: list[str], targets: NDArray[np.intp], copies: Copies) -> tuple[Twins, ...]:
    """One pair for each photo that is a copy, those that are the same first."""
    found = [
        Twins(
            paths[copies.originals[place]],
            names[targets[copies.originals[place]]],
            paths[place],
            names[targets[place]],
            bool(copies.distances[place] <= SAME),
        )
        for place in copies.places.tolist()
    ]
    return tuple(sorted(found, key=lambda each: not each.same))


def _doubtful(
    names: tuple[str, ...], paths: list[str], targets: NDArray[np.intp], probabilities: NDArray[np.float32]
) -> tuple[Doubtful, ...]:
    best = probabilities.argmax(axis=1)
    scores = probabilities[np.arange(len(targets)), best]
    places = np.flatnonzero((best != targets) & (scores >= SURE))
    order = places[np.argsort(-scores[places], kind="stable")]
    return tuple(
        Doubtful(paths[place], names[targets[place]], names[best[place]], float(scores[place])) for place in order
    )
