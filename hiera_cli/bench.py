"""How fast this machine labels images: the model alone and end to end, by engine, precision and batch size."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from hiera_cli import checkpoints, hub
from hiera_cli.architecture import PUBLISHED, Architecture
from hiera_cli.checkpoints import CONFIG, WEIGHTS, Checkpoint, expected_shapes
from hiera_cli.classifier import Classifier, Options, Stream
from hiera_cli.engine import Engine, open_engine, this_machine
from hiera_cli.placement import Machine, choose
from hiera_cli.sources import Source
from hiera_cli.threads import apart

PHOTO = (500, 375)  # pixels, an ImageNet photo's usual size


@dataclass(frozen=True)
class Rate:
    """One line of the table. model_only, end_to_end: images a second, end to end from JPEG files to records."""

    engine: str
    device: str
    precision: str
    batch_size: int
    model_only: float
    end_to_end: float | None


def bench(model: str, device: str, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every engine and precision that this machine has.

    model: a published name or anything that `resolve` knows; a published one that is not on this machine is measured
    with random weights, which are as fast. seconds: about how long to measure each line.
    """
    with tempfile.TemporaryDirectory(prefix="hiera-bench-", ignore_cleanup_errors=True) as folder:
        return apart(lambda: _measure(model, device, seconds, say, Path(folder)))


def _measure(model: str, device: str, seconds: float, say: Callable[[str], None], folder: Path) -> dict[str, Any]:
    with _checkpoint(model, folder, say) as checkpoint:
        paths = list(_photos(folder, 48))
        rates = []
        for engine, precision in _combinations(device, this_machine("torch", device)):
            placement = choose(engine, device, precision, this_machine("torch", device))
            opened = open_engine(checkpoint, placement, keep=checkpoint.weights.parent != folder)
            usual = opened.batch_size
            for batch_size in sorted({1, usual}):
                say(f"{engine}, {placement.device}, {precision}, batches of {batch_size}")
                end_to_end = _end_to_end(checkpoint, opened, paths, seconds) if batch_size == usual else None
                rate = _model_only(opened, batch_size, seconds)
                rates.append(Rate(engine, placement.device, precision, batch_size, rate, end_to_end))
    best = max(rates, key=lambda rate: rate.end_to_end or 0)
    return {
        "model": checkpoint.name,
        "rates": [asdict(rate) for rate in rates],
        "recommended": {"engine": best.engine, "device": best.device, "precision": best.precision},
    }


def _combinations(device: str, machine: Machine) -> Iterator[tuple[str, str]]:
    on_cpu = choose("torch", device, "fp32", machine).device == "cpu"
    for engine in ("torch", "openvino") if on_cpu and machine.openvino else ("torch",):
        for precision in ("fp32", "bf16") if on_cpu else ("fp32", "bf16", "fp16"):
            if precision != "bf16" or machine.cpu_bf16 or machine.accelerators.cuda_bf16:
                yield engine, precision


@contextmanager
def _checkpoint(model: str, folder: Path, say: Callable[[str], None]) -> Iterator[Checkpoint]:
    published = PUBLISHED.get(model)
    if published is None or hub.cached(published.repository, (CONFIG, WEIGHTS)):
        yield checkpoints.resolve(model)
        return
    say(f"the weights of {model} are not on this machine: random ones are as fast")
    file = folder / WEIGHTS
    save_file(_random_weights(published.architecture), file)
    yield replace(checkpoints.resolve(str(file)), name=f"{model} (random weights)")


def _random_weights(architecture: Architecture) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        for name, shape in expected_shapes(architecture).items()
    }


def _photos(folder: Path, count: int) -> Iterator[str]:
    """JPEGs that take a decoder as long as photos do: smooth, with some detail."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(PHOTO)
        grain = generator.normal(0, 6, (PHOTO[1], PHOTO[0], 3))
        pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        yield str(path)


def _model_only(engine: Engine, batch_size: int, seconds: float) -> float:
    pixels = np.random.default_rng(0).standard_normal((batch_size, 3, 224, 224), dtype=np.float32)
    engine.logits(pixels)

    def run() -> int:
        engine.logits(pixels)
        return batch_size

    return _median_rate(run, seconds)


def _end_to_end(checkpoint: Checkpoint, engine: Engine, paths: list[str], seconds: float) -> float:
    classifier = Classifier(checkpoint, engine)

    def run() -> int:
        return sum(1 for _ in Stream(map(Source, paths), lambda: classifier, Options()))

    return _median_rate(run, seconds)


def _median_rate(run: Callable[[], int], seconds: float) -> float:
    """Images a second: the median of as many runs as begin within the time, of one at least."""
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while not rates or time.perf_counter() < end:
        start = time.perf_counter()
        images = run()
        rates.append(images / (time.perf_counter() - start))
    return statistics.median(rates)
