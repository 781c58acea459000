"""`hiera reconstruct`."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiera_cli.commands.options import (
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
    from hiera_cli.commands.request import Request

FORMATS = ("plain", "json", "jsonl")
OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


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
    from hiera_cli.commands.request import asked_format, request_of

    options = locals()
    if output == "":
        raise UsageError("--output needs a name: it is empty", "Is a variable of the script not set?")
    if engine == "openvino":
        raise UsageError("masked autoencoders run in PyTorch, not with the openvino engine", "Leave out --engine.")
    request = request_of(options, asked_format(format, as_json, None) or "plain", None, overwrite=False)
    request.inputs.check("reconstruct")
    if overwrite and output is None:
        raise UsageError("--overwrite is about an --output, and there is none", "Name one: -o FILE.png, or -o DIR")
    _check_output(output, request)
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
    from hiera_cli.outputs.pictures import Pictures, losses
    from hiera_cli.tasks.reconstruct import Reconstruct

    task = Reconstruct(mask_ratio, seed, pictures=output is not None)
    repository = PUBLISHED[model].mae_repository if model in PUBLISHED else model
    read = run.reading(request, repository)
    writer: Any = {"plain": losses, "json": json_array, "jsonl": jsonl}[request.output.format]
    if output is not None:
        pictures = Pictures(output, folder=not _is_one_picture(output), overwrite=overwrite)
        writer = partial(_with_pictures, pictures, writer)
    opened = outputs.opened(request.output, writer, read.records(task))
    raise typer.Exit(run.Run(request, opened, task, read, _load).run())


def _is_one_picture(output: str) -> bool:
    return os.path.splitext(output)[1].lower() == ".png"


def _check_output(output: str | None, request: Request) -> None:
    """Raise UsageError for what pictures can't be written to, such as one file where there are several inputs."""
    if output is None:
        return
    from hiera_cli.commands.request import STDOUT
    from hiera_cli.inputs.source import STDIN

    if output in STDOUT:
        raise UsageError("pictures are not written to standard output", "Name a file: -o FILE.png")
    suffix = os.path.splitext(output)[1].lower()
    if suffix in OTHER_PICTURES and not os.path.isdir(output):
        raise UsageError(f"pictures are written as PNG, not as {suffix}", "Name a file: -o FILE.png, or a folder.")
    inputs = request.inputs
    one = len(inputs.inputs) == 1 and not inputs.lists
    several = not one or (inputs.inputs[0] != STDIN and os.path.isdir(inputs.inputs[0]))
    if _is_one_picture(output) and several:
        raise UsageError(
            f"{output} is one picture, and there may be several inputs", "Name a folder for them: -o pictures"
        )


def _with_pictures(pictures: Any, writer: Any, results: Any) -> Any:
    return writer(pictures.saved(results))


def _load(
    model: str, *, engine: str, device: str, precision: str, batch_size: int | None, offline: bool, progress: Any
) -> Autoencoder:
    from hiera_cli.system.address_space import check_room_for_torch

    check_room_for_torch()  # importing the next one imports torch
    from hiera_cli.autoencoder import load_autoencoder

    return load_autoencoder(model, device=device, offline=offline, progress=progress)
