"""`hiera download`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from hiera_cli.checkpoints.published import PUBLISHED, model_name
from hiera_cli.commands import messages
from hiera_cli.commands.options import Json, Quiet, completes
from hiera_cli.system.printable import printable


def download(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Names or Hub repositories. [default: tiny]",
            autocompletion=completes(tuple(PUBLISHED)),
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Put the files into DIR as well, to carry to another machine."),
    ] = None,
    mae: Annotated[
        bool, typer.Option("--mae", help="The masked autoencoders of these sizes, for hiera reconstruct.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is here already.")] = False,
    as_json: Json = False,
    quiet: Quiet = 0,
) -> None:
    """Fetch weights ahead of time, into the Hub cache or a folder."""
    from hiera_cli.checkpoints import hub, inventory
    from hiera_cli.commands.interrupts import interruptible
    from hiera_cli.system.threads import apart

    names = [model_name(name) for name in models or ["tiny"]]
    say = messages.remarks_unless(quiet)
    progress = hub.Progress(say, bar=not quiet)
    kind: inventory.Kind = "autoencoder" if mae else "classifier"
    command = "reconstruct" if mae else "classify"
    fetched = []
    for name in names:
        folder = None if to is None else to if len(names) == 1 else f"{to}/{name.replace('/', '--')}"
        with interruptible():
            entry = apart(partial(inventory.download, name, folder, kind=kind, force=force, progress=progress))
        if folder is not None:
            say(f"there: hiera {command} -m {folder} INPUT...")
        fetched.append(entry)
        if not as_json:
            messages.write(printable(f"{entry.name}\t{entry.folder}", keep="\t"))
    if as_json:
        messages.write_json(fetched)
