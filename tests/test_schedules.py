"""The pipeline under random schedules: whatever is slow or fails, one record each, in order, in bounded memory."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_classifier import Brightness, grey, outcome, stand_in

from hiera_cli.engines.engine import Answer
from hiera_cli.errors import ReadError
from hiera_cli.images import decode
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import DEFAULT_BATCH, Stream
from hiera_cli.tasks.classify import Classify

PAUSES = (0, 0, 0, 0.0005, 0.004)  # seconds


class Schedule:
    """What happens in one run, by its seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.choice = Random(seed)
        self.workers = self.choice.randint(1, 6)
        self.batch_size = self.choice.randint(1, 12)
        self.in_flight = self.choice.randint(1, 4)
        self.inputs: list[Source] = []
        self.expected: list[str] = []
        self.vanishing: set[str] = set()
        self.slow: dict[str, float] = {}
        self.alive = self.most_alive = 0
        self._counting = threading.Lock()
        for number in range(self.choice.randint(0, 90)):
            self._add(number, folder)

    def _add(self, number: int, folder: Path) -> None:
        step = self.choice.randrange(10)
        kind = self.choice.choice(["good"] * 6 + ["vanishing", "missing", "unreadable", "known to fail", "in memory"])
        path = str(folder / f"{number}.png")
        outcome = f"step {step}"
        source = Source(path)
        if kind == "in memory":
            source = Source(path, Kind.MEMORY, image=Image.new("L", (8, 8), step * 25))
        elif kind == "known to fail":
            source, outcome = Source(path, error=ReadError("it was read already")), "ReadError"
        elif kind == "missing":
            outcome = "NotFoundError"
        elif kind == "unreadable":
            Path(path).write_text("no picture")
            outcome = "DecodeError"
        else:
            grey(folder, f"{number}.png", step)
            if kind == "vanishing":
                self.vanishing.add(path)
                outcome = "NotFoundError"
        self.slow[path] = self.choice.choice(PAUSES)
        self.inputs.append(source)
        self.expected.append(outcome)

    def sources(self) -> Iterator[Source]:
        """The inputs, as slowly as a list that is being written."""
        pauses = Random(self.batch_size)
        for source in self.inputs:
            time.sleep(pauses.choice(PAUSES))
            yield source

    def load(self, path: str, *settings: Any) -> np.ndarray[Any, Any]:
        """In the place of images.decode.load."""
        time.sleep(self.slow[path])
        if path in self.vanishing:
            os.unlink(path)
        pixels = load(path, *settings)
        with self._counting:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(pixels, self._gone)
        return pixels

    def _gone(self) -> None:
        with self._counting:
            self.alive -= 1


class Device(Brightness):
    """Takes its time for each batch, and loses memory in between."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule.batch_size)
        self.in_flight = schedule.in_flight
        self._choice = Random(schedule.workers)

    def submit(self, pixels: Sequence[np.ndarray[Any, Any]]) -> Answer:
        answer, pause = super().submit(pixels), self._choice.choice(PAUSES)
        if self._choice.random() < 0.05:
            self.batch_size = max(1, self.batch_size // 2)

        def wait() -> np.ndarray[Any, Any]:
            time.sleep(pause)
            return answer()

        return wait


load = decode.load


@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 80))])
def test_each_input_gives_one_record_in_order_under_any_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    schedule = Schedule(seed, tmp_path)
    monkeypatch.setattr(decode, "load", schedule.load)
    stream = Stream(
        schedule.sources(), lambda: stand_in(Device(schedule)), Classify(1), Options(workers=schedule.workers)
    )
    results = list(stream)
    assert [result.path for result in results] == [source.path for source in schedule.inputs]
    assert [outcome(result) for result in results] == schedule.expected
    ahead = DEFAULT_BATCH + schedule.workers + schedule.in_flight * schedule.batch_size
    assert schedule.most_alive <= ahead + (schedule.in_flight + 1) * schedule.batch_size


def test_no_more_pixels_are_held_than_the_look_ahead_however_slow_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(0, tmp_path)
    schedule.workers, schedule.batch_size, schedule.in_flight = 4, 2, 2
    path = grey(tmp_path, "a.png", 3)
    schedule.slow[path] = 0
    monkeypatch.setattr(decode, "load", schedule.load)

    class Slow(Device):
        def logits(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            time.sleep(0.002)  # in which several inputs are decoded
            return super().logits(pixels)

    sources = (Source(path) for _ in range(600))
    stream = Stream(sources, lambda: stand_in(Slow(schedule)), Classify(1), Options(workers=4))
    assert sum(1 for _ in stream) == 600
    assert schedule.most_alive <= DEFAULT_BATCH + 4 + 2 * 2 + 3 * 2
