"""What is known of this machine and this installation: the facts that `hiera info` prints."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hiera_cli import __version__
from hiera_cli.checkpoints import hub, inventory
from hiera_cli.checkpoints.inventory import CachedModel
from hiera_cli.engines import compiled
from hiera_cli.engines.machine import cpu_count, this_machine
from hiera_cli.engines.placement import choose

PACKAGES = ("torch", "openvino", "pillow", "numpy", "safetensors", "huggingface_hub")


@dataclass(frozen=True)
class CompiledModel:
    """A compiled model on disk. name: of the model and the precision. bytes: its size."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Info:
    """Versions, by name; where and how a model would run, and why; what is on this machine, and where."""

    versions: dict[str, str]
    device: str
    device_why: str
    engine: str
    engine_why: str
    precision: str
    precision_why: str
    processors: int
    cache: str
    cached: tuple[CachedModel, ...]
    compiled_folder: str
    compiled: tuple[CompiledModel, ...]


def info(engine: str, device: str, precision: str) -> Info:
    """The facts for an engine, device and precision. Raises DeviceError if one of these is not available."""
    placement = choose(engine, device, precision, this_machine("torch", device))
    versions = {"hiera": __version__, "python": platform.python_version()}
    return Info(
        versions | {name: _version(name) for name in PACKAGES},
        placement.device,
        placement.device_why,
        placement.engine,
        placement.engine_why,
        placement.precision,
        placement.precision_why,
        cpu_count(),
        str(hub.cache_folder()),
        inventory.cached(),
        str(compiled.folder()),
        tuple(CompiledModel(each.name, each.bytes) for each in compiled.saved()),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
