"""Where the text goes: standard output, a pipe or device, a file that gets its name when it is complete."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

from hiera_cli.errors import OutputError
from hiera_cli.system.printable import printable
from hiera_cli.system.streams import ReaderGone, write_whole


def is_stream(path: str) -> bool:
    """Whether an output is a pipe or a device, which is written as it stands, and not a file."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class OutputStream:
    """A pipe or a device. Opening a named pipe waits for its reader. Raises OutputError, with the path."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write(self, data: str | bytes) -> None:
        """Write all of it, now. Raises ReaderGone when nobody reads any more."""
        try:
            write_whole(self._descriptor, encoded(data))
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def close(self, *, complete: bool) -> None:
        """No more text."""
        os.close(self._descriptor)


class OutputFile:
    """A file written under a name beside its own (FILE.part), which it gets when it is complete.

    Every write is whole or not at all. Nothing that was there before is touched until the first write: a run that can't
    start leaves it byte for byte as it was.

    overwrite: replace what is there. append: go on with what is there, from byte `size`, which may be set to an earlier
    one before the first write. resumable: whether a later run can go on with it, for the remedy that errors name.
    part: another name than FILE.part for the unfinished file, in the same folder.
    Raises OutputError, with the path, where it can't be written.

    One run at a time has a file, by a lock on the inode that bears the name FILE.part (or FILE, when a complete one is
    gone on with), held until the last rename is done. Whoever gets the lock looks again whether the name still means
    that inode.
    """

    def __init__(
        self,
        path: str,
        *,
        overwrite: bool = False,
        append: bool = False,
        resumable: bool = False,
        part: str | None = None,
    ) -> None:
        self.path = path
        self.is_complete = False
        self._target = os.path.realpath(path) if os.path.islink(path) else path  # a link stays one
        self._part = f"{self._target}.part" if part is None else os.path.join(os.path.dirname(self._target), part)
        self.part = printable(self._part)  # for messages
        self._overwrite, self._append, self._resumable = overwrite, append, resumable
        self._begun = False
        if os.path.isdir(self._target):
            raise OutputError(f"cannot write {path}: it is a folder")
        try:
            self._open()
        except OSError as error:
            raise _cannot_write(path, error) from error
        self.size = os.fstat(self._descriptor).st_size if append else 0  # bytes, of whole writes

    @property
    def names(self) -> tuple[str, str]:
        """Of the complete file, links followed, and of the unfinished one."""
        return self._target, self._part

    @property
    def is_unfinished(self) -> bool:
        """Whether what is there bears the name of an unfinished file."""
        return not self._was_complete

    @property
    def there(self) -> str:
        """The name under which it lies, for messages."""
        return printable(self._target) if self._was_complete else self.part

    def _open(self) -> None:
        while True:
            self._was_there = os.path.exists(self._target)
            if not self._overwrite and not self._append:
                self._refuse_what_is_there()
            self._was_complete = self._append and self._was_there and not _has_content(self._part)
            if self._was_complete and os.path.exists(self._part):  # empty, of a run that was killed at its start
                os.close(self._open_locked(self._part))
                os.unlink(self._part)
            name = self._target if self._was_complete else self._part
            self._descriptor = self._open_locked(name)
            if _is_named(name, self._descriptor) and os.path.exists(self._target) == self._was_there:
                return
            self._close()  # another run has just finished with it: what holds now is seen anew

    def _open_locked(self, name: str) -> int:
        """Open a file, for this run alone: two that write one file would spoil it."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(name, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OutputError(f"cannot write {self.path}: {printable(name)} is not a file")
            if not _lock(descriptor):
                raise OutputError(f"another run is writing {self.path} right now")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _close(self) -> None:
        """Let go of the file, and of its lock. An unfinished one in which there is nothing is removed."""
        if (
            not self._was_complete
            and not os.fstat(self._descriptor).st_size
            and _is_named(self._part, self._descriptor)
        ):
            os.unlink(self._part)
        os.close(self._descriptor)

    def _refuse_what_is_there(self) -> None:
        if self._was_there:
            remedy = "resume or replace" if self._resumable else "replace"
            raise OutputError(f"{self.path} exists already", remedy=remedy)
        if _has_content(self._part):
            os.close(self._open_locked(self._part))  # or a run is writing it right now, and this says so
            remedy = "resume or begin anew" if self._resumable else "begin anew"
            raise OutputError(f"{self.part} exists: an earlier run did not finish", remedy=remedy)

    def _begin(self) -> None:
        """From here on it is this run's: an unfinished file, cut to what is gone on with."""
        if self._begun:
            return
        if self._was_complete:
            if not _is_named(self._target, self._descriptor):
                raise OutputError(f"another run has replaced {self.path} meanwhile")
            _rename_to_free_name(self._target, self._part)
            self._was_complete = False
        os.ftruncate(self._descriptor, self.size)
        os.lseek(self._descriptor, self.size, os.SEEK_SET)
        self._begun = True

    def write(self, data: str | bytes) -> None:
        """Write all of it, now."""
        data = encoded(data)
        try:
            self._begin()
            write_whole(self._descriptor, data)
        except OSError as error:
            raise self._failed(error) from error
        self.size += len(data)

    def reading(self) -> BinaryIO:
        """What is written so far, as a stream of its own."""
        try:
            return open(self._target if self._was_complete else self._part, "rb")
        except OSError as error:
            raise self._failed(error) from error

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace the content, whole or not at all."""
        folder, name = os.path.split(self._target)
        key = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        ordered = os.path.join(folder, f".hiera-{key}.ordered")  # short: the name itself may be as long as names can be
        try:
            self._begin()
            descriptor = self._open_locked(ordered)
            try:
                os.ftruncate(descriptor, 0)
                with open(descriptor, "wb", closefd=False) as stream:
                    stream.writelines(lines)
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
                os.replace(ordered, self._part)
            except BaseException:
                os.close(descriptor)
                with suppress(OSError):
                    os.unlink(ordered)
                raise
        except OSError as error:
            raise self._failed(error) from error
        os.close(self._descriptor)
        self._descriptor, self.size = descriptor, size

    def discard(self) -> None:
        """Remove what was written. To be called in the place of `close`."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            self._close()

    def close(self, *, complete: bool) -> None:
        """Give it its name if it is complete. What is incomplete stays beside it; nothing at all is removed."""
        try:
            if complete and not self._was_complete:
                self._begin()
                os.fsync(self._descriptor)
                if os.name == "nt":  # where an open file can't be renamed, and there is no lock to hold
                    os.close(self._descriptor)
                if os.path.exists(self._target) and not (self._overwrite or self._was_there):
                    raise OutputError(f"{self.path} has come into being meanwhile", f"The results are in {self.part}")
                os.replace(self._part, self._target)
            if os.name != "nt" or not complete:
                self._close()
            self.is_complete = complete
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return _cannot_write(self.path, error, f"What was written before is in {self.part}" if self.size else "")


def _cannot_write(path: str, error: OSError, hint: str = "") -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}", hint)


def encoded(data: str | bytes) -> bytes:
    """As it is written. Names that are not UTF-8 get their own bytes back."""
    return data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False


def _is_named(path: str, descriptor: int) -> bool:
    """Whether a name still means the file that was opened by it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _lock(descriptor: int) -> bool:
    """Lock a file until it is closed. False if another run has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _rename_to_free_name(path: str, to: str) -> None:
    """Rename a file, replacing nothing."""
    try:
        os.link(path, to)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.rename(path, to)
    else:
        os.unlink(path)
