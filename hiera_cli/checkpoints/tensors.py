"""Weight files → shapes and tensors by name, after a look at what the file claims."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from hiera_cli.checkpoints.layouts import Shape
from hiera_cli.errors import CheckpointError, DeviceError, is_out_of_memory
from hiera_cli.system.printable import shortened

if TYPE_CHECKING:
    from torch import Tensor


DTYPES = ("F32", "F16", "BF16", "F64")  # that weights may be stored in, as safetensors calls them
MAX_HEADER_BYTES = 8 << 20  # huge needs 80 KB


def unreadable(file: Path, error: OSError) -> CheckpointError:
    """What to raise when the system does not let a file be read."""
    return CheckpointError(f"cannot read {file}: {error.strerror or error}")


def is_safetensors(file: Path) -> bool:
    """By the first bytes: a .pth is a zip archive (or, before torch 1.6, a pickle). Raises OSError."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return not (start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{")


def read_shapes(file: Path) -> dict[str, Shape]:
    """The shape of every tensor, by its name in the file. Reads no weights, and imports no torch.

    Raises CheckpointError if the file is damaged, of another format, or stores numbers of a kind that is not read here
    (integers, float8); DeviceError if memory does not suffice.
    """
    with reading(file):
        if is_safetensors(file):
            _check_header(file)
            with safe_open(file, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                found = {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
        else:
            from hiera_cli.checkpoints import pth  # it takes time to import, which safetensors need not wait for

            found = {name: (each.dtype, each.shape) for name, each in pth.describe(file).items()}
    for name, (dtype, _) in found.items():
        if dtype not in DTYPES:
            raise CheckpointError(f"{file}: {shortened(name)} holds {dtype} numbers, not one of {', '.join(DTYPES)}")
    return {name: shape for name, (_, shape) in found.items()}


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Within it, what goes wrong with reading a weights file is raised as CheckpointError or DeviceError."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise DeviceError(f"there is not enough free memory to read {file}", "Free some.") from error
        if isinstance(error, OSError):
            raise unreadable(file, error) from error
        raise CheckpointError(f"{file} is not a safetensors file, or a damaged one: {shortened(str(error))}") from error


def _check_header(file: Path) -> None:
    """Refuse an absurd header before anything is allocated for it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if size < 10 or header > min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(f"{file} is not a safetensors file, or a damaged one: it does not begin as they do")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor, by its name in the file and of the type that is stored there, mapped where the format allows it.

    Raises CheckpointError if the file is damaged or a weight is not finite, DeviceError if memory does not suffice.
    """
    import torch
    from safetensors.torch import load_file

    with reading(file):
        if is_safetensors(file):
            tensors = load_file(file)
        else:
            from hiera_cli.checkpoints import pth

            tensors = pth.load(file)
    for name, tensor in tensors.items():
        check_numbers(file, name, float(tensor.sum(dtype=torch.float32)))
    return tensors


def check_numbers(file: Path, name: str, total: float) -> None:
    """Raise CheckpointError for a tensor with weights that are not finite.

    total: its sum, which is finite unless a weight is not (or the weights are absurd).
    """
    if not math.isfinite(total):
        raise CheckpointError(f"{file}: {name} holds weights that are not numbers (NaN or infinity)")


def has_bf16(file: Path) -> bool:
    """Whether a safetensors file stores any tensor in bf16."""
    with safe_open(file, framework="numpy") as tensors:
        return any(tensors.get_slice(name).get_dtype() == "BF16" for name in tensors.keys())  # noqa: SIM118
