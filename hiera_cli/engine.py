"""Which engine runs a model, on which device and at which precision; and the one place where an engine is imported.

The decisions are a plain function of what the machine has, so that they can be tested on a machine that has none of it.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_cli.checkpoints import Checkpoint
from hiera_cli.errors import DeviceError

ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


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
class Accelerators:
    """What torch can use beside the CPU. cuda: the GPUs' names. cuda_bf16: whether they compute in bf16 natively."""

    cuda: tuple[str, ...] = ()
    cuda_bf16: bool = False
    mps: bool = False


@dataclass(frozen=True)
class Machine:
    """What there is to run on.

    cpu_bf16: whether the processor multiplies in bf16. openvino: whether it is installed.
    """

    accelerators: Accelerators = field(default_factory=Accelerators)
    cpu_bf16: bool = False
    openvino: bool = False


@dataclass(frozen=True)
class Placement:
    """Where and how a model runs, with the reasons for a person."""

    device: str
    precision: str
    engine: str = "torch"
    device_why: str = "as asked"
    precision_why: str = "as asked"
    engine_why: str = "as asked"


def this_machine(engine: str, device: str) -> Machine:
    """Look around. Asks torch, which takes a second to import, only where an answer of its may matter."""
    accelerators = Accelerators()
    if engine != "openvino" and (device not in ("auto", "cpu") or (device == "auto" and _may_have_gpu())):
        from hiera_cli import torch_engine

        accelerators = torch_engine.accelerators()
    return Machine(accelerators, cpu_bf16=_cpu_has_bf16(), openvino=find_spec("openvino") is not None)


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


def choose(engine: str, device: str, precision: str, machine: Machine) -> Placement:
    """Resolve what was asked for against what there is.

    engine: auto, torch or openvino. device: auto, cpu, cuda, cuda:N or mps. precision: auto, fp32, bf16 or fp16.
    Raises DeviceError where an explicit wish can't be had: nothing falls back silently.
    """
    chosen_device, why_device = _choose_device(engine, device, machine.accelerators)
    chosen_engine, why_engine = _choose_engine(engine, chosen_device, machine)
    chosen_precision, why_precision = _choose_precision(precision, chosen_device, machine)
    return Placement(chosen_device, chosen_precision, chosen_engine, why_device, why_precision, why_engine)


def _choose_device(engine: str, wanted: str, there_is: Accelerators) -> tuple[str, str]:
    cuda = [f"cuda:{index} ({name})" for index, name in enumerate(there_is.cuda)]
    there = ", ".join(["cpu", *cuda, *(["mps"] if there_is.mps else [])])
    if engine == "openvino":
        if wanted not in ("auto", "cpu"):
            raise DeviceError(
                f"the openvino engine runs on the CPU, not on {wanted}", "Use --engine torch for other devices."
            )
        return "cpu", "the openvino engine runs there"
    if wanted == "auto":
        if there_is.cuda:
            return "cuda:0", "auto takes CUDA where it is available"
        if there_is.mps:
            return "mps", "auto takes MPS where there is no CUDA"
        return "cpu", "no CUDA and no MPS on this machine, or in this build of PyTorch"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise DeviceError(f"no device is called {wanted!r}", "Devices: auto, cpu, cuda, cuda:N, mps.")
    available = {"cpu": True, "cuda": int(number or 0) < len(there_is.cuda), "mps": there_is.mps}[kind]
    if not available:
        raise DeviceError(
            f"device {wanted} can't be had here; there is: {there}",
            "PyTorch sees no such device on this machine. `--device auto` takes the best that is there.",
        )
    return (f"cuda:{int(number or 0)}" if kind == "cuda" else kind), "as asked"


def _choose_engine(wanted: str, device: str, machine: Machine) -> tuple[str, str]:
    if wanted == "openvino" and not machine.openvino:
        raise DeviceError("the openvino engine is not installed", "pip install 'hiera-cli[openvino]'")
    if wanted != "auto":
        return wanted, "as asked"
    if device == "cpu" and machine.openvino:
        return "openvino", "auto takes OpenVINO on a CPU where it is installed"
    return "torch", "auto takes PyTorch" if device != "cpu" else "auto takes PyTorch: OpenVINO is not installed"


def _choose_precision(wanted: str, device: str, machine: Machine) -> tuple[str, str]:
    if wanted == "auto":
        if device == "cpu":
            if machine.cpu_bf16:
                return "bf16", "auto is bf16 where the processor multiplies in it"
            return "fp32", "auto is fp32 on a processor without bf16"
        if device == "mps":
            return "fp32", "auto is fp32 there, the reference's precision"
        if machine.accelerators.cuda_bf16:
            return "bf16", "auto is bf16 where the GPU computes in it"
        return "fp16", "auto is fp16 on a GPU without bf16"
    if wanted not in PRECISIONS:
        raise DeviceError(f"no precision is called {wanted!r}", "Precisions: auto, fp32, bf16, fp16.")
    if wanted == "fp16" and device == "cpu":
        raise DeviceError(
            "fp16 is refused on the CPU: it is slower there than fp32, and overflows",
            "Use --precision bf16 or fp32.",
        )
    return wanted, "as asked"


def open_engine(
    checkpoint: Checkpoint, placement: Placement, batch_size: int | None = None, *, keep: bool = True
) -> Engine:
    """Put a checkpoint where it is to run. keep: on disk, what an engine compiles.

    Raises CheckpointError for damaged weights, DeviceError for no memory.
    """
    if placement.engine == "openvino":
        from hiera_cli.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(checkpoint, placement, batch_size, keep=keep)
    from hiera_cli.torch_engine import TorchEngine

    return TorchEngine(checkpoint, placement, batch_size)
