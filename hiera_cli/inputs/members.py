"""The members of a tar, a zip or a Parquet file, one by one, in its order; nothing is unpacked to the disk.

What is read of an archive before its members' data is bounded, whatever it declares. A damaged one gives the members
before the damage, then ReadError.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from hiera_cli.errors import DecodeError, InputError, ReadError, TooLargeError

MAX_HEADER = 1 << 20  # bytes that tar may have before the data of one member
BUFFER = 1 << 20  # of Parquet: what is read at a time of a column's pages
# Of Parquet: pages are unpacked whole, before anything is known of the images in them. What unpacks to more than this
# in a row group, and to so many times its packed size, is no column of images.
MOST_UNPACKED = 256 << 20
MOST_TIMES = 100

_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, OverflowError, IndexError, KeyError, RecursionError, NotImplementedError),
)

_COMPRESSED: tuple[tuple[bytes, Callable[[str], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry. name: as the archive has it, without `./` before it. size: bytes, as declared.

    read: its first bytes, at most so many; to be called before the next member is asked for. Raises InputError.
    is_file: and no link or device, of which `read` tells which it is.
    """

    name: str
    size: int
    read: Callable[[int], bytes]
    is_file: bool = True

    def content(self, limit: int) -> bytes:
        """All of it. Raises InputError, also if it is over `limit` bytes."""
        data = self.read(limit + 1) if self.size <= limit else b""
        if max(self.size, len(data)) > limit:
            raise TooLargeError(f"it is over {limit >> 20} MiB", remedy="max_mib")
        return data


def kind(path: str, start: bytes) -> str:
    """tar, zip or parquet, or "" for any other file. start: its first 512 bytes."""
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start.startswith(b"PAR1"):
        return "parquet"
    if _is_header(start) or (path.endswith(".tar") and start == bytes(tarfile.BLOCKSIZE)):  # the latter has no members
        return "tar"
    opener = _opener(start)
    if opener is None:
        return ""
    try:
        with opener(path) as stream:
            return "tar" if _is_header(stream.read(tarfile.BLOCKSIZE)) else ""
    except (*_DAMAGED, OSError):
        return ""


def is_compressed(start: bytes) -> bool:
    """Whether an archive that begins with these bytes is unpacked to be read, be it only for its members' names."""
    return _opener(start) is not None


def _opener(start: bytes) -> Callable[[str], Any] | None:
    return next((opener for signature, opener in _COMPRESSED if start.startswith(signature)), None)


def _opened(path: str, start: bytes) -> BinaryIO:
    opener = _opener(start)
    return open(path, "rb") if opener is None else opener(path)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """What goes wrong in the block is a ReadError. what: the message's first words."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise ReadError(f"{what}: there is not enough memory to read it") from error
    except (*_DAMAGED, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ReadError(f"{what}: {' '.join(str(reason).split())}") from error


# ---- tar


class _Headers:
    """What tarfile reads of a stream: headers alone, of which each member has a bounded number of bytes.

    last: the last block that was read. tarfile takes one that is no header for the end.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.left = MAX_HEADER
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header of more than {MAX_HEADER >> 20} MiB")
        self.left -= size
        data = self._stream.read(size)
        if size == tarfile.BLOCKSIZE:
            self.last = data
        return data

    def seek(self, offset: int) -> int:
        try:
            return self._stream.seek(offset)
        except OSError as error:
            if error.errno == errno.EINVAL:  # farther than any file of this file system reaches
                raise tarfile.ReadError("the size of a member is beyond the archive's end") from error
            raise

    def tell(self) -> int:
        return self._stream.tell()


def of_tar(path: str, start: bytes) -> Iterator[Member]:
    """The members of a tar, packed or not. start: its first bytes."""
    count = 0
    with _reading("the archive can't be read"), _opened(path, start) as stream:
        headers = _Headers(stream)
        offset = -1
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:  # type: ignore[call-overload]
            while True:
                with _reading(f"the archive is damaged after {_counted(count)}"):
                    headers.left = MAX_HEADER
                    info = tar.next()
                    tar.members = []  # or it would keep them all
                    if info is None:
                        if headers.last.strip(b"\0"):
                            raise tarfile.ReadError("no header of a member where one should be")
                        while is_compressed(start) and stream.read(BUFFER):  # to its checksum, which is at its end
                            pass
                        return
                    if info.size < 0 or info.offset <= offset:
                        raise tarfile.ReadError("a size below zero")
                    offset = info.offset
                if not info.isdir():
                    count += 1
                    is_file = info.isreg() or info.islnk()  # a hard link is as good a name of its file as any other
                    yield Member(_plain(info.name), info.size, _Stored(stream, info).first, is_file)


class _Stored:
    """What a tar has of a member. Of a packed one what was read is kept: to go back is to unpack it all again."""

    def __init__(self, stream: BinaryIO, info: tarfile.TarInfo) -> None:
        self._stream = stream
        self._info = info
        self._data = b""

    def first(self, size: int) -> bytes:
        """The first bytes. Raises ReadError."""
        if self._info.sparse is not None:
            raise ReadError("it is stored as a sparse file, which is not read")
        if self._info.islnk():  # to go back to it is, in a packed archive, to unpack it all again
            raise ReadError(f"it is a hard link to {_plain(self._info.linkname)}: its bytes are under that name")
        if not self._info.isreg():
            raise ReadError(f"it is {self._what()}, and no file")
        more = min(size, self._info.size) - len(self._data)
        if more > 0:
            with _reading("it can't be read from the archive"):
                self._stream.seek(self._info.offset_data + len(self._data))
                data = self._stream.read(more)
                self._data += data
                if len(data) < more:
                    raise EOFError("the archive ends in it")
        return self._data[:size]

    def _what(self) -> str:
        if self._info.issym():
            return f"a link to {self._info.linkname}"
        return "a pipe" if self._info.isfifo() else "a device"


# ---- zip


def of_zip(path: str) -> Iterator[Member]:
    """The members of a zip, in the order of its directory."""
    with _reading("the archive can't be read"):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            message = (
                "the archive is damaged: its list of members, at its end, is missing or broken; `zip -FF` may mend it"
            )
            raise ReadError(message) from error
    with archive:
        for info in archive.infolist():
            if not info.is_dir():
                read = partial(_of_zip, archive, info)
                yield Member(_plain(info.filename), info.file_size, read, _is_file(info))


def _is_file(info: zipfile.ZipInfo) -> bool:
    return stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.flag_bits & 1:
        raise ReadError("it is encrypted")
    if not _is_file(info):
        raise ReadError("it is a link or a device, and no file")
    with _reading("it can't be read from the archive"), archive.open(info) as stream:
        return stream.read(limit)


# ---- Parquet


def of_parquet(path: str, column: str = "", start: int = 0) -> Iterator[Member]:
    """The images in the rows of a Parquet file, from row `start` on: ROW, or ROW/NAME where the row has a name.

    column: which has them: bytes, or a struct of bytes and path as in data sets of Hugging Face; "" for the only one.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ReadError("Parquet needs pyarrow: pip install 'hiera-cli[parquet]'") from error
    with _reading("it can't be read"):
        file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    with file:
        column = column_of_images(file.schema_arrow, column)
        has_dictionary = "dictionary<values=" in str(file.schema_arrow.field(column).type)
        row = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            if row + group.num_rows <= start:
                row += group.num_rows
                continue
            _check_size(group, column, row)
            # One row at a time, for each may be of any size; but every batch of a dictionary has all of its values.
            rows_together = group.num_rows if has_dictionary else 1
            batches = file.iter_batches(rows_together, [number], [column])
            while True:
                with _reading(f"the file is damaged after row {row}" if row else "the file is damaged"):
                    batch = next(batches, None)
                if batch is None:
                    break
                for value in batch.column(0):
                    if row >= start:
                        yield _of_row(row, value)
                    row += 1


def _check_size(group: Any, column: str, row: int) -> None:
    """Raise ReadError for a row group that would unpack to more than images do. row: its first."""
    chunks = [group.column(place) for place in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}.")]
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    if unpacked > max(MOST_UNPACKED, MOST_TIMES * packed):
        raise ReadError(f"from row {row} on it is not read: {packed:,} bytes would unpack to {unpacked >> 20:,} MiB")


def rows(path: str) -> int:
    """Of a Parquet file. Raises InputError."""
    import pyarrow.parquet as pq

    with _reading("it can't be read"):
        return int(pq.read_metadata(path).num_rows)


def column_of_images(schema: Any, column: str) -> str:
    """The name of the column that holds images. Raises DecodeError if none does, ReadError if it can't be told."""
    import pyarrow.types as types

    def holds_bytes(kind: Any) -> bool:
        if types.is_dictionary(kind):
            return holds_bytes(kind.value_type)
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind) and (place := kind.get_field_index("bytes")) >= 0:
            return holds_bytes(kind.field(place).type)
        return holds_bytes(kind)

    fitting = [field.name for field in schema if holds_images(field.type)]
    if column:
        if column in fitting:
            return column
        if column in schema.names:
            raise ReadError(f"its column {column} has no bytes")
        raise ReadError(f"it has no column {column}; with bytes it has {', '.join(fitting) or 'none'}")
    structs = [name for name in fitting if types.is_struct(schema.field(name).type)]
    choice = structs or [name for name in fitting if name != "path_bytes"]  # which records have: outputs/parquet.py
    if not choice:
        raise DecodeError(f"none of its columns has images as bytes: {', '.join(schema.names)}")
    if len(choice) > 1:
        raise ReadError(f"several of its columns may have the images: {', '.join(choice)}", remedy="column")
    return str(choice[0])


def _of_row(row: int, value: Any) -> Member:
    """value: a scalar of bytes, or of a struct of bytes and path; null, or null in it, for a row without."""
    name = None
    if hasattr(value, "items"):
        name = value["path"].as_py() if value.is_valid and "path" in value else None
        value = value["bytes"] if value.is_valid else None
    if hasattr(value, "dictionary"):
        value = value.value
    data = None if value is None else value.as_buffer()  # no copy: it may be over any limit

    def first(size: int) -> bytes:
        if data is None:
            raise ReadError("its row has a path alone, and no bytes" if name else "there is no image in its row")
        return bytes(memoryview(data)[:size])

    size = 0 if data is None else data.size
    return Member(f"{row}/{name}" if isinstance(name, str) and name else str(row), size, first)


def _plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _counted(count: int) -> str:
    return f"{count:,} member{'s' * (count != 1)}"
