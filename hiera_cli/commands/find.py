"""`hiera find`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from hiera_cli.checkpoints.published import MODELS
from hiera_cli.commands import messages
from hiera_cli.commands.options import (
    BatchSize,
    Device,
    Engine,
    Exclude,
    Follow,
    FormatJson,
    FullDecode,
    Hidden,
    IndexFile,
    MaxPixels,
    Model,
    NoBanner,
    Null,
    Offline,
    Output,
    Overwrite,
    Precision,
    Progress,
    Quiet,
    Verbose,
    Workers,
    completed_concepts,
    completes,
    finite,
    one_of,
)
from hiera_cli.errors import UsageError
from hiera_cli.limits import MAX_PIXELS
from hiera_cli.outputs.names import FORMATS, SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hiera_cli.checkpoints.labels import Label
    from hiera_cli.commands.indexing import Place
    from hiera_cli.commands.request import Request

FOUND, NOTHING, TROUBLE = 0, 1, 2  # exit statuses, as grep has them
MOST_SIMILAR = 20
TOLD_LABELS = 3
CHUNK = 256  # photos that are written together


def _finite(value: float | None) -> float | None:
    return None if value is None else finite(value)


def _completed(context: typer.Context, incomplete: str) -> list[str]:
    """The concept, or paths, which the shell knows by itself."""
    is_query = not (context.params.get("words") or context.params.get("queries") or context.params.get("like"))
    return completed_concepts(incomplete) if is_query else []


def find(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY [PATH]...",
            help="What to find: a concept of WordNet's, a word of a label, a WordNet id; and where: files and folders, "
            "the current one if none is named. With -e or --like all are paths.",
            show_default=False,
            autocompletion=_completed,
        ),
    ] = None,
    queries: Annotated[
        list[str] | None,
        typer.Option(
            "-e", "--or", metavar="QUERY", help="Find this as well; may be repeated.", autocompletion=completed_concepts
        ),
    ] = None,
    excluded: Annotated[
        list[str] | None,
        typer.Option(
            "--not",
            metavar="QUERY",
            help="Leave out what this would find; may be repeated.",
            autocompletion=completed_concepts,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="PHOTO", help="The most similar to this first: a file, a URL, or - for stdin."),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="The least score of what is found (0.5; with --like alone none).",
            callback=_finite,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("-n", "--limit", metavar="N", min=1, help="At most so many (with --like alone: 20)."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--format",
            metavar="FORMAT",
            help="table, plain, json, jsonl, csv, tsv, parquet or html, a page to look at. By default: from the suffix "
            "of --output, else table on a terminal and plain elsewhere.",
            autocompletion=completes(FORMATS),
            callback=one_of(FORMATS),
        ),
    ] = None,
    as_json: FormatJson = False,
    output: Output = None,
    overwrite: Overwrite = False,
    null: Null = False,
    no_update: Annotated[
        bool, typer.Option("--no-update", help="Take the index as it is: no walk over the folders.")
    ] = False,
    index: IndexFile = None,
    model: Model = "tiny",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    exclude: Exclude = None,
    hidden: Hidden = False,
    follow: Follow = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    full_decode: FullDecode = False,
    offline: Offline = False,
    quiet: Quiet = 0,
    no_banner: NoBanner = False,
    progress: Progress = None,
    verbose: Verbose = False,
) -> None:
    """Find photos by what they show, or by a photo that they are like: their paths, best first."""
    from hiera_cli.commands.request import (
        asked_format,
        check_current_folder,
        check_parquet,
        index_path,
        output_path,
        request_of,
    )

    check_current_folder()
    lists = {"inputs": None, "files_from": None, "files0_from": None}
    file = output_path(output)
    name = asked_format(format, as_json, file) or _default_format(file, null=null)
    request = request_of({**locals(), **lists}, name, file)
    request.output.check()
    if null and name != "plain":
        raise UsageError(
            f"--null ends the lines of plain output, and this run writes {name}",
            "Leave it out, or use --format plain.",
        )
    if name == "parquet":
        check_parquet(file)
    asked, paths = _split(words or [], queries or [], like)
    if like == "":
        raise UsageError("the photo of --like is empty", "Is a variable of the script not set?")
    if not all(each.strip() for each in (*asked, *(excluded or ()))):
        raise UsageError("the query is empty", "Is a variable of the script not set?")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: the search has a thread a processor of its own

    from hiera_cli.checkpoints import hub, resolve
    from hiera_cli.checkpoints.labels import imagenet_labels
    from hiera_cli.commands import indexing
    from hiera_cli.commands import output as outputs
    from hiera_cli.commands.report import ExitStatus
    from hiera_cli.index.changes import Root, Seen
    from hiera_cli.index.search import SHOWN, Query, Search, labelled
    from hiera_cli.index.store import Index
    from hiera_cli.outputs import found
    from hiera_cli.system import terminal

    resolve.check_name(model)
    roots, missing = indexing.roots_of(paths)
    tell = messages.remarks_unless(quiet)
    if model in MODELS:  # a word that is wrong is told before anything is fetched
        for queried in (asked, tuple(excluded or ())):
            _classes(queried, imagenet_labels(), lambda message: None, paths)
    checkpoint = resolve.resolve(
        model, labels=bool(asked or excluded), offline=offline, progress=hub.Progress(tell, bar=False)
    )
    labels = checkpoint.labels
    classes, unwanted = _classes(asked, labels, tell, paths), _classes(excluded or (), labels, tell)
    if asked and not {*classes} - {*unwanted}:
        raise UsageError("nothing is left to find: --not takes all of it away")

    path = index_path(index)
    shown = ExitStatus.OK
    sink = outputs.opened_sink(request.output, _title(asked, like))
    with outputs.unfinished_on_error(sink), Index(path, create=not no_update) as opened:
        place = indexing.Place(opened, checkpoint, roots if paths else (Root.of(""),), request.inputs.walk())
        walked = None if no_update else indexing.beside(partial(indexing.walked, place))
        layer = checkpoint.classifier()
        least = (SHOWN if asked else -1.0) if min_score is None else min_score
        picture = None if like is None else _features(like, place, request)
        query = Query(tuple(sorted({*classes} - {*unwanted})), tuple(unwanted), picture, least)
        search = Search(opened, opened.model(checkpoint), query, layer)
        search.look()
        seen = walked() if walked else Seen()
        outdated = opened.read_only and seen.changed > 0
        if outdated and quiet < 2:
            are = "file is new or changed" if seen.changed == 1 else "files are new or changed"
            messages.remark(f"the index {path} can't be written: {seen.changed:,} {are}, and not searched")
        if not seen.is_nothing and not opened.read_only:
            status = indexing.update(place, request, seen)
            if status > TROUBLE:  # it was interrupted
                raise typer.Exit(status)
            search.model = opened.model(checkpoint)
            search.look()
        trouble = indexing.tell_unlisted(seen, missing, quiet, searches=True) or outdated
        if walked and not seen.changed:
            indexing.tell_globs(place, seen, tell)
        trouble |= indexing.tell_failed(place, quiet, told=seen.changed > 0)
        names = indexing.names_of(place, seen.apart)
        rows = search.ordered(names, seen.passed)
        if not rows and not missing:
            count = search.count(names)
            tell(f"nothing found among {count:,} photo{'s' * (count != 1)}" + f" (--min-score {least:g})" * bool(count))
        most = MOST_SIMILAR if limit is None and not asked else limit
        answers = labelled(opened, rows[:most], best=name != "plain")
        if name == "html":
            from hiera_cli.commands import pages
            from hiera_cli.outputs.page.file import PageFile

            assert isinstance(sink, PageFile)
            shown = pages.write(sink, [found.record(each, labels) for each in answers], request)
        else:
            columns = terminal.columns(sys.stdout.fileno()) if name == "table" and file is None else None
            write = found.writer(name, labels, null=null, columns=columns, percent=like is None)
            text = write(answers)
            while some := [*islice(text, CHUNK)]:
                if rows or file is None:  # a search that finds nothing leaves no empty document
                    sink.write("".join(some) if isinstance(some[0], str) else b"".join(some))
            sink.close(complete=bool(rows))
            if rows and file is not None:
                tell(f"{len(rows[:most]):,} found, in {file}")
    if rows and shown > TROUBLE:  # it was interrupted
        raise typer.Exit(shown)
    trouble |= bool(rows) and shown != ExitStatus.OK
    raise typer.Exit(TROUBLE if trouble else FOUND if rows else NOTHING)


def _default_format(file: str | None, *, null: bool) -> str:
    if file is None:
        return "table" if sys.stdout.isatty() and not null else "plain"
    from hiera_cli.commands.request import format_of_suffix

    return format_of_suffix(file, SUFFIXES, FORMATS) or "plain"


def _title(asked: Sequence[str], like: str | None) -> str:
    """Of a page: what is found."""
    return " ".join(filter(None, (" or ".join(asked), f"like {like}" if like else "")))


def _split(words: list[str], queries: list[str], like: str | None) -> tuple[tuple[str, ...], list[str]]:
    """(queries, paths)."""
    asked = [*queries]
    if not queries and like is None:
        if not words:
            raise UsageError("nothing to find: name what", "For example: hiera find dog photos/")
        asked.append(words[0])
        words = words[1:]
    return tuple(asked), words


def _classes(
    asked: Sequence[str], labels: Sequence[Label], tell: Callable[[str], None], paths: Sequence[str] = ()
) -> list[int]:
    """The classes that are under any of the concepts, or have the word in their label. paths: what stands behind.

    Raises UsageError.
    """
    from hiera_cli import wordnet
    from hiera_cli.checkpoints.labels import matching

    classes: set[int] = set()
    has_concepts = any(label.wnid for label in labels)
    for text in asked:
        meanings = wordnet.meanings(text) if has_concepts else ()
        if meanings:
            if remark := wordnet.meaning_taken(text):
                tell(remark)
            classes.update(wordnet.indices(meanings[0].wnid, labels))
            continue
        found = next(filter(None, (matching(tuple(labels), form, whole=True) for form in wordnet.forms(text))), [])
        if not found:
            what = "a concept or a word of a label" if has_concepts else "a word of a label of this model"
            raise UsageError(f"'{text}' is not {what}", _meant(text, labels, paths))
        if has_concepts:
            tell(f"{text}: not a concept; taken as the labels with the word: {_several(found)}")
        classes.update(label.index for label in found)
    return sorted(classes)


def _several(labels: Sequence[Label]) -> str:
    told = "; ".join(label.text for label in labels[:TOLD_LABELS])
    return told + (f" and {len(labels) - TOLD_LABELS} more" if len(labels) > TOLD_LABELS else "")


def _meant(text: str, labels: Sequence[Label], paths: Sequence[str]) -> str:
    """What was probably meant by a query that names nothing."""
    import shlex

    from hiera_cli import wordnet

    if os.path.lexists(text) and not any(map(os.path.lexists, paths)):
        if os.path.isdir(text):
            return f"What to find comes first: hiera find QUERY {shlex.quote(text)}"
        return f"To find what is like it: hiera find --like {shlex.quote(text)}"
    for count in range(1, len(paths) + 1):
        phrase = " ".join((text, *paths[:count]))
        if wordnet.meanings(phrase):
            return f"Did you mean {shlex.join(['hiera', 'find', phrase, *paths[count:]])}?"
    words = (word for label in labels for word in label.text.split(", "))
    return wordnet.suggestion(text, words, concepts=any(label.wnid for label in labels))


def _features(like: str, place: Place, request: Request) -> NDArray[np.float32]:
    """Of the photo to be similar to: from the index, if it is there and has not changed since; else computed.

    Raises UsageError if it can't be read.
    """
    import numpy as np

    from hiera_cli.index.changes import features_in

    if os.path.isdir(like):
        raise UsageError(f"{like} is a folder: --like takes a photo")
    model = place.index.model(place.checkpoint)
    if model is not None and (stored := features_in(place.index, model, like)) is not None:
        return np.frombuffer(stored, np.float16).astype(np.float32)
    from dataclasses import asdict

    from hiera_cli.classifier import load_classifier

    classifier = load_classifier(**asdict(request.model), offline=request.offline)
    inputs = request.inputs
    for result in classifier.embed(like, max_pixels=inputs.max_pixels, full_decode=inputs.full_decode):
        if result.error is not None:
            raise UsageError(f"{like}: {result.error.message}")
        assert result.features is not None
        return result.features
    raise UsageError(f"{like} is not a photo: name a file, a URL or - for stdin")
