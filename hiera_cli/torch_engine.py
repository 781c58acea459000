"""Hiera in PyTorch, eager mode: on a CPU, on CUDA, on Apple's MPS."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hiera_cli import packed
from hiera_cli.checkpoints import Checkpoint
from hiera_cli.errors import DeviceError
from hiera_cli.model import Hiera
from hiera_cli.placement import Accelerators, Placement

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCH_SIZES = {"cpu": 8, "mps": 16, "cuda": 64}
CPU_MICRO_BATCH = 4  # images that go through the layers together: more fall out of the processor's cache


def accelerators() -> Accelerators:
    """What torch can use beside the CPU."""
    if torch.cuda.is_available():
        names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Accelerators(cuda=names, cuda_bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    return Accelerators(mps=torch.backends.mps.is_available())


class TorchEngine:
    """Hiera in PyTorch, eager mode.

    batch_size: images to run together; chosen for the device unless given. It shrinks when a GPU's memory runs out.
    Raises CheckpointError for damaged weights, DeviceError if they do not fit on the device.
    """

    def __init__(self, checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None) -> None:
        self.placement = placement
        self.precision = placement.precision
        self._device = torch.device(placement.device)
        self._dtype = DTYPES[placement.precision]
        self.batch_size = batch_size or BATCH_SIZES[self._device.type]
        with torch.device("meta"):  # no storage and no initialisation: the checkpoint's tensors are put in
            self._model = Hiera(checkpoint.architecture)
        self._model.load_state_dict(checkpoint.state_dict(), strict=True, assign=True)
        self._model.requires_grad_(False).eval()
        if placement.precision == "fp32":  # no TF32 in the patch convolution: fp32 means the reference's numbers
            torch.backends.cudnn.allow_tf32 = False
        try:
            self._model.float().to_precision(self._dtype).to(self._device)
            if self._device.type == "cpu" and packed.works(self._dtype):
                packed.pack(self._model)
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory("the weights") from error

    def describe(self) -> str:
        """Such as `cuda:0 (NVIDIA H100), bf16` or `cpu (2 threads), fp32`."""
        if self._device.type == "cuda":
            detail = f" ({torch.cuda.get_device_name(self._device)})"
        else:
            detail = f" ({torch.get_num_threads()} threads)" if self._device.type == "cpu" else ""
        return f"{self.placement.device}{detail}, {self.placement.precision}"

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch, 3, 224, 224) → (batch, classes). Out of memory on a GPU halves the batch and goes on."""
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(pixels)
                if self._device.type == "cuda":
                    batch = batch.pin_memory().to(self._device, non_blocking=True)
                batch = batch.to(self._device, self._dtype)
                together = CPU_MICRO_BATCH if self._device.type == "cpu" else len(batch)
                output = torch.cat([self._model(part) for part in torch.split(batch, together)])
                return output.cpu().numpy()
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise self._out_of_memory("a single image") from error
        half = len(pixels) // 2
        self.batch_size = max(1, min(self.batch_size, half))
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return np.concatenate([self.logits(pixels[:half]), self.logits(pixels[half:])])

    def _out_of_memory(self, what: str) -> DeviceError:
        return DeviceError(
            f"{self.placement.device} has not enough free memory for {what}",
            "Free some, use a smaller model (-m tiny), or --device cpu.",
        )
