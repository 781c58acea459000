"""The pipeline: decode ahead in threads, batch, run the model, yield one Result per input, in input order.

    sources ─▶ [URLs: fetch] ─▶ decode threads ─▶ ready ─▶ batches ─▶ engine ─▶ Results

What is ready is run, whatever its place: an input that is slow or stuck holds up the *output* of those after it, never
their work. A device that works by itself gets its next batch while it does. Memory is bounded by the look-ahead: so
many inputs being decoded or decoded, so many URLs under way, and so many Results waiting for an earlier input. A failed
input travels the same way, as an error in its own entry.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from numpy.typing import NDArray

from hiera_cli.engines.machine import cpu_count
from hiera_cli.errors import (
    FetchError,
    HieraError,
    InputError,
)
from hiera_cli.images.thumbnail import BYTES as THUMBNAIL_BYTES
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.prepare import failure, prepare
from hiera_cli.result import Failure, Result, Stamp
from hiera_cli.tasks.task import Model, Task

if TYPE_CHECKING:
    from hiera_cli.inputs.cloud import Reader
    from hiera_cli.inputs.fetch import Fetcher


M = TypeVar("M", bound=Model)
R = TypeVar("R", bound=Result)

# Inputs between the oldest unfinished one and the newest that was begun: so many that one URL which is stuck for its
# whole time does not idle the machine. Most are Results that wait: where those are large, the window is smaller.
WINDOW = 1 << 16
MIN_WINDOW = 1 << 9
MAX_WAITING = 100 << 20  # bytes
MAX_HELD = 256 << 20  # bytes
DEFAULT_BATCH = 8  # until the engine is there to say its own
MAX_WORKERS = 32


class _Entry(Generic[R]):
    """An input on its way. place: in the order of all inputs, from 0. result: None until it is known."""

    __slots__ = ("data", "fetched", "pixels", "place", "remarks", "result", "source", "stamp", "thumbnail")

    def __init__(self, source: Source, place: int, *, fetched: bool) -> None:
        self.source = source
        self.place = place
        self.fetched = fetched
        self.data: bytes | None = None
        self.pixels: NDArray[Any] | None = None
        self.stamp: Stamp | None = None
        self.remarks: tuple[str, ...] = ()
        self.thumbnail: bytes | None = None
        self.result: R | None = None


class Stream(Generic[M, R]):
    """One pass over inputs. Iterate over it once for the Results.

    load: makes the model, when the first image is ready for it and not before: if no input can be read, none is loaded.
    What it raises, or what finding the inputs raises, ends the iteration once the Results before it are out.
    """

    def __init__(
        self, inputs: Iterable[Source], load: Callable[[], M], task: Task[M, R], options: Options | None = None
    ) -> None:
        self.loading = False
        self._inputs = inputs
        self._load = load
        self._task = task
        self._options = options or Options()
        self._settings = self._options.records(task).settings
        self._workers = self._options.workers or min(cpu_count(), MAX_WORKERS)
        self._model: M | None = None
        self._decoding = self._options.decoding
        self._fetcher: Fetcher | None = None
        self._reader: Reader | None = None
        self._stopped = False
        self._entries: deque[_Entry[R]] = deque()  # begun and not yielded yet, in input order
        self._tasks: SimpleQueue[_Entry[R] | None] = SimpleQueue()  # to decode
        self._ready: SimpleQueue[_Entry[R] | _WalkEnd | _Crash | None] = (
            SimpleQueue()
        )  # decoded or failed, in any order
        waiting = task.result_bytes + (THUMBNAIL_BYTES if self._options.thumbnails else 0)
        self._window = threading.Semaphore(window(waiting))  # one for each entry in `_entries`
        self._ahead = threading.Semaphore(DEFAULT_BATCH + self._workers)  # one for each not yet through `_ready`
        self._held = _Held()
        # The same for URLs, of which the walk waits for none: stuck ones hold up no files.
        self._fetching = threading.Lock()  # for the next two
        self._to_fetch: deque[_Entry[R]] = deque()
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

    def __iter__(self) -> Iterator[R]:
        error: BaseException | None = None
        try:
            try:
                _start(self._walk, "walk")
                yield from self._answered()
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

    def _answered(self) -> Iterator[R]:
        finished = 0
        end: _WalkEnd | None = None
        while not self._stopped and (end is None or finished < end.begun):
            batch: list[_Entry[R]] = []
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

    def _known(self) -> Iterator[R]:
        """The end of an iteration that ends early: what is known, in input order, across the gaps."""
        while self._running:
            with suppress(Exception):  # an engine that failed may fail again: the first error is the one that is raised
                self._running.popleft()()
        while self._entries:
            if (result := self._entries.popleft().result) is not None:
                yield result

    def _settled(self, *, everything: bool = False) -> Iterator[R]:
        """Wait for the oldest batches, as long as the device has no place or no use for another one beside them."""
        while self._running and (
            everything
            or len(self._running) == self._in_flight
            or self._ready.qsize() < self._batch_size  # of less, a better batch is made when the device is free
        ):
            self._running.popleft()()
            yield from self._finished()

    def _finished(self) -> Iterator[R]:
        while self._entries and (result := self._entries[0].result) is not None:
            self._entries.popleft()
            self._window.release()
            yield result

    def _ready_items(self) -> Iterator[_Entry[R] | _WalkEnd]:
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
                elsewhere = source.kind in (Kind.URL, Kind.CLOUD)
                fetched = elsewhere and source.error is None and not self._options.offline
                self._window.acquire()
                if not fetched:
                    self._ahead.acquire()
                self._held.take(len(source.data or b""))
                if self._stopped:
                    return
                if begun < self._workers:
                    try:
                        _start(self._decode, "decode")
                    except HieraError:
                        if not begun:  # else those that there are do
                            raise
                self._begin(_Entry(source, begun, fetched=fetched))
                begun += 1
        except BaseException as raised:  # handed to the consumer, whose iteration it ends
            error = raised
        finally:
            self._ready.put(_WalkEnd(begun, error))

    def _begin(self, entry: _Entry[R]) -> None:
        source = entry.source
        self._entries.append(entry)
        if source.error is not None:
            self._fail(entry, failure(source.error))
            self._ready.put(entry)
        elif entry.fetched:
            self._to_fetch.append(entry)
            self._fetch_more()
        else:
            self._tasks.put(entry)

    def _fetch_more(self, *, ended: int = 0) -> None:
        """Begin to fetch what waits for it, so far as the bound allows. ended: URLs that came through `_ready`."""
        with self._fetching:
            self._under_way -= ended
            while self._to_fetch and self._under_way < self._options.limits.at_once and not self._stopped:
                self._under_way += 1
                self._fetch(self._to_fetch.popleft())

    def _fetch(self, entry: _Entry[R]) -> None:
        reads = entry.source.kind is Kind.CLOUD
        try:
            if reads:
                from hiera_cli.inputs.cloud import Reader

                self._reader = self._reader or Reader(self._options.limits)
            else:
                from hiera_cli.inputs.fetch import Fetcher  # the HTTP client takes 0.1 s to import

                self._fetcher = self._fetcher or Fetcher(self._options.limits)
        except Exception as error:  # its settings come from the environment: proxies, certificates
            self._fail(entry, failure(FetchError(f"the web client can't be set up: {error}")))
            self._ready.put(entry)
            return

        def done(body: bytes | InputError) -> None:
            if isinstance(body, InputError):
                self._fail(entry, failure(body))
                self._ready.put(entry)
            else:
                entry.data = body
                self._tasks.put(entry)

        fetcher = self._reader if reads else self._fetcher
        assert fetcher is not None
        fetcher.submit(entry.source.path, done)

    def _decode(self) -> None:
        while (entry := self._tasks.get()) is not None:
            try:
                options = self._options
                prepared = prepare(
                    entry.source,
                    entry.data,
                    decoding=self._decoding,
                    limits=options.limits,
                    thumbnails=options.thumbnails,
                )
                entry.thumbnail = prepared.thumbnail
                entry.stamp, entry.remarks, entry.data = prepared.stamp, prepared.remarks, None
                source = entry.source
                if (
                    source.image is not None or source.data is not None
                ):  # no longer needed, and the Result may wait long
                    entry.source = replace(source, image=None, data=None)
                    self._held.give(len(source.data or b""))
                if isinstance(prepared.outcome, Failure):
                    self._fail(entry, prepared.outcome)
                else:
                    entry.pixels = prepared.outcome
            except BaseException as error:  # a fault of ours: it ends the run, and is not to hang it
                self._ready.put(_Crash(error))
                return
            self._ready.put(entry)

    def _submit(self, batch: list[_Entry[R]]) -> None:
        if self._model is None:
            self.loading = True
            try:
                self._model = self._load()
            finally:
                self.loading = False
            self._in_flight = self._model.engine.in_flight
            self._decoding = replace(self._decoding, crops=self._model.engine.takes_crops)  # of those from here on
            # The next batches are decoded while these run.
            self._ahead.release(self._in_flight * self._model.engine.batch_size)
        pixels = [entry.pixels for entry in batch if entry.pixels is not None]
        rows = self._task.submit(self._model, pixels, [entry.place for entry in batch])
        self._batch_size = self._model.engine.batch_size  # after, as it shrinks when a GPU's memory runs out
        for entry in batch:
            entry.pixels = None
        self._running.append(partial(self._settle, self._model, batch, rows))

    def _settle(self, model: M, batch: list[_Entry[R]], rows: Callable[[], Iterable[Any]]) -> None:
        for entry, row in zip(batch, rows(), strict=True):
            try:
                answer = self._task.answer(row, model)
            except InputError as error:
                self._fail(entry, failure(error))
            else:
                entry.result = self._result(entry, model=model.name, precision=model.engine.precision, **answer)

    def _fail(self, entry: _Entry[R], error: Failure) -> None:
        entry.data = entry.pixels = None
        entry.result = self._result(entry, model=self._options.model, error=error)

    def _result(self, entry: _Entry[R], **fields: Any) -> R:
        return self._task.kind(
            path=entry.source.path,
            stamp=entry.stamp,
            remarks=entry.remarks,
            thumbnail=entry.thumbnail,
            settings=self._settings,
            **fields,
        )

    def _close(self) -> None:
        self._stopped = True
        self._window.release()
        self._ahead.release()
        self._held.close()
        for _ in range(self._workers):
            self._tasks.put(None)
        with self._fetching:  # after which none is made any more
            for fetcher in (self._fetcher, self._reader):
                if fetcher is not None:
                    fetcher.close()


@dataclass(frozen=True)
class _WalkEnd:
    """No more inputs. begun: how many there were. error: what ended the walk early."""

    begun: int
    error: BaseException | None


@dataclass(frozen=True)
class _Crash:
    """What a thread raised that it should not have."""

    error: BaseException


class _Held:
    """Bytes of archives' members that wait to be decoded. One that is larger than all of MAX_HELD waits alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._used = 0
        self._closed = False

    def take(self, size: int) -> None:
        """Wait until there is room for so many."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._used or self._used + size <= MAX_HELD)
            self._used += size

    def give(self, size: int) -> None:
        """Have no more need of so many."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody go on who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def window(result_bytes: int) -> int:
    """How many Results of this size may wait."""
    return min(WINDOW, max(MIN_WINDOW, MAX_WAITING // result_bytes))


def _start(target: Callable[[], None], name: str) -> None:
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        message = f"cannot start a thread: {str(error) or 'out of memory'}"
        raise HieraError(message, "The system allows no more of them now: `ulimit -u` shows its limit.") from error
