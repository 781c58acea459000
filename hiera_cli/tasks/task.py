"""What a task is: what it asks of the model for each image, and what a row of that means.

The pipeline knows inputs, batches and order, and has its Results made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from hiera_cli.result import Result


class Batches(Protocol):
    """How a model takes images.

    batch_size: images to run together; it may shrink. in_flight: batches to have submitted at once. precision: fp32,
    bf16 or fp16. takes_crops: whether it normalises crops by itself, and prefers them: uint8 (224, 224, 3).
    """

    batch_size: int
    in_flight: int
    precision: str
    takes_crops: bool


class Model(Protocol):
    """What is loaded. name: as records have it."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Batches: ...


M = TypeVar("M", bound=Model, contravariant=True)
R = TypeVar("R", bound=Result, covariant=True)


class Task(Protocol[M, R]):
    """One kind of answer."""

    @property
    def kind(self) -> type[R]:
        """Of the Results."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its options, as they stand in each record, in order."""
        ...

    @property
    def result_bytes(self) -> int:
        """About how much memory a Result takes that waits for an earlier input."""
        ...

    def submit(self, model: M, pixels: Sequence[NDArray[Any]], places: Sequence[int]) -> Callable[[], Iterable[Any]]:
        """Start on a batch. places: of the images, in the order of all inputs, from 0.

        Returns what waits for the rows, one an image. Both raise DeviceError.
        """
        ...

    def answer(self, row: Any, model: M) -> Mapping[str, Any]:
        """What a row means: the fields that the Result has beside those of every Result. Raises InferenceError."""
        ...
