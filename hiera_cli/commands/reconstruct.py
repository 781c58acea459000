"""`hiera reconstruct`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli.commands.options import (
    Archives,
    Column,
    Device,
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
    Progress,
    Quiet,
    UrlTimeout,
    Verbose,
    Workers,
    completes,
    finite,
    one_of,
)
from hiera_cli.engines.placement import ENGINES
from hiera_cli.errors import UsageError
from hiera_cli.limits import MAX_PIXELS, Limits

if TYPE_CHECKING:
    from hiera_cli.autoencoder import Autoencoder

FORMATS = ("plain", "json", "jsonl")


def reconstruct(
    inputs: Inputs = None,
    files_from: FilesFrom = None,
    files0_from: Files0From = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|DIR",
            help="Where the pictures go: a .png for one input, else a folder with a PNG for each. "
            "Without it there are none, and the losses alone are printed.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    mask_ratio: Annotated[
        float,
        typer.Option(metavar="R", help="The share of each image that is hidden, between 0 and 1.", callback=finite),
    ] = 0.6,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="What is hidden follows from it and the image's place alone.")
    ] = 0,
    format: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="plain, json or jsonl: how the losses are printed.",
            autocompletion=completes(FORMATS),
            callback=one_of(FORMATS),
        ),
    ] = None,
    as_json: FormatJson = False,
    model: Model = "tiny",
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help="auto or torch: PyTorch alone runs this model.",
            autocompletion=completes(("auto", "torch")),
            callback=one_of(ENGINES),
        ),
    ] = "auto",
    device: Device = "auto",
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
    """Show what the pretraining model paints in the parts of an image that are hidden from it."""
    from hiera_cli.commands import picture_files
    from hiera_cli.commands.request import asked_format, request_of

    options = locals()
    if engine == "openvino":
        raise UsageError("masked autoencoders run in PyTorch, not with the openvino engine", "Leave out --engine.")
    request = request_of(options, asked_format(format, as_json, None) or "plain", None, overwrite=False)
    request.inputs.check("reconstruct")
    picture_files.check(output, request.inputs, overwrite=overwrite)
    from hiera_cli.model.architecture import MASK_UNITS, visible_units

    if not 0 < visible_units(mask_ratio) < MASK_UNITS:
        raise UsageError(
            f"a mask ratio of {mask_ratio:g} leaves nothing to {'hide' if mask_ratio < 0.5 else 'show'}",
            "The model was trained with 0.6.",
        )

    from hiera_cli.checkpoints import resolve

    resolve.check_name(model)

    from hiera_cli.checkpoints.published import PUBLISHED
    from hiera_cli.commands import output as outputs
    from hiera_cli.commands import run
    from hiera_cli.outputs.formats import json_array, jsonl
    from hiera_cli.outputs.pictures import losses
    from hiera_cli.tasks.reconstruct import Reconstruct

    task = Reconstruct(mask_ratio, seed, pictures=output is not None)
    repository = PUBLISHED[model].mae_repository if model in PUBLISHED else model
    read = run.reading(request, repository)
    writer: Any = {"plain": losses, "json": json_array, "jsonl": jsonl}[request.output.format]
    if output is not None:
        writer = partial(_with_pictures, picture_files.opened(output, overwrite=overwrite), writer)
    opened = outputs.opened(request.output, writer, read.records(task))
    raise typer.Exit(run.Run(request, opened, task, read, _load).run())


def _with_pictures(pictures: Any, writer: Any, results: Any) -> Any:
    return writer(pictures.saved(results))


def _load(
    model: str, *, engine: str, device: str, precision: str, batch_size: int | None, offline: bool, progress: Any
) -> Autoencoder:
    from hiera_cli.system.address_space import check_room_for_torch

    check_room_for_torch()  # importing the next one imports torch
    from hiera_cli.autoencoder import load_autoencoder

    return load_autoencoder(model, device=device, offline=offline, progress=progress)
