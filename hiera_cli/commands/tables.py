"""Records → the lines that a person reads. columns: of the terminal; None for lines as long as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from hiera_cli.checkpoints.published import LICENCE
from hiera_cli.system.printable import printable
from hiera_cli.system.terminal import wrapped

if TYPE_CHECKING:
    from hiera_cli.bench import Measured, Speed
    from hiera_cli.checkpoints.inventory import ModelEntry
    from hiera_cli.commands.index_facts import IndexFacts
    from hiera_cli.commands.info_facts import Info
    from hiera_cli.commands.teach_facts import TeachFacts
    from hiera_cli.teaching.report import Taught

MODELS_COLUMNS = 93  # that the table of models needs
NAME_CELLS = 16  # of a fact
TOLD = 5  # of what may be many
MOST_ROWS = 10  # of classes, and of confusions


def models_table(entries: Sequence[ModelEntry], columns: int | None) -> list[str]:
    """A line a model, the masked autoencoders last; in a narrow terminal each repository on a line under its model."""
    classifiers = [entry for entry in entries if entry.kind == "classifier"]
    autoencoders = [entry for entry in entries if entry.kind == "autoencoder"]
    lines = _models(classifiers, columns)
    if autoencoders:
        about = "Masked autoencoders, for `hiera reconstruct` (`hiera download NAME --mae`):"
        lines += ["", *wrapped(about, columns, whole_words=True), *_models(autoencoders, columns)]
    return [*lines, "", *wrapped(f"Licence of the weights: {LICENCE}. TOP-1: ImageNet-1K, as published.", columns)]


def _models(entries: Sequence[ModelEntry], columns: int | None) -> list[str]:
    below = columns is not None and columns < MODELS_COLUMNS
    top1 = f" {'TOP-1':>7}" if any(entry.top1 is not None for entry in entries) else ""
    lines = [f"{'NAME':<10} {'PARAMETERS':>10} {'DOWNLOAD':>10}{top1}  {'HERE':<8}" + "  REPOSITORY" * (not below)]
    for entry in entries:
        accuracy = f" {f'{entry.top1:.1f} %' if entry.top1 is not None else '–':>7}" if top1 else ""
        size = f"{entry.bytes / 1e6:,.0f} MB" if entry.repository else "–"
        here = "built in" if not entry.repository else "yes" if entry.on_this_machine else "no"
        lines.append(
            f"{entry.name:<10} {entry.parameters / 1e6:>8.1f} M {size:>10}{accuracy}  {here:<8}"
            + ("\n    " if below else "  ")
            + (entry.repository or "knows the sample images alone")
        )
    return lines


def info_lines(info: Info, columns: int | None) -> list[str]:
    """A line a fact, or several below each other where it has more to tell."""
    cached = [f"{each.name} ({each.repository}, {each.bytes / 1e6:,.0f} MB)" for each in info.cached]
    compiled = [f"{each.name} ({each.bytes / 1e6:,.0f} MB)" for each in info.compiled]
    facts = [
        *info.versions.items(),
        None,
        ("device", f"{info.device} ({info.device_why})"),
        ("precision", f"{info.precision} ({info.precision_why})"),
        ("engine", f"{info.engine} ({info.engine_why})"),
        ("processors", str(info.processors)),
        None,
        ("cache", info.cache),
        *(("", text) for text in cached or ["no weights yet: `hiera download` fetches them"]),
        None,
        ("compiled", info.compiled_folder),
        *(("", text) for text in compiled or ["none: the openvino engine keeps its compiled models there"]),
    ]
    return [line for fact in facts for line in ([""] if fact is None else _fact(*fact, columns))]


def _fact(name: str, text: str, columns: int | None) -> Iterator[str]:
    room = None if columns is None else max(columns - NAME_CELLS - 1, 20)
    for line in wrapped(text, room, whole_words=True):
        yield f"{name:<{NAME_CELLS}} {line}"
        name = ""


def counted(count: int, what: str, several: str = "") -> str:
    """Such as `1 error` or `1,204 errors`. several: a plural that ends otherwise."""
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def index_lines(facts: IndexFacts, columns: int | None) -> list[str]:
    """A line a fact, and a line a folder."""
    named: list[tuple[str, str] | None] = [
        ("index", f"{facts.index} ({facts.bytes / 1e6:,.1f} MB)"),
        ("photos", f"{facts.photos:,}"),
        ("errors", f"{facts.errors:,}"),
        *(
            ("model", f"{each.model} ({counted(each.photos, 'photo')}, weights {each.sha256[:12]})")
            for each in facts.models
        ),
        None,
        *(
            (
                f"{each.photos:,}",
                each.path + (f" ({counted(each.errors, 'error')})" if each.errors else ""),
            )
            for each in facts.folders
        ),
        *([None] if facts.failed else []),
        *(("failed", f"{each.path}: {each.message}") for each in facts.failed),
    ]
    return [line for fact in named for line in ([""] if fact is None else _fact(fact[0], printable(fact[1]), columns))]


def taught_lines(facts: TeachFacts, columns: int | None, *, unicode: bool = True) -> list[str]:
    """What was taught, how right it is by cross-validation, and what is to be mistrusted.

    unicode: whether the terminal shows more than ASCII.
    """
    taught = facts.taught
    dash, arrow = ("–", "→") if unicode else ("-", "->")
    low, high = taught.interval
    failed = f", and {counted(taught.failed, 'photo')} failed" if taught.failed else ""
    by = f", chosen by {taught.searched:,} photos" if taught.searched < taught.photos else ""
    named = [
        ("photos", f"{taught.photos:,} in {len(taught.classes):,} classes{failed}"),
        ("base", f"{facts.base}, features in {facts.precision}"),
        ("strength", f"C = {taught.strength:g}{by}"),
        (
            "top-1",
            f"{taught.accuracy:.1%}  95%: {low:.1%}"[:-1]
            + f"{dash}{high:.1%}, in {taught.folds}-fold cross-validation",
        ),
        ("mean per class", f"{taught.class_accuracy:.1%}"),
    ]
    lines = [line for name, text in named for line in _fact(name, printable(text), columns)]
    worst = sorted(taught.classes, key=lambda each: (each.right / each.photos, -each.photos))
    rows = [(each.label, each.right, each.photos) for each in worst[:MOST_ROWS]]
    lines += ["", *class_lines(f"CLASSES{and_more(len(worst))}", rows, columns)]
    if taught.confusions:
        pairs = [(each.label, each.taken_for, each.photos) for each in taught.confusions]
        lines += ["", *confusion_lines(pairs, arrow, columns)]
    lines.append("")
    doubts = list(_doubts(taught))
    for name, texts in doubts:
        lines += _list(name, texts, columns)
    return lines if doubts else [*lines, *_fact("to mistrust", "nothing that was found", columns)]


def class_lines(heading: str, rows: Iterable[tuple[str, int, int]], columns: int | None) -> list[str]:
    """How right each class is, below a heading. rows: (its name, how many are right, of how many)."""
    lines = [f"{'TOP-1':>6} {'RIGHT':>7} {'OF':>7}  {heading}"]
    for name, right, count in rows:
        lines += beside(f"{right / count:>6.1%} {right:>7,} {count:>7,}  ", printable(name), columns)
    return lines


def confusion_lines(pairs: Sequence[tuple[str, str, int]], arrow: str, columns: int | None) -> list[str]:
    """The first confusions, below a heading. pairs: (truth, answer, how often), most frequent first."""
    lines = [f"{'COUNT':>6}  CONFUSIONS: TRUTH {arrow} ANSWER{and_more(len(pairs))}"]
    for truth, answer, count in pairs[:MOST_ROWS]:
        lines += beside(f"{count:>6,}  ", f"{printable(truth)} {arrow} {printable(answer)}", columns)
    return lines


def and_more(count: int) -> str:
    """How many there are beyond those that a table shows; "" if it shows all."""
    return f" ({count - MOST_ROWS:,} more)" if count > MOST_ROWS else ""


def beside(before: str, text: str, columns: int | None) -> Iterator[str]:
    """A text that is too long for its line wraps under itself, and not under what stands before it."""
    for line in wrapped(text, None if columns is None else max(columns - len(before), 16)):
        yield before + line
        before = " " * len(before)


def _doubts(taught: Taught) -> Iterator[tuple[str, list[str]]]:
    """What is to be mistrusted, by kinds."""
    largest = max(taught.classes, key=lambda each: each.photos)
    if taught.interval.low <= largest.photos / taught.photos:
        share = f"{largest.photos / taught.photos:.1%}"
        yield "chance?", [f"to say {largest.label} of every photo would be right for {share}: it may be no better"]
    if taught.few:
        few = ", ".join(f"{each.label} ({each.photos})" for each in taught.few[:TOLD])
        rest = f" and {len(taught.few) - TOLD:,} more" if len(taught.few) > TOLD else ""
        yield "few photos", [f"{few}{rest}: of so few little is learnt, and their accuracy says little"]
    if taught.repeated:
        shown = ", ".join(f"{each.label} ({each.photos:,})" for each in taught.repeated[:TOLD])
        rest = f" and {len(taught.repeated) - TOLD:,} more" if len(taught.repeated) > TOLD else ""
        yield "one photo", [f"{shown}{rest}: all are copies of one, or nearly, so that their accuracy says nothing"]
    for name, same in (("in two classes", True), ("alike", False)):
        if pairs := [each for each in taught.twins if each.same == same]:
            what = "the same photo" if same else "nearly the same photo, in two classes"
            yield name, [f"{each.path} and {each.other_path}: {what}" for each in pairs]
    if taught.copies:
        are = "photo is a copy" if len(taught.copies) == 1 else "photos are copies"
        yield (
            "copies",
            [
                f"{len(taught.copies):,} {are} of another of the class, or nearly: cross-validation keeps such "
                "together, but the interval takes them for photos of their own, and is too narrow"
            ],
        )
    if taught.doubtful:
        yield (
            "wrong label?",
            [f"{each.path} looks like {each.looks_like}, {each.score:.2f}" for each in taught.doubtful],
        )


def _list(name: str, texts: Sequence[str], columns: int | None) -> Iterator[str]:
    """The first of several texts, each on a line, and how many more there are."""
    more = [f"and {len(texts) - TOLD:,} more: --json has them all"] if len(texts) > TOLD else []
    for text in [*texts[:TOLD], *more]:
        yield from _fact(name, printable(text), columns)
        name = ""


def bench_table(measured: Measured, columns: int | None) -> list[str]:
    """A line a rate; below them how they were measured, and what is the fastest."""
    lines = [f"{'ENGINE':<9} {'PRECISION':<9} {'BATCH':>5} {'MODEL ALONE':>16} {'END TO END':>16}"]
    for rate in measured.rates:
        lines.append(
            f"{rate.engine:<9} {rate.precision:<9} {rate.batch_size:>5} "
            f"{_speed(rate.model_only):>16} {_speed(rate.end_to_end):>16}"
        )
    caption = f"{measured.model} on {measured.rates[0].device}, images a second: the median of "
    caption += f"{measured.rounds} rounds, and half of what lies between the slowest and the fastest."
    names = [f"--engine {each.engine} --precision {each.precision}" for each in measured.fastest]
    if measured.too_busy:
        advice = "The machine was too busy to tell which is the fastest: try again when nothing else runs."
    elif len(names) > 1:
        advice = f"The fastest end to end, and alike: {', '.join(names)}"
    else:
        advice = f"The fastest end to end: {names[0]}"
    return [*lines, "", *wrapped(caption, columns), *wrapped(advice, columns)]


def _speed(speed: Speed | None) -> str:
    """Such as `1,204.5/s ± 3%`."""
    return "–" if speed is None else f"{speed.median:,.1f}/s ±{speed.spread:>3.0%}"
