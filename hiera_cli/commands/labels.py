"""`hiera labels`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands import messages
from hiera_cli.commands.options import Json, Model, Offline
from hiera_cli.errors import UsageError
from hiera_cli.system.printable import printable

if TYPE_CHECKING:
    from hiera_cli.checkpoints.labels import Label


def labels(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY...", help="Words of the label, an index or a WordNet id.", show_default=False),
    ] = None,
    model: Model = "tiny",
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """List the classes of the model: index, WordNet id, label."""
    from hiera_cli.checkpoints.labels import matching

    query = " ".join(words or ())
    if words and not query.strip():
        raise UsageError("the query is empty", "Is a variable of the script not set? `hiera labels` lists all classes.")
    found = matching(_labels_of(model, offline), query)
    if as_json:
        records = [{"index": each.index, "wnid": each.wnid, "label": each.text} for each in found]
        messages.write_json(records, indent=None)
    elif found:
        messages.write("\n".join(f"{each.index}\t{each.wnid or '-'}\t{printable(each.text)}" for each in found))
    if not found:
        messages.remark(f"no label matches {printable(query)!r}")
        raise typer.Exit(1)


def _labels_of(model: str, offline: bool) -> tuple[Label, ...]:
    if model in MODELS:  # all of them have ImageNet's classes
        from hiera_cli.checkpoints.labels import imagenet_labels

        return imagenet_labels()
    from hiera_cli.checkpoints import resolve

    return resolve.resolve(model, labels=True, offline=offline).labels
