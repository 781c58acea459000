"""What an engine is, what this machine has for one, and the one place where an engine is imported."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from hiera_cli.checkpoints import Checkpoint
from hiera_cli.errors import DeviceError, is_out_of_memory
from hiera_cli.placement import Accelerators, Machine, Placement

if TYPE_CHECKING:  # `hiera info` looks around without it
    import numpy as np
    from numpy.typing import NDArray


T = TypeVar("T")
R = TypeVar("R")


class Answer(Protocol):
    """What is to come of a batch that was submitted."""

    def __call__(self) -> NDArray[np.float32]:
        """Wait for its logits: (batch, classes)."""
        ...


class Engine(Protocol):
    """What the pipeline asks of an engine.

    batch_size: images to run together. precision: fp32, bf16 or fp16. in_flight: batches to have submitted at once: 1
    where `submit` computes, 2 where a device works by itself and can have its next batch while it does.
    """

    batch_size: int
    precision: str
    in_flight: int

    def describe(self) -> str:
        """The device and precision in use, for a person."""
        ...

    def submit(self, pixels: Sequence[NDArray[np.float32]]) -> Answer:
        """Start on a batch, each image (3, 224, 224)."""
        ...

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """All at once: (batch, 3, 224, 224) → (batch, classes), both float32."""
        ...


def this_machine(engine: str, device: str) -> Machine:
    """Look around. Asks torch, which takes a second to import, only where an answer of its may matter."""
    accelerators = Accelerators()
    if engine != "openvino" and (device not in ("auto", "cpu") or (device == "auto" and _may_have_gpu())):
        from hiera_cli import torch_engine

        accelerators = torch_engine.accelerators()
    return Machine(accelerators, cpu_bf16=_cpu_has_bf16(), openvino=find_spec("openvino") is not None)


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _may_have_gpu() -> bool:
    """False only where there is certainly none: on Linux without the driver of any."""
    if not sys.platform.startswith("linux"):
        return True
    return any(
        os.path.exists(node) for node in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/nvmap")
    )


def _cpu_has_bf16() -> bool:
    """Whether the processor has instructions that multiply bf16 numbers (AVX-512 BF16, AMX, Arm's BF16)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux: take the safe side
        return False
    flags = set(text.split())
    wanted = {"bf16"} if platform.machine() == "aarch64" else {"avx512_bf16", "amx_bf16"}
    return bool(flags & wanted)


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


@contextmanager
def faults(placement: Placement, what: str) -> Iterator[None]:
    """An engine or device that fails, or has no memory for `what`, is no fault of the program: it is a DeviceError."""
    if placement.device != "cpu":
        instead = "--device cpu"
    else:
        instead = "--engine torch" if placement.engine == "openvino" else "--engine openvino"
    try:
        yield
    except (RuntimeError, MemoryError, ImportError) as error:
        if is_out_of_memory(error):
            elsewhere = "" if placement.device == "cpu" else f", or {instead}"
            raise DeviceError(
                f"{placement.device} has not enough free memory for {what}",
                f"Free some, or use a smaller model (-m tiny){elsewhere}.",
            ) from error
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Exception from ")]
        reason = lines[0] if lines else type(error).__name__
        raise DeviceError(f"{placement.device} failed: {reason}", f"{instead} does without it.") from error


def open_engine(
    checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None, *, keep: bool = True
) -> Engine:
    """Put a checkpoint where it is to run. keep: on disk, what an engine compiles.

    Raises CheckpointError for damaged weights, DeviceError for no memory or an engine that fails.
    """
    with faults(placement, "the weights"):
        if placement.engine == "openvino":
            from hiera_cli.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(checkpoint, placement, batch_size, keep=keep)
        from hiera_cli.torch_engine import TorchEngine

        return TorchEngine(checkpoint, placement, batch_size)
