"""Hiera in PyTorch, eager mode: on a CPU, on CUDA, on Apple's MPS."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.engines import packed
from hiera_cli.engines.engine import Answer, Output, check_output, faults, in_halves
from hiera_cli.engines.placement import Accelerators, Placement
from hiera_cli.images import recipe
from hiera_cli.model.hiera import Hiera
from hiera_cli.system.address_space import check_room_for_torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCH_SIZES = {"cpu": 8, "mps": 16, "cuda": 64}
CPU_MICRO_BATCH = 4  # images that go through the layers together: more fall out of the processor's cache


def accelerators() -> Accelerators:
    """What torch can use beside the CPU."""
    if torch.cuda.is_available():
        names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Accelerators(cuda=names, cuda_bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    return Accelerators(mps=torch.backends.mps.is_available())


def normalised(crops: torch.Tensor) -> torch.Tensor:
    """The last step of the recipe, on a device: uint8 (B, 224, 224, 3) → float32 (B, 3, 224, 224), the same values."""
    table = torch.from_numpy(recipe.NORMALISED).to(crops.device)
    return torch.stack([table[channel][crops[..., channel].int()] for channel in range(3)], 1)


def described(device: torch.device, precision: str) -> str:
    """Such as `cuda:0 (NVIDIA H100), bf16` or `cpu (2 threads), fp32`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)}), {precision}"
    count = torch.get_num_threads()
    threads = f" ({count} thread{'s' * (count != 1)})" if device.type == "cpu" else ""
    return f"{device}{threads}, {precision}"


_TF32_SWITCH = threading.Lock()


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Turn off TF32 in convolutions: fp32 means the reference's numbers.

    The switch belongs to the whole process, so it is restored. One thread at a time, or one would restore the other's.
    """
    with _TF32_SWITCH:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before


class TorchEngine:
    """Hiera in PyTorch, eager mode. On an x86 CPU an image has the same output, to the bit, in whatever batch it is.

    batch_size: images to run together; chosen for the device unless given. It shrinks when memory runs out. Raises
    CheckpointError for damaged weights, DeviceError, RuntimeError or MemoryError if they do not fit on the device.
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None) -> None:
        self.placement = placement
        self.precision = placement.precision
        self._device = torch.device(placement.device)
        self._dtype = DTYPES[placement.precision]
        self._architecture = checkpoint.architecture
        self.batch_size = batch_size or BATCH_SIZES[self._device.type]
        self._copies: torch.cuda.Stream | None = None
        self.in_flight = 1
        self.takes_crops = (
            self._device.type == "cuda"
        )  # a quarter of the bytes to copy; on a CPU there is nothing to gain
        check_room_for_torch(3 * checkpoint.stamp().size)  # packed weights stand beside those of the file
        with torch.device("meta"):  # no storage and no initialisation: the checkpoint's tensors are put in
            self._model = Hiera(checkpoint.architecture)
        self._model.load_state_dict(checkpoint.state_dict(), strict=True, assign=True)
        self._model.requires_grad_(False).eval()
        self._model.float().to_precision(self._dtype).to(self._device)
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self.in_flight = 2
        if self._device.type == "cpu":
            if packed.works(self._dtype):
                packed.pack(self._model, CPU_MICRO_BATCH)
            head: Any = self._model.head  # whose layer becomes another module than it is declared to be
            # The order in which a matrix product with few rows is summed depends on the number of rows. Here that is
            # the number of images in the batch, which depends on timing, and so would the last digits of a score.
            if head.fc is not None:
                head.fc = packed.ImageByImage(head.fc)

    def describe(self) -> str:
        """The device, by name, and the precision."""
        return described(self._device, self.precision)

    def submit(self, pixels: Sequence[NDArray[Any]], output: Output = "logits") -> Answer:
        """Start on a batch, each image (3, 224, 224). Out of memory halves the batch and goes on.

        On CUDA everything is only queued here, the copies to the device and back too; the Answer waits for it. Raises
        DeviceError if not even one image fits or the device fails; so does the Answer.
        """
        check_output(output, self._architecture)
        with torch.inference_mode(), faults(self.placement, "a single image"):
            rows = torch.cat(in_halves(partial(self._run, output=output), pixels, self._halved))
            if self._copies is None:
                array = rows.cpu().numpy()
                return lambda: array
            # An event right behind the copy: `rows.cpu()` later would wait for the batch after this one as well.
            pinned = rows.to("cpu", non_blocking=True)
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self._device))

        def wait() -> NDArray[np.float32]:
            with faults(self.placement, "a single image"):
                done.synchronize()
            return pinned.numpy()

        return wait

    def run(self, pixels: NDArray[np.float32], output: Output = "logits") -> NDArray[np.float32]:
        """(batch, 3, 224, 224) → (batch, …)."""
        return self.submit(list(pixels), output)()

    def _run(self, pixels: Sequence[NDArray[Any]], output: Output) -> torch.Tensor:
        batch = self._to_device(pixels).to(self._dtype)
        together = CPU_MICRO_BATCH if self._device.type == "cpu" else len(batch)
        with _without_tf32() if self._copies is not None and self.precision == "fp32" else nullcontext():
            return torch.cat([self._model(part, output) for part in torch.split(batch, together)])

    def _halved(self, size: int) -> None:
        self.batch_size = min(self.batch_size, size)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _to_device(self, pixels: Sequence[NDArray[Any]]) -> torch.Tensor:
        if not all(
            image.dtype == np.uint8 for image in pixels
        ):  # the first that were decoded, before the engine was there
            pixels = [recipe.normalised(image) if image.dtype == np.uint8 else image for image in pixels]
        batch = self._copied([torch.from_numpy(image) for image in pixels])
        return normalised(batch) if batch.dtype == torch.uint8 else batch

    def _copied(self, images: list[torch.Tensor]) -> torch.Tensor:
        if self._copies is None:
            return torch.stack(images).to(self._device)
        pinned = torch.empty(len(images), *images[0].shape, dtype=images[0].dtype, pin_memory=True)
        torch.stack(images, out=pinned)
        with torch.cuda.stream(self._copies):  # beside the batch that is being computed
            batch = pinned.to(self._device, non_blocking=True)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        batch.record_stream(compute)
        return batch
