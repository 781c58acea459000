"""What a run says on stderr: device, failures, progress, and at the end the summary and the exit status."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

from hiera_cli.predictions import Result
from hiera_cli.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress

BAR_FROM = 4  # inputs: fewer need no progress bar
BAR_AFTER = 1.0  # seconds: nor does a run that is over by then
REFRESH = 0.1  # seconds


class ExitStatus(IntEnum):
    """What the command ends with."""

    OK = 0
    SOME_FAILED = 1
    COULD_NOT_START = 2
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class Report:
    """Counts the Results of a run and tells a person of them.

    quiet: say nothing. bar: show a progress bar once the run is long enough for one.
    """

    def __init__(self, *, quiet: bool = False, bar: bool = False) -> None:
        self.labelled = 0
        self.failed = 0
        self.before = 0  # inputs whose record an earlier run wrote
        self.warned = False
        self.total: int | None = None  # inputs, once they are counted
        self._quiet = quiet
        self._wants_bar = bar
        self._bar: Progress | None = None
        self._refreshed = 0.0
        self._started = time.monotonic()
        self._first: float | None = None

    @property
    def done(self) -> int:
        """Inputs that have their record."""
        return self.labelled + self.failed

    def say(self, message: str) -> None:
        """One line for the user."""
        if not self._quiet:
            with self.above_bar():
                print(f"hiera: {printable(message)}", file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """One line on something that is passed over."""
        self.warned = True
        self.say(message)

    def add(self, result: Result) -> None:
        """Count a Result; tell of a failure."""
        if result.error is None:
            self.labelled += 1
        else:
            self.failed += 1
            self.say(f"{result.path}: {result.error.message}")
        self._show_bar()

    def _show_bar(self) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now  # rates count from here: loading the model is not the inputs' fault
        if not self._wants_bar:
            return
        if self._bar is None:
            enough = self.total if self.total is not None else self.done + 1
            if enough < BAR_FROM or now - self._started < BAR_AFTER:
                return
            self._bar = _progress_bar()
            self._bar.add_task("", total=None, text="")
            self._bar.start()
        self._bar.update(
            self._bar.task_ids[0], completed=self.before + self.done, total=self.total, text=self._progress(now)
        )
        if now - self._refreshed >= REFRESH:
            self._refreshed = now
            self._bar.refresh()

    def _progress(self, now: float) -> str:
        """Such as `1,204 of 10,000, 14.2/s, 10 min 19 s left`."""
        assert self._first is not None
        done = self.before + self.done
        parts = [f"{done:,}" if self.total is None else f"{done:,} of {self.total:,}"]
        if now - self._first >= BAR_AFTER:
            rate = self.done / (now - self._first)
            parts.append(f"{rate:.1f}/s")
            if self.total is not None:
                parts.append(f"{duration(max(0, self.total - done) / rate)} left")
        return ", ".join(parts)

    @contextmanager
    def above_bar(self) -> Iterator[None]:
        """Clear the bar's line for what is written to the terminal meanwhile."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        yield
        self._bar.start()

    def close_bar(self) -> None:
        """Take the bar away."""
        self._wants_bar = False
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def summary(self) -> str:
        """Such as `1,204 labelled, 3 failed, 41 s`."""
        parts = [f"{self.labelled:,} labelled"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.before:
            parts.append(f"{self.before:,} done before")
        return ", ".join([*parts, duration(time.monotonic() - self._started)])

    @property
    def status(self) -> ExitStatus:
        """Of a run that came to its end."""
        return ExitStatus.OK if self.labelled + self.before and not self.failed else ExitStatus.SOME_FAILED


def duration(seconds: float) -> str:
    """Such as `0.4 s`, `41 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _progress_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}"),
        console=Console(file=sys.stderr),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
