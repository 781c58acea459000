"""Labels: logits → the top-k classes and their softmax scores. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_cli.checkpoints.labels import Label
from hiera_cli.engines.engine import Engine
from hiera_cli.errors import InferenceError, UsageError
from hiera_cli.result import Result

SCORE_DIGITS = 6  # in records


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label of an image. rank counts from 1; score is the softmax probability, 0 to 1."""

    rank: int
    index: int
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


def _is_prediction(value: Any, rank: int) -> bool:
    return (
        isinstance(value, dict)
        and value.get("rank") == rank
        and isinstance(value.get("index"), int)
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


@dataclass(frozen=True)
class Classify:
    """Label images: the best top_k classes (more than there are means all), those under min_score left out."""

    top_k: int = 5
    min_score: float = 0.0

    kind: ClassVar[type[Classified]] = Classified

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        if not isinstance(self.top_k, int) or self.top_k < 1:
            raise UsageError(f"top_k is a whole number, 1 or more, not {self.top_k!r}")
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score is from 0 to 1, not {self.min_score!r}")

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in each record."""
        return {"top_k": self.top_k, "min_score": self.min_score}

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits."""
        return 200 * self.top_k

    def submit(
        self, model: Classifier, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], NDArray[np.float32]]:
        """Start on the logits of a batch."""
        return model.engine.submit(pixels)

    def answer(self, row: NDArray[np.float32], model: Classifier) -> dict[str, Any]:
        """row: the logits, (classes,). Raises InferenceError if they are not numbers."""
        if not np.isfinite(row).all():
            raise InferenceError("the model gave values that are not numbers", remedy="wider_range")
        return {"predictions": predict(row, model.labels, self.top_k, self.min_score)}


def predict(
    logits: NDArray[np.float32], labels: Sequence[Label], top_k: int, min_score: float = 0.0
) -> tuple[Prediction, ...]:
    """Softmax and the best `top_k` classes, those under `min_score` left out.

    logits: (classes,), float32. More than the classes means all of them. Equal scores come in index order.
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    scores = exponentials / exponentials.sum()
    best = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(
        Prediction(rank, int(index), labels[index].wnid, labels[index].text, float(scores[index]))
        for rank, index in enumerate(best, 1)
        if scores[index] >= min_score
    )
