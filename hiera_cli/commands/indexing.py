"""What `hiera index` and `hiera find` have in common: the index, and bringing it up to date."""

from __future__ import annotations

import errno
import os
import pickle
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from hiera_cli import wordnet
from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.commands import messages
from hiera_cli.commands.output import Output
from hiera_cli.commands.report import ExitStatus
from hiera_cli.commands.request import Request
from hiera_cli.errors import HieraError, UsageError
from hiera_cli.index.changes import Comparison, Root, Seen, features_in, is_within_any
from hiera_cli.index.search import Names
from hiera_cli.index.store import Index
from hiera_cli.index.update import IndexSink, apply
from hiera_cli.inputs.source import STDIN, is_url
from hiera_cli.inputs.walk import Walk

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Folders and files, and the index that has their features."""

    index: Index
    checkpoint: Checkpoint
    roots: tuple[Root, ...]
    walk: Walk


Missing = list[tuple[str, str]]  # names, and why they can't be reached


def roots_of(paths: Sequence[str]) -> tuple[tuple[Root, ...], Missing]:
    """What was named, and the names that are not there. Raises UsageError for what can't be in an index."""
    roots: list[Root] = []
    missing: Missing = []
    for path in paths:
        if is_url(path) or path == STDIN:
            raise UsageError(f"{path} is not a file or folder: the index holds no others")
        check_not_empty(path)
        try:
            os.lstat(path)
        except OSError as error:
            missing.append((path, "no such file or folder" if error.errno == errno.ENOENT else str(error.strerror)))
        except ValueError:  # a name that no file can have
            missing.append((path, "no such file or folder"))
        else:
            roots.append(Root.of(path))
    return tuple(roots), missing


def check_not_empty(path: str) -> None:
    """Raise UsageError for a path that is empty: it would mean the current folder."""
    if not path:
        raise UsageError("a path is empty", "Is a variable of the script not set?")


def walked(place: Place) -> Seen:
    """What has changed, after a walk over all. Raises OutputError."""
    with place.index.again() as index:
        comparison = Comparison(index, index.model(place.checkpoint), place.roots, place.walk)
        for source in comparison.sources():
            comparison.real.pop(source.path)
        return comparison.seen


def beside(call: Callable[[], T]) -> Callable[[], T]:
    """Begin a call in a process of its own, if the system can do that; returns what waits for its outcome.

    The call may use nothing that this process has open. Where there are no such processes it is made when it is waited
    for. What it raises is raised there.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":  # whose libraries do not bear it
        return call
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none holds a lock that the call takes
        child = os.fork()
    if not child:
        _answer(call, writer)
    os.close(writer)

    def wait() -> T:
        with os.fdopen(reader, "rb") as stream:
            answer = stream.read()
        os.waitpid(child, 0)
        if not answer:
            raise HieraError("the walk over the folders was ended from outside")
        value, error = pickle.loads(answer)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    return wait


def _answer(call: Callable[[], Any], descriptor: int) -> None:
    """In the child: write what the call returns or raises, and end."""
    status = 1
    try:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = call(), None
        except Exception as error:
            outcome = None, error
        with os.fdopen(descriptor, "wb") as stream:
            pickle.dump(outcome, stream)
        status = 0
    finally:
        os._exit(status)


def update(place: Place, request: Request, before: Seen) -> ExitStatus:
    """Bring the index up to date. before: what has changed. Raises as a run does.

    Files whose features can't be had are told of, and counted in the exit status.
    """
    index = place.index
    if not before.changed:
        apply(index, before)
        return ExitStatus.OK
    from hiera_cli.checkpoints import resolve
    from hiera_cli.classifier import load_classifier
    from hiera_cli.commands import run
    from hiera_cli.tasks.index import Index as Task

    model = index.add_model(place.checkpoint)
    with index.again() as apart:  # for the walk, which is on a thread of its own
        comparison = Comparison(apart, model, place.roots, place.walk)
        output = Output(lambda results: results, IndexSink(index, model, comparison))  # type: ignore[arg-type, return-value]
        read = run.reading(request, resolve.record_name(request.model.model))
        load = partial(load_classifier, labels=False)
        found = comparison.sources()
        skipped = comparison.seen.skipped
        return run.Run(request, output, Task(), read, load, sources=found, total=before.changed, skipped=skipped).run()


def names_of(place: Place, apart: Sequence[bytes]) -> Names:
    """How what is at or below what was named is printed. apart: folders that are left out, with all below."""
    names = Names()
    for root in place.roots:
        real = os.fsencode(root.real)
        if root.is_folder:
            for number, folder in place.index.folders(real).items():
                if not is_within_any(folder, apart):
                    names.folders.setdefault(number, root.printed(folder))
        else:
            folder, name = os.path.split(real)
            for number in (number for number, path in place.index.folders(folder).items() if path == folder):
                names.files.setdefault(number, {})[name] = os.fsencode(root.given)
    return names


def tell_globs(place: Place, found: Seen, tell: Callable[[str], None]) -> None:
    """Say which globs have excluded nothing."""
    for glob in place.walk.exclude:
        if glob not in found.skipped.globs:
            tell(f"--exclude {shlex.quote(glob)} matched nothing")


def tell_failed(place: Place, quiet: int, *, told: bool) -> bool:
    """Say which files that were named outright have no features, unless they were told already.

    Returns whether there are any.
    """
    model = place.index.model(place.checkpoint)
    failed = False
    for root in place.roots:
        folder, name = map(os.fsencode, os.path.split(root.real))
        if root.is_folder or (model is not None and features_in(place.index, model, root.given) is not None):
            continue
        failed = True
        message = place.index.message(model, folder, name) if model is not None else None
        if not told and quiet < 2:
            messages.remark(f"{root.given}: {message or 'it is not in the index'}")
    return failed


def tell_unlisted(found: Seen, missing: Missing, quiet: int, *, searches: bool = False) -> bool:
    """Say on stderr what could not be walked. Returns whether there was anything. searches: for a concept, perhaps."""
    if quiet < 2:
        for path, why in missing:
            also = f" (to find it too: -e {shlex.quote(path)})" if searches and wordnet.meanings(path) else ""
            messages.remark(f"{path}: {why}{also}")
        for path, why in found.unlisted:
            messages.remark(f"{path}: {why}")
    return bool(found.unlisted or missing)
