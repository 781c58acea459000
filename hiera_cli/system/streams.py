"""The process's standard streams, made fit for a pipeline: no descriptor left open to chance, whole writes, a stderr
whose loss stops nothing.

stdout is for programs: what is written arrives whole or fails. stderr is for people: where it can't be written, the
run goes on without it.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from contextlib import suppress

from hiera_cli.errors import OutputError

_stderr = 2  # its descriptor


class ReaderGone(Exception):  # noqa: N818 it is no error: the reader of a pipe has all that it wanted
    """Nobody reads what is written."""


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of it, however little the descriptor takes at a time, also where it was set not to block.

    A regular file that has no place for all of it keeps nothing of it: a record is never torn. Raises OSError.
    """
    left = memoryview(data)
    try:
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
    except OSError:
        _take_back(descriptor, len(data) - len(left))
        raise


def _take_back(descriptor: int, count: int) -> None:
    """Cut off the last `count` bytes of a regular file, unless somebody else has written behind them."""
    with suppress(OSError):
        state = os.fstat(descriptor)
        if count and stat.S_ISREG(state.st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == state.st_size:
            os.ftruncate(descriptor, state.st_size - count)
            os.lseek(descriptor, -count, os.SEEK_CUR)


class _Output(io.RawIOBase):
    """A descriptor to write to, without a buffer."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


class _StandardOutput(_Output):
    """Raises ReaderGone if nobody reads it, OutputError if it can't be written."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            write_whole(self._descriptor, data)
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error
        return len(data)


class _StandardError(_Output):
    """Never fails."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        with suppress(OSError):
            write_whole(self._descriptor, data)
        return len(data)


def interject(text: str) -> None:
    """Write whole lines to stderr from a signal handler, which may have interrupted a write to `sys.stderr`.

    So they go past its buffer, and never fail.
    """
    with suppress(OSError):
        os.write(_stderr, text.encode())


def stderr_descriptor() -> int:
    """Which descriptor stderr has."""
    return _stderr


def set_apart_from_libraries() -> None:
    """Keep stderr for this program: what libraries write to descriptor 2 past Python is dropped from here on."""
    global _stderr
    if os.name != "posix" or _stderr != 2:
        return
    sys.stderr.flush()
    _stderr = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    sys.stderr = _text(_StandardError(_stderr, "<stderr>"), sys.stderr)


def hold_closed_descriptors() -> None:
    """Occupy 0, 1 and 2 where the caller closed them, so that no file opened later is taken for a standard stream.

    To be called before anything else is opened. What is put there fails as a closed descriptor does (EBADF): stdin
    can't be read, stdout and stderr can't be written.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, mode)  # the lowest free number, which is this one


def set_up() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that write whole or fail, and that never fail."""
    if os.name == "posix":
        sys.stdout = _text(_StandardOutput(1, "<stdout>"), sys.stdout)
        sys.stderr = _text(_StandardError(2, "<stderr>"), sys.stderr)


def _text(raw: _Output, before: io.TextIOBase | object) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    # A terminal that is not UTF-8 is no reason to fail.
    return io.TextIOWrapper(raw, encoding, errors="backslashreplace", write_through=True)
