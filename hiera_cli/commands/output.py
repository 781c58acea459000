"""Where the Results of a run go: a writer that makes chunks of them, and a sink that takes the chunks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hiera_cli.commands.request import OutputRequest
from hiera_cli.outputs.destination import OutputFile, OutputStream, encoded, is_stream
from hiera_cli.outputs.formats import Writer
from hiera_cli.outputs.journal import Journal
from hiera_cli.result import Result, Settings
from hiera_cli.system.printable import printable

Chunk = TypeVar("Chunk")
Taken = TypeVar("Taken", contravariant=True)


class Sink(Protocol[Taken]):
    """What takes the chunks, of text or whatever else a format is made of."""

    def write(self, text: Taken, /) -> None:
        """Write all of it, now. Raises OutputError."""
        ...

    def close(self, *, complete: bool) -> None:
        """No more is written. complete: the run came to its end."""
        ...


@dataclass(frozen=True)
class Output(Generic[Chunk]):
    """Where the Results of a run go.

    writer: Results → chunks, as they come; whenever the Results end, the chunks make a valid document. path: of the
    file, pipe or device; None for stdout.
    """

    writer: Callable[[Iterable[Result]], Iterator[Chunk]]
    sink: Sink[Chunk]
    path: str | None = None

    @property
    def file(self) -> Journal | OutputFile | None:
        """The sink, if it is a file, which gets its name when it is complete."""
        return self.sink if isinstance(self.sink, (Journal, OutputFile)) else None

    @property
    def journal(self) -> Journal | None:
        """The sink, if it can be gone on with."""
        return self.sink if isinstance(self.sink, Journal) else None


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


def opened(request: OutputRequest, writer: Writer, settings: Settings) -> Output[str]:
    """The output of a text format, opened. settings: of the run, which records to go on with are held against.

    Raises OutputError if it can't be written or gone on with.
    """
    path = request.path
    if path is None:
        return Output(writer, Stdout(shows_control=request.format == "table"))
    if is_stream(path):
        return Output(writer, OutputStream(path), path)
    if request.format == "jsonl":
        journal = Journal(path, settings, resume=request.resume, overwrite=request.overwrite)
        return Output(journal.jsonl, journal, path)
    return Output(writer, OutputFile(path, overwrite=request.overwrite), path)
