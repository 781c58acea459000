"""What this machine has to run a model on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from hiera_cli.engines.placement import Accelerators, Machine
from hiera_cli.system.address_space import check_room_for_torch


def this_machine(engine: str, device: str) -> Machine:
    """Detect the hardware. Imports torch, which takes a second, only if its answer could change the choice.

    Raises DeviceError if memory is limited to too little for that.
    """
    accelerators = Accelerators()
    if engine != "openvino" and (device not in ("auto", "cpu") or (device == "auto" and _may_have_gpu())):
        check_room_for_torch()
        from hiera_cli.engines import torch_engine

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
