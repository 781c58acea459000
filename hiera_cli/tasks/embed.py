"""Features: what the network makes of an image before the classifier. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_cli.engines.engine import Engine
from hiera_cli.errors import InferenceError
from hiera_cli.result import Result


@dataclass(frozen=True, slots=True)
class Embedded(Result):
    """A Result with its features, float32: (C,) pooled, or (7, 7, C) tokens; None for an error."""

    features: NDArray[np.float32] | None = None

    done: ClassVar[str] = "embedded"

    def answer(self) -> dict[str, Any]:
        """The features as nested lists, each number with as many digits as float32 needs."""
        return {"features": None if self.features is None else _numbers(self.features)}

    @classmethod
    def is_answer(cls, record: Mapping[str, Any]) -> bool:
        """Whether the record has features."""
        features = record.get("features")
        return isinstance(features, list) and all(isinstance(each, float | list) for each in features)


def _numbers(array: NDArray[np.float32]) -> list[Any]:
    # By way of text: the shortest that means this float32, where float() alone would write out the double it is.
    return array.astype("U32").astype(np.float64).tolist()  # type: ignore[no-any-return]


class Embedder(Protocol):
    """The model that this task takes: a classifier or a backbone; classifier.py has it."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Engine: ...


@dataclass(frozen=True)
class Embed:
    """Give the features of images.

    The pooled ones: LayerNorm of the mean over the last tokens, what transformers calls `pooler_output`. tokens: the
    last tokens themselves instead, by rows and columns (`last_hidden_state`). normalize: each vector to length 1.
    """

    tokens: bool = False
    normalize: bool = False

    kind: ClassVar[type[Embedded]] = Embedded

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in each record."""
        return {"tokens": self.tokens, "normalize": self.normalize}

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits, of the largest model (2,048 channels)."""
        return 4 * 2048 * (49 if self.tokens else 1)

    def submit(
        self, model: Embedder, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], NDArray[np.float32]]:
        """Start on the features of a batch."""
        return model.engine.submit(pixels, "tokens" if self.tokens else "features")

    def answer(self, row: NDArray[np.float32], model: Embedder) -> dict[str, Any]:
        """row: of one image, (C,) or (7, 7, C). Raises InferenceError if its values are not numbers."""
        if not np.isfinite(row).all():
            raise InferenceError("the model gave values that are not numbers", remedy="wider_range")
        # A copy: a row is a view of its whole batch, which it would keep in memory.
        return {"features": unit_length(row) if self.normalize else np.array(row, np.float32)}


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each vector (…, C) divided by its L2 norm; zero stays zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
