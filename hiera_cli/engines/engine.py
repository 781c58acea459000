"""What an engine is, and what every engine does with a batch that does not fit or fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from hiera_cli.engines.placement import Placement
from hiera_cli.errors import DeviceError, is_out_of_memory

if TYPE_CHECKING:  # what only reports on the machine does without numpy
    import numpy as np
    from numpy.typing import NDArray

    from hiera_cli.model.architecture import Architecture


T = TypeVar("T")
R = TypeVar("R")


# What a model can be asked for, of each image, in fp32:
# logits, (classes,); features, (C,): the LayerNorm of the mean over the last tokens, which the classifier reads
# (transformers: pooler_output); tokens, (7, 7, C): the last tokens, rows and columns (last_hidden_state).
Output: TypeAlias = Literal["logits", "features", "tokens"]


class Answer(Protocol):
    """What is to come of a batch that was submitted."""

    def __call__(self) -> NDArray[np.float32]:
        """Wait for its rows, one an image, of what was asked for."""
        ...


class Engine(Protocol):
    """What the pipeline asks of an engine.

    batch_size: images to run together. precision: fp32, bf16 or fp16. in_flight: batches to have submitted at once: 1
    where `submit` computes, more where a device works by itself and can have its next batch while it does. takes_crops:
    whether an image may be its crop too, uint8 (224, 224, 3), which the engine normalises.
    """

    batch_size: int
    precision: str
    in_flight: int
    takes_crops: bool

    def describe(self) -> str:
        """The device and precision in use, for a person."""
        ...

    def submit(self, pixels: Sequence[NDArray[Any]], output: Output = "logits") -> Answer:
        """Start on a batch, each image (3, 224, 224). Raises ValueError for logits of a backbone, which has none."""
        ...

    def run(self, pixels: NDArray[np.float32], output: Output = "logits") -> NDArray[np.float32]:
        """All at once: (batch, 3, 224, 224) → (batch, …), both float32."""
        ...


def in_halves(run: Callable[[Sequence[T]], R], images: Sequence[T], halved: Callable[[int], None]) -> list[R]:
    """What `run` makes of the images: of all together, or of parts of them where memory does not suffice for that.

    halved: told the size of the parts, before they are tried. Raises what `run` does if a single image is too many.
    """
    try:
        return [run(images)]
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    half = len(images) // 2  # out here, where the exception no longer holds on to what the attempt took
    halved(half)
    return in_halves(run, images[:half], halved) + in_halves(run, images[half:], halved)


def check_output(output: Output, architecture: Architecture) -> None:
    """Raise ValueError for an output that the architecture does not have: a task must not have asked for it."""
    if output == "logits" and not architecture.num_classes:
        raise ValueError("a backbone has no classifier: it gives features and tokens, not logits")


@contextmanager
def faults(placement: Placement, what: str) -> Iterator[None]:
    """An engine or device that fails, or has too little memory for `what`, is a DeviceError, not a bug."""
    on_cpu = placement.device == "cpu"
    try:
        yield
    except (RuntimeError, MemoryError, ImportError, SystemError) as error:  # the last: of an import short of memory
        if is_out_of_memory(error):
            remedy = "free memory" if on_cpu else "free memory of the device"
            raise DeviceError(f"{placement.device} has not enough free memory for {what}", remedy=remedy) from error
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from ")]
        reason = lines[0] if lines else type(error).__name__
        other = "torch" if placement.engine == "openvino" else "openvino"
        remedy = "another engine" if on_cpu else "the CPU"
        raise DeviceError(f"{placement.device} failed: {reason}", remedy=remedy, engine=other) from error
