"""Evaluated images as rows of csv and tsv, and the confusion matrix of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from hiera_cli.evaluation.tally import Answer, Figures
from hiera_cli.outputs.formats import Writer, json_array, jsonl
from hiera_cli.outputs.separated import HEAD, TAIL, csv_line, head, separated, tsv_line
from hiera_cli.system.utf8 import valid
from hiera_cli.tasks.classify import SCORE_DIGITS
from hiera_cli.tasks.evaluate import Evaluated, Truth

COLUMNS = (
    *HEAD,
    *("truth", "truth_index", "truth_wnid", "truth_label", "correct", "rank", "index", "wnid", "label", "score"),
    *TAIL,
)


def csv_table(results: Iterable[Evaluated]) -> Iterator[str]:
    """A header and a row an image, with its best label; quoted as RFC 4180 says. rank: of the first right label."""
    return separated(results, COLUMNS, _rows, csv_line)


def tsv_table(results: Iterable[Evaluated]) -> Iterator[str]:
    r"""The same with tabs between, and none within: no quotes, but \t, \n, \r and \\ as jq's @tsv writes them."""
    return separated(results, COLUMNS, _rows, tsv_line)


def _rows(result: Evaluated) -> Iterator[dict[str, object]]:
    row = head(result)
    row["truth"] = valid(result.said)
    if result.truth is not None:
        truth = result.truth
        row.update(truth_index=truth.index, truth_wnid=truth.wnid, truth_label=truth.label)
    if result.error is None:
        best = result.predictions[0]
        row.update(correct="true" if result.rank == 1 else "false", rank=result.rank)
        row.update(index=best.index, wnid=best.wnid, label=best.label, score=f"{best.score:.{SCORE_DIGITS}f}")
    yield row


RECORDS: dict[str, Writer] = {"json": json_array, "jsonl": jsonl, "csv": csv_table, "tsv": tsv_table}
SUFFIXES = {
    **{".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"},
    **{".parquet": "parquet", ".html": "html", ".htm": "html"},
}


def confusion_matrix(figures: Figures) -> Iterator[str]:
    """As csv: a row for each class of the truth that has images, a column for each that is in a row or was an answer.

    The rows' classes come first among the columns, in the same order: the right answers are on the diagonal. Labels
    that several classes have get their index behind them.
    """
    rows = [each.truth for each in figures.classes]
    counts = {(truth, answer.index): count for truth, answer, count in figures.cells}
    of_rows = [Answer(each.index, each.wnid, each.label) for each in rows if each.index is not None]
    others = {answer.index: answer for _, answer, _ in figures.cells}
    columns = [*of_rows, *(others[index] for index in sorted(others.keys() - {each.index for each in of_rows}))]
    called = [*map(valid, names([*rows, *columns]))]
    yield csv_line(["truth", *called[len(rows) :]])
    for truth, name in zip(rows, called, strict=False):
        yield csv_line([valid(name), *(str(counts.get((truth, each.index), 0)) for each in columns)])


def names(classes: Sequence[Truth | Answer], *, short: bool = False) -> list[str]:
    """What to call classes that are shown together: each by its label, and its index where several have the same.

    short: of ImageNet's labels, which are several names each, the first.
    """
    labels = [each.label.split(",")[0] if short and each.wnid else each.label for each in classes]
    known: Counter[str] = Counter()
    for label, _ in {(label, each.index) for label, each in zip(labels, classes, strict=True)}:
        known[label] += 1
    return [
        label if known[label] == 1 else f"{label} ({'concept' if each.index is None else each.index})"
        for label, each in zip(labels, classes, strict=True)
    ]
