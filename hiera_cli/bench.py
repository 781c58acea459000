"""How fast this machine labels images: the model alone and end to end, by engine, precision and batch size."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from hiera_cli.checkpoints import hub, resolve
from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.checkpoints.layouts import expected_shapes
from hiera_cli.checkpoints.published import CONFIG, PUBLISHED, WEIGHTS
from hiera_cli.classifier import Classifier
from hiera_cli.engines.engine import Engine
from hiera_cli.engines.machine import this_machine
from hiera_cli.engines.open import open_engine
from hiera_cli.engines.placement import Machine, choose
from hiera_cli.inputs.source import Source
from hiera_cli.model.architecture import Architecture
from hiera_cli.pipeline.stream import Stream
from hiera_cli.system.threads import apart
from hiera_cli.tasks.classify import Classify

PHOTO = (500, 375)  # pixels, an ImageNet photo's usual size
PHOTOS = 32
ROUNDS = 5
TOO_WIDE = 0.2  # a spread, from which on the figures say more of the machine's other work than of this program

Run: TypeAlias = "Callable[[], int]"  # returns how many images it did


@dataclass(frozen=True)
class Speed:
    """Images a second, of as many measurements as there were rounds: the median, the lowest and the highest."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half of what lies between the lowest and the highest, as a share of the median."""
        return (self.high - self.low) / 2 / self.median


@dataclass(frozen=True)
class Rate:
    """One line of the table. end_to_end: from JPEG files to records, with the batch size that a run would take."""

    engine: str
    device: str
    precision: str
    batch_size: int
    model_only: Speed
    end_to_end: Speed | None


@dataclass(frozen=True)
class Choice:
    """What a run may be told to use."""

    engine: str
    device: str
    precision: str


@dataclass(frozen=True)
class Measured:
    """The speed of this machine.

    too_busy: it did too much else to tell which is the fastest. fastest: end to end, best first; several where the
    figures overlap. recommended: the fastest, where it is one and that is certain.
    """

    model: str
    rounds: int
    rates: tuple[Rate, ...]
    too_busy: bool
    fastest: tuple[Choice, ...]
    recommended: Choice | None


def bench(model: str, device: str, seconds: float, say: Callable[[str], None]) -> Measured:
    """Measure every engine and precision that this machine has.

    All lines are measured in turn, in several rounds, each round in another order: what else the machine does meanwhile
    meets all of them. model: a published name or anything that `resolve` knows; a published one that is not on this
    machine is measured with random weights, which are as fast. seconds: about how long to measure each line.
    """
    with tempfile.TemporaryDirectory(prefix="hiera-bench-", ignore_cleanup_errors=True) as folder:
        return apart(lambda: _measure(model, device, seconds, say, Path(folder)))


def _measure(model: str, device: str, seconds: float, say: Callable[[str], None], folder: Path) -> Measured:
    with _checkpoint(model, folder, say) as checkpoint:
        paths = list(_photos(folder, PHOTOS))
        alone: dict[tuple[str, str, str, int], Run] = {}
        whole: dict[tuple[str, str, str, int], Run] = {}
        for engine, precision in _combinations(device, this_machine("torch", device)):
            placement = choose(engine, device, precision, this_machine("torch", device))
            say(f"loading: {engine}, {placement.device}, {precision}")
            opened = open_engine(checkpoint, placement, save=checkpoint.weights.parent != folder)
            usual = opened.batch_size
            for batch_size in sorted({1, usual}):
                alone[engine, placement.device, precision, batch_size] = _model_only(opened, batch_size)
            whole[engine, placement.device, precision, usual] = _end_to_end(checkpoint, opened, paths)
        speeds = _in_rounds([*alone.values(), *whole.values()], seconds, say)
    end_to_end = dict(zip(whole, speeds[len(alone) :], strict=True))
    rates = tuple(Rate(*line, speeds[index], end_to_end.get(line)) for index, line in enumerate(alone))
    alike, busy = _fastest(rates)
    fastest = tuple(Choice(each.engine, each.device, each.precision) for each in alike)
    recommended = fastest[0] if len(fastest) == 1 and not busy else None
    return Measured(checkpoint.name, ROUNDS, rates, busy, fastest, recommended)


def _in_rounds(runs: Sequence[Run], seconds: float, say: Callable[[str], None]) -> list[Speed]:
    """The speed of each, measured in rounds."""
    order, shuffled = list(range(len(runs))), random.Random(0)
    for run in runs:
        run()  # the first time is slower
    measured: list[list[float]] = [[] for _ in runs]
    for number in range(ROUNDS):
        say(f"round {number + 1} of {ROUNDS}")
        shuffled.shuffle(order)
        for index in order:
            start, images = time.perf_counter(), 0
            while not images or time.perf_counter() - start < seconds / ROUNDS:
                images += runs[index]()
            measured[index].append(images / (time.perf_counter() - start))
    return [Speed(statistics.median(each), min(each), max(each)) for each in measured]


def _fastest(rates: Sequence[Rate]) -> tuple[list[Rate], bool]:
    """The lines that are the fastest end to end, best first, and whether the machine was too busy to tell.

    They are several where what they were measured at overlaps: which of these is faster, nobody can tell.
    """
    ends = sorted(
        ((rate, rate.end_to_end) for rate in rates if rate.end_to_end is not None), key=lambda each: -each[1].median
    )
    best = ends[0][1]
    alike = [rate for rate, speed in ends if speed.high >= best.low]
    return alike, any(speed.spread > TOO_WIDE for rate, speed in ends if rate in alike)


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
        yield resolve.resolve(model, labels=True)
        return
    say(f"the weights of {model} are not on this machine: random ones are as fast")
    file = folder / WEIGHTS
    save_file(_random_weights(published.architecture), file)
    yield replace(resolve.resolve(str(file)), name=f"{model} (random weights)")


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


def _model_only(engine: Engine, batch_size: int) -> Run:
    pixels = np.random.default_rng(0).standard_normal((batch_size, 3, 224, 224), dtype=np.float32)

    def run() -> int:
        engine.run(pixels)
        return batch_size

    return run


def _end_to_end(checkpoint: Checkpoint, engine: Engine, paths: list[str]) -> Run:
    classifier = Classifier(checkpoint, engine)

    def run() -> int:
        return sum(1 for _ in Stream(map(Source, paths), lambda: classifier, Classify()))

    return run
