"""Files that are being written, beside their final names, by any number of processes at once.

A part is named after its process and locked while it is written: one that nobody has locked was left by a process that
was killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

if sys.platform != "win32":  # there, a file that is open can't be removed, nor renamed, which does for a lock
    import fcntl

SUFFIX = ".part"


def write(path: Path, content: Iterable[bytes], *, replace: bool = True) -> None:
    """Write a file, whole or not at all: its part is gone again if anything interrupts that.

    replace: what is there by then; else it stays, and FileExistsError is raised.
    """
    part, stream = _locked(path)
    try:
        with stream:
            for each in content:
                stream.write(each)
            stream.flush()
            os.fsync(stream.fileno())
            if sys.platform == "win32":
                stream.close()
            _named(part, path, replace=replace)  # while it is locked
    except BaseException:
        remove([part])
        raise


def _named(part: Path, path: Path, *, replace: bool) -> None:
    if replace:
        os.replace(part, path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(part, path)
    else:
        part.unlink()


def _locked(path: Path) -> tuple[Path, IO[bytes]]:
    """A part of a file, and the same opened and locked.

    Each attempt has a name of its own: whoever took the part for a leftover, in the moment before it was locked, may
    still be about to remove what has its name.
    """
    while True:
        part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}{SUFFIX}")
        try:
            stream = part.open("wb")
            _lock(stream, wait=True)
            if part.exists():
                return part, stream
            stream.close()
        except BaseException:
            remove([part])
            raise


def left_over(folder: Path, pattern: str = "*", *, discard: bool = False) -> list[Path]:
    """Parts that nobody is writing, of files whose names match. discard: remove them."""
    found = []
    for path in sorted(folder.glob(f"{pattern}{SUFFIX}")):
        with suppress(OSError), path.open("rb") as stream:
            if _lock(stream, wait=False):
                found.append(path)
                if discard:
                    path.unlink()
    return found


def of_this_process(folder: Path) -> list[Path]:
    """Parts that it is writing, on any thread."""
    return sorted(folder.glob(f"*.{os.getpid()}.*{SUFFIX}"))


def remove(paths: Iterable[Path]) -> None:
    """Those that are still there and may be."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Whether it could be locked; it remains so until it is closed."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
