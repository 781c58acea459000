"""`hiera embed`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hiera_cli.commands import cluster
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
    completes,
    one_of,
)
from hiera_cli.errors import UsageError
from hiera_cli.limits import MAX_PIXELS, Limits
from hiera_cli.outputs.names import ARRAYS, FEATURE_FORMATS, FEATURE_SUFFIXES

if TYPE_CHECKING:
    from hiera_cli.commands.output import Output as Opened
    from hiera_cli.commands.request import OutputRequest
    from hiera_cli.result import Records


def embed(
    inputs: Inputs = None,
    files_from: FilesFrom = None,
    files0_from: Files0From = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Give the last tokens, 7 × 7 × C, rows and columns, and not their mean.")
    ] = False,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each vector of C to unit length.")] = False,
    format: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="npz, safetensors, parquet, json or jsonl. By default: from the suffix of --output.",
            autocompletion=completes(FEATURE_FORMATS),
            callback=one_of(FEATURE_FORMATS),
        ),
    ] = None,
    as_json: FormatJson = False,
    output: Output = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
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
    """Give the features of images, for search, clustering or a classifier of your own."""
    from hiera_cli.commands.request import asked_format, output_path, request_of

    options = locals()
    path = output_path(output)
    parts = cluster.is_folder_of_parts(ray, path)
    request = request_of(options, "", path, parts=parts)
    request.inputs.check("embed")
    asked = asked_format(format, as_json, path)
    request = replace(
        request, output=replace(request.output, format=_format(asked or ("parquet" if parts else None), path))
    )
    request.output.check()
    cluster.check(ray, ship, request)

    from hiera_cli.checkpoints import resolve

    resolve.check_name(model)

    from hiera_cli.classifier import load_classifier
    from hiera_cli.commands import output as outputs
    from hiera_cli.commands import run
    from hiera_cli.tasks.embed import Embed

    task = Embed(tokens, normalize)
    read = run.reading(request, resolve.record_name(model))
    if parts:
        opened = outputs.opened_parts(request.output, read.records(task))
    else:
        opened = _opened(request.output, read.records(task))
    others = cluster.workers_of(ray, ship, request, task, read, opened.parts) if ray else None
    load = others.load if others else load_classifier
    raise typer.Exit(run.Run(request, opened, task, read, load, workers=others).run())


def _format(asked: str | None, path: str | None) -> str:
    from hiera_cli.commands.request import check_parquet, format_of_suffix

    name = asked or (format_of_suffix(path, FEATURE_SUFFIXES, FEATURE_FORMATS) if path is not None else None)
    if name is None and path is not None:
        raise UsageError(f"{path} has no suffix that names a format", f"Name one: {path}.npz, or --format npz")
    if name is None:
        raise UsageError(
            "features need a file, or a format to print them in", "Name a file: -o FILE.npz. Or print them: -f jsonl"
        )
    if path is None and name in ARRAYS:
        raise UsageError(f"{name} is for files, and this run writes to standard output", f"Name one: -o FILE.{name}")
    if name == "parquet":
        check_parquet(path)
    return name


def _opened(request: OutputRequest, records: Records) -> Opened:
    from hiera_cli.commands import output as outputs
    from hiera_cli.outputs.formats import json_array, jsonl

    if request.format in ARRAYS:
        return outputs.opened_arrays(request, records)
    return outputs.opened(request, {"json": json_array, "jsonl": jsonl}.get(request.format), records)
