"""csv and tsv: a header, and rows of one input after the other."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from hiera_cli.result import Result
from hiera_cli.system.utf8 import name_fields, valid

HEAD = ("path", "path_bytes", "status", "model", "precision")  # columns of every task, before its own
TAIL = ("error", "message", "remarks")

R = TypeVar("R", bound=Result)

_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def head(result: Result) -> dict[str, object]:
    """The columns that every task has."""
    path, path_bytes = name_fields(result.path)
    row: dict[str, object] = {
        "path": path,
        "path_bytes": path_bytes,
        "status": "ok" if result.error is None else "error",
        "model": result.model,
        "precision": result.precision,
        "remarks": "; ".join(result.remarks),
    }
    if result.error is not None:
        row.update(error=result.error.type, message=result.error.message)
    return row


def separated(
    results: Iterable[R],
    columns: Sequence[str],
    rows: Callable[[R], Iterator[dict[str, object]]],
    line: Callable[[list[str]], str],
) -> Iterator[str]:
    """The text, an input at a time, the header with the first. rows: of a Result, by column."""
    header = line(list(columns))
    for result in results:
        fields = (["" if row.get(name) is None else str(row[name]) for name in columns] for row in rows(result))
        yield header + valid("".join(map(line, fields)))
        header = ""
    yield header


def csv_line(fields: list[str]) -> str:
    """Quoted as RFC 4180 says."""
    line = io.StringIO()
    csv.writer(line).writerow(fields)  # its own line end decides which fields are quoted: any with "\r" or "\n" in it
    return line.getvalue().removesuffix("\r\n") + "\n"


def tsv_line(fields: list[str]) -> str:
    r"""Tabs between, and none within: no quotes, but \t, \n, \r and \\ as jq's @tsv writes them."""
    return "\t".join(field.translate(_TSV_ESCAPES) for field in fields) + "\n"
