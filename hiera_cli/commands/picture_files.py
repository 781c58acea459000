"""An --output of pictures: a .png for one input, a folder for several."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hiera_cli.errors import UsageError

if TYPE_CHECKING:
    from hiera_cli.commands.request import InputRequest
    from hiera_cli.outputs.pictures import Pictures

OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
OTHER_FILES = (".html", ".htm", ".json", ".jsonl", ".csv", ".tsv", ".txt")


def is_one(output: str) -> bool:
    """Whether it is one picture, and no folder."""
    return os.path.splitext(output)[1].lower() == ".png"


def check(output: str | None, inputs: InputRequest, *, overwrite: bool) -> None:
    """Raise UsageError for what pictures can't be written to, such as one file where there are several inputs."""
    if output == "":
        raise UsageError("--output needs a name: it is empty", "Is a variable of the script not set?")
    if output is None:
        if overwrite:
            raise UsageError("--overwrite is about an --output, and there is none", "Name one: -o FILE.png, or -o DIR")
        return
    from hiera_cli.commands.request import STDOUT, check_apart
    from hiera_cli.inputs.source import STDIN, is_cloud

    if is_cloud(output):
        raise UsageError("pictures are saved on this machine alone", "Name a file: -o FILE.png, or a folder.")
    if output in STDOUT:
        raise UsageError("pictures are not written to standard output", "Name a file: -o FILE.png")
    check_apart(inputs, output)
    suffix = os.path.splitext(output)[1].lower()
    if suffix in OTHER_PICTURES and not os.path.isdir(output):
        raise UsageError(f"pictures are written as PNG, not as {suffix}", "Name a file: -o FILE.png, or a folder.")
    if suffix in OTHER_FILES and not os.path.isdir(output):
        raise UsageError(
            f"pictures are written here, and {output} is not called like one", "Name a folder: -o pictures"
        )
    one = len(inputs.inputs) == 1 and not inputs.lists
    several = not one or (inputs.inputs[0] != STDIN and _holds_several(inputs.inputs[0]))
    if is_one(output) and several:
        raise UsageError(
            f"{output} is one picture, and there may be several inputs", "Name a folder for them: -o pictures"
        )


def _holds_several(name: str) -> bool:
    """Whether it is a folder, a prefix or an archive."""
    from hiera_cli.inputs import archives
    from hiera_cli.inputs.source import is_cloud

    if is_cloud(name):
        return os.path.splitext(name)[1].lower() not in archives.PICTURES
    return os.path.isdir(name) or archives.is_archive(name)


def opened(output: str, *, overwrite: bool) -> Pictures:
    """Where the pictures are saved. Raises OutputError."""
    from hiera_cli.outputs.pictures import Pictures

    return Pictures(output, folder=not is_one(output), overwrite=overwrite)
