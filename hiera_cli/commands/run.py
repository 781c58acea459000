"""One run of `hiera classify`: inputs → Results → the output, whatever happens on the way."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, Protocol

from hiera_cli.checkpoints import published, resolve
from hiera_cli.checkpoints.hub import Progress
from hiera_cli.classifier import Classifier, load_classifier
from hiera_cli.commands.report import LINE_EVERY, ExitStatus, Report
from hiera_cli.engines.machine import this_machine
from hiera_cli.engines.placement import choose
from hiera_cli.errors import CheckpointError, HieraError, OutputError, UsageError
from hiera_cli.images import decode
from hiera_cli.inputs import find, lists, read, source
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.outputs.destination import OutputFile, OutputStream, encoded, is_stream
from hiera_cli.outputs.formats import Writer
from hiera_cli.outputs.journal import Journal
from hiera_cli.outputs.labels import RECORDS, plain, table
from hiera_cli.outputs.names import FORMATS, SUFFIXES
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.result import Result
from hiera_cli.system import terminal
from hiera_cli.system.printable import printable
from hiera_cli.system.signals import handled
from hiera_cli.system.streams import ReaderGone
from hiera_cli.system.threads import apart
from hiera_cli.tasks.classify import Classified, Classify

MOST_HELD = 10_000  # Results, all of them failures


@dataclass(frozen=True)
class Request:
    """What the command line asks for. Every field is an option of `hiera classify`, under its name.

    quiet: how often it is given. progress: None for what `quiet` leaves of it.
    """

    inputs: tuple[str, ...]
    files_from: tuple[str, ...] = ()
    files0_from: tuple[str, ...] = ()
    format: str | None = None
    output: str | None = None
    null: bool = False
    overwrite: bool = False
    resume: bool = False
    model: str = "tiny"
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    task: Classify = field(default_factory=Classify)
    options: Options = field(default_factory=Options)
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow: bool = False
    offline: bool = False
    quiet: int = 0
    no_banner: bool = False
    progress: bool | None = None
    verbose: bool = False


def classify(request: Request) -> ExitStatus:
    """Label the inputs and write the records.

    Raises UsageError, CheckpointError or DeviceError if there is nothing to start with, OutputError if the results
    can't be written. Whatever it ends with, what was written is a valid document of its format.
    """
    if not (request.inputs or request.files_from or request.files0_from):
        hint = "For example: hiera classify cat.jpg photos/"
        if read.is_piped():
            hint = "Of what comes on stdin, `--files-from -` takes a list of paths, and `-` takes an image."
        raise UsageError("nothing to classify: name files, folders or URLs", hint)
    if [*map(source.descriptor, (*request.inputs, *request.files_from, *request.files0_from))].count(0) > 1:
        raise UsageError("stdin (-) can be read only once")
    try:
        os.getcwd()
    except FileNotFoundError as error:  # in which PyTorch's libraries end the process
        raise UsageError("the current folder has been removed", "cd to another one, and try again.") from error
    resolve.check_name(request.model)
    warnings.simplefilter("ignore")  # of libraries on each other: what decoders say of a file goes into its record
    return _Run(request).run()


class Sink(Protocol):
    """Where text goes."""

    def write(self, text: str) -> None:
        """Write all of it, now. Raises OutputError."""
        ...

    def close(self, *, complete: bool) -> None:
        """No more text. complete: the run came to its end."""
        ...


class Stdout:
    """Standard output. A terminal gets whole lines, and control characters of file names and labels as escapes."""

    def __init__(self, *, shows_control: bool) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._escapes = self._is_terminal and not shows_control
        self._rest = ""  # of a line that is not whole yet: what goes to stderr would stand in the middle of it

    def write(self, text: str) -> None:
        """Write and flush. Raises ReaderGone if the reader went away."""
        if self._escapes:
            text = printable(text, keep="\n\t")
        if self._is_terminal:
            lines, end, self._rest = (self._rest + text).rpartition("\n")
            text = lines + end
        sys.stdout.buffer.write(encoded(text))
        sys.stdout.buffer.flush()

    def close(self, *, complete: bool) -> None:
        """Nothing to do: every write was flushed, and every document ends with a line."""


class _Run:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._error: Exception | None = None
        self._any = False  # whether there was a Result
        self._has_model = False
        name = request.format or _default_format(request.output, null=request.null)
        if request.null and name != "plain":
            raise UsageError(
                f"--null ends the lines of plain output, and this run writes {name}",
                "Leave it out, or say --format plain.",
            )
        self._writer = _writer(name, request.output, null=request.null)
        self._journal: Journal | None = None
        self._file: Journal | OutputFile | None = None
        self._sink: Sink
        for asked, option in ((request.resume, "--resume"), (request.overwrite, "--overwrite")):
            if asked and request.output is None:
                raise UsageError(f"{option} is about an --output, and there is none", "Name one: -o FILE.jsonl")
        if request.resume and name != "jsonl":
            raise UsageError(
                "--resume goes on with a jsonl file only: the other formats can't be taken up in the middle",
                "Use -o FILE.jsonl; `jq` makes any other format of it.",
            )
        if request.resume and request.overwrite:
            raise UsageError("--resume and --overwrite contradict each other")
        if request.output is None:
            self._sink = Stdout(shows_control=name == "table")
        elif is_stream(request.output):
            if request.resume:
                raise UsageError(f"cannot go on with {request.output}: it is not a file")
            self._sink = OutputStream(request.output)
        elif name == "jsonl":
            self._sink = self._file = self._journal = Journal(
                request.output,
                request.options.records(request.task),
                resume=request.resume,
                overwrite=request.overwrite,
            )
            self._writer = self._journal.jsonl
        else:
            self._sink = self._file = OutputFile(request.output, overwrite=request.overwrite)
        self._shares_terminal = not request.output and sys.stdout.isatty()
        self._shows_progress = not request.quiet if request.progress is None else request.progress
        self._report = Report(quiet=request.quiet, progress=self._shows_progress)
        self._skipped = Skipped(tell=self._name_skipped if request.verbose else None)
        self._walk = find.Walk(decode.suffixes, request.exclude, request.hidden, request.follow)
        found = self._sources()
        remaining = self._journal.remaining(found) if self._journal else found
        self._stream: Stream[Classifier, Classified] = Stream(remaining, self._load, request.task, request.options)

    def run(self) -> ExitStatus:
        if self._shows_progress:
            with suppress(RuntimeError):  # no more threads are to be had: the inputs need those there are
                threading.Thread(target=self._count, name="count", daemon=True).start()
        if source.STDIN in self._request.inputs and sys.stdin is not None and sys.stdin.isatty():
            self._report.say("reading an image from this terminal: Ctrl-D ends it, Ctrl-C ends the program")
        interrupts = _Interrupts(self._stream, self._report)
        with handled(interrupts.handle), self._report.showing_progress():
            try:
                for text in self._writer(self._results()):
                    # A run that comes to nothing leaves no empty file; one that can't start writes nothing at all.
                    if self._any or (self._file is None and self._error is None):
                        self._write(text)
                done_before = self._journal is not None and self._journal.done > 0
                came_to_something = self._file is None or self._any or done_before
                self._sink.close(complete=came_to_something and self._error is None and not interrupts.signal)
            except ReaderGone:
                return ExitStatus.OK
        return self._conclude(interrupts.signal)

    def _results(self) -> Iterator[Result]:
        """The Results, counted. Ends early, and quietly, when something is wrong: the writer completes its document."""
        try:
            self._check_records()
            for result in self._held_until_the_model_is_there():
                if self._journal is not None:
                    self._report.before = self._journal.done
                self._any = True
                yield result
                if self._error is not None:  # it could not be written
                    return
                self._report.add(result)
        except KeyboardInterrupt:  # while loading; otherwise the stream has just ended
            return
        except Exception as error:  # be it a fault of ours
            self._error = error

    def _held_until_the_model_is_there(self) -> Iterator[Classified]:
        """The Results. A file gets none before that, but for many: a run that can't start is to leave it as it was."""
        held: list[Classified] = []
        for result in self._stream:
            if self._file is not None and not self._has_model and len(held) < MOST_HELD:
                held.append(result)
                continue
            yield from held
            held.clear()
            yield result
        yield from held

    def _write(self, text: str) -> None:
        try:
            if self._shares_terminal:
                with self._report.above_bar():
                    self._sink.write(text)
            else:
                self._sink.write(text)
        except OutputError as error:
            self._error = self._error or error

    def _conclude(self, interrupted: int) -> ExitStatus:
        report, output = self._report, self._request.output
        if self._journal is not None:
            report.before = self._journal.done
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
        for line in self._skipped.lines():
            self._report.say(line)
        for glob in self._request.exclude:
            if glob not in self._skipped.globs:
                self._report.say(f"--exclude {shlex.quote(glob)} matched nothing")

    def _name_skipped(self, path: str, why: str) -> None:
        self._report.say(f"{path}: skipped, {why}")

    def _where_it_is(self) -> str:
        """Where an interrupted run has left what was done."""
        if self._file is None or not (self._report.done or self._report.before):
            return ""
        if self._file.is_complete:
            return f"; {self._request.output} is complete"
        return f"; what was done is in {self._file.part}{', --resume goes on from there' if self._journal else ''}"

    def _sources(self) -> Iterator[source.Source]:
        stdin_taken = 0 in map(source.descriptor, (*self._request.files_from, *self._request.files0_from))
        return find.expand(
            self._arguments(), self._walk, self._report.warn, stdin_taken=stdin_taken, skipped=self._skipped
        )

    def _arguments(self) -> Iterator[str]:
        yield from self._request.inputs
        for name in self._request.files_from:
            yield from lists.read_list(name, b"\n")
        for name in self._request.files0_from:
            yield from lists.read_list(name, b"\0")

    def _count(self) -> None:
        """For the time left: find all inputs once more, on the side. Only a list that is a file can be read twice."""
        if not self._report.has_bar and self._report.ended_within(LINE_EVERY / 2):
            return
        if not all(map(is_rereadable, (*self._request.files_from, *self._request.files0_from))):
            return
        try:
            self._report.total = find.count(self._arguments(), self._walk)
        except HieraError:
            return  # the run itself meets the same error, and tells of it

    def _load(self) -> Classifier:
        request = self._request
        with self._report.without_progress():
            classifier = apart(
                lambda: load_classifier(
                    request.model,
                    engine=request.engine,
                    device=request.device,
                    precision=request.precision,
                    batch_size=request.batch_size,
                    labels=True,
                    offline=request.offline,
                    progress=Progress(self._report.say, bar=self._report.has_bar),
                )
            )
        self._has_model = True
        if self._journal is not None:
            self._journal.check(classifier.engine.precision, classifier.checkpoint.digest())
        if not request.no_banner:
            self._report.say(f"{classifier.checkpoint.name} on {classifier.engine.describe()}")
            if classifier.checkpoint.name == published.DEMO:
                self._report.say("the demo model knows the sample images and nothing else; `-m tiny` is a real one")
        if request.verbose:
            self._report.say(f"weights: {classifier.checkpoint.weights}")
            self._report.say(f"batches of up to {classifier.engine.batch_size}")
        return classifier

    def _check_records(self) -> None:
        """Before anything is written, hold the records to go on with against the model; there may be none to load for.

        Weights that are not on this machine yet are held against them once they are.
        """
        if self._journal is None or not self._journal.has_records:
            return
        request = self._request
        machine = this_machine(request.engine, request.device)
        precision = choose(request.engine, request.device, request.precision, machine).precision
        with suppress(CheckpointError):
            self._journal.check(precision, resolve.resolve(request.model, offline=True).digest())


def is_rereadable(name: str) -> bool:
    """Whether a list gives the same paths again: a file does; a pipe, or a descriptor under any name, may not."""
    where = os.path.realpath(name)
    return os.path.isfile(where) and not where.startswith(("/dev/", "/proc/"))


def _default_format(output: str | None, *, null: bool) -> str:
    if output is not None:
        suffix = os.path.splitext(output)[1].lower()
        if suffix in SUFFIXES:
            return SUFFIXES[suffix]
        if suffix:
            raise UsageError(
                f"no format has the suffix {suffix!r} of {output}", f"Say which: --format {'|'.join(FORMATS)}"
            )
        return "plain"
    return "table" if sys.stdout.isatty() and not null else "plain"


def _writer(name: str, output: str | None, *, null: bool) -> Writer:
    if name in RECORDS:
        return RECORDS[name]
    if name == "plain":
        return partial(plain, null=null)
    encoding = "utf-8" if output else (sys.stdout.encoding or "ascii")
    color = not output and sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    columns = None if output else terminal.columns(sys.stdout.fileno())
    return partial(table, color=color, unicode=terminal.is_utf8(encoding), columns=columns)


class _Interrupts:
    """What a signal to end does: the first ends the stream in good order, a second one the program at once."""

    def __init__(self, stream: Stream[Any, Any], report: Report) -> None:
        self.signal = 0
        self._stream = stream
        self._report = report

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            self._report.interject("stopped")
            os._exit(128 + number)
        self.signal = number
        self._stream.stop()
        if self._stream.loading:  # nothing is half written then, and a download may take long
            raise KeyboardInterrupt
        self._report.interject("finishing what is running; again to stop now")
