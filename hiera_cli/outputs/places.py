"""Explanations as text: a line a label with the place that adds most, or maps for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import wrapped
from hiera_cli.system.utf8 import escaped, raw_name
from hiera_cli.tasks.explain import Explained
from hiera_cli.tasks.terms import SIDE, Explanation, hundredths, in_parts

SHADES, ASCII_SHADES = " ░▒▓█", " .+%@"
CELLS = 2  # of a terminal, across a place


def plain(results: Iterable[Explained]) -> Iterator[str]:
    """path, score, label, row and column of the largest term (from 1), and the picture if one was saved.

    A line a label, tabs between. A failed input has no line here.
    """
    for result in results:
        path = escaped(raw_name(result.path))
        file = [escaped(raw_name(result.file))] if result.file else []
        for each in result.explanations:
            row, column = each.place
            numbers = [f"{each.score:.4f}", escaped(each.label), str(row + 1), str(column + 1)]
            yield "\t".join([path, *numbers, *file]) + "\n"


def table(
    results: Iterable[Explained],
    *,
    color: bool = False,
    all_colors: bool = False,
    unicode: bool = True,
    columns: int | None = None,
) -> Iterator[str]:
    """For reading: the file's name, then of each label a map, on one scale, with its numbers beside it.

    A failed input has no block here. all_colors: the terminal has those of 24 bits, and the map too. columns: of it.
    """
    bold, dim, reset = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if color else ("",) * 3
    room = None if columns is None else max(columns - 4 - SIDE * CELLS, 12)
    separator = ""
    for result in results:
        if result.error is not None:
            continue
        saved = f"  {dim}{printable(result.file)}{reset}" if result.file else ""
        yield f"{separator}{bold}{printable(result.path)}{reset}{saved}\n"
        low = min(float(each.terms.min()) for each in result.explanations)
        high = max(float(each.terms.max()) for each in result.explanations)
        for number, each in enumerate(result.explanations):
            beside = [f"{bold}{line}{reset}" for line in wrapped(printable(each.label), room)]
            beside += [f"{dim}{line}{reset}" for text in _numbers(each) for line in wrapped(text, room)]
            rows = [*_map(each, low, high, color=all_colors, unicode=unicode)]
            rows += [" " * (SIDE * CELLS)] * (len(beside) - SIDE)
            beside += [""] * (SIDE - len(beside))
            yield "\n" * (number > 0)
            yield "".join(f"  {row}  {text}".rstrip() + "\n" for row, text in zip(rows, beside, strict=True))
        separator = "\n"


def _numbers(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.score:.1%}"
    yield in_parts(explanation)
    low, high = hundredths(float(explanation.terms.min())), hundredths(float(explanation.terms.max()))
    row, column = explanation.place
    most = f"most in row {row + 1}, column {column + 1}" if high > 0 else "none adds anything"
    yield f"each {low:.2f} to {high:.2f}, {most}"


def _map(explanation: Explanation, low: float, high: float, *, color: bool, unicode: bool) -> Iterator[str]:
    """The rows of a map. low, high: the ends of the scale."""
    shares = (explanation.terms - low) / max(high - low, 1e-12)
    if color:
        from hiera_cli.outputs.maps import scale

        for row in scale()[(shares * 255).round().astype(int)].tolist():
            yield "".join(f"\x1b[48;2;{red};{green};{blue}m{' ' * CELLS}" for red, green, blue in row) + "\x1b[0m"
        return
    shades = SHADES if unicode else ASCII_SHADES
    for row in (shares * (len(shades) - 1)).round().astype(int).tolist():
        yield "".join(shades[step] * CELLS for step in row)
