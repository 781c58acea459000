"""`hiera report`."""

from __future__ import annotations

import os
import stat
from glob import glob
from typing import Annotated

import typer

from hiera_cli.commands.options import (
    MaxPixels,
    Output,
    Overwrite,
    Progress,
    Quiet,
    Workers,
)
from hiera_cli.errors import UsageError
from hiera_cli.limits import MAX_PIXELS


def report(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECORDS...",
            help="Files with the records of earlier runs, jsonl or json; - for stdin.",
            show_default=False,
        ),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    no_thumbnails: Annotated[
        bool, typer.Option("--no-thumbnails", help="Read no photos: a page of labels and paths.")
    ] = False,
    workers: Workers = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    quiet: Quiet = 0,
    progress: Progress = None,
) -> None:
    """Make a page to look at of the records of an earlier run."""
    from hiera_cli.commands.request import check_current_folder, output_path, request_of

    path = output_path(output)
    lists = {"inputs": files, "files_from": None, "files0_from": None, "exclude": None, "offline": True}
    request = request_of({**locals(), **lists}, "html", path)
    if not files:
        raise UsageError(
            "nothing to report: name a file of records", "For example: hiera report labels.jsonl -o page.html"
        )
    request.output.check()
    check_current_folder()
    if path is not None:
        stem, suffix = os.path.splitext(path)
        if suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"{path} is not called like a page", f"Name one: -o {stem or 'page'}.html")
        for name in files:
            if os.path.basename(name) == f"{os.path.basename(stem)}.part{suffix}":
                raise UsageError(f"{name} is what the unfinished page is called", "Name another --output.")

    from hiera_cli.commands import messages, pages
    from hiera_cli.commands import output as outputs
    from hiera_cli.outputs.page.records import records

    found = [record for name in files for record in records(_content(name), "stdin" if name == "-" else name)]
    if not found:
        if quiet < 2:
            messages.remark("nothing to do: there are no records")
        raise typer.Exit(1)
    page = outputs.page_file(request.output)
    with outputs.unfinished_on_error(page):
        status = pages.write(page, found, request, thumbnails=not no_thumbnails)
    raise typer.Exit(status)


def _content(name: str) -> bytes:
    """Of a file, or of stdin. Raises UsageError."""
    import sys

    try:
        if name == "-":
            return sys.stdin.buffer.read()
        if os.path.isdir(name):
            parts = f"{os.path.join(name, 'part-')}*.jsonl"
            if glob(parts):
                raise UsageError(f"{name} is a folder of parts", f"cat {parts} | hiera report - -o page.html")
            raise UsageError(
                f"{name} is a folder, not records", "A page of its photos: hiera classify FOLDER -o page.html"
            )
        if stat.S_ISCHR(os.stat(name).st_mode) and name.startswith("/dev/") and not name.startswith("/dev/fd/"):
            raise UsageError(f"{name} is a device, not a file of records")
        with open(name, "rb") as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error
