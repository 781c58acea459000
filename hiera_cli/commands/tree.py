"""WordNet's tree as lines: for a person at a terminal, and for a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import wrapped
from hiera_cli.wordnet import Row

LEAST_CELLS = 16  # that a name gets, however deep it stands in a narrow terminal


def drawn(rows: Iterable[Row], columns: int | None, *, unicode: bool = True) -> Iterator[str]:
    """A tree with guides, two cells a level. columns: of the terminal, in which long names wrap; None: they do not."""
    branch, last, through = ("├ ", "└ ", "│ ") if unicode else ("|-", "`-", "| ")
    for row in rows:
        before = "".join("  " if is_last else through for is_last in row.lasts[:-1])
        guide, below = "", ""
        if row.lasts:
            guide, below = (last, "  ") if row.lasts[-1] else (branch, through)
        room = None if columns is None else max(columns - 2 * len(row.lasts), LEAST_CELLS)
        for line in wrapped(_named(row), room):
            yield before + guide + line
            guide = below


def _named(row: Row) -> str:
    if row.index is not None:
        return f"{_label(row)} [{row.index}]"
    return f"{_label(row)} ({row.classes}, see above)" if row.again else f"{_label(row)} ({row.classes})"


def _label(row: Row) -> str:
    return printable(row.synset.name if row.index is None else ", ".join(row.synset.names))


def tabbed(rows: Iterable[Row]) -> Iterator[str]:
    """Index, WordNet id and label, as `hiera labels` has them, the label indented by two spaces a level.

    A concept has - for an index, its usual name for a label, and behind that its count of classes.
    """
    for row in rows:
        indented = "  " * len(row.lasts) + _label(row)
        if row.index is not None:
            yield f"{row.index}\t{row.synset.wnid}\t{indented}"
        else:
            yield f"-\t{row.synset.wnid}\t{indented}\t{row.classes}{' see above' if row.again else ''}"
