"""Evaluated images, one by one → counts, and the figures that they give."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from hiera_cli.evaluation.compare import RIGHT, WRONG
from hiera_cli.evaluation.intervals import Interval, wilson
from hiera_cli.tasks.classify import SCORE_DIGITS, Prediction
from hiera_cli.tasks.evaluate import Evaluated, Truth

BINS = 15  # of the score, for the calibration error
DIGITS = 6  # in JSON


@dataclass(frozen=True)
class ClassFigures:
    """One class of the truth, or concept: images that have an answer, and of how many the best label is right."""

    truth: Truth
    images: int
    right: int

    @property
    def top1(self) -> float:
        """The share of right ones, its recall."""
        return self.right / self.images


@dataclass(frozen=True)
class Confusion:
    """A wrong answer. count: how often it was given where this is the truth."""

    truth: Truth
    answer: Answer
    count: int


@dataclass(frozen=True)
class Answer:
    """A class that the model gave."""

    index: int
    wnid: str | None
    label: str


@dataclass(frozen=True)
class Bin:
    """Images whose best label scores above `low`, up to `high`: the mean of the scores, and how many are right."""

    low: float
    high: float
    images: int
    mean_score: float
    right: int


@dataclass(frozen=True)
class Figures:
    """How right a model is.

    images: those with an answer; the shares are of these. failed: the others. top1, top5: how many have a right label
    first, and among the first five. classes: by index, concepts last. cells: all answers, as counts by truth and
    answer. bins: of the scores. seconds: from when the model was there to the last image. timed: images in these.
    complete: whether the run came to its end. model_classes: that the model has, 0 if it was not loaded.
    """

    model: str
    precision: str
    images: int
    failed: int
    top1_count: int
    top5_count: int
    classes: tuple[ClassFigures, ...]
    cells: tuple[tuple[Truth, Answer, int], ...]
    bins: tuple[Bin, ...]
    seconds: float
    timed: int
    complete: bool = True
    model_classes: int = 0

    @property
    def top1(self) -> float | None:
        """The share of images whose best label is right; None without images, as all of these."""
        return self.top1_count / self.images if self.images else None

    @property
    def top5(self) -> float | None:
        """The share of images with a right label among the best five."""
        return self.top5_count / self.images if self.images else None

    @property
    def top1_interval(self) -> Interval:
        """Wilson's, of 95%."""
        return wilson(self.top1_count, self.images)

    @property
    def top5_interval(self) -> Interval:
        """Wilson's, of 95%."""
        return wilson(self.top5_count, self.images)

    @property
    def mean_per_class(self) -> float | None:
        """The mean of the classes' top-1, each counting the same: balanced accuracy."""
        return sum(each.top1 for each in self.classes) / len(self.classes) if self.classes else None

    @property
    def mean_score(self) -> float | None:
        """Of the best labels: what the model itself expects of its top-1."""
        return sum(each.images * each.mean_score for each in self.bins) / self.images if self.images else None

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error: how far score and share of right ones are apart, over 15 equal bins.

        (Naeini et al., 2015; Guo et al., 2017.)
        """
        if not self.images:
            return None
        return sum(abs(each.images * each.mean_score - each.right) for each in self.bins) / self.images

    @property
    def images_per_second(self) -> float | None:
        """The start-up apart."""
        return self.timed / self.seconds if self.timed and self.seconds else None

    @property
    def worst(self) -> list[ClassFigures]:
        """The classes, those with the smallest share of right ones first; of equals, those with more images."""
        return sorted(self.classes, key=lambda each: (each.top1, -each.images, each.truth.label))

    @property
    def confusions(self) -> list[Confusion]:
        """The wrong answers, most frequent first."""
        wrong = [Confusion(*cell) for cell in self.cells if cell[1].index not in cell[0].indices]
        return sorted(wrong, key=lambda each: (-each.count, each.truth.label, each.answer.label, each.answer.index))

    def to_dict(self, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All of it, as JSON has it. Shares are from 0 to 1, null without images. about: what the run has to add."""
        return {
            "model": self.model,
            "precision": self.precision or None,
            "complete": self.complete,
            "images": self.images,
            "failed": self.failed,
            **(about or {}),
            "top1": _rounded(self.top1),
            "top1_interval": [*map(_rounded, self.top1_interval)],
            "top5": _rounded(self.top5),
            "top5_interval": [*map(_rounded, self.top5_interval)],
            "mean_per_class": _rounded(self.mean_per_class),
            "calibration_error": _rounded(self.calibration_error),
            "mean_score": _rounded(self.mean_score),
            "images_per_second": None if self.images_per_second is None else round(self.images_per_second, 2),
            "classes": [
                {**_named(each.truth), "images": each.images, "right": each.right, "top1": _rounded(each.top1)}
                for each in self.classes
            ],
            "confusions": [
                {"truth": _named(each.truth), "answer": _named(each.answer), "count": each.count}
                for each in self.confusions
            ],
            "calibration_bins": [
                {
                    "low": _rounded(each.low),
                    "high": _rounded(each.high),
                    "images": each.images,
                    "mean_score": _rounded(each.mean_score) if each.images else None,
                    "top1": _rounded(each.right / each.images) if each.images else None,
                }
                for each in self.bins
            ],
        }


class Tally:
    """Counts of evaluated images; from any thread. It grows with classes and confusions, not with images.

    model: its name. places: how many images there are, if what became of each is to be kept, in `outcomes`.
    """

    def __init__(self, model: str, places: int = 0, clock: Callable[[], float] = monotonic) -> None:
        self.outcomes = bytearray(places)  # FAILED, as zeros are, until there is an answer
        self.images = 0
        self._model = model
        self._clock = clock
        self._lock = threading.Lock()
        self._precision = ""
        self._failed = self._top1 = self._top5 = self._timed = 0
        self._cells: Counter[tuple[Truth, Answer]] = Counter()
        self._bins = [[0, 0.0, 0] for _ in range(BINS)]  # images, sum of scores, right
        self._started = self._latest = clock()
        self._model_classes = 0

    def start(self, model_classes: int = 0) -> None:
        """The time counts from here: the model is there. model_classes: that it has."""
        self._started = self._latest = self._clock()
        self._model_classes = model_classes

    def add(self, record: Evaluated, place: int | None = None, *, before: bool = False) -> None:
        """Count one. place: in the order of all images. before: it was done in an earlier run, and takes no time."""
        with self._lock:
            if record.error is not None or not record.predictions:
                self._failed += 1
                return
            assert record.truth is not None
            best, rank = record.predictions[0], record.rank
            self.images += 1
            self._top1 += rank == 1
            self._top5 += rank is not None
            self._precision = record.precision
            self._cells[record.truth, _answer(best)] += 1
            score = round(best.score, SCORE_DIGITS)  # as records have it: they give the same figures
            counts = self._bins[min(max(math.ceil(score * BINS) - 1, 0), BINS - 1)]
            counts[0] += 1
            counts[1] += score
            counts[2] += rank == 1
            if place is not None and self.outcomes:
                self.outcomes[place] = RIGHT if rank == 1 else WRONG
            if not before:
                self._timed += 1
                self._latest = self._clock()

    def running(self) -> str:
        """Such as `top-1 81.2%`, for the line that shows how far a run is; "" before the first image."""
        return f"top-1 {self._top1 / self.images:.1%}" if self.images else ""

    def figures(self, *, complete: bool = True) -> Figures:
        """Of what was added. complete: whether that is all there is."""
        with self._lock:
            cells = sorted(self._cells.items(), key=lambda each: (_order(each[0][0]), each[0][1].index))
            images: Counter[Truth] = Counter()
            right: Counter[Truth] = Counter()
            for (truth, answer), count in cells:
                images[truth] += count
                right[truth] += count * (answer.index in truth.indices)
            return Figures(
                self._model,
                self._precision,
                self.images,
                self._failed,
                self._top1,
                self._top5,
                tuple(ClassFigures(truth, count, right[truth]) for truth, count in images.items()),
                tuple((truth, answer, count) for (truth, answer), count in cells),
                tuple(
                    Bin(number / BINS, (number + 1) / BINS, int(count), scores / count if count else 0.0, int(ok))
                    for number, (count, scores, ok) in enumerate(self._bins)
                ),
                self._latest - self._started,
                self._timed,
                complete,
                self._model_classes,
            )


def _answer(best: Prediction) -> Answer:
    assert best.index is not None
    return Answer(best.index, best.wnid, best.label)


def _order(truth: Truth) -> tuple[bool, int, str]:
    return (truth.index is None, truth.index or 0, truth.label)


def _named(named: Truth | Answer) -> dict[str, Any]:
    return {"index": named.index, "wnid": named.wnid, "label": named.label}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, DIGITS)
