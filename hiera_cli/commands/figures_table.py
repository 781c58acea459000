"""What `hiera evaluate` found, as the lines that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hiera_cli.checkpoints.published import short_name
from hiera_cli.commands.tables import MOST_ROWS, beside, class_lines, confusion_lines, counted
from hiera_cli.evaluation.compare import Comparison
from hiera_cli.evaluation.intervals import Interval
from hiera_cli.evaluation.tally import Figures
from hiera_cli.outputs.evaluated import names
from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import cells, wrapped

TOP_K = 5
SURE = 0.05  # the p-value from which on a difference may be chance
MODEL_CELLS = 24  # of a model's name in the table of several


@dataclass(frozen=True)
class Look:
    """columns: of the terminal, None for lines as long as they are. unicode, color: what it can show."""

    columns: int | None = None
    unicode: bool = True
    color: bool = False

    def heading(self, text: str) -> str:
        """A line that others stand under."""
        return f"\x1b[1m{text}\x1b[0m" if self.color else text

    def headed(self, lines: list[str]) -> list[str]:
        """Lines of which the first is a heading."""
        return [self.heading(lines[0]), *lines[1:]]

    def dim(self, text: str) -> str:
        """What is beside the point."""
        return f"\x1b[2m{text}\x1b[0m" if self.color else text

    @property
    def dash(self) -> str:
        """Between the bounds of an interval."""
        return "–" if self.unicode else "-"

    @property
    def arrow(self) -> str:
        """From the truth to the answer."""
        return "→" if self.unicode else "->"


def figures_lines(figures: Figures, look: Look, unknown: int = 0) -> list[str]:
    """The figures of one model, then its worst classes, then its most frequent confusions.

    unknown: images that were left out as their class is unknown.
    """
    lines = [] if figures.complete else [look.heading("INCOMPLETE: the figures of what was done")]
    for name, value, about in _facts(figures, look, unknown):
        lines.append(f"{name:<18} {value:>7}" + (f"   {look.dim(about)}" if about else ""))
    for block in (_classes(figures, look), _confusions(figures, look)):
        lines += ["", *block] if block else []
    return lines


def _facts(figures: Figures, look: Look, unknown: int) -> Iterator[tuple[str, str, str]]:
    """(name, value, what stands beside it)."""
    others = ((figures.failed, "failed"), (unknown, "of unknown classes left out"))
    yield "images", f"{figures.images:,}", ", ".join(f"{count:,} {what}" for count, what in others if count)
    yield "top-1", _percent(figures.top1), f"95%: {_interval(figures.top1_interval, look)}"
    if not 0 < figures.model_classes <= TOP_K:  # of so few they are all
        yield "top-5", _percent(figures.top5), f"95%: {_interval(figures.top5_interval, look)}"
    yield "mean per class", _percent(figures.mean_per_class), counted(len(figures.classes), "class", "classes")
    error, expected, actual = figures.calibration_error, figures.mean_score, figures.top1
    if error is not None and expected is not None and actual is not None:
        low, high = figures.top1_interval
        verdict = ": too sure" if expected > high else ": too unsure" if expected < low else ""
        if any(each.truth.index is None for each in figures.classes):
            verdict = ""  # of a concept any class is right, which the score of one class does not count
        yield "calibration error", f"{error:.3f}", f"mean score {expected:.1%}{verdict}"
    if figures.images_per_second is not None:
        yield "images a second", f"{figures.images_per_second:,.1f}", ""


def _classes(figures: Figures, look: Look) -> list[str]:
    """The worst ones; all of few."""
    shown = figures.worst
    heading = "CLASSES"
    if len(shown) > MOST_ROWS:
        shown = [each for each in shown if each.right < each.images][:MOST_ROWS]
        heading = "WORST CLASSES"
    called = dict(zip(figures.worst, _names(figures)[0], strict=True))
    rows = [(called[each], each.right, each.images) for each in shown]
    return look.headed(class_lines(heading, rows, look.columns)) if shown else []


def _confusions(figures: Figures, look: Look) -> list[str]:
    pairs = [(*names, each.count) for each, names in zip(figures.confusions, _names(figures)[1], strict=True)]
    return look.headed(confusion_lines(pairs, look.arrow, look.columns)) if pairs else []


def _names(figures: Figures) -> tuple[list[str], list[tuple[str, str]]]:
    """What the worst classes are called, and truth and answer of the confusions."""
    truths = [each.truth for each in figures.worst]
    pairs = [(each.truth, each.answer) for each in figures.confusions]
    called = names([*truths, *(each for pair in pairs for each in pair)], short=True)
    rest = called[len(truths) :]
    return called[: len(truths)], list(zip(rest[::2], rest[1::2], strict=True))


def comparison_lines(figures: Sequence[Figures], comparisons: Sequence[Comparison], look: Look) -> list[str]:
    """A line a model, then how each does against the first."""
    called = [printable(short_name(each.model)) for each in figures]
    width = max(len("MODEL"), *(cells(name) for name in called if cells(name) <= MODEL_CELLS), 0)
    lines = [
        look.heading(f"{'MODEL':<{width}}  {'TOP-1':>6} {'95%':>11} {'TOP-5':>6} {'CLASSES':>7} {'ECE':>5} {'/s':>7}")
    ]
    for name, each in zip(called, figures, strict=True):
        row = f"  {_percent(each.top1):>6} {_interval(each.top1_interval, look, unit=''):>11} {_percent(each.top5):>6} "
        row += f"{_percent(each.mean_per_class):>7} {_number(each.calibration_error, '.3f'):>5} "
        row += f"{_number(each.images_per_second, ',.1f'):>7}"
        row += "" if each.complete else "  incomplete"
        if cells(name) > width:
            lines.append(name)
            name = ""
        lines.append(f"{name}{' ' * (width - cells(name))}{row}")
    about = "CLASSES: mean top-1 of the classes. ECE: expected calibration error. /s: images a second."
    lines += map(look.dim, wrapped(about, look.columns))
    if len({each.images for each in figures}) > 1:
        images = ", ".join(f"{name} {each.images:,}" for name, each in zip(called, figures, strict=True))
        lines += map(look.dim, wrapped(f"Images with an answer: {images}.", look.columns))
    if comparisons:
        lines += ["", look.heading(f"AGAINST {printable(short_name(comparisons[0].against))}")]
    for each_one in comparisons:
        lines += beside(f"{'':2}", _compared(each_one), look.columns)
    return lines


def _compared(comparison: Comparison) -> str:
    """One model against the first, in words."""
    this, first = printable(short_name(comparison.model)), printable(short_name(comparison.against))
    p = "p < 0.0001" if comparison.p < 0.0001 else f"p = {comparison.p:.4f}"
    more = "better" if comparison.only_this > comparison.only_first else "worse"
    verdict = more if comparison.p < SURE else "no sure difference"
    return (
        f"{this}: {verdict} ({p}); of {counted(comparison.images, 'image')} "
        f"it alone has {comparison.only_this:,} right, {first} alone {comparison.only_first:,}"
    )


def _percent(share: float | None) -> str:
    return _number(share, ".1%")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _interval(interval: Interval, look: Look, unit: str = "%") -> str:
    return f"{interval.low:.1%}"[:-1] + look.dash + f"{interval.high:.1%}"[:-1] + unit
