"""`hiera classify`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands import cluster, messages
from hiera_cli.commands.options import (
    Archives,
    BatchSize,
    Column,
    Device,
    Engine,
    Exclude,
    Files0From,
    FilesFrom,
    Follow,
    FormatJson,
    FullDecode,
    Hidden,
    Inputs,
    MaxMib,
    MaxPixels,
    Model,
    NoBanner,
    Null,
    Offline,
    Output,
    Overwrite,
    Precision,
    Progress,
    Quiet,
    Ray,
    Resume,
    Ship,
    UrlTimeout,
    Verbose,
    Workers,
    completed_concepts,
    completes,
    finite,
    one_of,
)
from hiera_cli.errors import CheckpointError, UsageError
from hiera_cli.limits import MAX_PIXELS, Limits
from hiera_cli.outputs.names import FORMATS, KEYWORDS, LABEL_FORMATS, SUFFIXES

if TYPE_CHECKING:
    from hiera_cli.checkpoints.checkpoint import Checkpoint
    from hiera_cli.classifier import Classifier
    from hiera_cli.commands.tagging import Tagging
    from hiera_cli.outputs.formats import Writer
    from hiera_cli.tasks.classify import Classify


def _print_schema(value: bool) -> None:
    if value:
        from importlib.resources import files

        messages.write(files("hiera_cli").joinpath("data", "record.schema.json").read_text(encoding="utf-8").rstrip())
        raise typer.Exit


def _finite(value: float | None) -> float | None:
    return None if value is None else finite(value)


def _least_score(value: float | None) -> float | None:
    if value == 0:
        raise typer.BadParameter("every label scores at least 0: name more, such as 0.8")
    return _finite(value)


def classify(
    inputs: Inputs = None,
    files_from: FilesFrom = None,
    files0_from: Files0From = None,
    top_k: Annotated[
        int | None,
        typer.Option("-k", "--top-k", metavar="N", min=1, help="Labels per image.", show_default="5; 1 with --rollup"),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="table, plain, json, jsonl, csv, tsv, parquet, html (a page to look at) or exiftool (which takes it "
            "to write labels into photos). By default: from the suffix of --output, else table on a terminal, plain "
            "elsewhere.",
            autocompletion=completes(LABEL_FORMATS),
            callback=one_of(LABEL_FORMATS),
        ),
    ] = None,
    as_json: FormatJson = False,
    output: Output = None,
    null: Null = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", callback=_print_schema, is_eager=True, help="Print the JSON Schema of a JSON record, and end."
        ),
    ] = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="Leave out labels that score under P.",
            callback=_finite,
            show_default="0; 0.5 with -f exiftool",
        ),
    ] = None,
    rollup: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="The most specific label, a class or a concept (dog), that scores at least P.",
            callback=_least_score,
        ),
    ] = None,
    among: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONCEPT",
            help="Only classes under this concept (bird), scores made to sum to 1; may be repeated.",
            autocompletion=completed_concepts,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="In JSON and pages: where in the image each label comes from, as hiera explain shows."
        ),
    ] = False,
    keywords: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="With -f exiftool: labels, or concepts for those above them (dog, animal) too.",
            autocompletion=completes(KEYWORDS),
            callback=one_of(KEYWORDS),
            show_default="labels",
        ),
    ] = None,
    model: Model = "tiny",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    ray: Ray = None,
    ship: Ship = False,
    exclude: Exclude = None,
    hidden: Hidden = False,
    follow: Follow = False,
    archives: Archives = False,
    column: Column = "",
    max_pixels: MaxPixels = MAX_PIXELS,
    full_decode: FullDecode = False,
    url_timeout: UrlTimeout = Limits.total,
    max_mib: MaxMib = Limits.bytes >> 20,
    offline: Offline = False,
    quiet: Quiet = 0,
    no_banner: NoBanner = False,
    progress: Progress = None,
    verbose: Verbose = False,
) -> None:
    """Label images: the top-k labels of files, folders, URLs or stdin."""
    from hiera_cli.commands.request import asked_format, check_parquet, output_path, request_of

    options = locals()
    path = output_path(output)
    parts = cluster.is_folder_of_parts(ray, path)
    name = asked_format(format, as_json, path) or ("parquet" if parts else _default_format(path, null=null))
    if null and name != "plain":
        raise UsageError(
            f"--null ends the lines of plain output, and this run writes {name}",
            "Leave it out, or use --format plain.",
        )
    if explain and name not in ("json", "jsonl", "html"):
        raise UsageError(
            f"--explain is for JSON records and pages, and this run writes {name}",
            "Use -f json or jsonl, or -o page.html. Pictures of it: hiera explain INPUT -o FILE.png",
        )
    if name == "parquet":
        check_parquet(path)
    if keywords and name != "exiftool":
        raise UsageError(f"--keywords is for exiftool, and this run writes {name}", "Use -f exiftool.")
    request = request_of(options, name, path, parts=parts)
    request.inputs.check("classify")
    request.output.check()
    cluster.check(ray, ship, request)
    allowed = _concepts(among, model, quiet) if among else ()

    from hiera_cli.checkpoints import resolve

    resolve.check_name(model)

    from hiera_cli.classifier import load_classifier
    from hiera_cli.commands import output as outputs
    from hiera_cli.commands import run
    from hiera_cli.tasks.classify import Classify

    tagging = None
    if name == "exiftool":
        from hiera_cli.commands.tagging import Tagging
        from hiera_cli.outputs.exiftool import MIN_SCORE

        tagging = Tagging(concepts=keywords == "concepts", quiet=quiet)
        min_score = MIN_SCORE if min_score is None and rollup is None else min_score
    task = Classify(top_k, min_score or 0.0, rollup, allowed, explain)
    if (task.needs_concepts or keywords) and model not in MODELS:  # all of those have ImageNet's classes
        with suppress(CheckpointError):  # what is not on this machine is checked when it is
            _check(resolve.resolve(model, labels=True, offline=True), task, tagging)
    read = run.reading(request, resolve.record_name(model))
    records = read.records(task)
    if parts:
        opened = outputs.opened_parts(request.output, records)
    elif name == "html":
        opened = outputs.opened_page(request.output)
    else:
        writer = tagging.write if tagging else _writer(name, path, null=null)
        opened = outputs.opened(request.output, writer, records)
    others = cluster.workers_of(ray, ship, request, task, read, opened.parts) if ray else None
    load = partial(_loaded, others.load if others else load_classifier, task, tagging)
    status = run.Run(request, opened, task, read, load, workers=others).run()
    raise typer.Exit(tagging.concluded(status) if tagging else status)


def _concepts(words: list[str], model: str, quiet: int) -> tuple[str, ...]:
    """The WordNet ids of what --among names. Says which meaning of a word was taken."""
    from hiera_cli import wordnet

    if not all(word.strip() for word in words):
        raise UsageError("a concept of --among is empty", "Is a variable of the script not set?")
    try:
        ids = wordnet.concepts(words)
    except UsageError:
        if model not in MODELS:  # it may be that its classes are under no concept at all
            from hiera_cli.checkpoints import resolve

            with suppress(CheckpointError):
                found = resolve.resolve(model, labels=True, offline=True)
                wordnet.check_classes(found.labels, found.name)
        raise
    for word in words:
        if taken := wordnet.meaning_taken(word):
            messages.remarks_unless(quiet)(taken)
    return ids


def _loaded(
    load: Callable[..., Any], task: Classify, tagging: Tagging | None, model: str, **options: Any
) -> Classifier:
    classifier: Classifier = load(model, labels=True, **options)
    _check(classifier, task, tagging)
    if tagging:
        tagging.tell_of_iptc(classifier.labels)
    return classifier


def _check(model: Classifier | Checkpoint, task: Classify, tagging: Tagging | None) -> None:
    task.check_classes(model.labels, model.name)
    if tagging:
        tagging.check(model.labels, model.name)


def _default_format(path: str | None, *, null: bool) -> str:
    if path is None:
        return "table" if sys.stdout.isatty() and not null else "plain"
    from hiera_cli.commands.request import format_of_suffix

    return format_of_suffix(path, SUFFIXES, FORMATS) or "plain"


def _writer(name: str, path: str | None, *, null: bool) -> Writer | None:
    """None for Parquet."""
    from hiera_cli.outputs.labels import RECORDS, plain, table
    from hiera_cli.system import terminal

    if name in RECORDS or name == "parquet":
        return RECORDS.get(name)
    if name == "plain":
        return partial(plain, null=null)
    encoding = "utf-8" if path else (sys.stdout.encoding or "ascii")
    color = not path and sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    columns = None if path else terminal.columns(sys.stdout.fileno())
    return partial(table, color=color, unicode=terminal.is_utf8(encoding), columns=columns)
