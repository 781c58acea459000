"""Records that are there already → a page, its thumbnails made of the photos anew."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hiera_cli.commands.interrupts import Interrupts
from hiera_cli.commands.report import ExitStatus, Report
from hiera_cli.commands.request import Request
from hiera_cli.errors import OutputError
from hiera_cli.images.decode import Decoding
from hiera_cli.inputs.source import STDIN, is_url
from hiera_cli.outputs.page.file import PageFile
from hiera_cli.pipeline.thumbnails import Thumbnails
from hiera_cli.result import Failure, Result
from hiera_cli.system.signals import handled
from hiera_cli.system.utf8 import from_fields

Record = Mapping[str, Any]


class Shown(Result):
    """A photo that is on the page, with its picture if it has no error."""

    done = "shown"


def write(page: PageFile, records: Sequence[Record], request: Request, *, thumbnails: bool = True) -> ExitStatus:
    """Write a page, and close it unless that fails. thumbnails: read the photos, and show them small.

    A photo that can't be read has the reason in its place, and is told of as by every run. Raises OutputError.
    """
    report = Report(
        quiet=request.report.quiet,
        progress=request.report.shows_progress,
        verb=Shown.done,
        failing="shown without their photo",
    )
    report.total = len(records)
    paths = [_path(record) if thumbnails else None for record in records]
    inputs = request.inputs
    decoding = Decoding(max_pixels=inputs.max_pixels, full=inputs.full_decode)
    made = Thumbnails(paths, decoding, inputs.workers)
    interrupts = Interrupts(made, report)

    def pictured() -> Iterator[tuple[Record, bytes | None, str]]:
        for record, path, prepared in zip(records, paths, made, strict=False):  # an interrupt ends it early
            failure = prepared.outcome if prepared is not None and isinstance(prepared.outcome, Failure) else None
            missing = failure.message if failure else _not_read(record) if thumbnails else ""
            yield record, prepared.thumbnail if prepared else None, missing
            report.add(Shown(path or record["path"], error=failure))

    with handled(interrupts.handle), report.showing_progress():
        try:
            for chunk in page.of_records(pictured()):
                page.write(chunk)
            page.close(complete=bool(records) and not interrupts.signal)
        except OutputError:
            if report.done:
                report.end(f"stopped early: {report.summary()}")
            raise
    if interrupts.signal:
        where = f"; what was done is in {page.part}" if report.done else ""
        report.end(f"interrupted: {report.summary()}{where}")
        return ExitStatus(128 + interrupts.signal)
    if records:
        report.say(report.summary(request.output.path))
    return report.status


def _path(record: Record) -> str | None:
    """Of a file to read; None for what is none, or failed already."""
    if record.get("error") or _not_read(record):
        return None
    return _name(record)


def _not_read(record: Record) -> str:
    """Why there is nothing to read by this name; "" if there may be."""
    name = _name(record)
    if is_url(name):
        return "it is on the web, and is not fetched again"
    return "it was read from a pipe" if name in ("", STDIN) or name.startswith(("/dev/", "/proc/")) else ""


def _name(record: Record) -> str:
    return os.fsdecode(from_fields(record["path"], record.get("path_bytes")))
