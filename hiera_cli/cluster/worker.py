"""What runs on a node: one model, and one pipeline through which all blocks go, one behind the other without a gap."""

from __future__ import annotations

import os
import platform
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from queue import Full, Queue
from typing import Any

from hiera_cli import __version__
from hiera_cli.checkpoints.labels import Label
from hiera_cli.classifier import Classifier, load_classifier
from hiera_cli.cluster.ledger import Block, Reply
from hiera_cli.engines.machine import this_machine
from hiera_cli.engines.placement import choose
from hiera_cli.errors import CrashError, HieraError
from hiera_cli.inputs import cloud, find
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Source, is_cloud
from hiera_cli.inputs.walk import Walk
from hiera_cli.outputs.parts import Parts
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.prepare import failure
from hiera_cli.pipeline.stream import Stream
from hiera_cli.result import Result
from hiera_cli.system.cores import take_cores
from hiera_cli.tasks.task import Task

NOT_SEEN = (
    "Inputs and models have to lie where all nodes see them under the same path, or in a bucket for which all have the "
    "credentials."
)
READ_AHEAD = 64  # inputs given to the pipeline that it has not taken yet: members come with their bytes


@dataclass(frozen=True)
class Job:
    """What a run asks of each worker. options: how inputs are read. walk: what is taken of archives.

    folder: in which relative paths are. visible: paths and URLs that a node has to see. verbose: tell of what is passed
    over in archives. parts: where workers write; None for replies alone.
    """

    task: Task[Any, Any]
    options: Options
    walk: Walk
    folder: str
    visible: tuple[str, ...] = ()
    verbose: bool = False
    parts: Parts | None = None


@dataclass(frozen=True)
class ModelJob:
    """The model of a run: the fields are those of load_classifier."""

    model: str
    engine: str
    device: str
    precision: str
    batch_size: int | None
    labels: bool
    offline: bool


@dataclass(frozen=True)
class Node:
    """What a worker says of where it is. precision: what `auto` means there."""

    host: str
    version: str
    precision: str


@dataclass(frozen=True)
class Loaded:
    """The model that a worker has loaded. engine: in words. digest: of the weights, sha256 in hexadecimal."""

    name: str
    weights: str
    digest: str
    precision: str
    engine: str
    batch_size: int
    labels: tuple[Label, ...]


def unseen(path: str) -> str | None:
    """Why a path or URL is not seen from here, as the end of a sentence; None if it is."""
    if is_cloud(path):
        return f" ({why})" if (why := cloud.unseen(path)) else None
    return None if os.path.lexists(path) else ""


class Worker:
    """An actor. cores: how many it may use. Every method raises HieraError for what is wrong with its node."""

    def __init__(self, job: Job, cores: int) -> None:
        take_cores(cores)
        self._job = job
        self._feed: _Feed | None = None
        self._archives = _Archives(job)

    def node(self, model: ModelJob) -> Node:
        """Go to the folder of the run, and say what is here."""
        host = platform.node()
        with suppress(OSError):
            os.chdir(self._job.folder)
        for path in self._job.visible:
            why = unseen(path if is_cloud(path) else os.path.join(self._job.folder, path))
            if why is not None:
                raise HieraError(f"the node {host} does not see {path}, which this machine does{why}", NOT_SEEN)
        if self._job.parts is not None and (why := self._job.parts.unseen()) is not None:
            raise HieraError(
                f"the node {host} does not see {self._job.parts.folder}, into which parts are to go{why}",
                "It has to lie where all nodes see it under the same path, or in a bucket for which all have the "
                "credentials.",
            )
        placement = choose(model.engine, model.device, model.precision, this_machine(model.engine, model.device))
        return Node(host, __version__, placement.precision)

    def load(self, model: ModelJob) -> Loaded:
        """Load the model, downloading its weights if the node lacks them."""
        classifier = load_classifier(**asdict(model))
        self._feed = _Feed(classifier, self._job.task, self._job.options)
        checkpoint, engine = classifier.checkpoint, classifier.engine
        return Loaded(
            checkpoint.name,
            str(checkpoint.weights),
            checkpoint.digest(),
            engine.precision,
            engine.describe(),
            engine.batch_size,
            checkpoint.labels,
        )

    def run(self, block: Block) -> Reply:
        """Answer a block; several are called at once."""
        assert self._feed is not None
        taken = _Taken()
        sources = iter(block.sources) if block.archive is None else self._archives.read(block, taken)
        results = (
            [*map(self._given_up, sources)] if block.given_up else self._feed.run((block.unit, block.start), sources)
        )
        about = {name: getattr(taken, name) for name in ("ended", "before", "skipped")}
        reply = Reply(results, **about, warnings=tuple(taken.warnings), told=tuple(taken.told))
        if self._job.parts is None:
            return reply
        self._job.parts.write(block.unit, block.start, results)
        failed = [result for result in results if result.error is not None]
        return replace(reply, results=failed, answered=len(results) - len(failed))

    def sees(self, path: str) -> bool:
        """Whether there is something of this name here."""
        return os.path.lexists(path)

    def finish(self) -> None:
        """End what is running soon: blocks are answered with what is known of them."""
        self._archives.close()
        if self._feed is not None:
            self._feed.stop()

    def _given_up(self, source: Source) -> Result:
        error = failure(CrashError("the process that reads it dies of it: it was tried again alone"))
        records = self._job.options.records(self._job.task)
        result: Result = records.kind(source.path, self._job.options.model, error, settings=records.settings)
        return result


class _Batch:
    """The inputs of one block in the pipeline. done: set when all that were given have their Result."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.given = 0
        self.is_whole = False
        self.done = threading.Event()

    def check(self) -> None:
        if self.is_whole and len(self.results) == self.given:
            self.done.set()


class _Feed:
    """One endless run of the pipeline, into which blocks are given from several threads."""

    def __init__(self, model: Classifier, task: Task[Any, Any], options: Options) -> None:
        self._queue: Queue[Source | None] = Queue(READ_AHEAD)
        self._owners: deque[tuple[str, _Batch]] = deque()
        self._turn = threading.Condition()  # for the next two
        self._waiting: list[tuple[int, int]] = []
        self._is_giving = False
        self._changed = threading.Lock()
        self._error: BaseException | None = None
        self._ended = False
        self._stream: Stream[Any, Any] = Stream(iter(self._queue.get, None), lambda: model, task, options)
        threading.Thread(target=self._take, name="results", daemon=True).start()

    def run(self, place: tuple[int, int], sources: Iterable[Source]) -> list[Result]:
        """The Results of these, in order; fewer when the pipeline is stopped. place: in the order of all inputs."""
        batch = _Batch()
        with self._my_turn(place):
            for source in sources:
                with self._changed:
                    if self._ended:
                        break
                    self._owners.append((source.path, batch))
                    batch.given += 1
                if not self._give(source):
                    break
        with self._changed:
            batch.is_whole = True
            batch.check()
            if self._ended:
                batch.done.set()
        batch.done.wait()
        if self._error is not None:
            raise self._error
        return batch.results

    @contextmanager
    def _my_turn(self, place: tuple[int, int]) -> Iterator[None]:
        """One block after the other, of those that wait the first: threads come in any order."""
        with self._turn:
            self._waiting.append(place)
            self._turn.wait_for(lambda: not self._is_giving and place == min(self._waiting))
            self._waiting.remove(place)
            self._is_giving = True
        try:
            yield
        finally:
            with self._turn:
                self._is_giving = False
                self._turn.notify_all()

    def _give(self, source: Source) -> bool:
        while not self._ended:
            with suppress(Full):
                self._queue.put(source, timeout=0.1)
                return True
        return False

    def stop(self) -> None:
        self._stream.stop()

    def _take(self) -> None:
        try:
            for result in self._stream:
                with self._changed:
                    while self._owners[0][0] != result.path:  # a pipeline that was stopped leaves out what it has
                        _, batch = self._owners.popleft()  # not begun
                        batch.given -= 1
                        batch.check()
                    _, batch = self._owners.popleft()
                    batch.results.append(result)
                    batch.check()
        except BaseException as error:  # handed to all who wait
            self._error = error
        with self._changed:
            self._ended = True
            for _, batch in self._owners:
                batch.done.set()


@dataclass
class _Taken:
    """What came of finding a block's inputs, beside them."""

    ended: bool = False
    before: int = 0
    skipped: Skipped = field(default_factory=Skipped)
    warnings: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)


class _Open:
    """An archive that is being read. place: of the member that comes next. found: beside those since the last block."""

    def __init__(self, block: Block, job: Job) -> None:
        assert block.archive is not None
        self.place = block.start
        self.found = _Taken()
        self._skipped = Skipped()
        if job.verbose:
            self._skipped.tell = lambda path, why: self.found.told.append((path, why))
        warn = lambda message: self.found.warnings.append(message)  # noqa: E731 `found` changes
        self.sources = find.members_of(block.archive, job.walk, warn, self._skipped)
        self._parts = job.parts
        self._met: Counter[str] = Counter()  # members that are done
        self._named_before = block.named_before
        for source in islice(self.sources, block.start):
            self.is_done(source.path)
        self.take_found()  # of the members before, which has been told

    def is_done(self, path: str) -> bool:
        """Whether earlier parts have the member that comes next: those of one name are counted."""
        times = self._parts.done.count(path) if self._parts is not None else 0
        if not times:
            return False
        self._met[path] += 1
        return self._met[path] + self._named_before <= times

    def take_found(self) -> _Taken:
        """What has been found since it was asked for last."""
        found, self.found = self.found, _Taken()
        found.skipped = self._skipped.taken()
        return found


class _Archives:
    """The archives that blocks are read from. Those of one are read one behind the other, whoever asks first."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open: dict[int, _Open] = {}
        self._turn = threading.Condition()
        self._closed = False

    def read(self, block: Block, taken: _Taken) -> Iterator[Source]:
        """Wait for a block's turn; its members. taken: gets the rest when they have been gone through."""
        with self._turn:
            if block.opens:
                self._open[block.unit] = _Open(block, self._job)
                self._turn.notify_all()  # the next may have been asked for already
            self._turn.wait_for(lambda: self._closed or self._is_turn_of(block))
            if self._closed:
                return iter(())
        return self._members(self._open[block.unit], block, taken)

    def _members(self, archive: _Open, block: Block, taken: _Taken) -> Iterator[Source]:
        left, before = block.count, 0
        try:
            for source in islice(archive.sources, block.count):
                left -= 1
                if archive.is_done(source.path):
                    before += 1
                else:
                    yield source
            taken.ended = left > 0
        finally:
            found = archive.take_found()
            taken.before, taken.skipped = before, found.skipped
            taken.warnings, taken.told = found.warnings, found.told
            with self._turn:
                archive.place = block.start + block.count
                self._turn.notify_all()

    def _is_turn_of(self, block: Block) -> bool:
        return block.unit in self._open and self._open[block.unit].place == block.start

    def close(self) -> None:
        """Nobody waits any more."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
