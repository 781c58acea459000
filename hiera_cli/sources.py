"""Arguments, lists and folder walks → the inputs one by one, in order, as they are found."""

from __future__ import annotations

import codecs
import errno
import fnmatch
import os
import re
import select
import shlex
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from heapq import merge
from io import RawIOBase
from itertools import islice
from typing import TYPE_CHECKING

from hiera_cli import signatures
from hiera_cli.errors import InputError, NotFoundError, ReadError, UsageError
from hiera_cli.skipped import Skipped

if TYPE_CHECKING:
    from PIL.Image import Image

STDIN = "-"
MAX_PATH_BYTES = 1 << 20
RUN = 1 << 13  # names of a folder that are sorted together
# Of the names that a listing took, a folder's is marked at its end, with a character that no name has and that sorts
# before all others, so that the mark changes no order.
FOLDER = "\0"


class Kind(Enum):
    """Where an input's bytes come from."""

    FILE = "file"
    URL = "url"
    STDIN = "stdin"
    DESCRIPTOR = "descriptor"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    path: as the user gave it. error: why there is nothing to read, known before reading. image: of an input in memory.
    """

    path: str
    kind: Kind = Kind.FILE
    error: InputError | None = None
    image: Image | None = None


@dataclass(frozen=True)
class Walk:
    """What a folder walk takes.

    suffixes: of the files that are taken, lower case; of a file without one the first bytes decide. exclude: globs; one
    without a slash is held against each name, one with a slash against the path below the folder and against the whole
    path. hidden: take names that begin with a dot. follow: follow links.
    """

    suffixes: Callable[[], frozenset[str]]
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow: bool = False


Warn = Callable[[str], None]


def is_url(argument: str) -> bool:
    """Whether an argument is a URL, of any scheme that names a host."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", argument))


def descriptor(name: str) -> int | None:
    """The number of the open descriptor that a name stands for: 0 for - and /dev/stdin, 63 for /dev/fd/63.

    Such is what a shell puts for `<(command)`. None for any other name; for a descriptor of a regular file or a folder,
    which is read by that name; and for one that this program opened for itself.
    """
    if name == STDIN:
        return 0
    if not name.startswith("/") or not (match := re.fullmatch(r"/dev/stdin|/(?:dev|proc/self)/fd/(\d{1,9})", name)):
        return None
    number = int(match[1] or 0)
    try:
        mode = os.fstat(number).st_mode
        inherited = number == 0 or os.get_inheritable(number)
    except OSError:
        return None
    return number if inherited and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) else None


def expand(
    arguments: Iterable[str | Source],
    walk: Walk,
    warn: Warn,
    *,
    stdin_taken: bool = False,
    skipped: Skipped | None = None,
) -> Iterator[Source]:
    """Yield the inputs that the arguments name: files, URLs and descriptors as they stand, folders walked.

    Lazy: a folder is listed when its turn comes. What is not there is yielded too, with its error; what is a Source
    already, as it is. stdin_taken: stdin is the list that the arguments come from, so it can't be an image as well.
    skipped: counts what is passed over in folders.
    """
    skipped = skipped or Skipped()
    taken = {0} if stdin_taken else set()
    for argument in arguments:
        if isinstance(argument, Source):
            yield argument
        elif (number := descriptor(argument)) is not None:
            kind = Kind.DESCRIPTOR if number else Kind.STDIN
            again = ReadError("it was read already" if number else "stdin was read already")
            yield Source(argument, kind, again if number in taken else None)
            taken.add(number)
        elif is_url(argument):
            yield Source(argument, Kind.URL)
        elif os.path.isdir(argument):
            found = False
            for source in _walk(argument, walk, warn, skipped, _sorted):
                found = True
                yield source
            if not found:
                warn(f"{argument}: no images in this folder")
        else:
            yield Source(argument)


def count(arguments: Iterable[str], walk: Walk) -> int:
    """How many inputs `expand` would yield. Says nothing, and keeps no name but those of folders."""
    files = 0

    def folders(names: Iterator[str]) -> Iterator[str]:
        nonlocal files
        for name in names:
            if name.endswith(FOLDER):
                yield name
            else:
                files += 1

    others = 0
    for argument in arguments:
        if argument != STDIN and not is_url(argument) and os.path.isdir(argument):
            found = _walk(argument, walk, lambda warning: None, Skipped(), lambda names: _sorted(folders(names)))
            others += sum(1 for _ in found)
        else:
            others += 1
    return files + others


@dataclass
class _Level:
    """A folder on the way down: where it is below the one that was named, which one it is, what is left of it."""

    below: str
    identity: tuple[int, int]
    names: Iterator[str]


def _walk(
    folder: str, walk: Walk, warn: Warn, skipped: Skipped, arrange: Callable[[Iterator[str]], Iterator[str]]
) -> Iterator[Source]:
    """A folder's images and, in their places among them, its subfolders'. With a stack, for folders may be deep.

    arrange: which of the names that were taken of a folder to go through, and in which order. It reads them to the end.
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
                names = arrange(_taken(listing, below, walk, suffixes, excludes, skipped))
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
        if not path.endswith(FOLDER):
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
            if suffix in suffixes or (not suffix and signatures.is_picture(first_bytes(entry.path, 64))):
                yield name
                continue
            skipped.add(suffix)
            why = "not known as an image"
        if tell:
            tell(entry.path, why)


class _Excludes:
    """What --exclude leaves out below a folder. False if there are no globs.

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
    """All of them, in order, in little more memory than their letters take: sorted and packed in runs, then merged."""
    runs = []
    while run := sorted(islice(names, RUN)):
        runs.append("/".join([*run, ""]).encode("utf-8", "surrogatepass"))
    return merge(*map(_unpacked, runs))


def _unpacked(run: bytes) -> Iterator[str]:
    start = 0
    while (end := run.find(b"/", start)) >= 0:
        yield run[start:end].decode("utf-8", "surrogatepass")
        start = end + 1


def _cannot(what: str, error: OSError) -> InputError:
    kind = NotFoundError if isinstance(error, FileNotFoundError) else ReadError
    return kind(f"cannot {what}: {error.strerror or error}")


def read_list(name: str, separator: bytes) -> Iterator[str]:
    """The paths in a list, as they come: one a line (newline) or NUL between. name: a file, or - for stdin.

    Raises UsageError if the list can't be read, or is none.
    """
    try:
        with open_descriptor(0) if name == STDIN else open(name, "rb", buffering=0) as stream:
            yield from _split(stream, separator, name)
    except IsADirectoryError as error:
        raise UsageError(f"{name} is a folder, not a list of paths", _as_an_input(name)) from error
    except OSError as error:
        raise UsageError(f"cannot read the list {name}: {error.strerror or error}") from error


def _split(stream: RawIOBase, separator: bytes, name: str) -> Iterator[str]:
    rest = b""
    idle = 0  # bytes since the last path
    separated = False
    while chunk := read_raw(stream):
        if not (rest or separated):
            _check_start(chunk, separator, name)
            if separator == b"\n":  # as Windows marks its text
                chunk = chunk.removeprefix(codecs.BOM_UTF8)
        *items, rest = (rest + chunk).split(separator)
        separated = separated or bool(items)
        idle += len(chunk)
        for path in _paths(items, separator):
            yield path
            idle = 0
        if idle > MAX_PATH_BYTES:
            raise UsageError(f"{name} is not a list of paths: a mebibyte of it names none")
    if separator == b"\0" and not separated and b"\n" in rest and not os.path.exists(rest):
        raise UsageError(
            f"there is no NUL in the list {name}",
            f"Did you mean --files-from {shlex.quote(name)}? It reads a list of one path a line.",
        )
    yield from _paths([rest], separator)


def _check_start(start: bytes, separator: bytes, name: str) -> None:
    if signatures.is_picture(start):
        raise UsageError(f"{name} is an image, not a list of paths", _as_an_input(name))
    if known := signatures.other(start):
        raise UsageError(f"{name} is not a list of paths: it is {known[0]}")
    if separator == b"\0" or b"\0" not in start:
        return
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"the list {name} is in UTF-16", "Save it as UTF-8: `iconv -f UTF-16 -t UTF-8`.")
    if not _is_text(start.partition(b"\0")[0]):
        raise UsageError(f"{name} is not a list of paths: it holds binary data")
    raise UsageError(
        f"{name} is not a list of one path a line: there are NULs in it",
        f"Did you mean --files0-from {shlex.quote(name)}? It reads a list as `find -print0` writes it.",
    )


def _as_an_input(name: str) -> str:
    return f"Name it as an input: `hiera classify {shlex.quote(name)}`."


def _is_text(item: bytes) -> bool:
    return bool(item) and not re.search(rb"[\x00-\x08\x0e-\x1f]", item)


def list_option(start: bytes) -> str | None:
    """The option that reads what begins with these bytes, if it is a list of which the first path exists."""
    if signatures.other(start):  # an archive begins with a path, too
        return None
    for separator, option in ((b"\0", "--files0-from"), (b"\n", "--files-from")):
        first, separated, _ = start.partition(separator)
        path = next(_paths([first], separator), "")
        if separated and _is_text(first) and (is_url(path) or os.path.exists(path)):
            return option
    return None


def first_bytes(path: str, size: int) -> bytes:
    """How a regular file begins. b"" for anything else, which is not even opened, and for what can't be read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:  # those of /proc are made when they are read
            return b""
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:  # it may be another file by now, of which nothing is waited for
            return os.read(handle, size)
        finally:
            os.close(handle)
    except (OSError, ValueError):
        return b""


def is_piped() -> bool:
    """Whether stdin comes from a program or a file. What has neither has a terminal there, or /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def open_descriptor(number: int) -> RawIOBase:
    """A descriptor, 0 for stdin, unbuffered: it is read as it comes, and a thread that is stuck in it holds no lock.

    Raises OSError.
    """
    if number == 0 and sys.stdin is None:  # it was closed from the start: by now its number may be another file's
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return open(number, "rb", buffering=0, closefd=False)


def read_raw(stream: RawIOBase) -> bytes:
    """What an unbuffered stream has now, b"" at its end. Waits also where the stream was set not to block."""
    while (chunk := stream.read(1 << 16)) is None:
        select.select([stream], [], [])
    return chunk


def _paths(items: Iterable[bytes], separator: bytes) -> Iterator[str]:
    for item in items:
        path = os.fsdecode(item.removesuffix(b"\r") if separator == b"\n" else item)
        if path:
            yield path
