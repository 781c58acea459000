"""`hiera labels`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands import messages
from hiera_cli.commands.options import Json, Model, Offline, completed_concepts
from hiera_cli.errors import UsageError
from hiera_cli.system.printable import printable

if TYPE_CHECKING:
    from hiera_cli.checkpoints.labels import Label


def labels(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY...",
            help="Words of the label, a concept of WordNet (dog), an index or a WordNet id.",
            show_default=False,
            autocompletion=completed_concepts,
        ),
    ] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="Draw WordNet's tree, from the concept down to the classes.")
    ] = False,
    model: Model = "tiny",
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """List the classes of the model: index, WordNet id, label."""
    query = " ".join(words or ())
    if words and not query.strip():
        raise UsageError("the query is empty", "Is a variable of the script not set? `hiera labels` lists all classes.")
    known, name = _labels_of(model, offline)
    if tree:
        _show_tree(query, known, name, as_json)
    else:
        _list(query, known, as_json)


def _list(query: str, known: tuple[Label, ...], as_json: bool) -> None:
    from hiera_cli import wordnet
    from hiera_cli.checkpoints.labels import matching

    is_imagenet = any(label.wnid for label in known)
    meanings = wordnet.meanings(query) if query and is_imagenet else ()
    found = matching(known, query, wordnet.classes()[meanings[0].wnid] if meanings else ())
    if as_json:
        records = [{"index": each.index, "wnid": each.wnid, "label": each.text} for each in found]
        messages.write_json(records, indent=None)
    elif found:
        messages.write("\n".join(f"{each.index}\t{each.wnid or '-'}\t{printable(each.text)}" for each in found))
    if not found:
        nearest = wordnet.suggestion(query) if is_imagenet else ""
        messages.remark(f"no label matches {printable(query)!r}" + (f". {nearest}" if nearest else ""))
        raise typer.Exit(1)
    listed = {label.wnid for label in found}
    if not all(wordnet.classes()[meaning.wnid] <= listed for meaning in meanings):
        messages.remark(wordnet.meaning_taken(query))


def _show_tree(query: str, known: tuple[Label, ...], model: str, as_json: bool) -> None:
    from hiera_cli import wordnet
    from hiera_cli.commands.tree import drawn, tabbed
    from hiera_cli.system import terminal

    wordnet.check_classes(known, model)
    meanings = wordnet.meanings(query or "entity")
    if not meanings:
        if as_json:
            messages.write_json(None)
        nearest = wordnet.suggestion(query)
        messages.remark(f"no concept is called {printable(query)!r}" + (f". {nearest}" if nearest else ""))
        raise typer.Exit(1)
    top = meanings[0].wnid
    if as_json:
        messages.write_json(wordnet.nested(top, known), indent=None)
    elif sys.stdout.isatty():
        columns = terminal.columns(sys.stdout.fileno())
        unicode = terminal.is_utf8(sys.stdout.encoding)
        messages.write("\n".join(drawn(wordnet.rows(top, known), columns, unicode=unicode)))
    else:
        messages.write("\n".join(tabbed(wordnet.rows(top, known))))
    if taken := wordnet.meaning_taken(query):
        messages.remark(taken)


def _labels_of(model: str, offline: bool) -> tuple[tuple[Label, ...], str]:
    """The labels, and the model's name for a person."""
    if model in MODELS:  # all of them have ImageNet's classes
        from hiera_cli.checkpoints.labels import imagenet_labels

        return imagenet_labels(), model
    from hiera_cli.checkpoints import resolve

    checkpoint = resolve.resolve(model, labels=True, offline=offline)
    return checkpoint.labels, checkpoint.name
