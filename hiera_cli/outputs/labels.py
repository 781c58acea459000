"""Labels as text: the table for a person, a line a prediction, rows of csv and tsv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hiera_cli.outputs.formats import Writer, json_array, jsonl
from hiera_cli.outputs.separated import HEAD, TAIL, csv_line, head, separated, tsv_line
from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import bar, wrapped
from hiera_cli.system.utf8 import escaped, raw_name
from hiera_cli.tasks.classify import SCORE_DIGITS, Classified

BAR_CELLS = 24
LEAST_BAR = 4
LABEL_CELLS = 24  # that a label gets before the bar does
COLUMNS = (*HEAD, "rank", "index", "wnid", "label", "score", *TAIL)


def plain(results: Iterable[Classified], *, null: bool = False) -> Iterator[str]:
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


def csv_table(results: Iterable[Classified]) -> Iterator[str]:
    """A header and a row a prediction, quoted as RFC 4180 says."""
    return separated(results, COLUMNS, _rows, csv_line)


def tsv_table(results: Iterable[Classified]) -> Iterator[str]:
    r"""The same with tabs between, and none within: no quotes, but \t, \n, \r and \\ as jq's @tsv writes them."""
    return separated(results, COLUMNS, _rows, tsv_line)


def _rows(result: Classified) -> Iterator[dict[str, object]]:
    row = head(result)
    for p in result.predictions:
        score = f"{p.score:.{SCORE_DIGITS}f}"
        yield {**row, "rank": p.rank, "index": p.index, "wnid": p.wnid, "label": p.label, "score": score}
    if not result.predictions:  # an error, or all under --min-score: the input still has its row
        yield row


def table(
    results: Iterable[Classified], *, color: bool = False, unicode: bool = True, columns: int | None = None
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
            lines.append(f"  {dim}no label reaches the least score{reset}\n")
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


RECORDS: dict[str, Writer] = {"json": json_array, "jsonl": jsonl, "csv": csv_table, "tsv": tsv_table}
