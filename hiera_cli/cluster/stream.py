"""A run's Results from the workers of a cluster, in input order: in the place of the pipeline of one machine."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from time import monotonic
from typing import Any, Generic, TypeVar

from hiera_cli.cluster.ledger import AT_ONCE, Ledger, Reply
from hiera_cli.cluster.workers import ClusterModel, Workers
from hiera_cli.errors import HieraError, NotFoundError
from hiera_cli.inputs import cloud
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.stream import WINDOW, window
from hiera_cli.result import Result

R = TypeVar("R", bound=Result)

# Inputs of a block, and of a part: small at first, so that all workers have some and end at about the same time, and
# larger as the run goes on: a block costs this machine a millisecond. A GPU, which would idle between small ones, gets
# some batches at once from the start.
LEAST_BLOCK, MOST_BLOCK = 32, 128
LEAST_PART, MOST_PART = 64, 4096
BLOCK_GROWTH, PART_GROWTH = 512, 32
BATCHES = 2  # of a block, at least
PART_BYTES = 64 << 20  # of Results
GATHER = 0.2  # seconds that inputs wait for more, to make a whole block
TICK = 0.5  # seconds
MOST_EVENTS = 1000  # between two looks at who has nothing to do


@dataclass(frozen=True)
class _Found:
    """An input, or that there are no more. error: what ended finding them early."""

    source: Source | None
    error: BaseException | None = None


class ClusterStream(Generic[R]):
    """One pass over inputs. Iterate over it once for the Results; what is said of pipeline.Stream holds here too.

    Where workers write parts, those that have an answer are all one Result without it. skipped, warn: get what workers
    tell of archives. before: gets how many inputs of archives earlier parts have.
    """

    def __init__(
        self,
        inputs: Iterable[Source],
        load: Callable[[], ClusterModel],
        workers: Workers,
        skipped: Skipped,
        warn: Callable[[str], None],
        before: Callable[[int], None],
    ) -> None:
        self.loading = False
        self._inputs = inputs
        self._load = load
        self._workers = workers
        self._skipped = skipped
        self._warn = warn
        self._before = before
        self._stopped = False
        self._model: ClusterModel | None = None
        job = workers.job
        self._result_bytes = job.task.result_bytes
        most = WINDOW if job.parts else window(self._result_bytes)
        self._window = threading.Semaphore(most)
        self._ledger = Ledger(self._part_size if job.parts else self._block_size, most, ordered=job.parts is None)
        self._answer: Result | None = None  # of all that are in a part
        self._credentials: dict[str, bool] = {}  # by bucket
        self._taken: deque[Any] = deque()  # events, in the order in which they came
        self._latest = monotonic()  # when an input was found

    def _block_size(self, so_far: int) -> int:
        return max(LEAST_BLOCK, self._batches(), min(MOST_BLOCK, so_far // BLOCK_GROWTH))

    def _part_size(self, so_far: int) -> int:
        most = max(LEAST_PART, min(MOST_PART, PART_BYTES // self._result_bytes))
        return max(LEAST_PART, self._batches(), min(most, so_far // PART_GROWTH))

    def _batches(self) -> int:
        return BATCHES * self._model.engine.batch_size if self._model is not None else 0

    def stop(self) -> None:
        """End the iteration soon, from a signal handler or another thread."""
        self._stopped = True
        self._workers.events.put(None)

    def __iter__(self) -> Iterator[R]:
        error: BaseException | None = None
        try:
            try:
                threading.Thread(target=self._walk, name="walk", daemon=True).start()
                yield from self._answered()
            except Exception as raised:
                error = raised
            except KeyboardInterrupt:
                if not self._stopped:
                    raise
            self._stopped = True
            if self._model is not None:
                self._drain()
                for reply in self._ledger.known():
                    yield from self._results(reply)
            if error is not None:
                raise error
        finally:
            self._stopped = True
            self._window.release()
            self._workers.close()

    def _walk(self) -> None:
        """On a thread of its own: find the inputs, as far ahead as the window allows."""
        error: BaseException | None = None
        try:
            for source in self._inputs:
                self._window.acquire()
                if self._stopped:
                    return
                self._workers.events.put(_Found(source))
        except BaseException as raised:  # handed to the consumer, whose iteration it ends
            error = raised
        finally:
            self._workers.events.put(_Found(None, error))

    def _answered(self) -> Iterator[R]:
        end: _Found | None = None
        while not self._stopped and (end is None or not self._ledger.is_done):
            self._wait_for_events()
            while self._taken:
                event = self._taken.popleft()
                if not isinstance(event, _Found):
                    self._settle(*event)
                elif event.source is not None:
                    self._ledger.add(event.source)
                else:
                    end = event
                    self._ledger.close_block()
            if self._model is None and not self._ledger.is_done:
                self.loading = True
                try:
                    self._model = self._load()
                finally:
                    self.loading = False
            if self._model is not None:
                self._workers.poll()
                self._hand_out()
            for reply, freed in self._ledger.ready():
                yield from self._results(reply)
                if freed:
                    self._window.release(freed)
        if end is not None and end.error is not None:
            raise end.error

    def _wait_for_events(self) -> None:
        """Wait for something to happen; what else has by then is taken with it."""
        self._take_events()
        if self._taken:
            return
        is_waiting = self._ledger.has_gathered and any(
            self._ledger.under_way(slot) < AT_ONCE for slot in self._workers.ready
        )
        if is_waiting and self._workers.job.parts is None and monotonic() - self._latest >= GATHER:
            self._ledger.close_block()  # inputs that come one by one are not to wait for each other
            return
        with suppress(Empty):
            event = self._workers.events.get(timeout=GATHER if is_waiting else TICK)
            if event is not None:
                self._taken.append(event)
        self._take_events()

    def _take_events(self) -> None:
        with suppress(Empty):
            while len(self._taken) < MOST_EVENTS:
                event = self._workers.events.get_nowait()
                if event is not None:
                    self._taken.append(event)
        if any(isinstance(event, _Found) for event in self._taken):
            self._latest = monotonic()

    def _hand_out(self) -> None:
        """The next block to whoever has the fewest, until all have enough."""
        open_ = True
        while open_ and not self._stopped:
            open_ = False
            for slot in sorted(self._workers.ready, key=self._ledger.under_way):
                block = self._ledger.hand_out(slot)
                if block is not None:
                    self._workers.give(slot, block)
                    open_ = True

    def _settle(self, slot: Any, block: Any, future: Any) -> None:
        if slot not in self._workers.ready:  # it was found dead by another block
            return
        error = future.exception()
        if error is None:
            reply = future.result()
            if unseen := self._unseen(slot, reply):
                self._ledger.lost(slot)
                self._workers.leave_out(slot, f"does not see {unseen}")
            else:
                self._ledger.answered(slot, block, reply)
            return
        fault = self._workers.fault(slot, error)
        if fault is not None:
            self._ledger.answered(slot, block, Reply())  # nothing is known of it, nor waited for
            raise fault
        self._workers.lost(slot)
        self._ledger.lost(slot)

    def _unseen(self, slot: Any, reply: Reply) -> str:
        """What the node of a worker lacks, a file that is there or credentials, in words; "" if it lacks nothing."""
        for result in reply.results:
            if result.error is None:
                continue
            if result.error.message == cloud.NO_CREDENTIALS and self._has_credentials(result.path):
                return f"{result.path}, which this machine does ({cloud.NO_CREDENTIALS})"
            missing = result.error.type == NotFoundError.__name__
            if missing and os.path.lexists(result.path):  # it may have come into being only now
                return "" if self._workers.sees(slot, result.path) else f"{result.path}, which this machine does"
        return ""

    def _has_credentials(self, url: str) -> bool:
        """Whether this machine has them. Of a bucket that is asked once."""
        bucket = url.split("/")[2]
        if bucket not in self._credentials:
            self._credentials[bucket] = cloud.unseen(url) != cloud.NO_CREDENTIALS
        return self._credentials[bucket]

    def _drain(self) -> None:
        """Wait for what is under way; what a worker loses now is not done again."""
        self._workers.finish()
        while any(self._ledger.under_way(slot) for slot in self._workers.ready):
            event = self._taken.popleft() if self._taken else self._workers.events.get()
            if event is None or isinstance(event, _Found):
                continue
            with suppress(HieraError):  # the first error is the one that is raised
                self._settle(*event)

    def _results(self, reply: Reply) -> Iterator[Any]:
        self._skipped.merge(reply.skipped)
        for path, why in reply.told:
            if self._skipped.tell:
                self._skipped.tell(path, why)
        for warning in reply.warnings:
            self._warn(warning)
        if reply.before:
            self._before(reply.before)
        for _ in range(reply.answered):
            yield self._answer_in_a_part()
        yield from reply.results

    def _answer_in_a_part(self) -> Result:
        if self._answer is None:
            records = self._workers.job.options.records(self._workers.job.task)
            self._answer = records.kind("", records.model, settings=records.settings)
        return self._answer
