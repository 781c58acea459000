"""The Python face: load a model, give it inputs, get Results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiera_cli import wordnet
from hiera_cli.checkpoints import checkpoint, resolve
from hiera_cli.checkpoints.labels import Label
from hiera_cli.engines.engine import Engine
from hiera_cli.engines.machine import this_machine
from hiera_cli.engines.open import open_engine
from hiera_cli.engines.placement import choose
from hiera_cli.errors import (
    InputError,
)
from hiera_cli.images import decode, recipe
from hiera_cli.images.decode import Decoding
from hiera_cli.inputs import find
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.limits import MAX_PIXELS
from hiera_cli.pipeline.options import Options, check_count
from hiera_cli.pipeline.stream import Stream
from hiera_cli.result import Result
from hiera_cli.tasks.classify import Classified, Classify
from hiera_cli.tasks.embed import Embed, Embedded
from hiera_cli.tasks.explain import Explain, Explained
from hiera_cli.tasks.task import Task

if TYPE_CHECKING:
    from hiera_cli.checkpoints.hub import Progress


R = TypeVar("R", bound=Result)
Input: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"


class Classifier:
    """A model on a device.

    checkpoint: what was loaded. engine: what runs it. labels: of its classes, by index. offline: no URL is fetched.
    """

    def __init__(self, checkpoint: checkpoint.Checkpoint, engine: Engine, *, offline: bool = False) -> None:
        self.checkpoint = checkpoint
        self.engine = engine
        self.offline = offline

    @property
    def name(self) -> str:
        """As records have it: the Hub repository, "demo", or the path that was given."""
        return self.checkpoint.name

    @property
    def labels(self) -> tuple[Label, ...]:
        """The model's classes."""
        return self.checkpoint.labels

    def classify(
        self,
        inputs: Input | Iterable[Input],
        *,
        top_k: int | None = None,
        min_score: float = 0.0,
        rollup: float | None = None,
        among: str | Iterable[str] = (),
        explain: bool = False,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
        full_decode: bool = False,
    ) -> Iterator[Classified]:
        """Label files, folders, http(s) URLs and images in memory: one of them, or any number.

        Yields one Result for each image, in order, as they are known. In memory: a PIL.Image of any mode, or an array,
        uint8 of (height, width, 3) in RGB, (height, width, 4) with alpha or (height, width) in grey.

        top_k: None for 5, with rollup 1. rollup: the most specific labels, class or concept of WordNet's, that score at
        least this. among: words, phrases or WordNet ids: only classes under these concepts, scores made to sum to 1.
        explain: each Result has `explanations` too, one for each label: what each of 7 × 7 places adds to its logit.
        max_pixels: larger images are refused. full_decode: large JPEGs are decoded in full, as the reference does.
        An input that can't be labelled yields a Result with an error; nothing is raised for it. Raises TypeError for
        what is none of these, UsageError for options that make no sense, CheckpointError for a backbone.
        """
        resolve.check_labels(self.checkpoint)
        concepts = wordnet.concepts((among,) if isinstance(among, str) else among)
        task = Classify(top_k, min_score, rollup, concepts, explain)
        task.check_classes(self.labels, self.name)
        return self._run(inputs, task, workers, max_pixels, full_decode)

    def explain(
        self,
        inputs: Input | Iterable[Input],
        *,
        top_k: int | None = None,
        labels: str | Iterable[str] = (),
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
        full_decode: bool = False,
    ) -> Iterator[Explained]:
        """Show where labels come from: the inputs and their options are those of `classify`.

        Yields one Result for each image, in order, with `explanations`: of the best top_k labels, then of those that
        are named, classes or concepts. top_k: None for 1, or for 0 where some are named. Raises UsageError, and
        CheckpointError for a backbone.
        """
        resolve.check_labels(self.checkpoint)
        task = Explain(top_k, (labels,) if isinstance(labels, str) else tuple(labels), pictures=False)
        task.check_labels(self.labels)
        return self._run(inputs, task, workers, max_pixels, full_decode)

    def embed(
        self,
        inputs: Input | Iterable[Input],
        *,
        tokens: bool = False,
        normalize: bool = False,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
        full_decode: bool = False,
    ) -> Iterator[Embedded]:
        """Give the features of images: the inputs and their options are those of `classify`.

        Yields one Result for each image, in order, with `features`, float32: (C,), the pooled ones that the classifier
        reads. tokens: the last tokens instead, (7, 7, C), rows and columns. normalize: each vector to unit length.
        """
        return self._run(inputs, Embed(tokens, normalize), workers, max_pixels, full_decode)

    def _run(
        self,
        inputs: Input | Iterable[Input],
        task: Task[Classifier, R],
        workers: int | None,
        max_pixels: int,
        full_decode: bool,
    ) -> Iterator[R]:
        decoding = Decoding(max_pixels=max_pixels, full=full_decode)
        arguments = (_argument(item, decoding) for item in _each(inputs))
        found = find.expand(arguments, Walk(decode.suffixes, offline=self.offline), warn=lambda message: None)
        options = Options(workers, decoding=decoding, offline=self.offline, model=self.name)
        return iter(Stream(found, lambda: self, task, options))


def _each(inputs: Input | Iterable[Input]) -> Iterable[Input]:
    """The inputs one by one. A str is one, and not its letters; so is an image, and not the rows of its array."""
    if isinstance(inputs, (str, os.PathLike, Image.Image)):
        return (inputs,)
    if isinstance(inputs, np.ndarray) and inputs.ndim in (0, 2, 3):
        return (inputs,)
    if isinstance(inputs, (bytes, bytearray, memoryview)) or not isinstance(inputs, Iterable):
        raise _not_an_input(inputs)
    return inputs


def _argument(item: object, decoding: Decoding) -> str | Source:
    """One input from Python, as `find.expand` takes it."""
    if isinstance(item, np.ndarray):
        try:
            item = recipe.from_array(item, decoding.max_pixels)
        except InputError as error:
            return Source("", Kind.MEMORY, error)
    if isinstance(item, Image.Image):
        name = getattr(item, "filename", "")
        path = name if isinstance(name, str) else ""
        try:
            decode.read(item, decoding)  # here: one image may be given twice, and two threads can't read it at once
        except InputError as error:
            return Source(path, Kind.MEMORY, error)
        return Source(path, Kind.MEMORY, image=item)
    if isinstance(item, os.PathLike):
        item = os.fspath(item)
    if not isinstance(item, str):
        raise _not_an_input(item)
    return item


def _not_an_input(item: object) -> TypeError:
    hint = "; PIL.Image.open(io.BytesIO(...)) makes an image of them" if isinstance(item, bytes) else ""
    return TypeError(f"an input is a path or URL (str, Path), a PIL.Image or an array, not {type(item).__name__}{hint}")


def load_classifier(
    model: str | os.PathLike[str] = "tiny",
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    labels: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Classifier:
    """Load a model, downloading its weights if they are not on this machine.

    model: tiny … huge, demo, a Hub repository, a folder or a file. engine, device, precision: as `hiera classify` has.
    labels: refuse a backbone, which gives features alone. offline: no network, for weights or inputs.
    Raises CheckpointError, DeviceError, UsageError for a batch size that is not a count, TypeError for other models.
    """
    check_count("batch_size", batch_size)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"a model is a name, a folder or a file (str, Path), not {type(model).__name__}")
    model = os.fspath(model)
    checkpoint = resolve.resolve(model, labels=labels, offline=offline, progress=progress)
    placement = choose(engine, device, precision, this_machine(engine, device))
    return Classifier(checkpoint, open_engine(checkpoint, placement, batch_size), offline=offline)
