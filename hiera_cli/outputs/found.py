"""What a search has found, as text: paths, a table for a person, records with scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from hiera_cli.checkpoints.labels import Label
from hiera_cli.index.search import SCORE_DIGITS, Labelled
from hiera_cli.outputs.separated import csv_line, tsv_line
from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import wrapped
from hiera_cli.system.utf8 import as_json, name_fields, raw_name, valid

COLUMNS = ("path", "path_bytes", "score", "index", "wnid", "label", "label_score")

Writer = Callable[[Iterable[Labelled]], Iterator[Any]]  # of text, of Parquet bytes


def paths(found: Iterable[Labelled], *, null: bool = False) -> Iterator[str]:
    """A path a line and nothing else, as it is: a name with a line break in it needs null, NUL after each."""
    end = "\0" if null else "\n"
    for each in found:
        yield raw_name(os.fsdecode(each.path)) + end


def table(found: Iterable[Labelled], *, labels: Sequence[Label], columns: int | None, percent: bool) -> Iterator[str]:
    """For reading: score, path and best label, in a narrow terminal the label on a line of its own.

    percent: scores are shares, and not cosines.
    """
    for each in found:
        score = f"{each.score:6.1%}" if percent else f"{each.score:6.3f}"
        path = printable(os.fsdecode(each.path))
        label = "" if each.label is None else printable(labels[each.label].text)
        line = f"{score}  {path}"
        if columns is not None and label and len(line) + 2 + len(label) >= columns:
            yield "\n".join([line, *(f"        {part}" for part in wrapped(label, max(1, columns - 9)))]) + "\n"
        else:
            yield (f"{line}  {label}" if label else line) + "\n"


def record(found: Labelled, labels: Sequence[Label]) -> dict[str, Any]:
    """What JSON shows of it."""
    path, path_bytes = name_fields(os.fsdecode(found.path))
    label = None if found.label is None else labels[found.label]
    return {
        "path": path,
        "path_bytes": path_bytes,
        "score": round(found.score, SCORE_DIGITS),
        "index": None if label is None else label.index,
        "wnid": None if label is None else label.wnid,
        "label": None if label is None else label.text,
        "label_score": None if found.label_score is None else round(found.label_score, SCORE_DIGITS),
    }


def json_array(found: Iterable[Labelled], *, labels: Sequence[Label]) -> Iterator[str]:
    """One array, a record a line."""
    separator = "[\n"
    for each in found:
        yield separator + as_json(record(each, labels))
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def jsonl(found: Iterable[Labelled], *, labels: Sequence[Label]) -> Iterator[str]:
    """One record a line."""
    for each in found:
        yield as_json(record(each, labels)) + "\n"


def separated(found: Iterable[Labelled], *, labels: Sequence[Label], line: Callable[[list[str]], str]) -> Iterator[str]:
    """A header and a row for each."""
    yield line(list(COLUMNS))
    for each in found:
        values = record(each, labels)
        yield valid(line(["" if values[name] is None else str(values[name]) for name in COLUMNS]))


def parquet(found: Iterable[Labelled], *, labels: Sequence[Label]) -> Iterator[bytes]:
    """A row for each."""
    from hiera_cli.outputs import parquet  # pyarrow takes 0.2 s to import

    return parquet.rows((record(each, labels) for each in found), parquet.FOUND)


def writer(name: str, labels: Sequence[Label], *, null: bool, columns: int | None, percent: bool) -> Writer:
    """The writer of a format."""
    writers: dict[str, Writer] = {
        "plain": partial(paths, null=null),
        "table": partial(table, labels=labels, columns=columns, percent=percent),
        "json": partial(json_array, labels=labels),
        "jsonl": partial(jsonl, labels=labels),
        "csv": partial(separated, labels=labels, line=csv_line),
        "tsv": partial(separated, labels=labels, line=tsv_line),
        "parquet": partial(parquet, labels=labels),
    }
    return writers[name]
