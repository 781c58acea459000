"""Results → text, one writer a format, and the file that the text goes to.

A writer takes the Results as they come and yields text as soon as it is known. Whenever the Results end, be it early,
what was yielded is a valid document of its format.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from hiera_cli.errors import OutputError
from hiera_cli.predictions import Result
from hiera_cli.printable import printable

Writer = Callable[[Iterable[Result]], Iterator[str]]

SCORE_DIGITS = 6
BAR_CELLS = 24
EIGHTHS = " ▏▎▍▌▋▊▉█"
COLUMNS = ("path", "status", "model", "rank", "index", "wnid", "label", "score", "error", "message")


def record(result: Result) -> dict[str, Any]:
    """The JSON record of a Result."""
    if result.error is not None:
        error = {"type": result.error.type, "message": result.error.message}
        return {"path": result.path, "status": "error", "error": error}
    predictions = [
        {
            "rank": prediction.rank,
            "index": prediction.index,
            "wnid": prediction.wnid,
            "label": prediction.label,
            "score": round(prediction.score, SCORE_DIGITS),
        }
        for prediction in result.predictions
    ]
    return {"path": result.path, "status": "ok", "model": result.model, "predictions": predictions}


def json_array(results: Iterable[Result]) -> Iterator[str]:
    """One array, a record a line."""
    separator = "[\n"
    for result in results:
        yield separator + json.dumps(record(result))
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def jsonl(results: Iterable[Result]) -> Iterator[str]:
    """One record a line."""
    for result in results:
        yield json.dumps(record(result)) + "\n"


def plain(results: Iterable[Result]) -> Iterator[str]:
    """path, score, label: a line a prediction, tabs between. A failed input has no line here."""
    for result in results:
        path = printable(result.path, keep_bytes=True)
        yield "".join(f"{path}\t{p.score:.4f}\t{printable(p.label)}\n" for p in result.predictions)


def _rows(result: Result) -> Iterator[dict[str, object]]:
    if result.error is not None:
        yield {"path": result.path, "status": "error", "error": result.error.type, "message": result.error.message}
    common: dict[str, object] = {"path": result.path, "status": "ok", "model": result.model}
    for p in result.predictions:
        score = f"{p.score:.{SCORE_DIGITS}f}"
        yield {**common, "rank": p.rank, "index": p.index, "wnid": p.wnid, "label": p.label, "score": score}
    if result.error is None and not result.predictions:  # all under --min-score: the input still has its row
        yield common


def _separated(results: Iterable[Result], dialect: str) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, dialect=dialect, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerows(_rows(result))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def csv_table(results: Iterable[Result]) -> Iterator[str]:
    """A header and a row a prediction, quoted as RFC 4180 says."""
    return _separated(results, "excel")


def tsv_table(results: Iterable[Result]) -> Iterator[str]:
    """The same with tabs between."""
    return _separated(results, "excel-tab")


def table(results: Iterable[Result], *, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """For reading: the file's name, then its labels with a bar each. A failed input has no block here."""
    bold, dim, bar_color, reset = ("\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m") if color else ("",) * 4
    separator = ""
    for result in results:
        if result.error is not None:
            continue
        lines = [f"{separator}{bold}{printable(result.path)}{reset}\n"]
        for p in result.predictions:
            strength = bold if p.rank == 1 else ""
            lines.append(
                f"  {strength}{p.score:6.1%}{reset}  {bar_color}{_bar(p.score, unicode)}{reset}  "
                f"{strength}{printable(p.label)}{reset}\n"
            )
        if not result.predictions:
            lines.append(f"  {dim}no label reaches --min-score{reset}\n")
        yield "".join(lines)
        separator = "\n"


def _bar(score: float, unicode: bool) -> str:
    if not unicode:
        return ("#" * round(score * BAR_CELLS)).ljust(BAR_CELLS)
    whole, part = divmod(round(score * BAR_CELLS * 8), 8)
    return ("█" * whole + (EIGHTHS[part] if part else "")).ljust(BAR_CELLS)


FORMATS: dict[str, Writer] = {
    "table": table,
    "plain": plain,
    "json": json_array,
    "jsonl": jsonl,
    "csv": csv_table,
    "tsv": tsv_table,
}
SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "plain",
}


class OutputFile:
    """A file written under a name beside its own (FILE.part), which it gets when it is complete.

    Every write is whole or not at all. A device or a pipe is written as it stands.
    overwrite: replace what is there. append: go on with what is there.
    Raises OutputError, with the path, where it can't be written.
    """

    def __init__(self, path: str, *, overwrite: bool = False, append: bool = False) -> None:
        self.path = path
        self.part = f"{path}.part"
        self.size = 0  # bytes, of whole writes
        self._target = os.path.realpath(path)  # a link stays one
        self._part = f"{self._target}.part"
        try:
            mode = os.stat(self._target).st_mode
        except OSError:
            mode = 0
        if stat.S_ISDIR(mode):
            raise OutputError(f"cannot write {path}: it is a folder")
        self.is_file = mode == 0 or stat.S_ISREG(mode)
        if append and not self.is_file:
            raise OutputError(f"cannot go on with {path}: it is no file")
        if self.is_file and not overwrite and not append:
            if mode:
                raise OutputError(f"{path} exists already", "--overwrite replaces it; --resume goes on with jsonl.")
            if os.path.exists(self._part):
                raise OutputError(
                    f"{self.part} exists: an earlier run did not finish",
                    "--resume goes on with jsonl; --overwrite begins anew.",
                )
        self._was_complete = append and bool(mode) and not os.path.exists(self._part)
        try:
            if self._was_complete:
                os.rename(self._target, self._part)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self._part if self.is_file else self._target, flags, 0o666)
            self._file = os.fdopen(descriptor, "r+b" if self.is_file else "wb", buffering=0)
            if self.is_file:
                self._lock()
                self.truncate(self._file.seek(0, os.SEEK_END) if append else 0)
            self._size_found = self.size
        except OSError as error:
            raise self._failed(error) from error

    def _lock(self) -> None:
        """Two runs that write one file would spoil it."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(f"another run is writing {self.path} right now") from error
        except OSError:  # a file system without locks
            return

    def write(self, text: str) -> None:
        """Write and flush."""
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as error:
            if self.is_file:  # a torn record would spoil what stands before it
                self.truncate(self.size)
            raise self._failed(error) from error
        self.size += len(data)

    def truncate(self, size: int) -> None:
        """Cut off what is behind, and go on from there."""
        self._file.truncate(size)
        self._file.seek(size)
        self.size = size

    def reading(self) -> BinaryIO:
        """What is written so far, as a stream of its own."""
        return open(self._part, "rb")

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace the content, whole or not at all."""
        ordered = f"{self._part}.ordered"
        try:
            with open(ordered, "wb") as stream:
                stream.writelines(lines)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(ordered, self._part)
        except OSError as error:
            with suppress(OSError):
                os.unlink(ordered)
            raise self._failed(error) from error

    def close(self, *, complete: bool) -> None:
        """Give it its name if it is complete. What is incomplete stays beside it; nothing at all is removed."""
        try:
            if self.is_file:
                os.fsync(self._file.fileno())
            self._file.close()
            if self.is_file and (complete or (self._was_complete and self.size == self._size_found)):
                os.replace(self._part, self._target)
            elif self.is_file and not self.size:
                os.unlink(self._part)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        kept = f"What was written before is in {self.part}" if self.size else ""
        return OutputError(f"cannot write {self.path}: {error.strerror or error}", kept)
