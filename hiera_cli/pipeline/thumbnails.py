"""Paths → thumbnails, where no model is to see the images: of records that an earlier run wrote."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from hiera_cli.engines.machine import cpu_count
from hiera_cli.images.decode import Decoding
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.prepare import Prepared, prepare
from hiera_cli.pipeline.stream import MAX_WORKERS

AHEAD = 4  # files to a thread


class Thumbnails:
    """One pass over files. Iterate over it once for what became of each, in order; None for a path of None.

    decoding: how they are decoded. workers: threads; None chooses by the machine's cores.
    """

    loading = False  # a model: there is none

    def __init__(
        self, paths: Iterable[str | None], decoding: Decoding | None = None, workers: int | None = None
    ) -> None:
        self._paths = paths
        self._prepare = partial(prepare, decoding=decoding or Decoding(), thumbnails=True)
        self._workers = workers or min(cpu_count(), MAX_WORKERS)
        self._stopped = False

    def stop(self) -> None:
        """End the iteration soon, from a signal handler or another thread: no further files are begun."""
        self._stopped = True

    def __iter__(self) -> Iterator[Prepared | None]:
        waiting: deque[Future[Prepared] | None] = deque()
        with ThreadPoolExecutor(self._workers) as threads:
            for path in self._paths:
                if self._stopped:
                    break
                waiting.append(None if path is None else threads.submit(self._prepare, Source(path)))
                if len(waiting) > AHEAD * self._workers:
                    yield _outcome(waiting.popleft())
            while waiting:
                yield _outcome(waiting.popleft())


def _outcome(future: Future[Prepared] | None) -> Prepared | None:
    return None if future is None else future.result()
