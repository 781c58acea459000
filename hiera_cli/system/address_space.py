"""Room in the address space (`ulimit -v`), looked at while there is some: libraries that run out of it abort."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from hiera_cli.errors import DeviceError

SPARE_BYTES = 192 << 20  # beside a library and the weights, for threads: with less, runs were seen to die


def check_room_for_torch(more: int = 0) -> None:
    """Raise DeviceError if a limit leaves too little to import torch, if that is still to be done, and to use it.

    more: bytes that are needed beside it. Neither the dynamic loader nor the libraries that compute in threads return
    an error where memory for a thread can't be had: they end the process, in the middle of whatever else it does.
    """
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # not Linux
        return
    if limit == resource.RLIM_INFINITY:
        return
    libraries = 0 if "torch" in sys.modules else _torch_library_bytes()
    if limit - used < libraries + SPARE_BYTES + more:
        raise DeviceError(
            f"there is not enough memory for PyTorch: the address space is limited to {limit >> 20} MiB (ulimit -v)",
            remedy="address space",
        )


def _torch_library_bytes() -> int:
    """Roughly what importing torch takes: the size of its shared libraries; 0 if it is not installed."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return 0
    folder = os.path.join(os.path.dirname(spec.origin), "lib")
    try:
        return sum(file.stat().st_size for file in os.scandir(folder) if ".so" in file.name)
    except OSError:
        return 0
