"""The index as the place where the Results of a run go."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from hiera_cli.errors import OutputError
from hiera_cli.index.changes import Comparison, Seen
from hiera_cli.index.store import Index
from hiera_cli.tasks.index import Indexed

COMMIT_EVERY = 0.8  # seconds, at the most, that what was computed is not on the disk yet


class IndexSink:
    """Takes Results into an index, and commits them at least once a second, also while no more come.

    comparison: what yields the sources that the Results are of.
    """

    def __init__(self, index: Index, model: int, comparison: Comparison) -> None:
        self._index = index
        self._model = model
        self._comparison = comparison
        self._lock = threading.Lock()  # held by the thread that uses the index
        self._begun = 0.0
        self._pending = 0  # taken in, and not committed yet
        self._timer: threading.Timer | None = None
        self._error: OutputError | None = None

    def write(self, result: Any) -> None:
        """Take one in. Raises OutputError."""
        assert isinstance(result, Indexed)
        path = os.fsencode(self._comparison.real.pop(result.path))
        if result.stamp is None:  # it could not even be looked at: the next run tries again
            return
        with self._lock:
            self._raise()
            if not self._begun:
                self._index.begin()
                self._begun = time.monotonic()
                self._timer = threading.Timer(COMMIT_EVERY, self._commit_late)
                self._timer.daemon = True
                self._timer.start()
            self._pending += 1
            stamp = result.stamp.size, result.stamp.mtime_ns
            if result.error is not None:
                self._index.put_error(self._model, path, *stamp, result.error.type, result.error.message)
            elif result.features is not None:
                self._index.put(self._model, path, *stamp, result.features.tobytes(), result.softmax)
            if time.monotonic() - self._begun >= COMMIT_EVERY:
                self._commit()

    def close(self, *, complete: bool) -> None:
        """Commit the rest and, of a run that came to its end, remove what is gone. Raises OutputError."""
        with self._lock:
            self._commit()
            self._raise()
            if complete:
                apply(self._index, self._comparison.seen)

    def _commit_late(self) -> None:
        with self._lock:
            try:
                self._commit()
            except OutputError as error:
                self._error = error

    def _commit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._begun, count, self._pending = 0.0, self._pending, 0
        try:
            self._index.commit()
        except OutputError as error:
            lost = f"the last {count:,} are lost" if count > 1 else "the last one is lost"
            raise OutputError(f"{error.message}; of what was indexed {lost}", remedy=error.remedy) from error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def apply(index: Index, seen: Seen) -> None:
    """Remove from the index what a walk has found to be gone. Raises OutputError."""
    if not (seen.gone or seen.gone_folders or seen.mounted):
        return
    index.begin()
    removed = sum(index.remove(folder, names) for folder, names in seen.gone.items())
    removed += sum(index.remove(folder) for folder in seen.gone_folders)
    for folder in seen.mounted:
        index.set_mounted(folder, True)
    index.commit()
    if removed:
        index.shrink()
