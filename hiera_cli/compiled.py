"""Compiled models kept on disk, in the user's cache folder: named after what they depend on, and with a checksum."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import tempfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

SUFFIX = ".compiled"
CHECKSUM = 4  # bytes, at the end of a file: the CRC-32 of the rest


@dataclass(frozen=True)
class Kept:
    """One compiled model on disk. name: of the model and the precision. bytes: its size."""

    name: str
    path: Path
    bytes: int


def folder() -> Path:
    """Where they are kept (XDG_CACHE_HOME moves it, on Linux)."""
    return Path(platformdirs.user_cache_dir("hiera-cli", appauthor=False)) / "compiled"


def digest_of(weights: Path) -> str:
    """The sha256 of a weights file. The Hub's cache has it as the name of the file, which was verified on arrival."""
    blob = Path(os.path.realpath(weights))
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    digest = hashlib.sha256()
    with blob.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def path_for(model: str, precision: str, depends_on: Iterable[str]) -> Path:
    """Where a compiled model is, or is to be. depends_on: everything that would make it another one."""
    key = hashlib.sha256("\0".join([model, precision, *depends_on]).encode("utf-8", "surrogateescape")).hexdigest()
    return folder() / f"{_slug(model)}-{precision}-{key[:16]}{SUFFIX}"


def _slug(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-")[-60:]


def load(path: Path) -> mmap.mmap | None:
    """What is kept there, mapped, with the CHECKSUM bytes at its end. None if there is nothing, or it is damaged."""
    try:
        with path.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):  # ValueError: empty
        return None
    with memoryview(content) as view, view[:-CHECKSUM] as kept:
        whole = len(view) > CHECKSUM and zlib.crc32(kept) == int.from_bytes(view[-CHECKSUM:], "big")
    if whole:
        return content
    content.close()
    return None


def keep(path: Path, content: bytes) -> None:
    """Write it, whole or not at all, in place of older ones of the same model and precision.

    A folder that can't be written is no reason to fail: the model is compiled again next time.
    """
    stem = path.name.rpartition("-")[0]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.write(zlib.crc32(content).to_bytes(CHECKSUM, "big"))
            os.replace(part, path)
        except OSError:
            os.unlink(part)
            raise
        for other in path.parent.glob(f"{stem}-*{SUFFIX}"):
            if other != path and other.name.rpartition("-")[0] == stem:
                other.unlink()


def kept() -> list[Kept]:
    """All that are there."""
    with suppress(OSError):
        return [
            Kept(path.name.rpartition("-")[0], path, path.stat().st_size)
            for path in sorted(folder().glob(f"*{SUFFIX}"))
        ]
    return []


def clear() -> int:
    """Remove them all. Returns how many bytes that frees."""
    freed = 0
    for each in kept():
        with suppress(OSError):
            each.path.unlink()
            freed += each.bytes
    return freed
