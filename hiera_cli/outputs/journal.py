"""An unfinished jsonl output, to go on with: which inputs are done, and in the end one record each, in input order.

While a run is under way its file (FILE.part) is only ever appended to, so a run that is killed at any byte leaves whole
records and at most one torn line, which the next run cuts off. Nothing else is ever cut: a file with any other line in
it is refused, and left as it is. Records that a later run replaces stay where they are until the run is complete:
then the file is written once more, in input order, each input's newest record, and takes its name.

What tells that an input is done stands in its record: its name, byte for byte, the settings, and under "resume" the
size and mtime of the file, or of the archive that it is in, and the weights. Records of earlier versions, which had the
settings there too, are gone on with, and get today's shape when the run is complete.
"""

from __future__ import annotations

import json
import os
import shlex
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from hiera_cli.errors import OutputError
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.outputs.destination import OutputFile
from hiera_cli.result import Records, Result, stamp_of
from hiera_cli.system.printable import printable
from hiera_cli.system.utf8 import as_json, from_fields, name_bytes, valid

NEW = -1  # in the order of inputs: one whose record is still to be written
DIGEST_DIGITS = 16  # of the weights' sha256, in each record
RESUME = ("weights", "size", "mtime_ns")
FIRST_BYTES = b'{"path": "'  # of every record
MAX_RECORD_BYTES = 64 << 20  # a longer line is no record: not even one of 100,000 classes


class Journal:
    """A jsonl output that can be gone on with.

    path: the output. records: of this run. resume: go on with what is there. overwrite: forget what is there.
    Raises OutputError if it can't be written, holds something else than records, or was made with other settings.
    """

    def __init__(
        self,
        path: str,
        records: Records,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._records = records
        self._precision: str | None = None  # of the records that are there; None without any
        self._weights: str | None = None  # digest of those that made them; None without any, and in older files
        self._digest: str | None = None  # of the weights of this run, once they are there
        self._has_old = False  # records of earlier versions
        self._file = OutputFile(path, overwrite=overwrite, append=resume, resumable=True)
        # Hash of a name → where its newest record begins; as its complement (~) once an input of that path was met.
        self._last: dict[int, int] = {}
        self._order = array("q")  # for each input in order: where its record begins, or NEW
        self._written = array("q")  # where the new records begin, in order
        self.done = 0  # inputs met so far that needed no work
        self.met: Callable[[dict[str, Any]], None] = lambda entry: None  # gets the record of each of these
        try:
            if resume:
                self._read()
            self._reader = self._file.reading()
        except BaseException:
            self._file.close(complete=False)
            raise

    def jsonl(self, results: Iterable[Result]) -> Iterator[str]:
        """The writer: jsonl, with what a later run that goes on with it goes by in each record."""
        for result in results:
            resume: dict[str, Any] = dict.fromkeys(RESUME)
            if result.error is None:
                resume["weights"] = self._digest
            if result.stamp is not None:
                resume.update(asdict(result.stamp))
            yield as_json({**result.to_dict(), "resume": resume}) + "\n"

    def remaining(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The sources that have no record yet, or whose record is an error's or of another state of the file."""
        for source in sources:
            key = hash(name_bytes(source.path))
            start = self._last.get(key)
            if start is not None and start < 0:  # named before: its record serves both
                start = ~start
            if start is not None:
                self._last[key] = ~start
            entry = None if start is None else self._done(source, start)
            if start is not None and entry is not None:
                self._order.append(start)
                self.done += 1
                self.met(entry)
            else:
                self._order.append(NEW)
                yield source

    def write(self, data: str | bytes) -> None:
        """Append one record."""
        start = self._file.size
        self._file.write(data)
        self._written.append(start)

    def close(self, *, complete: bool) -> None:
        """If the run is complete, bring the records into the inputs' order and give the file its name."""
        if complete:
            self._bring_into_order()
        self._reader.close()
        self._file.close(complete=complete)

    @property
    def is_complete(self) -> bool:
        """Whether the file has its name: after `close`."""
        return self._file.is_complete

    @property
    def part(self) -> str:
        """The name that an unfinished file has, for messages."""
        return self._file.part

    @property
    def has_records(self) -> bool:
        """Whether there was something to go on with."""
        return bool(self._last)

    def check_precision(self, precision: str) -> None:
        """Raise OutputError if the records that are there were made at another one."""
        if self._precision not in (None, precision):
            raise self._made_otherwise("precision", self._precision, precision)

    def check(self, precision: str, digest: str) -> None:
        """Raise OutputError if the records that are there were made at another precision, or by other weights.

        digest: the sha256 of the weights. From here on it stands in the records.
        """
        self.check_precision(precision)
        self._digest = digest[:DIGEST_DIGITS]
        if self._weights not in (None, self._digest):
            raise OutputError(
                f"cannot go on with {self._file.path}: it was made with other weights of {self._records.model} "
                f"(sha256 {self._weights}…, this run has {self._digest}…)",
                remedy="another output",
            )

    def _read(self) -> None:
        """Index what is there and hold it against the settings. A torn last line is left to the first write to cut."""
        start = 0
        with self._file.reading() as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_RECORD_BYTES), b""), 1):
                entry = self._parsed(line)
                if entry is None and not self._is_torn(line, number):
                    raise self._not_a_record(number, _is_of_another_command(line))
                if entry is not None:
                    self._check(entry)
                if entry is None or not line.endswith(b"\n"):  # its end alone is missing, be it all of a record
                    break
                self._last[hash(_name(entry))] = start
                self._has_old = self._has_old or self._is_of_earlier_version(entry)
                start += len(line)
        self._file.size = start

    def _is_torn(self, line: bytes, number: int) -> bool:
        """Whether a line is what a run left that was ended while it wrote: without an end, behind whole records.

        As the only line, it is in an unfinished file and begins as a record does. What is whole JSON is not torn.
        """
        if line.endswith(b"\n") or len(line) == MAX_RECORD_BYTES or _begins_with_json(line):
            return False
        return number > 1 or (self._file.is_unfinished and line[: len(FIRST_BYTES)] == FIRST_BYTES[: len(line)])

    def _not_a_record(self, number: int, of_another_command: bool) -> OutputError:
        if of_another_command:
            return OutputError(
                f"cannot go on with {self._file.path}: line {number} of it is a record of another command",
                remedy="another output",
            )
        return OutputError(
            f"cannot go on with {self._file.path}: line {number} of it is not a record of hiera",
            remedy="keep the records before" if number > 1 else "another output",
            count=number - 1,
            file=shlex.quote(self._file.there),
            kept=shlex.quote(f"{printable(self._file.path).removesuffix('.jsonl')}-kept.jsonl"),
        )

    def _check(self, entry: dict[str, Any]) -> None:
        settings = _settings(entry)
        for name, now in self._records.settings.items():
            # Earlier versions had fewer settings: what they did is what a switch that is off means, or no value.
            then = settings.get(name, type(now)() if isinstance(now, bool | list) else None)
            if then != now:
                raise self._made_otherwise(name.replace("_", "-"), then, now)
        if entry["status"] == "ok":
            if entry["model"] != valid(self._records.model):
                raise self._made_otherwise("model", entry["model"], self._records.model)
            self._precision = _precision(entry)
            self._weights = entry["resume"].get("weights") or self._weights

    def _made_otherwise(self, what: str, then: object, now: object) -> OutputError:
        if isinstance(now, bool):
            was, this = ("without", "with") if now else ("with", "without")
            return OutputError(
                f"cannot go on with {self._file.path}: it was made {was} {what}, this run is {this} it",
                remedy="without the option" if now else "with the option",
                option=what,
            )
        if then in (None, []):
            return OutputError(
                f"cannot go on with {self._file.path}: it was made without {what}, this run has {_in_words(now)}",
                remedy="without the option",
                option=what,
            )
        this = "is without it" if now in (None, []) else f"has {_in_words(now)}"
        return OutputError(
            f"cannot go on with {self._file.path}: it was made with {what} {_in_words(then)}, this run {this}",
            remedy="the same setting",
            option=what,
            value=f" --{what} ".join(map(str, then)) if isinstance(then, list) else then,
        )

    def _done(self, source: Source, start: int) -> dict[str, Any] | None:
        """The record that begins there, if it says that the source is done."""
        entry = self._parsed(self._line_at(start))
        if entry is None or entry["status"] != "ok" or _name(entry) != name_bytes(source.path):
            return None
        if source.kind not in (Kind.FILE, Kind.MEMBER, Kind.CLOUD):
            return entry if source.kind is Kind.URL else None
        stamp = stamp_of(source.path) if source.kind is Kind.FILE else source.stamp
        return entry if stamp is not None and asdict(stamp).items() <= entry["resume"].items() else None

    def _bring_into_order(self) -> None:
        if not self._last:  # nothing was there: all records came in order, those of an archive that is one source too
            return
        gone = sorted(start for start in self._last.values() if start >= 0)  # named no more: their records are kept
        new = iter(self._written)
        starts: list[int] | array[int] = array("q", (start if start != NEW else next(new) for start in self._order))
        if not gone and not self._has_old and self._is_whole(starts):
            return
        before = self._written[0] if self._written else self._file.size
        self._file.rewrite(map(self._line_of_today, _merged(starts, gone, before)))

    def _line_of_today(self, start: int) -> bytes:
        """The record that begins there, in today's shape."""
        line = self._line_at(start)
        entry = self._parsed(line) if self._has_old else None
        if entry is None or not self._is_of_earlier_version(entry):
            return line
        return f"{as_json(self._of_today(entry))}\n".encode()

    def _parsed(self, line: bytes) -> dict[str, Any] | None:
        """A record that `--resume` can go by, or None. As it is written: no byte order mark, no other line end."""
        if not line.startswith(FIRST_BYTES) or line.endswith(b"\r\n"):
            return None
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the latter for [[[[…
            return None
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            return None
        if entry.get("status") not in ("ok", "error") or not isinstance(entry.get("resume"), dict):
            return None
        if not isinstance(entry.get("path_bytes"), str | None) or not isinstance(_settings(entry), dict):
            return None
        try:
            _name(entry)
        except ValueError:
            return None
        if entry["status"] == "error":
            return entry
        if entry.get("error") is not None or not all(
            isinstance(each, str) for each in (entry.get("model"), _precision(entry))
        ):
            return None
        return entry if self._records.kind.is_answer(entry) else None

    def _is_of_earlier_version(self, entry: dict[str, Any]) -> bool:
        return _is_old(entry) or entry["settings"].keys() != self._records.settings.keys()

    def _of_today(self, old: dict[str, Any]) -> dict[str, Any]:
        """A record of an earlier version, as one of today."""
        name, precision = os.fsdecode(_name(old)), _precision(old) or ""
        today = self._records.kind(name, self._records.model, precision=precision, settings=self._records.settings)
        return {
            **today.to_dict(),
            **{key: old.get(key, none) for key, none in today.answer().items()},
            "status": old["status"],
            "error": old.get("error"),
            "remarks": old.get("remarks", []),
            "resume": {key: old["resume"].get(key) for key in RESUME},
        }

    def _is_whole(self, starts: Iterable[int]) -> bool:
        """Whether these are all the lines of the file, as they stand in it."""
        end = 0
        for start in starts:
            if start != end:
                return False
            end += len(self._line_at(start))
        return end == self._file.size

    def _line_at(self, start: int) -> bytes:
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


def _in_words(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _is_of_another_command(line: bytes) -> bool:
    """Whether a line is a whole record all the same."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    keys = {"path", "path_bytes", "status", "model", "precision", "error", "remarks", "settings", "resume"}
    return isinstance(entry, dict) and keys <= entry.keys() and entry["status"] == "ok" and entry["error"] is None


def _begins_with_json(line: bytes) -> bool:
    """Whether a whole value stands at the begin of a line."""
    try:
        json.JSONDecoder().raw_decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return True


def _name(entry: dict[str, Any]) -> bytes:
    """The input of a record, byte for byte."""
    return from_fields(entry["path"], entry.get("path_bytes"))


def _is_old(entry: dict[str, Any]) -> bool:
    """Whether a record is of an earlier version, which had what it depends on under "resume", and keys left out."""
    return "settings" not in entry


def _settings(entry: dict[str, Any]) -> Any:
    return entry["resume"] if _is_old(entry) else entry["settings"]


def _precision(entry: dict[str, Any]) -> Any:
    return entry["resume"].get("precision") if _is_old(entry) else entry.get("precision")
