"""Where the Results of a run go: a writer that makes chunks of them, and a sink that takes the chunks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hiera_cli.commands.request import OutputRequest
from hiera_cli.errors import OutputError
from hiera_cli.inputs.source import Source, is_cloud
from hiera_cli.outputs.arrays import ArrayFile, entries
from hiera_cli.outputs.destination import OutputFile, OutputStream, encoded, is_stream
from hiera_cli.outputs.formats import Writer
from hiera_cli.outputs.journal import Journal
from hiera_cli.result import Records
from hiera_cli.system.printable import printable
from hiera_cli.system.utf8 import valid

if TYPE_CHECKING:
    from hiera_cli.outputs.cloud import CloudFile
    from hiera_cli.outputs.page.file import PageFile
    from hiera_cli.outputs.parts import Parts


class Sink(Protocol):
    """What takes the chunks, of text or whatever else a format is made of."""

    def write(self, data: str | bytes, /) -> None:
        """Write all of it, now. Raises OutputError."""
        ...

    def close(self, *, complete: bool) -> None:
        """No more is written. complete: the run came to its end."""
        ...


@runtime_checkable
class File(Sink, Protocol):
    """A sink that gets its name when it is complete: is_complete. part: the name of an unfinished one, for messages."""

    @property
    def is_complete(self) -> bool: ...

    @property
    def part(self) -> str: ...


@runtime_checkable
class Resumable(Sink, Protocol):
    """A sink that can be gone on with: outputs/journal.py says what these are."""

    done: int
    met: Callable[[dict[str, Any]], None]

    @property
    def has_records(self) -> bool: ...

    def remaining(self, sources: Iterable[Source], /) -> Iterator[Source]: ...

    def check_precision(self, precision: str, /) -> None: ...

    def check(self, precision: str, digest: str, /) -> None: ...


@dataclass(frozen=True)
class Output:
    """Where the Results of a run go.

    writer: Results → chunks, as they come; whenever the Results end, the chunks make a valid document. path: of the
    file, pipe or device; None for stdout. parts: of a folder that workers write.
    """

    writer: Callable[[Iterable[Any]], Iterator[str] | Iterator[bytes]]
    sink: Sink
    path: str | None = None
    parts: Parts | None = None

    @cached_property  # asked for each Result, and slow to tell of a protocol
    def file(self) -> File | None:
        """The sink, if it is a file, which gets its name when it is complete."""
        return self.sink if isinstance(self.sink, File) else None

    @cached_property
    def journal(self) -> Resumable | None:
        """The sink, if it can be gone on with."""
        return self.sink if isinstance(self.sink, Resumable) else None


class Stdout:
    """Standard output. A terminal gets whole lines, and control characters of file names and labels as escapes."""

    def __init__(self, *, shows_control: bool) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._escapes = self._is_terminal and not shows_control
        self._rest = ""  # of a line that is not whole yet: what goes to stderr would stand in the middle of it

    def write(self, data: str | bytes) -> None:
        """Write and flush. Raises ReaderGone if the reader went away."""
        if isinstance(data, str):
            if self._escapes:
                data = printable(data, keep="\n\t")
            if self._is_terminal:
                lines, end, self._rest = (self._rest + data).rpartition("\n")
                data = lines + end
        sys.stdout.buffer.write(encoded(data))
        sys.stdout.buffer.flush()

    def close(self, *, complete: bool) -> None:
        """Nothing to do: every write was flushed, and every document ends with a line."""


def opened_arrays(request: OutputRequest, records: Records) -> Output:
    """The output of an array format, opened. records: of `hiera embed`. Raises OutputError."""
    assert request.path is not None
    if is_cloud(request.path):
        raise OutputError(f"{request.format} is written on this machine alone, not to {request.path}", "Use .parquet.")
    if is_stream(request.path):
        raise OutputError(f"cannot write {request.path}: {request.format} needs a file", "Name one: -o FILE")
    tokens = records.settings["tokens"]
    about = {"model": valid(records.model), **{name: str(value).lower() for name, value in records.settings.items()}}
    sink = ArrayFile(request.path, f".{request.format}", tokens=tokens, about=about, overwrite=request.overwrite)
    return Output(entries, sink, request.path)


def opened_parts(request: OutputRequest, records: Records) -> Output:
    """The output that the workers of a cluster write, opened. Raises OutputError."""
    from hiera_cli.outputs.parts import PartsFolder

    assert request.path is not None
    folder = PartsFolder(request.path, request.format, records, resume=request.resume, overwrite=request.overwrite)
    return Output(folder.count, folder, request.path, folder.parts)


def opened_page(request: OutputRequest, title: str | None = None) -> Output:
    """The output of a page, opened. title: what stands above it; None: its name. Raises OutputError."""
    page = page_file(request, title)
    return Output(page.of_results, page, request.path)


def page_file(request: OutputRequest, title: str | None = None) -> PageFile:
    """The file of a page, opened. title: what stands above it; None: its name. Raises OutputError."""
    assert request.path is not None
    if is_cloud(request.path):
        raise OutputError(f"a page is written on this machine alone, not to {request.path}", "Copy it when complete.")
    if is_stream(request.path):
        raise OutputError(f"cannot write {request.path}: a page needs a file", "Name one: -o page.html")
    from hiera_cli.outputs.page.file import PageFile

    return PageFile(request.path, title=title, overwrite=request.overwrite)


def opened_sink(request: OutputRequest, title: str) -> Stdout | OutputStream | OutputFile | PageFile | CloudFile:
    """Where text goes that has no Results. title: of a page. Raises OutputError."""
    if request.path is None:
        return Stdout(shows_control=request.format == "table")
    if request.format == "html":
        return page_file(request, title)
    return opened_file(request.path, overwrite=request.overwrite)


def opened_file(path: str, *, overwrite: bool) -> OutputStream | OutputFile | CloudFile:
    """What takes text under a name, wherever that is. Raises OutputError."""
    if is_cloud(path):
        from hiera_cli.outputs.cloud import CloudFile

        return CloudFile(path, overwrite=overwrite)
    return OutputStream(path) if is_stream(path) else OutputFile(path, overwrite=overwrite)


@contextmanager
def unfinished_on_error(sink: Sink) -> Iterator[None]:
    """Within it what goes wrong leaves the output unfinished, as it is then."""
    try:
        yield
    except BaseException:
        sink.close(complete=False)
        raise


def opened(request: OutputRequest, writer: Writer | None, records: Records) -> Output:
    """The output, opened. writer: None for Parquet's, which is one for all kinds of records. records: of the run.

    Raises OutputError if it can't be written or gone on with.
    """
    path = request.path
    if writer is None:
        from hiera_cli.outputs.parquet import parquet

        return Output(partial(parquet, records=records), opened_sink(request, ""), path)
    if path is None:
        return Output(writer, Stdout(shows_control=request.format == "table"))
    if request.format == "jsonl" and not is_cloud(path) and not is_stream(path):
        journal = Journal(path, records, resume=request.resume, overwrite=request.overwrite)
        return Output(journal.jsonl, journal, path)
    return Output(writer, opened_file(path, overwrite=request.overwrite), path)
