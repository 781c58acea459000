"""What the index takes in of an image: features as fp16, and what is kept of its softmax. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.engines.engine import Engine
from hiera_cli.errors import InferenceError
from hiera_cli.result import Result


class Softmax(NamedTuple):
    """What is kept of the softmax over all classes: the log of its denominator, the best class and its score."""

    log_denominator: float
    label: int
    label_score: float


@dataclass(frozen=True, slots=True)
class Indexed(Result):
    """A Result with what the index takes in. features: fp16 (C,), None for an error. softmax: None of a backbone."""

    features: NDArray[np.float16] | None = None
    softmax: Softmax | None = None

    done: ClassVar[str] = "indexed"


class Indexer(Protocol):
    """The model that this task takes: a classifier or a backbone; classifier.py has it."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def checkpoint(self) -> Checkpoint: ...


Layer = tuple[NDArray[np.float32], NDArray[np.float32]]  # the classifier's weight (classes, C) and bias (classes,)


def logits(features: NDArray[np.float16], layer: Layer) -> NDArray[np.float32]:
    """(B, C) → (B, classes): what the classifier makes of features."""
    weight, bias = layer
    return features.astype(np.float32) @ weight.T + bias


def softmaxes(of: NDArray[np.float32]) -> list[Softmax]:
    """Of each row of logits (B, classes)."""
    most = of.max(axis=1).astype(np.float64)
    denominators = np.exp(of - most[:, None]).sum(axis=1)
    columns = np.log(denominators) + most, of.argmax(axis=1), 1 / denominators
    return [Softmax(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@dataclass
class Index:
    """Take images in.

    The softmax is that of the features as they are stored, so that the scores of all classes sum to 1.
    """

    kind: ClassVar[type[Indexed]] = Indexed

    _layer: Layer | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits, of the largest model (2,048 channels)."""
        return 2 * 2048

    def submit(
        self, model: Indexer, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], list[tuple[NDArray[np.float16], Softmax | None]]]:
        """Start on the features of a batch."""
        if self._layer is None:
            self._layer = model.checkpoint.classifier()
        answer = model.engine.submit(pixels, "features")

        def rows() -> list[tuple[NDArray[np.float16], Softmax | None]]:
            with np.errstate(over="ignore", invalid="ignore"):  # `answer` tells of what is no number
                features = answer().astype(np.float16)
                if self._layer is None:
                    return [(row, None) for row in features]
                return list(zip(features, softmaxes(logits(features, self._layer)), strict=True))

        return rows

    def answer(self, row: tuple[NDArray[np.float16], Softmax | None], model: Indexer) -> Mapping[str, Any]:
        """row: of one image. Raises InferenceError if its features are not numbers, or too large for fp16."""
        features, softmax = row
        if not np.isfinite(features).all():
            raise InferenceError("the model gave values that are not numbers", remedy="wider_range")
        return {"features": features.copy(), "softmax": softmax}
