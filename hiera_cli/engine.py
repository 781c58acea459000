"""A checkpoint on a device at a precision: arrays of pixels → logits.

The decisions (which device, which precision) are plain functions of what the machine has, apart from torch's answers,
so that they can be tested on a machine that has none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hiera_cli.checkpoints import Checkpoint
from hiera_cli.errors import DeviceError
from hiera_cli.model import Hiera

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCH_SIZES = {"cpu": 8, "mps": 16, "cuda": 64}  # larger ones fall out of a CPU's cache


class Engine(Protocol):
    """What the pipeline asks of an engine. batch_size: images to run together. precision: fp32, bf16 or fp16."""

    batch_size: int
    precision: str

    def describe(self) -> str:
        """The device and precision in use, for a person."""
        ...

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch, 3, 224, 224) → (batch, classes), both float32."""
        ...


@dataclass(frozen=True)
class Machine:
    """What there is to run on. cuda: the GPUs' names. cuda_bf16: whether they compute in bf16 natively."""

    cuda: tuple[str, ...] = ()
    cuda_bf16: bool = False
    mps: bool = False


def this_machine() -> Machine:
    """Ask torch."""
    if torch.cuda.is_available():
        names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Machine(cuda=names, cuda_bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    return Machine(mps=torch.backends.mps.is_available())


@dataclass(frozen=True)
class Placement:
    """Where and how a model runs, with the reasons for a person."""

    device: str
    precision: str
    device_why: str = "as asked"
    precision_why: str = "as asked"


def choose(device: str, precision: str, machine: Machine) -> Placement:
    """Resolve what was asked for against what there is.

    device: auto, cpu, cuda, cuda:N or mps. precision: auto, fp32, bf16 or fp16.
    Raises DeviceError where an explicit wish can't be had: nothing falls back silently.
    """
    chosen, why_device = _choose_device(device, machine)
    chosen_precision, why_precision = _choose_precision(precision, chosen, machine)
    return Placement(chosen, chosen_precision, why_device, why_precision)


def _choose_device(wanted: str, machine: Machine) -> tuple[str, str]:
    there = ", ".join(
        [
            "cpu",
            *(f"cuda:{i} ({name})" for i, name in enumerate(machine.cuda)),
            *(["mps"] if machine.mps else []),
        ]
    )
    if wanted == "auto":
        if machine.cuda:
            return "cuda:0", "auto takes CUDA where it is available"
        if machine.mps:
            return "mps", "auto takes MPS where there is no CUDA"
        return "cpu", "no CUDA and no MPS on this machine, or in this build of PyTorch"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise DeviceError(f"no device is called {wanted!r}", "Devices: auto, cpu, cuda, cuda:N, mps.")
    available = {"cpu": True, "cuda": int(number or 0) < len(machine.cuda), "mps": machine.mps}[kind]
    if not available:
        raise DeviceError(
            f"device {wanted} can't be had here; there is: {there}",
            f"PyTorch {torch.__version__} sees no such device. `--device auto` takes the best that is there.",
        )
    return (f"cuda:{int(number or 0)}" if kind == "cuda" else kind), "as asked"


def _choose_precision(wanted: str, device: str, machine: Machine) -> tuple[str, str]:
    if wanted == "auto":
        if not device.startswith("cuda"):
            return "fp32", "auto is fp32 here, the reference's precision"
        if machine.cuda_bf16:
            return "bf16", "auto is bf16 where the GPU computes in it"
        return "fp16", "auto is fp16 on a GPU without bf16"
    if wanted not in DTYPES:
        raise DeviceError(f"no precision is called {wanted!r}", "Precisions: auto, fp32, bf16, fp16.")
    if wanted == "fp16" and device == "cpu":
        raise DeviceError(
            "fp16 is refused on the CPU: it is slower there than fp32, and overflows",
            "Use --precision bf16 or fp32.",
        )
    return wanted, "as asked"


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
                output = self._model(batch.to(self._device, self._dtype))
                return output.float().cpu().numpy()  # type: ignore[no-any-return]
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
