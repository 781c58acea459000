"""What is known of models' weights and of this machine: the facts behind `download`, `models` and `info`."""

from __future__ import annotations

import platform
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hiera_cli import __version__
from hiera_cli.checkpoints import hub, published, resolve
from hiera_cli.checkpoints.published import CONFIG, DEMO, LICENCE, PUBLISHED, WEIGHTS, near_model
from hiera_cli.engines import compiled
from hiera_cli.engines.machine import cpu_count, this_machine
from hiera_cli.engines.placement import choose
from hiera_cli.errors import OutputError, UsageError
from hiera_cli.system import parts


def download(name: str, folder: str | None, *, force: bool, progress: hub.Progress) -> dict[str, Any]:
    """Fetch one model's files into the cache, verified, and copy them into a folder if one is named.

    Raises CheckpointError if they can't be had or are no Hiera classifier, OutputError for the folder.
    """
    if name == DEMO:
        raise UsageError("the demo model is inside the program: there is nothing to download")
    repository = PUBLISHED[name].repository if name in PUBLISHED else name
    if not hub.is_repository_name(repository):
        close = near_model(name)
        raise UsageError(
            f"{name!r} is not a model to download",
            (f"Did you mean {close}?\n" if close in PUBLISHED else "")
            + f"Name one of {', '.join(PUBLISHED)}, or a Hub repository (ORG/NAME).",
        )
    was_here = hub.cached(repository, (CONFIG, WEIGHTS)) is not None and not force
    files = hub.fetch(repository, (CONFIG, WEIGHTS), force=force, progress=progress)
    resolve.resolve(repository, offline=True)
    if was_here:
        progress.say(f"{name} is on this machine already")
    if folder is not None:
        _copy(files, Path(folder))
        progress.say(f"there: hiera classify -m {folder} INPUT...")
    return {
        "name": name,
        "repository": repository,
        "folder": folder or str(files[1].parent),
        "bytes": files[1].stat().st_size,
        "downloaded": not was_here,
    }


def _copy(files: list[Path], folder: Path) -> None:
    """Each file whole or not at all, also while others do the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            parts.left_over(folder, f"{file.name}.*", discard=True)
            with file.open("rb") as stream:
                parts.write(folder / file.name, iter(partial(stream.read, 1 << 20), b""))
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error


def models() -> list[dict[str, Any]]:
    """The models that have a name of their own."""
    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "repository": model.repository,
            "parameters": model.parameters,
            "bytes": model.weight_bytes,
            "top1": model.accuracy,
            "licence": LICENCE,
            "on_this_machine": hub.cached(model.repository, (CONFIG, WEIGHTS)) is not None,
        }
        for model in PUBLISHED.values()
    ]
    size = (published.DEMO_FOLDER / WEIGHTS).stat().st_size
    demo = {"name": DEMO, "repository": None, "parameters": size // 2, "bytes": size, "top1": None}
    return [*rows, {**demo, "licence": "Apache-2.0", "on_this_machine": True}]


def info(engine: str, device: str, precision: str) -> dict[str, Any]:
    """Versions, placement, cache. Raises DeviceError if the device or precision can't be had."""
    placement = choose(engine, device, precision, this_machine("torch", device))
    cached = []
    for model in PUBLISHED.values():
        if files := hub.cached(model.repository, (CONFIG, WEIGHTS)):
            size = sum(file.stat().st_size for file in files)
            cached.append({"name": model.name, "repository": model.repository, "bytes": size})
    return {
        "versions": {"hiera": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in ("torch", "openvino", "pillow", "numpy", "safetensors", "huggingface_hub")},
        "device": placement.device,
        "device_why": placement.device_why,
        "engine": placement.engine,
        "engine_why": placement.engine_why,
        "precision": placement.precision,
        "precision_why": placement.precision_why,
        "processors": cpu_count(),
        "cache": str(hub.cache_folder()),
        "cached": cached,
        "compiled_folder": str(compiled.folder()),
        "compiled": [{"name": each.name, "bytes": each.bytes} for each in compiled.saved()],
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
