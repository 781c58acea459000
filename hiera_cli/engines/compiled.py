"""Compiled models saved to disk, in the user's cache folder, and recognised by what stands in them.

A saved file is the engine's own blob and behind it a trailer of TRAILER bytes: what it was compiled from and for, and a
checksum of all that. The weights are known by the sha256 of their bytes. So that not every start has to read them all,
the stamp of their file is saved too: as long as it has that, they are the same.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from hiera_cli.errors import CheckpointError
from hiera_cli.system import parts

if TYPE_CHECKING:
    from hiera_cli.checkpoints.checkpoint import Checkpoint

SUFFIX = ".compiled"
TRAILER = 512  # bytes, at the end of a file: JSON, spaces, CHECKSUM
CHECKSUM = 4  # bytes: the CRC-32 of all before it
AT_REST = 100_000_000  # nanoseconds: what was changed more recently can change again and have the same time


@dataclass(frozen=True)
class CompiledFile:
    """One compiled model on disk. name: of the model and the precision. bytes: its size."""

    name: str
    path: Path
    bytes: int


def folder() -> Path:
    """Where they are saved (XDG_CACHE_HOME moves it, on Linux)."""
    try:
        return Path(platformdirs.user_cache_dir("hiera-cli", appauthor=False)) / "compiled"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"hiera-cli-{os.getuid()}" / "compiled"


class Recipe:
    """What a compiled model is made from and for: everything that would make it another one.

    settings: the engine's version, the processor and the like. Make it before anything of the weights is read.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str, settings: tuple[str, ...]) -> None:
        self._checkpoint = checkpoint
        self._stamp = checkpoint.stamp()
        self._at_rest = time.time_ns() - self._stamp.ctime_ns > AT_REST
        depends_on = (checkpoint.name, precision, repr(checkpoint.architecture), *settings)
        self._key = hashlib.sha256("\0".join(depends_on).encode("utf-8", "surrogateescape")).hexdigest()
        self.path = folder() / f"{_slug(checkpoint.name)}-{precision}-{self._key[:16]}{SUFFIX}"

    def load(self) -> mmap.mmap | None:
        """The saved model, mapped, the TRAILER at its end. None if there is nothing, or it is damaged or other."""
        if (found := _whole(self.path)) is None:
            return None
        content, entries = found
        if entries["key"] == self._key:
            if entries["stamp"] == list(self._stamp):
                return content
            if entries["weights"] == self._checkpoint.digest():
                self._renew(content)
                return content
        content.close()
        return None

    def save(self, blob: bytes, digest: str) -> None:
        """Write it, whole or not at all, in place of older ones of the same model and precision.

        digest: of the weights, from before they were read for compiling. If they were changed since, nothing is saved.
        A folder that can't be written is no reason to fail: the model is compiled again next time.
        """
        stem = _stem(self.path)
        with suppress(OSError, CheckpointError):  # the latter: the weights are gone, or others
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            parts.left_over(self.path.parent, discard=True)
            parts.write(self.path, self._content(blob, digest))
            parts.remove(
                other for other in self.path.parent.glob(f"*{SUFFIX}") if _stem(other) == stem and other != self.path
            )

    def _content(self, blob: bytes, digest: str) -> Iterator[bytes]:
        yield blob
        yield self._trailer(zlib.crc32(blob), digest)
        if self._checkpoint.stamp() != self._stamp:
            raise CheckpointError(f"{self._checkpoint.weights} was changed while it was compiled")

    def _renew(self, content: mmap.mmap) -> None:
        """The same weights under another stamp: the next start need not read them."""
        with memoryview(content) as view, view[:-TRAILER] as blob:
            checksum = zlib.crc32(blob)
        trailer = self._trailer(checksum, json.loads(content[-TRAILER:-CHECKSUM])["weights"])
        with suppress(OSError), self.path.open("r+b", buffering=0) as stream:
            stream.seek(-TRAILER, os.SEEK_END)
            stream.write(trailer)

    def _trailer(self, checksum: int, digest: str) -> bytes:
        """checksum: of what stands before it."""
        stamp = self._stamp if self._at_rest else None
        text = json.dumps({"key": self._key, "weights": digest, "stamp": stamp}).encode().ljust(TRAILER - CHECKSUM)
        return text + zlib.crc32(text, checksum).to_bytes(CHECKSUM, "big")


def _slug(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-")[-60:]


def _stem(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _whole(path: Path) -> tuple[mmap.mmap, dict[str, Any]] | None:
    """A saved file, mapped, and what its trailer says, if it is undamaged and this user's own (or root's)."""
    try:
        with path.open("rb") as stream:
            if hasattr(os, "geteuid") and os.fstat(stream.fileno()).st_uid not in (0, os.geteuid()):
                return None  # it holds code
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):  # ValueError: empty
        return None
    with memoryview(content) as view, view[:-CHECKSUM] as checked:
        if len(view) > TRAILER and zlib.crc32(checked) == int.from_bytes(view[-CHECKSUM:], "big"):
            with suppress(ValueError):
                return content, json.loads(bytes(view[-TRAILER:-CHECKSUM]))
    content.close()
    return None


def discard_own_parts() -> None:
    """Remove what this process is writing: for one that is about to end without unwinding its threads."""
    with suppress(OSError):
        parts.remove(parts.of_this_process(folder()))


def saved() -> list[CompiledFile]:
    """All that are there, and what killed processes left unfinished."""
    with suppress(OSError):
        files = [(_stem(path), path) for path in sorted(folder().glob(f"*{SUFFIX}"))]
        files += [("left unfinished", path) for path in parts.left_over(folder())]
        return [CompiledFile(name, path, path.stat().st_size) for name, path in files]
    return []


def clear() -> int:
    """Remove them all. Returns how many bytes that frees."""
    freed = 0
    for each in saved():
        with suppress(OSError):
            each.path.unlink()
            freed += each.bytes
    return freed
