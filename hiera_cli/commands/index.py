"""`hiera index`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from hiera_cli.commands import messages
from hiera_cli.commands.options import (
    BatchSize,
    Device,
    Engine,
    Exclude,
    Follow,
    FullDecode,
    Hidden,
    IndexFile,
    Json,
    MaxPixels,
    Model,
    NoBanner,
    Offline,
    Precision,
    Progress,
    Quiet,
    Verbose,
    Workers,
)
from hiera_cli.errors import OutputError, UsageError
from hiera_cli.limits import MAX_PIXELS

if TYPE_CHECKING:
    from hiera_cli.commands.request import Request


def index(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH...", help="Folders and files to bring up to date.", show_default=False),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show what is in the index.")] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option("--forget", metavar="PATH", help="Remove a file or folder from the index; may be repeated."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Verify the index.")] = False,
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
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = 0,
    no_banner: NoBanner = False,
    progress: Progress = None,
    verbose: Verbose = False,
) -> None:
    """Bring the index that `hiera find` searches up to date; show, verify or forget what is in it."""
    from hiera_cli.commands.request import check_current_folder, index_path, request_of

    check_current_folder()
    request = request_of({**locals(), "inputs": None, "files_from": None, "files0_from": None}, "", None)
    asked = [bool(paths), status, bool(forget), check]
    if sum(asked) != 1:
        what = "nothing to do" if not any(asked) else "one thing at a time"
        raise UsageError(f"{what}: name folders to index, or one of --status, --forget and --check")
    if as_json and not status:
        raise UsageError("--json goes with --status")

    where = index_path(index)
    if paths:
        raise typer.Exit(_update(where, paths, request))
    if status:
        _show(where, as_json=as_json)
    elif forget:
        if not _forget(where, forget, quiet):
            raise typer.Exit(1)
    elif not _is_sound(where):
        raise typer.Exit(1)


def _update(where: str, paths: list[str], request: Request) -> int:
    from hiera_cli.checkpoints import hub, resolve
    from hiera_cli.commands import indexing
    from hiera_cli.commands.skipped_lines import skipped_lines
    from hiera_cli.index.store import Index

    quiet = request.report.quiet
    tell = messages.remarks_unless(quiet)
    resolve.check_name(request.model.model)
    roots, missing = indexing.roots_of(paths)
    model = request.model.model
    checkpoint = resolve.resolve(model, labels=False, offline=request.offline, progress=hub.Progress(tell, bar=False))
    with Index(where, create=True) as opened:
        if opened.read_only:
            raise OutputError(f"the index {where} can't be written", remedy="another index")
        place = indexing.Place(opened, checkpoint, roots, request.inputs.walk())
        seen = indexing.walked(place)
        gone = sum(map(len, seen.gone.values()))
        ended = indexing.update(place, request, seen)
        if ended > 2:  # it was interrupted
            return ended
        if gone or seen.gone_folders:
            folders = f" and {len(seen.gone_folders):,} folders" if seen.gone_folders else ""
            tell(f"{gone:,} files{folders} that are no more left the index")
        for folder in seen.lost:
            tell(f"{os.fsdecode(folder)}: can't be reached; what the index has of it stays")
        if not seen.changed:  # else the run has told them
            for line in skipped_lines(seen.skipped):
                tell(line)
            indexing.tell_globs(place, seen, tell)
        if not seen.changed and not missing:
            failed = sum(each.errors for each in opened.models())
            are = "file that has an error" if failed == 1 else "files that have an error"
            tell("the index is up to date" + (f", with {failed:,} {are} (--status names them)" if failed else ""))
        failed = indexing.tell_failed(place, quiet, told=seen.changed > 0)
        trouble = indexing.tell_unlisted(seen, missing, quiet)
    return 2 if trouble else max(ended, failed)


def _show(where: str, *, as_json: bool) -> None:
    from hiera_cli.commands import tables
    from hiera_cli.commands.index_facts import index_facts
    from hiera_cli.system import terminal

    facts = index_facts(where)
    if as_json:
        messages.write_json(facts)
    else:
        messages.write("\n".join(tables.index_lines(facts, terminal.columns(1))))


def _forget(where: str, paths: list[str], quiet: int) -> bool:
    """Returns whether all of them were in it."""
    from hiera_cli.commands.indexing import check_not_empty
    from hiera_cli.index.changes import Root
    from hiera_cli.index.store import Index

    for path in paths:
        check_not_empty(path)
    all_there = True
    with Index(where) as opened:
        if opened.read_only:
            raise OutputError(f"the index {where} can't be written", remedy="another index")
        for path in paths:
            # As a walk that followed links has it, else where it is.
            removed = opened.forget(os.fsencode(os.path.abspath(path))) or opened.forget(
                os.fsencode(Root.of(path).real)
            )
            all_there &= removed > 0
            entries = f"{removed:,} {'entry' if removed == 1 else 'entries'} removed"
            messages.remarks_unless(quiet)(f"{path}: {entries if removed else 'nothing of it is in the index'}")
    return all_there


def _is_sound(where: str) -> bool:
    from hiera_cli.index.store import Index

    with Index(where) as opened:
        faults = opened.faults()
    for fault in faults:
        messages.write(fault)
    if not faults:
        messages.write(f"{where}: no fault was found")
    return not faults
