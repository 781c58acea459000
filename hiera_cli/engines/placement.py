"""Which engine runs a model, on which device and at which precision.

A plain function of what was asked for and what the machine has, so that every case can be tested on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hiera_cli.errors import DeviceError

ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Accelerators:
    """What torch can use beside the CPU. cuda: the GPUs' names. cuda_bf16: whether they compute in bf16 natively."""

    cuda: tuple[str, ...] = ()
    cuda_bf16: bool = False
    mps: bool = False


@dataclass(frozen=True)
class Machine:
    """The hardware and the engines that a model can run on.

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


def choose(engine: str, device: str, precision: str, machine: Machine) -> Placement:
    """Resolve what was asked for against what is available.

    engine: auto, torch or openvino. device: auto, cpu, cuda, cuda:N or mps. precision: auto, fp32, bf16 or fp16.
    Raises DeviceError if what was asked for is not available: nothing falls back silently.
    """
    if engine not in ENGINES:
        raise DeviceError(f"there is no engine {engine!r}", f"Name one of {', '.join(ENGINES)}.")
    chosen_device, why_device = _choose_device(engine, device, machine.accelerators)
    chosen_engine, why_engine = _choose_engine(engine, chosen_device, machine)
    chosen_precision, why_precision = _choose_precision(precision, chosen_device, machine)
    return Placement(chosen_device, chosen_precision, chosen_engine, why_device, why_precision, why_engine)


def _choose_device(engine: str, wanted: str, accelerators: Accelerators) -> tuple[str, str]:
    gpus = [f"cuda:{index} ({name})" for index, name in enumerate(accelerators.cuda)]
    devices = ", ".join(["cpu", *gpus, *(["mps"] if accelerators.mps else [])])
    if engine == "openvino":
        if wanted not in ("auto", "cpu"):
            raise DeviceError(f"the openvino engine runs on the CPU, not on {wanted}", remedy="engine torch")
        return "cpu", "the openvino engine runs there"
    if wanted == "auto":
        if accelerators.cuda:
            return "cuda:0", "auto takes CUDA where it is available"
        if accelerators.mps:
            return "mps", "auto takes MPS where there is no CUDA"
        return "cpu", "no CUDA and no MPS on this machine, or in this build of PyTorch"
    kind, _, number = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise DeviceError(f"no device is called {wanted!r}", "Devices: auto, cpu, cuda, cuda:N, mps.")
    available = {"cpu": True, "cuda": int(number or 0) < len(accelerators.cuda), "mps": accelerators.mps}[kind]
    if not available:
        raise DeviceError(
            f"device {wanted} is not available here; available: {devices}",
            "PyTorch sees no such device on this machine.",
            remedy="device auto",
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
            remedy="precision of the CPU",
        )
    return wanted, "as asked"
