"""`hiera explain`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands import messages
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
    Offline,
    Overwrite,
    Precision,
    Progress,
    Quiet,
    UrlTimeout,
    Verbose,
    Workers,
    completed_concepts,
    completes,
    one_of,
)
from hiera_cli.errors import CheckpointError, UsageError
from hiera_cli.limits import MAX_PIXELS, Limits

if TYPE_CHECKING:
    from hiera_cli.classifier import Classifier
    from hiera_cli.tasks.explain import Explain

FORMATS = ("table", "plain", "json", "jsonl")


def explain(
    inputs: Inputs = None,
    files_from: FilesFrom = None,
    files0_from: Files0From = None,
    top_k: Annotated[
        int | None,
        typer.Option("-k", "--top-k", metavar="N", min=1, help="Labels per image.", show_default="1; 0 with --label"),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="LABEL",
            help="Explain this class or concept (dog), in every image; may be repeated.",
            autocompletion=completed_concepts,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|DIR",
            help="Where the pictures go: a .png for one input, else a folder with a PNG for each. "
            "Without it there are none, and the numbers alone are printed.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    format: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="table, plain, json or jsonl. By default table on a terminal and plain elsewhere.",
            autocompletion=completes(FORMATS),
            callback=one_of(FORMATS),
        ),
    ] = None,
    as_json: FormatJson = False,
    model: Model = "tiny",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
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
    """Show where in the image a label comes from: what each place adds to its logit."""
    from hiera_cli.commands import picture_files
    from hiera_cli.commands.request import asked_format, request_of

    options = locals()
    name = asked_format(format, as_json, None) or ("table" if sys.stdout.isatty() else "plain")
    request = request_of(options, name, None, overwrite=False)
    request.inputs.check("explain")
    picture_files.check(output, request.inputs, overwrite=overwrite)
    labels = tuple(label or ())
    if not all(text.strip() for text in labels):
        raise UsageError("a --label is empty", "Is a variable of the script not set?")

    from hiera_cli.checkpoints import resolve

    resolve.check_name(model)

    from hiera_cli.checkpoints.labels import imagenet_labels
    from hiera_cli.classifier import load_classifier
    from hiera_cli.commands import output as outputs
    from hiera_cli.commands import run
    from hiera_cli.outputs import maps
    from hiera_cli.tasks.explain import Explain

    task = Explain(top_k, labels, pictures=output is not None)
    if output is not None and task.best + len(labels) > maps.MOST_LABELS:
        raise UsageError(
            f"a picture shows {maps.MOST_LABELS} labels at most, and {task.best + len(labels)} are asked for",
            "Leave --output out for the numbers of more: --json",
        )
    if labels:
        known = imagenet_labels() if model in MODELS else ()  # a wrong word is told before anything is fetched
        with suppress(CheckpointError):  # what is not on this machine is checked when it is
            known = known or resolve.resolve(model, labels=True, offline=True).labels
        if known:
            task.check_labels(known)
        if any(each.wnid for each in known):
            _tell_meanings(labels, quiet)
    read = run.reading(request, resolve.record_name(model))
    writer = _writer(name)
    if output is not None:
        writer = partial(_with_pictures, picture_files.opened(output, overwrite=overwrite), writer)
    opened = outputs.opened(request.output, writer, read.records(task))
    raise typer.Exit(run.Run(request, opened, task, read, partial(_loaded, load_classifier, task)).run())


def _tell_meanings(labels: tuple[str, ...], quiet: int) -> None:
    from hiera_cli import wordnet

    for text in labels:
        if taken := wordnet.meaning_taken(text):
            messages.remarks_unless(quiet)(taken)


def _loaded(load: Any, task: Explain, model: str, **options: Any) -> Classifier:
    classifier: Classifier = load(model, labels=True, **options)
    task.check_labels(classifier.labels)
    return classifier


def _writer(name: str) -> Any:
    from hiera_cli.outputs import places
    from hiera_cli.outputs.formats import json_array, jsonl
    from hiera_cli.system import terminal

    if name != "table":
        return {"plain": places.plain, "json": json_array, "jsonl": jsonl}[name]
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    all_colors = color and os.environ.get("COLORTERM") in ("truecolor", "24bit")
    columns = terminal.columns(sys.stdout.fileno())
    unicode = terminal.is_utf8(sys.stdout.encoding)
    return partial(places.table, color=color, all_colors=all_colors, unicode=unicode, columns=columns)


def _with_pictures(pictures: Any, writer: Any, results: Any) -> Any:
    from hiera_cli.outputs.maps import with_picture

    return writer(pictures.saved(map(with_picture, results)))
