"""Labels: logits → the best classes, or the concepts above them, and their softmax scores. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_cli import wordnet
from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.checkpoints.labels import Label
from hiera_cli.engines.engine import Engine
from hiera_cli.errors import InferenceError, UsageError
from hiera_cli.result import Result
from hiera_cli.tasks.rollup import Rollup
from hiera_cli.tasks.terms import Decomposition, Explanation, Head, is_explanation

SCORE_DIGITS = 6  # in records
TOP_K, TOP_K_OF_ROLLUP = 5, 1  # unless it is said


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label of an image: a class, or a concept of WordNet's, whose index is None.

    rank counts from 1; score is the softmax probability, 0 to 1, of a concept the sum over its classes.
    """

    rank: int
    index: int | None
    wnid: str | None
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classified(Result):
    """A Result with its predictions, best first; none for an error, or where none reaches the least score."""

    predictions: tuple[Prediction, ...] = ()

    done: ClassVar[str] = "labelled"

    def answer(self) -> dict[str, Any]:
        """The predictions, their scores to six decimals."""
        rows = [
            {"rank": p.rank, "index": p.index, "wnid": p.wnid, "label": p.label, "score": round(p.score, SCORE_DIGITS)}
            for p in self.predictions
        ]
        return {"predictions": rows}

    @classmethod
    def is_answer(cls, record: Mapping[str, Any]) -> bool:
        """Whether the record has predictions, ranked from 1."""
        predictions = record.get("predictions")
        return isinstance(predictions, list) and all(
            _is_prediction(each, rank) for rank, each in enumerate(predictions, 1)
        )


@dataclass(frozen=True, slots=True)
class ExplainedLabels(Classified):
    """A Classified with where each prediction comes from, in their order."""

    explanations: tuple[Explanation, ...] = ()

    def answer(self) -> dict[str, Any]:
        """The predictions, and the explanations behind them."""
        return {**Classified.answer(self), "explanations": [each.to_dict() for each in self.explanations]}

    @classmethod
    def is_answer(cls, record: Mapping[str, Any]) -> bool:
        """Whether the record has both; none of the latter if its settings say so, which are held against the run's."""
        settings = record.get("settings")
        explanations = record.get("explanations")
        if not (isinstance(settings, Mapping) and settings.get("explain")):
            return explanations is None and Classified.is_answer(record)
        is_whole = isinstance(explanations, list) and all(map(is_explanation, explanations))
        return is_whole and Classified.is_answer(record)


def _is_prediction(value: Any, rank: int) -> bool:
    return (
        isinstance(value, dict)
        and value.get("rank") == rank
        and (isinstance(value.get("index"), int) or (value.get("index", 0) is None and bool(value.get("wnid"))))
        and isinstance(value.get("label"), str)
        and isinstance(value.get("score"), float)
        and 0 <= value["score"] <= 1
    )


class Classifier(Protocol):
    """The model that this task takes: classifier.py has it."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def labels(self) -> Sequence[Label]: ...

    @property
    def checkpoint(self) -> Checkpoint: ...


@dataclass(frozen=True)
class Classify:
    """Label images: the best top_k classes (more than there are means all), those under min_score left out.

    rollup: instead of the best classes the most specific labels, class or concept, that score at least this. among: the
    WordNet ids of the concepts whose classes alone may be labels; their scores sum to 1. top_k: None for 5, with rollup
    for 1. explain: whether each label comes with its explanation; the scores are those of the explained logits then.
    """

    top_k: int | None = None
    min_score: float = 0.0
    rollup: float | None = None
    among: tuple[str, ...] = ()
    explain: bool = False

    _ready: list[_Ready] = field(default_factory=list, init=False, repr=False, compare=False)  # for one model

    @property
    def kind(self) -> type[Classified]:
        """Of the Results."""
        return ExplainedLabels if self.explain else Classified

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise UsageError(f"top_k is a whole number, 1 or more, not {self.top_k!r}")
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score is from 0 to 1, not {self.min_score!r}")
        if self.rollup is not None and not 0 < self.rollup <= 1:
            raise UsageError(f"rollup is above 0 and up to 1, not {self.rollup!r}")
        for wnid in self.among:
            if wnid not in wordnet.synsets():
                raise UsageError(f"among is of WordNet ids, and {wnid!r} is none of the tree's")

    @property
    def most(self) -> int:
        """Labels of an image."""
        return self.top_k or (TOP_K if self.rollup is None else TOP_K_OF_ROLLUP)

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in each record."""
        # Those first on which the default of top_k depends: resuming tells of the first that differs.
        return {
            "rollup": self.rollup,
            "among": [*self.among],
            "top_k": self.most,
            "min_score": self.min_score,
            "explain": self.explain,
        }

    @property
    def needs_concepts(self) -> bool:
        """Whether it is about classes of ImageNet's alone, which WordNet's concepts comprise."""
        return self.rollup is not None or bool(self.among)

    def check_classes(self, labels: Sequence[Label], model: str) -> None:
        """Raise UsageError if it needs concepts, and the classes are under none. model: its name."""
        if not self.needs_concepts:
            return
        wordnet.check_classes(labels, model)
        if self.among and not self._allowed(labels):
            names = " or ".join(wordnet.synsets()[wnid].name for wnid in self.among)
            raise UsageError(f"none of the classes of {model} is a kind of {names}")

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits."""
        return (1_000 if self.explain else 200) * self.most

    def submit(
        self, model: Classifier, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], NDArray[np.float32]]:
        """Start on the logits of a batch, or with explanations on the tokens that they come from."""
        return model.engine.submit(pixels, "tokens") if self.explain else model.engine.submit(pixels)

    def answer(self, row: NDArray[np.float32], model: Classifier) -> dict[str, Any]:
        """row: the logits, (classes,), or the tokens, (7, 7, C). Raises InferenceError if they are not numbers."""
        if not np.isfinite(row).all():
            raise InferenceError("the model gave values that are not numbers", remedy="wider_range")
        ready = self._made_ready(model)
        if ready.head is None:
            return {"predictions": self._predictions(row, ready)}
        decomposition = Decomposition(row, ready.head)
        predictions = self._predictions(decomposition.logits.astype(np.float32), ready)
        return {
            "predictions": predictions,
            "explanations": tuple(_explanation(each, decomposition, ready.labels) for each in predictions),
        }

    def _predictions(self, row: NDArray[np.float32], ready: _Ready) -> tuple[Prediction, ...]:
        logits = row if ready.places is None else row[ready.places]
        if ready.rollup is None:
            return predict(logits, ready.labels, self.most, self.min_score)
        assert self.rollup is not None
        found = ready.rollup.best(softmax(logits), self.rollup, self.most)
        sure = [(answer, score) for answer, score in found if score >= self.min_score]
        return tuple(
            Prediction(rank, answer.index, answer.wnid, answer.label, score)
            for rank, (answer, score) in enumerate(sure, 1)
        )

    def _made_ready(self, model: Classifier) -> _Ready:
        """What depends on the model alone: made for the first image."""
        labels = model.labels
        if not self._ready or self._ready[0].of is not labels:
            allowed = self._allowed(labels)
            places = np.array([place for place, _ in allowed]) if self.among else None
            kept = [label for _, label in allowed]
            head = Head(model.checkpoint) if self.explain else None
            self._ready[:] = [_Ready(labels, places, kept, None if self.rollup is None else Rollup(kept), head)]
        return self._ready[0]

    def _allowed(self, labels: Sequence[Label]) -> list[tuple[int, Label]]:
        """The classes that may be labels, with their places in the row."""
        wanted = frozenset().union(*(wordnet.classes()[wnid] for wnid in self.among))
        return [(place, label) for place, label in enumerate(labels) if not self.among or label.wnid in wanted]


@dataclass(frozen=True)
class _Ready:
    """of: the model's labels. places: in its rows, of the classes that may be labels; None for all. labels: theirs.

    head: of the model, where its labels are to be explained.
    """

    of: Sequence[Label]
    places: NDArray[np.intp] | None
    labels: Sequence[Label]
    rollup: Rollup | None
    head: Head | None


def _explanation(prediction: Prediction, decomposition: Decomposition, labels: Sequence[Label]) -> Explanation:
    """labels: of the classes that may be labels: a concept comprises no other."""
    classes = wordnet.indices(prediction.wnid or "", labels) if prediction.index is None else [prediction.index]
    logit, terms, constant = decomposition.of(classes)
    return Explanation(prediction.index, prediction.wnid, prediction.label, prediction.score, logit, terms, constant)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores that sum to 1, of logits in float32, (classes,)."""
    exponentials: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max())
    return exponentials / exponentials.sum()  # type: ignore[no-any-return]


def predict(
    logits: NDArray[np.float32], labels: Sequence[Label], top_k: int, min_score: float = 0.0
) -> tuple[Prediction, ...]:
    """Softmax and the best `top_k` classes, those under `min_score` left out.

    logits: (classes,), float32. labels: theirs. More than the classes means all of them. Equal scores come in the order
    of the classes.
    """
    scores = softmax(logits)
    best = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(
        Prediction(rank, labels[place].index, labels[place].wnid, labels[place].text, float(scores[place]))
        for rank, place in enumerate(best, 1)
        if scores[place] >= min_score
    )
