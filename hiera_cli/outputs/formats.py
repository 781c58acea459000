"""Results → text, one writer a format.

A writer takes the Results as they come and yields text as soon as it is known. Whenever the Results end, be it early,
what was yielded is a valid document of its format.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hiera_cli.result import Result
from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import bar, wrapped
from hiera_cli.system.utf8 import as_json, escaped, name_fields, raw_name, valid

Writer = Callable[[Iterable[Result]], Iterator[str]]

SCORE_DIGITS = 6
BAR_CELLS = 24
LEAST_BAR = 4
LABEL_CELLS = 24  # that a label gets before the bar does
COLUMNS = (
    *("path", "path_bytes", "status", "model", "precision"),
    *("rank", "index", "wnid", "label", "score", "error", "message", "remarks"),
)


def record(result: Result) -> dict[str, Any]:
    """The JSON record of a Result. data/record.schema.json describes it."""
    path, path_bytes = name_fields(result.path)
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
    failed = result.error
    return {
        "path": path,
        "path_bytes": path_bytes,
        "status": "ok" if failed is None else "error",
        "model": result.model,
        "precision": result.precision or None,
        "predictions": predictions,
        "error": None if failed is None else {"type": failed.type, "message": failed.message},
        "remarks": list(result.remarks),
        "settings": {
            "top_k": result.settings.top_k,
            "min_score": result.settings.min_score,
            "full_decode": result.settings.full_decode,
        },
    }


def json_array(results: Iterable[Result]) -> Iterator[str]:
    """One array, a record a line."""
    separator = "[\n"
    for result in results:
        yield separator + as_json(record(result))
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def jsonl(results: Iterable[Result]) -> Iterator[str]:
    """One record a line."""
    for result in results:
        yield as_json(record(result)) + "\n"


def plain(results: Iterable[Result], *, null: bool = False) -> Iterator[str]:
    """path, score, label: a line a prediction, tabs between. A failed input has no line here.

    An image without a prediction has one line, with nothing as score and label. null: NUL ends each line, and paths
    stand as they are, with what tabs they have: the last two divide.
    """
    for result in results:
        if result.error is not None:
            continue
        path, end = (raw_name(result.path), "\0") if null else (escaped(raw_name(result.path)), "\n")
        rows = [f"{p.score:.4f}\t{escaped(p.label)}" for p in result.predictions]
        yield "".join(f"{path}\t{row}{end}" for row in rows or ["\t"])


def _rows(result: Result) -> Iterator[dict[str, object]]:
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
    for p in result.predictions:
        score = f"{p.score:.{SCORE_DIGITS}f}"
        yield {**row, "rank": p.rank, "index": p.index, "wnid": p.wnid, "label": p.label, "score": score}
    if not result.predictions:  # an error, or all under --min-score: the input still has its row
        yield row


def _separated(results: Iterable[Result], line: Callable[[list[str]], str]) -> Iterator[str]:
    header = line(list(COLUMNS))
    for result in results:
        rows = (["" if row.get(name) is None else str(row[name]) for name in COLUMNS] for row in _rows(result))
        yield header + valid("".join(map(line, rows)))
        header = ""
    yield header


def csv_table(results: Iterable[Result]) -> Iterator[str]:
    """A header and a row a prediction, quoted as RFC 4180 says."""
    return _separated(results, _csv_line)


def tsv_table(results: Iterable[Result]) -> Iterator[str]:
    r"""The same with tabs between, and none within: no quotes, but \t, \n, \r and \\ as jq's @tsv writes them."""
    return _separated(results, _tsv_line)


def _csv_line(fields: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(fields)  # its own line end decides which fields are quoted: any with "\r" or "\n" in it
    return line.getvalue().removesuffix("\r\n") + "\n"


def _tsv_line(fields: list[str]) -> str:
    return "\t".join(field.translate(_TSV_ESCAPES) for field in fields) + "\n"


_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def table(
    results: Iterable[Result], *, color: bool = False, unicode: bool = True, columns: int | None = None
) -> Iterator[str]:
    """For reading: the file's name, then its labels with a bar each. A failed input has no block here.

    columns: of the terminal. In a narrow one bars are shorter, and long labels wrap under themselves; names stay whole.
    """
    bold, dim, bar_color, reset = ("\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m") if color else ("",) * 4
    bar_cells, label_cells = _layout(columns)
    gap = "  " if bar_cells else ""
    indent = "\n" + " " * (10 + len(gap) + bar_cells)
    separator = ""
    for result in results:
        if result.error is not None:
            continue
        lines = [f"{separator}{bold}{printable(result.path)}{reset}\n"]
        for p in result.predictions:
            strength = bold if p.rank == 1 else ""
            score_bar = bar(p.score, bar_cells, unicode=unicode)
            label = indent.join(wrapped(printable(p.label), label_cells))
            lines.append(
                f"  {strength}{p.score:6.1%}{reset}  {bar_color}{score_bar}{reset}{gap}{strength}{label}{reset}\n"
            )
        if not result.predictions:
            lines.append(f"  {dim}no label reaches --min-score{reset}\n")
        yield "".join(lines)
        separator = "\n"


def _layout(columns: int | None) -> tuple[int, int | None]:
    """Cells of a bar, and of a label beside it (None: without end)."""
    if columns is None:
        return BAR_CELLS, None
    bar_cells = min(BAR_CELLS, columns - 12 - LABEL_CELLS)
    if bar_cells < LEAST_BAR:
        return 0, max(1, columns - 10)
    return bar_cells, columns - 12 - bar_cells


RECORDS: dict[str, Writer] = {
    "json": json_array,
    "jsonl": jsonl,
    "csv": csv_table,
    "tsv": tsv_table,
}
