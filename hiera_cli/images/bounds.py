"""Files that would keep their decoder busy out of all proportion, recognised before they are decoded."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from PIL import Image

from hiera_cli.errors import DecodeError, TooLargeError
from hiera_cli.images.recipe import CROP
from hiera_cli.inputs import signatures

# Bounds on what takes a decoder written in Python, or one that starts anew at each, a minute or hours: 20 seconds.
MAX_READS = 17_000_000  # pieces of a file: a chunk, a byte of a comment, a pixel of QOI. Whole photos take thousands
MAX_PLAIN_BYTES = 128 << 20  # of PPM with its numbers as text
MAX_PROFILES = 16  # compressed colour profiles in a PNG, which has one

MAX_STRIPS = 1_000_000  # or tiles of a TIFF
TIFF_SIGNATURES: dict[bytes, Literal["little", "big"]] = {
    **{b"II*\0": "little", b"MM\0*": "big"},
    **{b"II+\0": "little", b"MM\0+": "big"},  # BigTIFF
}


class Metered(io.BufferedReader):
    """Counts the reads, so that no file keeps a decoder busy for ever."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises TooLargeError after MAX_READS reads."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise TooLargeError(f"it falls into more than {MAX_READS:,} pieces, and is not decoded")
        return super().read(size)


def check_pieces(stream: io.BufferedReader) -> None:
    """Raise TooLargeError for a file that keeps its decoder busy out of all proportion, as its structure shows."""
    stream.seek(0)
    signature = stream.read(8)
    if re.match(rb"P[123]\s", signature) and stream.seek(0, os.SEEK_END) > MAX_PLAIN_BYTES:
        raise TooLargeError(f"a PPM as text of more than {MAX_PLAIN_BYTES:,} bytes is not decoded")
    if signature == b"\x89PNG\r\n\x1a\n" and _profiles(stream) > MAX_PROFILES:
        raise TooLargeError(f"a PNG of more than {MAX_PROFILES} colour profiles is not decoded")
    if signature[:4] in TIFF_SIGNATURES and _strips(stream, signature) > MAX_STRIPS:
        raise TooLargeError(f"a TIFF of more than {MAX_STRIPS:,} strips or tiles is not decoded")
    stream.seek(0)


def _profiles(stream: io.BufferedReader) -> int:
    """The number of colour profiles in a PNG, whose signature is read. More than are allowed are not counted on."""
    profiles = 0
    while profiles <= MAX_PROFILES and len(chunk := stream.read(8)) == 8:
        profiles += chunk[4:] == b"iCCP"
        stream.seek(int.from_bytes(chunk[:4], "big") + 4, os.SEEK_CUR)
    return profiles


def _strips(stream: io.BufferedReader, signature: bytes) -> int:
    """The number of strips or tiles in the first picture of a TIFF, of either width of offsets."""
    order = TIFF_SIGNATURES[signature[:4]]
    wide = 43 in signature[2:4]
    offset = stream.read(8) if wide else signature[4:]
    stream.seek(min(int.from_bytes(offset, order), stream.seek(0, os.SEEK_END)))
    entries = int.from_bytes(stream.read(8 if wide else 2), order)
    most = 0
    for _ in range(min(entries, 65_535)):
        entry = stream.read(20 if wide else 12)
        if int.from_bytes(entry[:2], order) in (273, 324):
            most = max(most, int.from_bytes(entry[4 : 12 if wide else 8], order))
    return most


def check_thumbnail(image: Image.Image) -> None:
    """Raise DecodeError for a TIFF that begins with a small copy of its picture: RAW photos do, and hold no other."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(254) == 1 and min(image.size) < CROP:
        raise DecodeError(f"its first page is a thumbnail of {image.width} × {image.height}. {signatures.RAW}")


def check_extent(image: Image.Image, stream: io.BufferedReader) -> None:
    """Raise DecodeError if compressed data of a TIFF reaches beyond its end: libtiff may fill what is missing."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(259) in (None, 1):  # uncompressed: Pillow counts for itself, and not all lengths in the wild are true
        return
    size = stream.seek(0, os.SEEK_END)
    for offsets, lengths in ((273, 279), (324, 325), (513, 514)):  # strips, tiles, an old-style JPEG
        pieces = zip(_numbers(tags.get(offsets)), _numbers(tags.get(lengths)), strict=False)
        if any(offset + length > size for offset, length in pieces):
            raise DecodeError("damaged or truncated image: its data reach beyond the end of the file")


def _numbers(value: Any) -> tuple[int, ...]:
    """The whole numbers in a TIFF's tag, which may hold anything at all."""
    values = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in values if isinstance(number, int))
