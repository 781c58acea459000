"""One run over inputs: inputs → Results → the output, whatever happens on the way.

What is done with each input is the command's affair: it hands in how the model is loaded and where the Results go.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hiera_cli.checkpoints import published, resolve
from hiera_cli.checkpoints.hub import Progress
from hiera_cli.commands.interrupts import Interrupts
from hiera_cli.commands.output import Output
from hiera_cli.commands.report import LINE_EVERY, ExitStatus, Report
from hiera_cli.commands.request import Request
from hiera_cli.commands.skipped_lines import skipped_lines
from hiera_cli.engines.machine import this_machine
from hiera_cli.engines.placement import choose
from hiera_cli.errors import CheckpointError, HieraError, OutputError
from hiera_cli.images.decode import Decoding
from hiera_cli.inputs import find, lists, source
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.result import Result
from hiera_cli.system.signals import handled
from hiera_cli.system.streams import ReaderGone
from hiera_cli.system.threads import apart
from hiera_cli.tasks.task import Task

if TYPE_CHECKING:
    from hiera_cli.cluster.stream import ClusterStream
    from hiera_cli.cluster.workers import Workers

MOST_HELD = 10_000  # Results, all of them failures


class Run:
    """One pass over the inputs of a command.

    output: where the Results go, opened; the run closes it. task: what is done with each image. options: how inputs are
    read. load: makes the model, of the fields of ModelRequest, `offline` and `progress`, when the first image is ready.
    sources: the inputs, where they are not those that the request names. total: how many they are, if it is known.
    skipped: what the walk that finds them passes over. note: what the progress shows beside the counts. workers: of a
    cluster, that do the work; `load` has them load the model then.
    """

    def __init__(
        self,
        request: Request,
        output: Output,
        task: Task[Any, Any],
        options: Options,
        load: Callable[..., Any],
        *,
        sources: Iterator[source.Source] | None = None,
        total: int | None = None,
        skipped: Skipped | None = None,
        note: Callable[[], str] = str,
        workers: Workers | None = None,
    ) -> None:
        self._request = request
        self._output = output
        self._load = load
        self._error: Exception | None = None
        self._any = False  # whether there was a Result
        self._has_model = False
        self._shares_terminal = output.path is None and sys.stdout.isatty()
        self._report = Report(quiet=request.report.quiet, progress=request.report.shows_progress, verb=task.kind.done)
        self._skipped = skipped or Skipped()
        self._skipped.tell = self._name_skipped if request.report.verbose else None
        # Of archives that were begun this machine finds what is left, as it has the records.
        begun = output.parts is None and output.journal is not None and output.journal.has_records
        whole = workers is not None and not begun
        self._walk = replace(request.inputs.walk(offline=request.offline), whole_archives=whole)
        self._report.total = total
        self._report.note = note
        found = self._sources() if sources is None else sources
        remaining = output.journal.remaining(found) if output.journal else found
        self._workers = workers
        self._stream: Stream[Any, Any] | ClusterStream[Any]
        if workers is None:
            self._stream = Stream(remaining, self._load_model, task, options)
        else:
            from hiera_cli.cluster.stream import ClusterStream

            workers.say = self.warn
            self._stream = ClusterStream(
                remaining, self._load_model, workers, self._skipped, self.warn, self._count_before
            )

    def warn(self, message: str) -> None:
        """Tell of what is passed over while the inputs are found: for `sources` that come from elsewhere."""
        self._report.warn(message)

    def _count_before(self, count: int) -> None:
        if self._output.journal is not None:
            self._output.journal.done += count

    def run(self) -> ExitStatus:
        """Work through the inputs and write the Results.

        Raises UsageError, CheckpointError or DeviceError if there is nothing to start with, OutputError if the Results
        can't be written. Whatever it ends with, what was written is a valid document of its format.
        """
        if self._request.report.shows_progress and self._report.total is None:
            with suppress(RuntimeError):  # no more threads are to be had: the inputs need those there are
                threading.Thread(target=self._count, name="count", daemon=True).start()
        if source.STDIN in self._request.inputs.inputs and sys.stdin is not None and sys.stdin.isatty():
            self._report.say("reading an image from this terminal: Ctrl-D ends it, Ctrl-C ends the program")
        interrupts = Interrupts(self._stream, self._report)
        with handled(interrupts.handle), self._report.showing_progress():
            try:
                for chunk in self._output.writer(self._results()):
                    if self._output.file is None or self._any:  # a run that comes to nothing leaves no empty document
                        self._write(chunk)
                done_before = self._output.journal is not None and self._output.journal.done > 0
                came_to_something = self._output.file is None or self._any or done_before
                self._output.sink.close(complete=came_to_something and self._error is None and not interrupts.signal)
            except ReaderGone:
                return ExitStatus.OK
            except OutputError as error:  # of what a writer saves beside
                self._error = self._error or error
                self._output.sink.close(complete=False)
        return self._conclude(interrupts.signal)

    def _results(self) -> Iterator[Result]:
        """The Results, counted. Ends early, and quietly, when something is wrong: the writer completes its document."""
        try:
            self._check_records()
            for result in self._held_until_the_model_is_there():
                if self._output.journal is not None:
                    self._report.before = self._output.journal.done
                self._any = True
                yield result
                if self._error is not None:  # it could not be written
                    return
                self._report.add(result)
        except KeyboardInterrupt:  # while loading; otherwise the stream has just ended
            return
        except Exception as error:  # be it a fault of ours
            self._error = error

    def _held_until_the_model_is_there(self) -> Iterator[Result]:
        """The Results. A file gets none before that, but for many: a run that can't start is to leave it as it was."""
        held: list[Result] = []
        for result in self._stream:
            if self._output.file is not None and not self._has_model and len(held) < MOST_HELD:
                held.append(result)
                continue
            yield from held
            held.clear()
            yield result
        yield from held

    def _write(self, chunk: str | bytes) -> None:
        try:
            if self._shares_terminal:
                with self._report.above_bar():
                    self._output.sink.write(chunk)
            else:
                self._output.sink.write(chunk)
        except OutputError as error:
            self._error = self._error or error

    def _conclude(self, interrupted: int) -> ExitStatus:
        report, output = self._report, self._output.path
        if self._output.journal is not None:
            report.before = self._output.journal.done
        if self._error is not None:
            if report.done:
                report.end(f"stopped early: {report.summary()}")
            raise self._error
        if interrupted:
            report.end(f"interrupted: {report.summary()}{self._where_it_is()}")
            return ExitStatus(128 + interrupted)
        self._tell_skipped()
        if not report.done and not report.before:
            if not report.warned:  # or the reason has been said: one line is enough
                report.warn("nothing to do: no image was found")
        elif report.done > 1 or output:
            report.say(report.summary(output))
        return report.status

    def _tell_skipped(self) -> None:
        for line in skipped_lines(self._skipped):
            self._report.say(line)
        for glob in self._request.inputs.exclude:
            if glob not in self._skipped.globs:
                self._report.say(f"--exclude {shlex.quote(glob)} matched nothing")

    def _name_skipped(self, path: str, why: str) -> None:
        self._report.say(f"{path}: skipped, {why}")

    def _where_it_is(self) -> str:
        """Where an interrupted run has left what was done."""
        if self._output.file is None or not (self._report.done or self._report.before):
            return ""
        if self._output.file.is_complete:
            return f"; {self._output.path} is complete"
        way_on = ", --resume goes on from there" if self._output.journal else ""
        return f"; what was done is in {self._output.file.part}{way_on}"

    def _sources(self) -> Iterator[source.Source]:
        stdin_taken = 0 in map(source.descriptor, self._request.inputs.lists)
        return find.expand(
            self._arguments(), self._walk, self._report.warn, stdin_taken=stdin_taken, skipped=self._skipped
        )

    def _arguments(self) -> Iterator[str]:
        yield from self._request.inputs.inputs
        for name in self._request.inputs.files_from:
            yield from lists.read_list(name, b"\n")
        for name in self._request.inputs.files0_from:
            yield from lists.read_list(name, b"\0")

    def _count(self) -> None:
        """For the time left: find all inputs once more, on the side. Only a list that is a file can be read twice."""
        if not self._report.has_bar and self._report.ended_within(LINE_EVERY / 2):
            return
        if not all(map(is_rereadable, self._request.inputs.lists)):
            return
        try:
            self._report.total = find.count(self._arguments(), self._walk)
        except HieraError:
            return  # the run itself meets the same error, and tells of it

    def _load_model(self) -> Any:
        request, report = self._request, self._report
        progress = Progress(report.say, bar=report.has_bar)
        with report.without_progress():
            loaded = apart(lambda: self._load(**asdict(request.model), offline=request.offline, progress=progress))
        self._has_model = True
        if self._output.journal is not None:
            self._output.journal.check(loaded.engine.precision, loaded.checkpoint.digest())
        if not request.report.no_banner:
            report.say(f"{loaded.checkpoint.name} on {loaded.engine.describe()}")
            if loaded.checkpoint.name == published.DEMO:
                report.say("the demo model knows the sample images and nothing else; `-m tiny` is a real one")
        if request.report.verbose:
            report.say(f"weights: {loaded.checkpoint.weights}")
            report.say(f"batches of up to {loaded.engine.batch_size}")
        return loaded

    def _check_records(self) -> None:
        """Before anything is written, hold the records to go on with against the model; there may be none to load for.

        Weights that are not on this machine yet are held against them once they are.
        """
        if self._output.journal is None or not self._output.journal.has_records:
            return
        request = self._request.model
        if self._workers is not None:  # what `auto` is, and which weights there are, is known on their machines
            if request.precision != "auto":
                self._output.journal.check_precision(request.precision)
            return
        machine = this_machine(request.engine, request.device)
        precision = choose(request.engine, request.device, request.precision, machine).precision
        with suppress(CheckpointError):
            self._output.journal.check(precision, resolve.resolve(request.model, offline=True).digest())


def reading(request: Request, model: str) -> Options:
    """How the inputs are read. model: as records name it."""
    inputs = request.inputs
    decoding = Decoding(max_pixels=inputs.max_pixels, full=inputs.full_decode)
    thumbnails = request.output.format == "html"
    return Options(inputs.workers, inputs.limits, decoding, request.offline, model, thumbnails)


def is_rereadable(name: str) -> bool:
    """Whether a list gives the same paths again: a file does; a pipe, or a descriptor under any name, may not."""
    where = os.path.realpath(name)
    return os.path.isfile(where) and not where.startswith(("/dev/", "/proc/"))
