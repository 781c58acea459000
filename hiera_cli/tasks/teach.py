"""What a classifier is taught from: the features of a photo and of its mirror image. Free of torch."""

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
class Seen(Result):
    """A Result with features, float32 (2, C): of the photo, and of its mirror image; None for an error."""

    features: NDArray[np.float32] | None = None

    done: ClassVar[str] = "read"


class Backbone(Protocol):
    """The model that this task takes: a classifier or a backbone; classifier.py has it."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Engine: ...


@dataclass(frozen=True)
class Teach:
    """Give the pooled features of each photo and of its mirror image."""

    kind: ClassVar[type[Seen]] = Seen

    @property
    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits, of the largest model (2,048 channels)."""
        return 2 * 4 * 2048

    def submit(
        self, model: Backbone, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], list[NDArray[np.float32]]]:
        """Start on the features of a batch, and on those of its mirror images."""
        answers = [model.engine.submit(each, "features") for each in (pixels, [mirrored(image) for image in pixels])]
        return lambda: list(np.stack([answer() for answer in answers], axis=1))

    def answer(self, row: NDArray[np.float32], model: Backbone) -> Mapping[str, Any]:
        """row: of one photo, (2, C). Raises InferenceError if its values are not numbers."""
        if not np.isfinite(row).all():
            raise InferenceError("the model gave values that are not numbers", remedy="wider_range")
        return {"features": np.array(row, np.float32)}  # a copy: a row is a view of its whole batch


def mirrored(pixels: NDArray[Any]) -> NDArray[Any]:
    """An image with left and right exchanged: float32 (3, 224, 224), or its crop, uint8 (224, 224, 3)."""
    columns = 1 if pixels.dtype == np.uint8 else 2
    return np.ascontiguousarray(np.flip(pixels, columns))
