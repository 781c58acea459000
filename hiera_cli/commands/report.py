"""What a run says on stderr: device, failures, progress, and at the end the summary and the exit status."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

from hiera_cli.commands.remedies import of_input
from hiera_cli.result import Result
from hiera_cli.system import terminal
from hiera_cli.system.printable import printable
from hiera_cli.system.streams import interject

BAR_FROM = 4  # inputs: fewer need no progress bar,
BAR_AFTER = 1.0  # seconds: nor does a run that is over by then,
BAR_ANYHOW = 5.0  # seconds: but one that takes so long does, be it for one input
REFRESH = 0.1  # seconds, of a bar
LINE_EVERY = 60.0  # seconds, where there is no terminal
IDLE = 10.0  # seconds without a result: said from here on
RATE_FROM = 10.0  # seconds: the rate of a shorter run would be that of loading the model
BAR_CELLS = 30
LEAST_BAR = 6
ECHO = 4  # cells left free at the end of a line, for the ^C that the terminal adds: or the line wraps
ERASE = "\r\x1b[K"  # a line, for the next text to stand at its begin
SPINNER, ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"


class ExitStatus(IntEnum):
    """What the command ends with."""

    OK = 0
    SOME_FAILED = 1
    COULD_NOT_START = 2
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class Report:
    """Counts the Results of a run and tells a person of them, from any thread.

    quiet: 1 leaves out remarks, 2 also failures; what ends the run is told in any case. progress: show how far it is,
    by a bar on a terminal, by a line a minute elsewhere. verb: what was done with an input that has an answer. clock:
    seconds.
    """

    def __init__(
        self,
        *,
        quiet: int = 0,
        progress: bool = False,
        verb: str = "labelled",
        failing: str = "failed",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.answered = 0
        self.failed = 0
        self.before = 0  # inputs whose record an earlier run wrote
        self.warned = False
        self.total: int | None = None  # inputs, once they are counted
        self.note: Callable[[], str] = str  # what else the progress shows; "" for nothing
        self._erases = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.has_bar = progress and self._erases
        self._quiet = quiet
        self._progress = progress
        self._verb = verb
        self._failing = failing
        self._clock = clock
        self._started = self._resumed = self._latest = self._line = clock()
        self._rated: tuple[float, int] | None = None  # (when, done) from which the rate counts
        self._lock = threading.RLock()  # held while anything is written that a bar could come into
        self._drawn = self._paused = False
        self._closed = threading.Event()

    @property
    def done(self) -> int:
        """Inputs that have their record."""
        return self.answered + self.failed

    def say(self, message: str) -> None:
        """A remark, in one line."""
        if self._quiet < 1:
            self._tell(message)

    def warn(self, message: str) -> None:
        """One line on something that fails or is passed over."""
        self.warned = True
        self._tell_of_failure(message)

    def end(self, message: str) -> None:
        """One line on what ends the run before its time."""
        if self._erases:
            _write(ERASE)  # the ^C that the terminal has echoed
        self._tell(message)

    def interject(self, message: str) -> None:
        """One line from a signal handler, whatever it has interrupted."""
        if self._quiet < 2:
            interject(f"{ERASE if self._erases else ''}hiera: {message}\n")  # over a bar, or the ^C that is echoed

    def add(self, result: Result) -> None:
        """Count a Result; tell of a failure."""
        if result.error is None:
            self.answered += 1
        else:
            self.failed += 1
            path = result.path if result.path.strip() else repr(result.path)
            self._tell_of_failure(f"{path}: {of_input(result.error.message, result.error.remedy, result.path)}")
        self._latest = self._clock()
        if self._rated is None:
            self._rated = self._latest, self.done

    def _tell_of_failure(self, message: str) -> None:
        if self._quiet < 2:
            self._tell(message)

    def _tell(self, message: str) -> None:
        with self.above_bar():
            _write(terminal.message(f"hiera: {printable(message)}") + "\n")

    @contextmanager
    def above_bar(self) -> Iterator[None]:
        """Take the bar away for what is written to the terminal meanwhile."""
        with self._lock:
            drawn = self._drawn
            self._erase()
            yield
            if drawn:
                self._draw()

    @contextmanager
    def without_progress(self) -> Iterator[None]:
        """While the model is loaded, which tells of its own progress, and which is not the inputs' fault."""
        with self._lock:
            self._erase()
            self._paused = True
        try:
            yield
        finally:
            with self._lock:
                self._paused = False
                self._resumed = self._latest = self._clock()
                self._rated = self._resumed, self.done

    @contextmanager
    def showing_progress(self) -> Iterator[None]:
        """Within it a thread shows how far the run is, also while nothing comes."""
        if self._progress:
            with suppress(RuntimeError):  # no more threads are to be had: the inputs need those there are
                threading.Thread(target=self._keep_showing, name="progress", daemon=True).start()
        try:
            yield
        finally:
            self._closed.set()
            with self._lock:
                self._erase()

    def ended_within(self, seconds: float) -> bool:
        """Wait so long for the end of the run. True if it came."""
        return self._closed.wait(seconds)

    def _keep_showing(self) -> None:
        while not self.ended_within(REFRESH if self.has_bar else 1.0):
            self.show_progress()

    def show_progress(self) -> None:
        """Draw the bar, or write the line, if it is time to."""
        with self._lock:
            now = self._clock()
            if self._closed.is_set() or self._paused:
                return
            if self.has_bar:
                if not _is_foreground():  # the line is the shell's
                    self._drawn = False
                elif self._drawn or self._is_worth_a_bar(now - self._resumed):
                    self._draw()
            elif now - self._line >= LINE_EVERY:
                self._line = now
                _write(f"hiera: {', '.join(self._parts(now))}\n")

    def _is_worth_a_bar(self, seconds: float) -> bool:
        enough = (self.total if self.total is not None else self.done + 1) >= BAR_FROM
        return seconds >= (BAR_AFTER if enough else BAR_ANYHOW)

    def _draw(self) -> None:
        now = self._clock()
        share = (self.before + self.done) / self.total if self.total else None
        unicode = terminal.is_utf8(sys.stderr.encoding)
        frames = SPINNER if unicode else ASCII_SPINNER
        frame = frames[int(now / REFRESH) % len(frames)]
        columns = terminal.columns(sys.stderr.fileno()) or 80
        _write(f"{ERASE}{frame} {bar_line(self._parts(now), share, columns - 2 - ECHO, unicode=unicode)}")
        self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            _write(ERASE)
        self._drawn = False

    def _parts(self, now: float) -> list[str]:
        """Such as `1,204 of 10,000`, `3 failed`, `14.2/s`, `10 min 19 s left`."""
        done = self.before + self.done
        parts = [f"{done:,} done" if self.total is None else f"{done:,} of {self.total:,}"]
        if self.failed:
            parts.append(f"{self.failed:,} {self._failing}")
        if note := self.note():
            parts.append(note)
        since, count = self._rated or (now, 0)
        rate = (self.done - count) / (now - since) if now - since >= BAR_AFTER else 0.0
        if rate >= 0.05:
            parts.append(f"{rate:.1f}/s")
        if now - self._latest >= IDLE:
            parts.append(f"nothing new for {duration(now - self._latest)}")
        elif rate and self.total is not None:
            parts.append(f"{duration(max(0, self.total - done) / rate)} left")
        return parts

    def summary(self, output: str | None = None) -> str:
        """Such as `1,204 labelled, 3 failed, 41 s, 29.4/s → labels.jsonl`. output: what is complete now."""
        seconds = self._clock() - self._started
        parts = [f"{self.answered:,} {self._verb}"]
        if self.failed:
            parts.append(f"{self.failed:,} {self._failing}")
        if self.before:
            parts.append(f"{self.before:,} done before")
        parts.append(duration(seconds))
        if seconds >= RATE_FROM and self.done / seconds >= 0.05:
            parts.append(f"{self.done / seconds:.1f}/s")
        arrow = "→" if terminal.is_utf8(sys.stderr.encoding) else "->"
        return ", ".join(parts) + (f" {arrow} {output}" if output else "")

    @property
    def status(self) -> ExitStatus:
        """Of a run that came to its end."""
        return ExitStatus.OK if self.answered + self.before and not self.failed else ExitStatus.SOME_FAILED


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _is_foreground() -> bool:
    """Whether the terminal is this program's, and not the shell's that runs it in the background."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, AttributeError):  # a terminal that controls no processes, or Windows
        return True


def bar_line(parts: list[str], share: float | None, columns: int, *, unicode: bool) -> str:
    """A line of at most so many cells: as many of the parts as fit, before them a bar if there is room for one.

    share: done, from 0 to 1; None if that is not known. parts: the first and the last are the most important.
    """
    while len(", ".join(parts)) > columns and len(parts) > 1:
        parts = [*parts[:-2], parts[-1]] if len(parts) > 2 else parts[:1]
    text = ", ".join(parts)[: max(0, columns)]
    width = min(BAR_CELLS, columns - len(text) - 3)
    if share is None or width < LEAST_BAR:
        return text
    left, right = "▕▏" if unicode else "[]"
    return f"{left}{terminal.bar(min(1.0, share), width, unicode=unicode)}{right} {text}"


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
