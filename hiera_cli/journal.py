"""An unfinished jsonl output, to go on with: which inputs are done, and in the end one record each, in input order.

While a run is under way its file (FILE.part) is only ever appended to, so a run that is killed at any byte leaves whole
records and at most one torn line. Records that a later run replaces stay where they are until the run is complete:
then the file is written once more, in input order, each input's newest record, and takes its name.

What tells that an input is done stands in its record, under "resume": the file's size and mtime, and the settings.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hiera_cli.errors import OutputError
from hiera_cli.output import OutputFile, record
from hiera_cli.predictions import Result, stamp_of
from hiera_cli.sources import Kind, Source

NEW = -1  # in the order of inputs: one whose record is still to be written


@dataclass(frozen=True)
class Settings:
    """What a record depends on beside its input. A run can be gone on with under the same settings only."""

    model: str
    top_k: int
    min_score: float


class Journal:
    """A jsonl output that can be gone on with.

    path: the output. settings: of this run. resume: go on with what is there. overwrite: forget what is there.
    Raises OutputError if it can't be written, holds something else than records, or was made with other settings.
    """

    def __init__(self, path: str, settings: Settings, *, resume: bool = False, overwrite: bool = False) -> None:
        self._settings = settings
        self._precision: str | None = None  # of the records that are there; None without any
        self._file = OutputFile(path, overwrite=overwrite, append=resume)
        self._last: dict[int, int] = {}  # hash of a path → where its newest record begins; taken out when met again
        self._order = array("q")  # for each input in order: where its record begins, or NEW
        self._written = array("q")  # where the new records begin, in order
        self.done = 0  # inputs met so far that needed no work
        try:
            if resume:
                self._read()
            self._reader = self._file.reading() if self._file.is_file else None
        except OutputError:
            self._file.close(complete=False)
            raise

    def jsonl(self, results: Iterable[Result]) -> Iterator[str]:
        """The writer: jsonl, with what `--resume` goes by in each record."""
        for result in results:
            resume: dict[str, Any] = {"top_k": self._settings.top_k, "min_score": self._settings.min_score}
            if result.precision:
                resume["precision"] = result.precision
            if result.stamp is not None:
                resume.update(asdict(result.stamp))
            yield json.dumps({**record(result), "resume": resume}) + "\n"

    def remaining(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The sources that have no record yet, or whose record is an error's or of another state of the file."""
        for source in sources:
            start = self._last.pop(hash(source.path), None)
            if start is not None and self._is_done(source, start):
                self._order.append(start)
                self.done += 1
            else:
                self._order.append(NEW)
                yield source

    def write(self, text: str) -> None:
        """Append one record."""
        start = self._file.size
        self._file.write(text)
        self._written.append(start)

    def close(self, *, complete: bool) -> None:
        """If the run is complete, bring the records into the inputs' order and give the file its name."""
        if complete and self._file.is_file:
            self._bring_into_order()
        if self._reader is not None:
            self._reader.close()
        self._file.close(complete=complete)

    def check_precision(self, precision: str) -> None:
        """Raise OutputError if the records that are there were made at another."""
        if self._precision not in (None, precision):
            raise self._made_otherwise("precision", self._precision, precision)

    def _read(self) -> None:
        """Index what is there, hold it against the settings, and cut a torn last line off."""
        start = 0
        with self._file.reading() as stream:
            lines = enumerate(stream, 1)
            for number, line in lines:
                entry = _parsed(line) if line.endswith(b"\n") else None
                if entry is None:
                    if next(lines, None) is not None:
                        raise OutputError(
                            f"cannot go on with {self._file.path}: line {number} of it is no record of hiera",
                            "--overwrite begins anew.",
                        )
                    break
                self._check(entry)
                self._last[hash(entry["path"])] = start
                start += len(line)
        self._file.truncate(start)

    def _check(self, entry: dict[str, Any]) -> None:
        resume = entry["resume"]
        for name in ("top_k", "min_score"):
            if resume.get(name) != getattr(self._settings, name):
                raise self._made_otherwise(name.replace("_", "-"), resume.get(name), getattr(self._settings, name))
        if entry["status"] == "ok":
            if entry["model"] != self._settings.model:
                raise self._made_otherwise("model", entry["model"], self._settings.model)
            self._precision = resume.get("precision")

    def _made_otherwise(self, what: str, then: object, now: object) -> OutputError:
        return OutputError(
            f"cannot go on with {self._file.path}: it was made with {what} {then}, this run has {now}",
            f"Use --{what} {then} again, another --output, or --overwrite to begin anew.",
        )

    def _is_done(self, source: Source, start: int) -> bool:
        entry = _parsed(self._line_at(start))
        if entry is None or entry["status"] != "ok" or entry["path"] != source.path:
            return False
        if source.kind is not Kind.FILE:
            return source.kind is Kind.URL
        stamp = stamp_of(source.path)
        return stamp is not None and asdict(stamp).items() <= entry["resume"].items()

    def _bring_into_order(self) -> None:
        gone = sorted(self._last.values())  # inputs that are named no more: their records are kept
        new = iter(self._written)
        starts: list[int] | array[int] = array("q", (start if start != NEW else next(new) for start in self._order))
        if not gone and self._is_whole(starts):
            return
        before = self._written[0] if self._written else self._file.size
        self._file.rewrite(map(self._line_at, _merged(starts, gone, before)))

    def _is_whole(self, starts: Iterable[int]) -> bool:
        """Whether these are all the lines of the file, as they stand in it."""
        end = 0
        for start in starts:
            if start != end:
                return False
            end += len(self._line_at(start))
        return end == self._file.size

    def _line_at(self, start: int) -> bytes:
        assert self._reader is not None
        self._reader.seek(start)
        return self._reader.readline()


def _merged(starts: Iterable[int], gone: list[int], before: int) -> Iterator[int]:
    """`starts`, with each of `gone` ahead of the first old record (one `before` the new ones) that stood after it."""
    waiting = iter(gone)
    next_gone = next(waiting, None)
    for start in starts:
        while next_gone is not None and next_gone < start < before:
            yield next_gone
            next_gone = next(waiting, None)
        yield start
    while next_gone is not None:
        yield next_gone
        next_gone = next(waiting, None)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A record that `--resume` can go by, or None."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return None
    if entry.get("status") not in ("ok", "error") or not isinstance(entry.get("resume"), dict):
        return None
    return entry if entry["status"] == "error" or isinstance(entry.get("model"), str) else None
