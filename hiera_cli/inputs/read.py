"""Files and descriptors → bytes."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from io import RawIOBase


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
