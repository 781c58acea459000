"""The options that commands share: each is declared once, and means the same in every command that has it.

An option that only one command has is declared in that command's file. This module is imported at every start, by
`--help` and completion too, so it imports nothing that reads images or runs models.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from hiera_cli.checkpoints.published import MODELS, model_name
from hiera_cli.engines.placement import ENGINES, PRECISIONS

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")  # that completion offers


# ---- what values may be


def completes(values: tuple[str, ...]) -> Any:
    """What completes a value that is one of these."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def one_of(values: tuple[str, ...]) -> Any:
    """What checks a value that is one of these, in any case."""

    def check(value: str | None) -> str | None:
        if value is None or value in values:
            return value
        from hiera_cli.commands import usage

        return usage.one_of(value, values)

    return check


def finite(value: float) -> float:
    """The value. Raises BadParameter for nan, which passes every comparison with bounds, and for an infinity."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a valid number")
    return value


def _checked_device(value: str) -> str:
    if value in DEVICES:
        return value
    from hiera_cli.commands import usage

    return usage.device(value)


def _completed_models(incomplete: str) -> list[str]:
    from hiera_cli.checkpoints.hub import cached_models

    return [name for name in (*MODELS, *cached_models()) if name.startswith(incomplete)]


def completed_concepts(incomplete: str) -> list[str]:
    """What completes a concept of WordNet's."""
    from hiera_cli import wordnet

    return wordnet.beginning_with(incomplete)


# ---- the inputs

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders, archives (tar, zip, Parquet), http(s) and s3, gs, az, hf URLs, - for stdin.",
        show_default=False,
    ),
]
FilesFrom = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Take the paths listed in FILE, one a line (- for stdin)."),
]
Files0From = Annotated[
    list[str] | None,
    typer.Option("--files0-from", metavar="FILE", help="The same with NUL between, as find -print0 writes."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Skip files and folders of this name in a folder; may be repeated."),
]
Hidden = Annotated[bool, typer.Option("--hidden", help="Take hidden files and folders too.")]
Follow = Annotated[bool, typer.Option("--follow", help="Follow links in folders.")]
Archives = Annotated[bool, typer.Option("--archives", help="Take the images in archives that folders hold, too.")]
Column = Annotated[
    str, typer.Option(metavar="NAME", help="Which column of Parquet has the images.", show_default="the only one")
]
MaxPixels = Annotated[int, typer.Option(metavar="N", min=1, help="Refuse larger images.")]
FullDecode = Annotated[
    bool, typer.Option("--full-decode", help="Decode large JPEGs in full, as the reference does: slower.")
]
UrlTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.1, help="Time for one URL, retries included.", callback=finite)
]
MaxMib = Annotated[
    int, typer.Option(metavar="MIB", min=1, help="Size of one URL's body, of stdin, or of an image in an archive.")
]
Workers = Annotated[int | None, typer.Option(metavar="N", min=1, help="Decoding threads. Chosen well by itself.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use no network, for weights or inputs.")]


# ---- the model

Model = Annotated[
    str,
    typer.Option(
        "-m",
        "--model",
        envvar="HIERA_MODEL",
        metavar="MODEL",
        help="tiny, small, base, base-plus, large, huge, demo, ORG/NAME, a folder or a file.",
        autocompletion=_completed_models,
        callback=model_name,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        envvar="HIERA_ENGINE",
        metavar="ENGINE",
        help="auto, torch or openvino. auto is openvino on a CPU where it is installed.",
        autocompletion=completes(ENGINES),
        callback=one_of(ENGINES),
    ),
]
Device = Annotated[
    str,
    typer.Option(
        envvar="HIERA_DEVICE",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N or mps. auto takes CUDA where it is available.",
        autocompletion=completes(DEVICES),
        callback=_checked_device,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        envvar="HIERA_PRECISION",
        metavar="PRECISION",
        help="auto, fp32, bf16 or fp16. auto is bf16 where the processor or GPU has it; fp32 is the reference.",
        autocompletion=completes(PRECISIONS),
        callback=one_of(PRECISIONS),
    ),
]
BatchSize = Annotated[int | None, typer.Option(metavar="N", min=1, help="Images run together. Chosen well by itself.")]


# ---- more machines

Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work on a Ray cluster: local starts one here, auto or HOST:PORT joins one. -o FOLDER/ has its workers "
        "write parts.",
        autocompletion=completes(("local", "auto")),
    ),
]
Ship = Annotated[
    bool, typer.Option("--ship", help="With --ray: nodes get this program from here; its dependencies they have.")
]


# ---- the output

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FormatJson = Annotated[bool, typer.Option("--json", help="Short for --format json.")]  # where there is a --format
Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Write here; the name appears when it is complete. - is stdout."
    ),
]
Null = Annotated[
    bool,
    typer.Option("-0", "--null", help="End plain's lines with NUL, and leave names as they are: for xargs -0."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing --output.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with an unfinished jsonl --output, or folder of parts: done files are not done again."
    ),
]
IndexFile = Annotated[
    str | None,
    typer.Option(
        "--index",
        envvar="HIERA_INDEX",
        metavar="FILE",
        help="The index of features. By default in the user's data folder.",
        show_default=False,
    ),
]
Quiet = Annotated[
    int,
    typer.Option(
        "-q",
        "--quiet",
        count=True,
        show_default=False,
        help="No remarks and no progress on stderr; failures are told. -qq: nothing but what ends the run.",
    ),
]
NoBanner = Annotated[bool, typer.Option("--no-banner", help="Do not say which model and device are used.")]
Progress = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress",
        help="A progress bar on a terminal, a line a minute elsewhere. By default: without -q.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")]
