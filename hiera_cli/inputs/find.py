"""Arguments and folder walks → the inputs one by one, in order, as they are found."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from hiera_cli.errors import DecodeError, InputError, NotFoundError, ReadError
from hiera_cli.inputs import archives, signatures
from hiera_cli.inputs.read import first_bytes
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import STDIN, Kind, Source, descriptor, is_cloud, is_url
from hiera_cli.inputs.walk import Walk

RUN = 1 << 13  # names of a folder that are sorted together
# Of the names that a listing took, a folder's is marked at its end, with a character that no name has and that sorts
# before all others, so that the mark changes no order.
FOLDER = "\0"


Warn = Callable[[str], None]


def expand(
    arguments: Iterable[str | Source],
    walk: Walk,
    warn: Warn,
    *,
    stdin_taken: bool = False,
    skipped: Skipped | None = None,
) -> Iterator[Source]:
    """Yield the inputs that the arguments name: files, URLs and descriptors as they stand, folders and archives walked.

    Lazy: a folder is listed when its turn comes. What is not there is yielded too, with its error; what is a Source
    already, as it is. stdin_taken: stdin is the list that the arguments come from, so it can't be an image as well.
    skipped: counts what is passed over in folders.
    """
    skipped = skipped or Skipped()
    taken = {0} if stdin_taken else set()
    members = archives.NamedMembers()
    for argument in arguments:
        if isinstance(argument, Source):
            yield argument
        elif (number := descriptor(argument)) is not None:
            kind = Kind.DESCRIPTOR if number else Kind.STDIN
            again = ReadError("it was read already" if number else "stdin was read already")
            yield Source(argument, kind, again if number in taken else None)
            taken.add(number)
        elif is_cloud(argument):
            if walk.offline:
                yield Source(argument, Kind.CLOUD)
            else:
                from hiera_cli.inputs import cloud  # asyncio takes 0.03 s to import

                excludes = _Excludes(walk.exclude, argument, skipped)
                yield from cloud.sources(argument, walk, excludes.match, skipped, warn)
        elif is_url(argument):
            yield Source(argument, Kind.URL)
        elif os.path.isdir(argument):
            found = False
            for source in _walk(argument, walk, warn, skipped, lambda here, names: _sorted(names)):
                found = True
                yield source
            if not found:
                warn(f"{argument}: no images in this folder")
        elif archives.is_archive(argument):
            archive = Source(argument, Kind.ARCHIVE)
            yield from (archive,) if walk.whole_archives else members_of(archive, walk, warn, skipped)
        elif not os.path.lexists(argument) and (member := members.source(argument, walk)):
            yield member
        else:
            yield Source(argument)


def members_of(archive: Source, walk: Walk, warn: Warn, skipped: Skipped) -> Iterator[Source]:
    """The images in an archive, in its order; in the place of what can't be read, its error."""
    path = archive.path
    found = archive.in_folder  # of which it is no news that there are none in one
    for source in archives.sources(path, walk, _Excludes(walk.exclude, path, skipped).match, skipped):
        found = True
        if archive.in_folder and source.path == path and isinstance(source.error, DecodeError):
            skipped.add(os.path.splitext(path)[1].lower())  # a table of something else
            if skipped.tell:
                skipped.tell(path, source.error.message)
        else:
            yield source
    if not found:
        warn(f"{path}: no images in this archive")


def count(arguments: Iterable[str], walk: Walk) -> int | None:
    """How many inputs `expand` would yield; None if that takes reading archives. Keeps no name but those of folders."""
    files = 0
    unknown = False

    def folders(names: Iterator[str]) -> Iterator[str]:
        nonlocal files, unknown
        for name in names:
            unknown |= walk.archives and archives.has_suffix(name)
            if name.endswith(FOLDER):
                yield name
            else:
                files += 1

    others = 0
    for argument in arguments:
        unknown |= is_cloud(argument)
        if argument != STDIN and not is_url(argument) and os.path.isdir(argument):
            found = _walk(argument, walk, lambda warning: None, Skipped(), lambda here, names: _sorted(folders(names)))
            others += sum(1 for _ in found)
        elif argument != STDIN and not is_url(argument) and archives.is_archive(argument):
            members = archives.count(argument, walk, _Excludes(walk.exclude, argument, Skipped()).match)
            unknown |= members is None
            others += members or 0
        else:
            others += 1
        if unknown:
            return None
    return files + others


def folders(folder: str, walk: Walk) -> list[str]:
    """The names of the folders right in one that a walk takes, in order. Raises InputError if it can't be listed."""
    skipped = Skipped()
    try:
        with os.scandir(folder) as listing:
            taken = _taken(listing, "", walk, walk.suffixes(), _Excludes(walk.exclude, folder, skipped), skipped)
            return [name.removesuffix(FOLDER) for name in _sorted(name for name in taken if name.endswith(FOLDER))]
    except OSError as error:
        raise _cannot("list the folder", error) from error


def some(
    folder: str, walk: Walk, warn: Warn, skipped: Skipped, select: Callable[[str, list[str]], list[str]]
) -> Iterator[Source]:
    """The images in a folder that are selected, and the errors of folders that can't be listed, in order.

    select: which of the names in one folder, given its path; it may not add any.
    """

    def arrange(here: str, names: Iterator[str]) -> Iterator[str]:
        folders: list[str] = []
        files: list[str] = []
        for name in names:
            (folders if name.endswith(FOLDER) else files).append(name)
        return _sorted(iter(folders + select(here, files)))

    return _walk(folder, walk, warn, skipped, arrange)


@dataclass
class _Level:
    """A folder on the way down: where it is below the one that was named, which one it is, what is left of it."""

    below: str
    identity: tuple[int, int]
    names: Iterator[str]


def _walk(
    folder: str, walk: Walk, warn: Warn, skipped: Skipped, arrange: Callable[[str, Iterator[str]], Iterator[str]]
) -> Iterator[Source]:
    """A folder's images and, in their places among them, its subfolders'. With a stack, for folders may be deep.

    arrange: which of the names that were taken of a folder, whose path it is given, to go through, and in which order.
    It reads them to the end.
    """
    levels: list[_Level] = []
    suffixes = walk.suffixes()
    excludes = _Excludes(walk.exclude, folder, skipped)

    def enter(below: str) -> Source | None:
        here = os.path.join(folder, below) if below else folder
        try:
            state = os.stat(here)
            identity = (state.st_dev, state.st_ino)
            if any(identity == level.identity for level in levels):
                warn(f"{here}: skipped, the link leads back to a folder above it")
                return None
            with os.scandir(here) as listing:
                names = arrange(here, _taken(listing, below, walk, suffixes, excludes, skipped))
        except OSError as error:
            return Source(here, error=_cannot("list the folder", error))
        levels.append(_Level(below, identity, names))
        return None

    if failed := enter(""):
        yield failed
    while levels:
        level = levels[-1]
        name = next(level.names, None)
        if name is None:
            levels.pop()
            continue
        path = os.path.join(level.below, name)
        if walk.archives and archives.has_suffix(path):
            archive = Source(os.path.join(folder, path), Kind.ARCHIVE, in_folder=True)
            yield from (archive,) if walk.whole_archives else members_of(archive, walk, warn, skipped)
        elif not path.endswith(FOLDER):
            yield Source(os.path.join(folder, path))
        elif failed := enter(path.removesuffix(FOLDER)):
            yield failed


def _taken(
    listing: Iterable[os.DirEntry[str]],
    below: str,
    walk: Walk,
    suffixes: frozenset[str],
    excludes: _Excludes,
    skipped: Skipped,
) -> Iterator[str]:
    """The names of the images and of the folders, these marked, that the walk takes."""
    tell = skipped.tell
    for entry in listing:
        name = entry.name
        if excludes and excludes.match(name, below):
            why = "excluded"
        elif not walk.hidden and name.startswith("."):
            skipped.hidden += 1
            why = "hidden"
        elif not walk.follow and entry.is_symlink():
            skipped.links += 1
            why = "a link"
        elif _is_folder(entry):
            yield name + FOLDER
            continue
        else:
            suffix = os.path.splitext(name)[1].lower()
            if walk.archives and archives.has_suffix(name):
                yield name
                continue
            if suffix in suffixes or (suffix in ("", ".") and signatures.is_picture(first_bytes(entry.path, 64))):
                yield name
                continue
            skipped.add(suffix)
            why = "not known as an image"
        if tell:
            tell(entry.path, why)


class _Excludes:
    """What globs leave out below a folder. False if there are none.

    A glob without a slash is held against names. One with a slash against the path below the folder, and against that
    with the folder before it, as it is printed, unless the folder itself, which was named outright, would be left out.
    `**/` stands for any folders or none.
    """

    def __init__(self, globs: tuple[str, ...], folder: str, skipped: Skipped) -> None:
        self._names: list[tuple[str, re.Pattern[str]]] = []
        self._paths: list[tuple[str, re.Pattern[str]]] = []
        self._matched = skipped.globs
        self._folder = _slashes(os.path.normpath(folder)).strip("/")
        for glob in globs:
            pattern = glob.removeprefix("./").strip("/")
            either = {pattern, pattern.replace("**/", "")}
            compiled = re.compile("|".join(map(fnmatch.translate, sorted(either))))
            (self._paths if "/" in glob.rstrip("/") else self._names).append((glob, compiled))
        self._printed = [(glob, pattern) for glob, pattern in self._paths if not pattern.match(self._folder)]

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def match(self, name: str, below: str) -> bool:
        """Whether the entry of this name, in the folder `below` the one that was named, is left out."""
        excluded = self._any(self._names, name)
        if self._paths:
            path = _slashes(os.path.join(below, name))
            excluded |= self._any(self._paths, path)
            excluded |= self._any(self._printed, f"{self._folder}/{path}")
        return excluded

    def _any(self, patterns: list[tuple[str, re.Pattern[str]]], text: str) -> bool:
        found = False
        for glob, pattern in patterns:  # all, so that each of several that match is known to match something
            if not (found and glob in self._matched) and pattern.match(text):
                self._matched.add(glob)
                found = True
        return found


def _slashes(path: str) -> str:
    return path.replace(os.sep, "/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a broken link, or one that leads to itself: reading it will say so
        return False


def _sorted(names: Iterator[str]) -> Iterator[str]:
    """All of them, by their bytes, in little more memory than these take: sorted and packed in runs, then merged.

    Bytes have one order whatever the locale; of UTF-8 it is that of the characters.
    """
    runs = []
    while run := sorted(map(os.fsencode, islice(names, RUN))):
        runs.append(b"/".join([*run, b""]))
    return map(os.fsdecode, merge(*map(_unpacked, runs)))


def _unpacked(run: bytes) -> Iterator[bytes]:
    start = 0
    while (end := run.find(b"/", start)) >= 0:
        yield run[start:end]
        start = end + 1


def _cannot(what: str, error: OSError) -> InputError:
    kind = NotFoundError if isinstance(error, FileNotFoundError) else ReadError
    return kind(f"cannot {what}: {error.strerror or error}")
