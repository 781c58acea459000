"""Features as arrays in one file: .npz and .safetensors.

Both formats state the number of rows before the first of them, and it is known after the last. So while a run is under
way the file (FILE.part) is a journal of entries, only ever appended to; at its end, be it early, it is written once
more in its format, entry by entry: memory does not grow with the number of images.

An entry is a header (_ENTRY: the kind, the bytes of the name, the bytes of what follows), the name as the file system
has it, and the row of a labelled image or the message of a failed input.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import BinaryIO

import numpy as np

from hiera_cli.errors import OutputError
from hiera_cli.outputs.destination import OutputFile
from hiera_cli.system.utf8 import name_bytes, valid
from hiera_cli.tasks.embed import Embedded

_ENTRY = struct.Struct("<BIQ")
_ROW, _FAILED = 0, 1

Pieces = Iterator[bytes]


def entries(results: Iterable[Embedded]) -> Iterator[bytes]:
    """The writer: one entry a Result."""
    for result in results:
        name = name_bytes(result.path)
        if result.features is None:
            kind, content = _FAILED, valid(result.error.message if result.error else "").encode()
        else:
            kind, content = _ROW, np.ascontiguousarray(result.features, "<f4").tobytes()
        yield _ENTRY.pack(kind, len(name), len(content)) + name + content


class ArrayFile:
    """An output file of arrays. suffix: .npz or .safetensors. tokens: whether a row is (7, 7, C), and not (C,).

    about: what made them, for the metadata of safetensors.

    Raises OutputError if it can't be written.
    """

    def __init__(
        self, path: str, suffix: str, *, tokens: bool, about: Mapping[str, str] | None = None, overwrite: bool = False
    ) -> None:
        self._file = OutputFile(path, overwrite=overwrite)
        self._form = _npz if suffix == ".npz" else partial(_safetensors, about=about or {})
        self._tokens = tokens
        self._any = False

    @property
    def is_complete(self) -> bool:
        """Whether the file has its name: after `close`."""
        return self._file.is_complete

    @property
    def part(self) -> str:
        """The name that an unfinished file has, for messages."""
        return self._file.part

    def write(self, data: str | bytes) -> None:
        """Append one entry."""
        self._file.write(data)
        self._any = True

    def close(self, *, complete: bool) -> None:
        """Bring what is there into its format; an unfinished file holds what was done, too. Raises OutputError."""
        if self._any:
            try:
                with self._file.reading() as journal:
                    self._file.rewrite(self._form(_Journal(journal, self._tokens)))
            except OutputError as error:  # of no use to anybody: nothing else reads the journal
                self._file.discard()
                raise OutputError(error.message, remedy="no room for arrays") from error
        self._file.close(complete=complete)


class _Journal:
    """The entries of a file, to go through as often as needed."""

    def __init__(self, stream: BinaryIO, tokens: bool) -> None:
        self._stream = stream
        row_bytes = 0
        self.rows = self.failures = self.longest = self.longest_failed = self.longest_message = 0
        for kind, name, content in self._entries():
            if kind == _ROW:
                self.rows += 1
                row_bytes = len(content)
                self.longest = max(self.longest, len(_text(name)))
            else:
                self.failures += 1
                self.longest_failed = max(self.longest_failed, len(_text(name)))
                self.longest_message = max(self.longest_message, len(content.decode()))
        channels = row_bytes // (4 * 49) if tokens else row_bytes // 4
        self.shape = (self.rows, 7, 7, channels) if tokens else (self.rows, channels)

    def _entries(self) -> Iterator[tuple[int, bytes, bytes]]:
        self._stream.seek(0)
        while header := self._stream.read(_ENTRY.size):
            kind, name, content = _ENTRY.unpack(header)
            yield kind, self._stream.read(name), self._stream.read(content)

    def features(self) -> Pieces:
        return (content for kind, _, content in self._entries() if kind == _ROW)

    def paths(self) -> Pieces:
        return (name for kind, name, _ in self._entries() if kind == _ROW)

    def failed_paths(self) -> Pieces:
        return (name for kind, name, _ in self._entries() if kind == _FAILED)

    def messages(self) -> Pieces:
        return (content for kind, _, content in self._entries() if kind == _FAILED)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


# ---- .npz: numpy's archive of arrays


def _npz(journal: _Journal) -> Pieces:
    def texts(names: Callable[[], Pieces], longest: int) -> Pieces:
        # numpy's text has one length for all, in UTF-32; a byte that is not UTF-8 stands as a surrogate, as in Python.
        cells = max(1, longest)
        for name in names():
            yield _text(name).ljust(cells, "\0").encode("utf-32-le", "surrogatepass")

    def text_type(longest: int) -> str:
        return f"<U{max(1, longest)}"

    failed = (journal.failures,)
    members: tuple[tuple[str, str, tuple[int, ...], Pieces], ...] = (
        ("features", "<f4", journal.shape, journal.features()),
        ("paths", text_type(journal.longest), journal.shape[:1], texts(journal.paths, journal.longest)),
        (
            "failed_paths",
            text_type(journal.longest_failed),
            failed,
            texts(journal.failed_paths, journal.longest_failed),
        ),
        (
            "failed_messages",
            text_type(journal.longest_message),
            failed,
            texts(journal.messages, journal.longest_message),
        ),
    )
    drain = _Drain()
    with zipfile.ZipFile(drain, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, dtype, shape, pieces in members:
            about = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: the same run gives the same bytes
            about.external_attr = 0o644 << 16
            if dtype.startswith("<U"):  # each as long as the longest: zeros, mostly
                about.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(about, "w", force_zip64=True) as member:
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
                member.write(header.getvalue())
                for piece in pieces:
                    member.write(piece)
                    yield from drain.taken()
            yield from drain.taken()
    yield from drain.taken()


class _Drain(io.RawIOBase):
    """What is written to it, to be taken out piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def taken(self) -> Pieces:
        pieces, self._pieces = self._pieces, []
        return iter(pieces)


# ---- .safetensors, which has no text: names are bytes, a NUL behind each


def _safetensors(journal: _Journal, about: Mapping[str, str]) -> Pieces:
    def sizes(pieces: Pieces) -> int:
        return sum(len(piece) + 1 for piece in pieces)

    members = (
        ("features", "F32", list(journal.shape), 4 * math.prod(journal.shape)),
        *(
            (name, "U8", [size], size)
            for name, size in (
                ("paths", sizes(journal.paths())),
                ("failed_paths", sizes(journal.failed_paths())),
                ("failed_messages", sizes(journal.messages())),
            )
        ),
    )
    header: dict[str, object] = {"__metadata__": dict(about)}
    offset = 0
    for name, dtype, shape, size in members:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers are aligned
    yield struct.pack("<Q", len(text)) + text
    yield from journal.features()
    for pieces in (journal.paths(), journal.failed_paths(), journal.messages()):
        for piece in pieces:
            yield piece + b"\0"
