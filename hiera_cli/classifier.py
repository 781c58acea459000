"""The pipeline: decode ahead in threads, batch, run the model, yield one Result per input, in input order.

    sources ─▶ [URLs: fetch] ─▶ decode threads ─▶ ready ─▶ batches ─▶ engine ─▶ Results

What is ready is run, whatever its place: an input that is slow or stuck holds up the *output* of those after it, never
their work. A device that works by itself gets its next batch while it does. Memory is bounded by the look-ahead: so
many inputs being decoded or decoded, so many URLs under way, and so many Results waiting for an earlier input. A failed
input travels the same way, as an error in its own entry.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiera_cli import checkpoints, images, signatures, sources
from hiera_cli.engine import Answer, Engine, cpu_count, open_engine, this_machine
from hiera_cli.errors import (
    DecodeError,
    FetchError,
    HieraError,
    InferenceError,
    InputError,
    ReadError,
    TooLargeError,
    UsageError,
)
from hiera_cli.images import Decoding, Pixels
from hiera_cli.labels import Label
from hiera_cli.limits import MAX_PIXELS, Limits
from hiera_cli.placement import choose
from hiera_cli.predictions import Failure, Result, Settings, Stamp, predict, stamp_of
from hiera_cli.remarks import collected
from hiera_cli.sources import Kind, Source

if TYPE_CHECKING:
    from hiera_cli.fetch import Fetcher
    from hiera_cli.hub import Progress

# Inputs between the oldest unfinished one and the newest that was begun: so many that one URL which is stuck for its
# whole time does not idle the machine. Most are Results that wait, of about a kilobyte each with five predictions.
WINDOW = 1 << 16
MIN_WINDOW = 1 << 10
MAX_WAITING = 1 << 19  # predictions in all of them: with many for each input, the window is smaller
DEFAULT_BATCH = 8  # until the engine is there to say its own
MAX_WORKERS = 32


Input: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"


class Classifier:
    """A model on a device.

    checkpoint: what was loaded. engine: what runs it. labels: of its classes, by index.
    """

    def __init__(self, checkpoint: checkpoints.Checkpoint, engine: Engine) -> None:
        self.checkpoint = checkpoint
        self.engine = engine

    @property
    def labels(self) -> tuple[Label, ...]:
        """The model's classes."""
        return self.checkpoint.labels

    def classify(
        self,
        inputs: Input | Iterable[Input],
        *,
        top_k: int = 5,
        min_score: float = 0.0,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
        full_decode: bool = False,
    ) -> Iterator[Result]:
        """Label files, folders, http(s) URLs and images in memory: one of them, or any number.

        Yields one Result for each image, in order, as they are known. In memory: a PIL.Image of any mode, or an array,
        uint8 of (height, width, 3) in RGB, (height, width, 4) with alpha or (height, width) in grey.

        max_pixels: larger images are refused. full_decode: large JPEGs are decoded in full, as the reference does.
        An input that can't be labelled yields a Result with an error; nothing is raised for it. Raises TypeError for
        what is none of these, UsageError for options that make no sense.
        """
        decoding = Decoding(max_pixels=max_pixels, full=full_decode)
        arguments = (_argument(item, decoding) for item in _each(inputs))
        found = sources.expand(arguments, sources.Walk(images.suffixes), warn=lambda message: None)
        options = Options(top_k, min_score, workers, decoding=decoding, model=self.checkpoint.name)
        return iter(Stream(found, lambda: self, options))


def _each(inputs: Input | Iterable[Input]) -> Iterable[Input]:
    """The inputs one by one. A str is one, and not its letters; so is an image, and not the rows of its array."""
    if isinstance(inputs, (str, os.PathLike, Image.Image)):
        return (inputs,)
    if isinstance(inputs, np.ndarray) and inputs.ndim in (2, 3):
        return (inputs,)
    if isinstance(inputs, bytes) or not isinstance(inputs, Iterable):
        raise _not_an_input(inputs)
    return inputs


def _argument(item: object, decoding: Decoding) -> str | Source:
    """One input from Python, as `sources.expand` takes it."""
    if isinstance(item, np.ndarray):
        item = images.from_array(item)
    if isinstance(item, Image.Image):
        name = getattr(item, "filename", "")
        path = name if isinstance(name, str) else ""
        try:
            images.read(item, decoding)  # here: one image may be given twice, and two threads can't read it at once
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
    model: str = "tiny",
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Classifier:
    """Load a model, downloading its weights if they are not on this machine.

    model: tiny … huge, demo, a Hub repository, a folder or a file. engine, device, precision: as `hiera classify` has.
    Raises CheckpointError, DeviceError, or UsageError for a batch size that is none.
    """
    _check_count("batch_size", batch_size)
    checkpoint = checkpoints.resolve(model, offline=offline, progress=progress)
    placement = choose(engine, device, precision, this_machine(engine, device))
    return Classifier(checkpoint, open_engine(checkpoint, placement, batch_size))


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise UsageError(f"{name} is a whole number, 1 or more, not {value!r}")


@dataclass(frozen=True)
class Options:
    """How a stream of inputs is labelled.

    workers: decode threads; None chooses by the machine's cores. decoding: how images are decoded, and how large they
    may be; its room is shared by the threads. offline: URLs are not fetched. model: its name in the records.
    """

    top_k: int = 5
    min_score: float = 0.0
    workers: int | None = None
    limits: Limits = Limits()
    decoding: Decoding = field(default_factory=Decoding)
    offline: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        for name, value in (("top_k", self.top_k), ("workers", self.workers)):
            _check_count(name, value)
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score is from 0 to 1, not {self.min_score!r}")

    @property
    def settings(self) -> Settings:
        """What the records depend on, of these."""
        return Settings(self.model, self.top_k, self.min_score, self.decoding.full)


class _Entry:
    """An input on its way. `result` is None until it is known."""

    __slots__ = ("data", "fetched", "pixels", "remarks", "result", "settings", "source", "stamp")

    def __init__(self, source: Source, settings: Settings, *, fetched: bool) -> None:
        self.source = source
        self.settings = settings
        self.fetched = fetched
        self.data: bytes | None = None
        self.pixels: Pixels | None = None
        self.stamp: Stamp | None = None
        self.remarks: list[str] = []
        self.result: Result | None = None

    def fail(self, error: InputError) -> None:
        self.data = self.pixels = None
        failure = Failure(type(error).__name__, error.message)
        self.result = Result(
            self.source.path,
            self.settings.model,
            error=failure,
            stamp=self.stamp,
            remarks=tuple(self.remarks),
            settings=self.settings,
        )


class Stream:
    """One pass over inputs. Iterate over it once for the Results.

    load: makes the classifier, when the first image is ready for it and not before: if no input can be read, no model
    is loaded. What it raises, or what finding the inputs raises, ends the iteration once the Results before it are out.
    """

    def __init__(self, inputs: Iterable[Source], load: Callable[[], Classifier], options: Options) -> None:
        self.loading = False
        self._inputs = inputs
        self._load = load
        self._options = options
        self._settings = options.settings
        self._workers = options.workers or min(cpu_count(), MAX_WORKERS)
        self._classifier: Classifier | None = None
        self._fetcher: Fetcher | None = None
        self._stopped = False
        self._entries: deque[_Entry] = deque()  # begun and not yielded yet, in input order
        self._tasks: SimpleQueue[_Entry | None] = SimpleQueue()  # to decode
        self._ready: SimpleQueue[_Entry | _WalkEnd | _Crash | None] = SimpleQueue()  # decoded or failed, in any order
        self._window = threading.Semaphore(_window(options.top_k))  # one for each entry in `_entries`
        self._ahead = threading.Semaphore(DEFAULT_BATCH + self._workers)  # one for each not yet through `_ready`
        # The same for URLs, of which the walk waits for none: stuck ones hold up no files.
        self._fetching = threading.Lock()  # for the next two
        self._to_fetch: deque[_Entry] = deque()
        self._under_way = 0
        self._batch_size = DEFAULT_BATCH
        self._in_flight = 1
        self._running: deque[Callable[[], None]] = deque()  # submitted batches, oldest first; a call waits and settles

    def stop(self) -> None:
        """End the iteration soon, from a signal handler or another thread.

        Results that are known or being computed are yielded, also where inputs before them have none; the rest is
        dropped whole.
        """
        self._stopped = True
        self._ready.put(None)

    def __iter__(self) -> Iterator[Result]:
        error: BaseException | None = None
        try:
            try:
                _start(self._walk, "walk")
                yield from self._labelled()
            except Exception as raised:
                error = raised
            except KeyboardInterrupt:
                if not self._stopped:
                    raise
            self._stopped = True
            yield from self._known()
            if error is not None:
                raise error
        finally:
            self._close()

    def _labelled(self) -> Iterator[Result]:
        finished = 0
        end: _WalkEnd | None = None
        while not self._stopped and (end is None or finished < end.begun):
            batch: list[_Entry] = []
            for item in self._ready_items():
                if isinstance(item, _WalkEnd):
                    end = item
                    continue
                finished += 1
                if item.fetched:
                    self._fetch_more(ended=1)
                else:
                    self._ahead.release()
                if item.result is None:
                    batch.append(item)
            if batch and not self._stopped:
                self._submit(batch)
            yield from self._settled()
            yield from self._finished()
        yield from self._settled(everything=True)
        if end is not None and end.error is not None:
            raise end.error

    def _known(self) -> Iterator[Result]:
        """The end of an iteration that ends early: what is known, in input order, across the gaps."""
        while self._running:
            with suppress(Exception):  # an engine that failed may fail again: the first error is the one that is raised
                self._running.popleft()()
        while self._entries:
            if (result := self._entries.popleft().result) is not None:
                yield result

    def _settled(self, *, everything: bool = False) -> Iterator[Result]:
        """Wait for the oldest batches, as long as the device has no place or no use for another one beside them."""
        while self._running and (
            everything
            or len(self._running) == self._in_flight
            or self._ready.qsize() < self._batch_size  # of less, a better batch is made when the device is free
        ):
            self._running.popleft()()
            yield from self._finished()

    def _finished(self) -> Iterator[Result]:
        while self._entries and (result := self._entries[0].result) is not None:
            self._entries.popleft()
            self._window.release()
            yield result

    def _ready_items(self) -> Iterator[_Entry | _WalkEnd]:
        """Wait for something to be ready; yield it, and what else is by then, up to a batch."""
        item = self._ready.get()
        count = 0
        while item is not None:
            if isinstance(item, _Crash):
                raise item.error
            yield item
            count += 1
            if count == self._batch_size:
                return
            try:
                item = self._ready.get_nowait()
            except Empty:
                return

    def _walk(self) -> None:
        """On a thread of its own: find the inputs and begin each, as far ahead as the bounds allow."""
        begun = 0
        error: BaseException | None = None
        try:
            for source in self._inputs:
                fetched = source.kind is Kind.URL and source.error is None and not self._options.offline
                self._window.acquire()
                if not fetched:
                    self._ahead.acquire()
                if self._stopped:
                    return
                if begun < self._workers:
                    try:
                        _start(self._decode, "decode")
                    except HieraError:
                        if not begun:  # else those that there are do
                            raise
                self._begin(_Entry(source, self._settings, fetched=fetched))
                begun += 1
        except BaseException as raised:  # handed to the consumer, whose iteration it ends
            error = raised
        finally:
            self._ready.put(_WalkEnd(begun, error))

    def _begin(self, entry: _Entry) -> None:
        source = entry.source
        self._entries.append(entry)
        if source.error is not None:
            entry.fail(source.error)
            self._ready.put(entry)
        elif entry.fetched:
            self._to_fetch.append(entry)
            self._fetch_more()
        elif source.kind is Kind.URL:
            entry.fail(FetchError("--offline forbids fetching it"))
            self._ready.put(entry)
        else:
            self._tasks.put(entry)

    def _fetch_more(self, *, ended: int = 0) -> None:
        """Begin to fetch what waits for it, so far as the bound allows. ended: URLs that came through `_ready`."""
        with self._fetching:
            self._under_way -= ended
            while self._to_fetch and self._under_way < self._options.limits.at_once and not self._stopped:
                self._under_way += 1
                self._fetch(self._to_fetch.popleft())

    def _fetch(self, entry: _Entry) -> None:
        from hiera_cli.fetch import Fetcher  # the HTTP client takes 0.1 s to import

        try:
            self._fetcher = self._fetcher or Fetcher(self._options.limits)
        except Exception as error:  # its settings come from the environment: proxies, certificates
            entry.fail(FetchError(f"the web client can't be set up: {error}"))
            self._ready.put(entry)
            return

        def done(body: bytes | InputError) -> None:
            if isinstance(body, InputError):
                entry.fail(body)
                self._ready.put(entry)
            else:
                entry.data = body
                self._tasks.put(entry)

        self._fetcher.submit(entry.source.path, done)

    def _decode(self) -> None:
        while (entry := self._tasks.get()) is not None:
            try:
                if entry.source.kind is Kind.FILE:
                    entry.stamp = stamp_of(entry.source.path)
                with collected() as entry.remarks:
                    entry.pixels = _pixels(entry.source, entry.data, self._options)
                entry.data = None
                if entry.source.image is not None:  # no longer needed here, while the Result may wait for long
                    entry.source = replace(entry.source, image=None)
            except InputError as error:
                entry.fail(error)
            except MemoryError:
                entry.fail(TooLargeError("there is not enough memory to read it"))
            except BaseException as error:  # a fault of ours: it ends the run, and is not to hang it
                self._ready.put(_Crash(error))
                return
            self._ready.put(entry)

    def _submit(self, batch: list[_Entry]) -> None:
        if self._classifier is None:
            self.loading = True
            try:
                self._classifier = self._load()
            finally:
                self.loading = False
            self._in_flight = self._classifier.engine.in_flight
            # The next batches are decoded while these run.
            self._ahead.release(self._in_flight * self._classifier.engine.batch_size)
        engine = self._classifier.engine
        answer = engine.submit([entry.pixels for entry in batch if entry.pixels is not None])
        self._batch_size = engine.batch_size  # after, as it shrinks when a GPU's memory runs out
        for entry in batch:
            entry.pixels = None
        self._running.append(partial(self._settle, self._classifier, batch, answer))

    def _settle(self, classifier: Classifier, batch: list[_Entry], answer: Answer) -> None:
        for entry, row in zip(batch, answer(), strict=True):
            if np.isfinite(row).all():
                predictions = predict(row, classifier.labels, self._options.top_k, self._options.min_score)
                entry.result = Result(
                    entry.source.path,
                    classifier.checkpoint.name,
                    predictions,
                    precision=classifier.engine.precision,
                    stamp=entry.stamp,
                    remarks=tuple(entry.remarks),
                    settings=entry.settings,
                )
            else:
                entry.fail(InferenceError("the model's answer is no number; --precision fp32 has a wider range"))

    def _close(self) -> None:
        self._stopped = True
        self._window.release()
        self._ahead.release()
        for _ in range(self._workers):
            self._tasks.put(None)
        with self._fetching:  # after which none is made any more
            if self._fetcher is not None:
                self._fetcher.close()


@dataclass(frozen=True)
class _WalkEnd:
    """No more inputs. begun: how many there were. error: what ended the walk early."""

    begun: int
    error: BaseException | None


@dataclass(frozen=True)
class _Crash:
    """What a thread raised that it should not have."""

    error: BaseException


def _window(top_k: int) -> int:
    return min(WINDOW, max(MIN_WINDOW, MAX_WAITING // max(1, top_k)))


def _start(target: Callable[[], None], name: str) -> None:
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        message = f"cannot start a thread: {str(error) or 'out of memory'}"
        raise HieraError(message, "The system allows no more of them now: `ulimit -u` shows its limit.") from error


def _pixels(source: Source, body: bytes | None, options: Options) -> Pixels:
    if source.image is not None:
        return images.prepare(source.image, options.decoding)
    if source.kind in (Kind.STDIN, Kind.DESCRIPTOR) and (number := sources.descriptor(source.path)) is not None:
        body = _read_descriptor(number, options.limits.bytes)
    try:
        if body is None:
            return images.load(source.path, options.decoding)
        return images.decode_bytes(body, options.decoding)
    except DecodeError as error:
        raise _mistaken(source, body) or error from error


def _mistaken(source: Source, body: bytes | None) -> DecodeError | None:
    """What an input that can't be decoded was given for by mistake, and what to do instead."""
    if source.kind is Kind.URL:
        return None
    if os.path.splitext(source.path)[1].lower() in signatures.RAW_SUFFIXES:
        return DecodeError(signatures.RAW)
    start = sources.first_bytes(source.path, 1 << 12) if body is None else body[: 1 << 12]
    if option := sources.list_option(start):
        name = shlex.quote(source.path)
        return DecodeError(f"it seems to be a list of paths, not an image: {option} {name} reads it")
    return None


def _read_descriptor(number: int, limit: int) -> bytes:
    name = "it" if number else "stdin"
    body = bytearray()
    try:
        with sources.open_descriptor(number) as stream:
            while chunk := sources.read_raw(stream):
                body += chunk
                if len(body) > limit:
                    raise TooLargeError(f"{name} is over {limit >> 20} MiB (--max-mib raises it)")
    except OSError as error:
        raise ReadError(f"cannot read {name}: {error.strerror}") from error
    return bytes(body)
