"""Lists of paths → the paths one by one, as they come."""

from __future__ import annotations

import codecs
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from io import RawIOBase

from hiera_cli.errors import UsageError
from hiera_cli.inputs import signatures
from hiera_cli.inputs.read import open_descriptor, read_raw
from hiera_cli.inputs.source import STDIN, is_url

MAX_PATH_BYTES = 1 << 20


def read_list(name: str, separator: bytes) -> Iterator[str]:
    """The paths in a list, as they come: one a line (newline) or NUL between. name: a file, or - for stdin.

    Raises UsageError if it can't be read, or is not a list.
    """
    try:
        with open_descriptor(0) if name == STDIN else open(name, "rb", buffering=0) as stream:
            yield from _split(stream, separator, name)
    except IsADirectoryError as error:
        message = f"{name} is a folder, not a list of paths"
        raise UsageError(message, remedy="as_an_input", name=shlex.quote(name)) from error
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
            raise UsageError(f"{name} is not a list of paths: there is no path in a mebibyte of it")
    if separator == b"\0" and not separated and b"\n" in rest and not os.path.exists(rest):
        raise UsageError(f"there is no NUL in the list {name}", remedy="files_from", name=shlex.quote(name))
    yield from _paths([rest], separator)


def _check_start(start: bytes, separator: bytes, name: str) -> None:
    if signatures.is_picture(start):
        raise UsageError(f"{name} is an image, not a list of paths", remedy="as_an_input", name=shlex.quote(name))
    if known := signatures.other(start):
        raise UsageError(f"{name} is not a list of paths: it is {known[0]}")
    if separator == b"\0" or b"\0" not in start:
        return
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"the list {name} is in UTF-16", "Save it as UTF-8: `iconv -f UTF-16 -t UTF-8`.")
    if not _is_text(start.partition(b"\0")[0]):
        raise UsageError(f"{name} is not a list of paths: it holds binary data")
    message = f"{name} is not a list of one path a line: there are NULs in it"
    raise UsageError(message, remedy="files0_from", name=shlex.quote(name))


def _is_text(item: bytes) -> bool:
    return bool(item) and not re.search(rb"[\x00-\x08\x0e-\x1f]", item)


def list_separator(start: bytes) -> bytes | None:
    """What separates the paths in what begins with these bytes, if it is a list of which the first path exists."""
    if signatures.other(start):  # an archive begins with a path, too
        return None
    for separator in (b"\0", b"\n"):
        first, separated, _ = start.partition(separator)
        path = next(_paths([first], separator), "")
        if separated and _is_text(first) and (is_url(path) or os.path.exists(path)):
            return separator
    return None


def _paths(items: Iterable[bytes], separator: bytes) -> Iterator[str]:
    for item in items:
        path = os.fsdecode(item.removesuffix(b"\r") if separator == b"\n" else item)
        if path:
            yield path
