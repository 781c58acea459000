"""Files and bytes → the normalised array that the model reads, within bounds whatever the file claims."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hiera_cli.errors import DecodeError, InputError, NotFoundError, ReadError, TooLargeError
from hiera_cli.images import jpeg, pillow
from hiera_cli.images.bounds import Metered, check_extent, check_pieces, check_thumbnail
from hiera_cli.images.recipe import RESIZE, crop, flat, normalised, orientation, turned
from hiera_cli.images.remarks import collected
from hiera_cli.images.room import Room
from hiera_cli.inputs import signatures
from hiera_cli.limits import MAX_PIXELS

# What a decoder is chosen from, by the file's content and never by its name. Formats that run other programs
# (PostScript), that have no signature (TGA takes random bytes for a picture) or are no pictures are not on it.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM",
    "QOI", "ICO", "ICNS", "DDS", "PCX", "PSD", "SGI",
)  # fmt: skip
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

MAX_BYTES = 2 << 30  # of a file: 12 for each of MAX_PIXELS

# Bytes for each pixel that a decoder has beside the image itself.
DECODERS_NEED = {"WEBP": 8, "AVIF": 4, "HEIF": 8, "JPEG2000": 16}


@dataclass(frozen=True)
class Decoding:
    """How far an image may go, and how it is decoded.

    max_pixels: larger ones are refused before they are decoded. full: decode large JPEGs in full, as the reference
    does, not at a reduced scale. room: the memory that the images decoded side by side share. crops: leave the last
    step of the recipe to an engine that takes it: uint8 (224, 224, 3), and not float32 (3, 224, 224). see: is given
    each image that is decoded before it is cropped, upright, of 8 bits, grey or RGB.
    """

    max_pixels: int = MAX_PIXELS
    full: bool = False
    room: Room = field(default_factory=Room, compare=False)
    crops: bool = False
    see: Callable[[Image.Image], None] | None = field(default=None, compare=False)

    @property
    def max_jpeg_bytes(self) -> int:
        """Larger JPEGs are refused: they are read whole, and have more bytes than their pixels can need."""
        return 3 * max(MAX_PIXELS, self.max_pixels)

    @property
    def max_bytes(self) -> int:
        """Larger files are refused unread."""
        return max(MAX_BYTES, 12 * self.max_pixels)


def suffixes() -> frozenset[str]:
    """Lower-case file suffixes of the formats that are read here, for a folder walk."""
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")}
    return frozenset(known | HEIC_SUFFIXES)


def load(path: str, decoding: Decoding | None = None) -> NDArray[Any]:
    """Read one file. Returns float32 (3, 224, 224), or the crop if `decoding` asks for it.

    Raises InputError: nothing there, not a regular file, unreadable, no image, over a limit, truncated.
    """
    decoding = decoding or Decoding()
    with _opened_file(path, decoding) as stream:
        _check_file(os.fstat(stream.fileno()), decoding)  # it may be another one by now
        return decode(stream, decoding)


def _opened_file(path: str, decoding: Decoding) -> io.FileIO:
    try:
        _check_file(os.stat(path), decoding)  # before it is opened: that alone may set a device in motion
        return open(path, "rb", buffering=0, opener=_open_at_once)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ReadError:
    return ReadError(f"cannot read the file: {getattr(error, 'strerror', None) or error}")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would be waited for


def _check_file(status: os.stat_result, decoding: Decoding) -> None:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may block, or never end
        raise ReadError(f"{_kind_name(status.st_mode)}, not a file")
    if status.st_size == 0:
        raise DecodeError("the file is empty")
    _check_bytes(status.st_size, decoding.max_bytes)


def _check_bytes(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"its {size:,} bytes are over the limit of {limit:,}", remedy="max_pixels")


def _kind_name(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return name
    return "a special file"


@collected()
def decode(stream: io.RawIOBase | io.BytesIO, decoding: Decoding | None = None) -> NDArray[Any]:
    """Decode and preprocess one image, and close its stream. Returns float32 (3, 224, 224). Raises InputError."""
    decoding = decoding or Decoding()
    data = None
    try:
        start = stream.read(signatures.START) or b""
        if start.startswith(jpeg.SIGNATURE):
            _check_bytes(stream.seek(0, os.SEEK_END), decoding.max_jpeg_bytes)
            stream.seek(0)
            data = stream.read()
        stream.seek(0)
    except OSError as error:
        raise _unreadable(error) from error
    with Metered(stream if data is None else io.BytesIO(data)) as file, _limit_for_pillow(decoding):
        check_pieces(file)
        image = _opened(file, start, data, decoding)
        pixels = image.width * image.height
        with _faults_of_the_file(start, decoding):
            if not decoding.full:
                _draft(image)
        with decoding.room.hold(_need(image, pixels) + len(data or b"")):
            return _by_the_recipe(_loaded(image, data, start, decoding), orientation(image), decoding)


@collected()
def decode_image(image: Image.Image, decoding: Decoding | None = None) -> NDArray[Any]:
    """`decode` for an image in memory, of which nothing is known. Raises InputError."""
    decoding = decoding or Decoding()
    with _limit_for_pillow(decoding):
        read(image, decoding)
        return _by_the_recipe(image, orientation(image), decoding)


def _limit_for_pillow(decoding: Decoding) -> AbstractContextManager[None]:
    """For the parts of a file that Pillow alone sees the size of, and for what the recipe makes of small images."""
    return pillow.limited(max(MAX_PIXELS, decoding.max_pixels))


@contextmanager
def _faults_of_the_file(start: bytes, decoding: Decoding) -> Iterator[None]:
    """The boundary between a file's faults and ours: what a decoder raises becomes an InputError.

    Only Pillow's and libjpeg's work on the file stands within such a block. What the checks before it and the recipe
    after it raise, other than InputErrors of their own, is a fault of this program. start: the file's first bytes.
    """
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        numbers = re.findall(r"\d+", str(error))
        raise _too_large(int(numbers[0]) if numbers else 0, decoding) from error
    except UnidentifiedImageError as error:
        raise DecodeError(signatures.unread(start)) from error
    except MemoryError as error:
        raise _no_memory() from error
    except Exception as error:  # a decoder may raise anything at all on a broken file
        raise DecodeError(f"damaged or truncated image: {_reason(error)}") from error


def _loaded(image: Image.Image, data: bytes | None, start: bytes, decoding: Decoding) -> Image.Image:
    """The pixels of an image of which the header is read, as they are stored. data: a JPEG's bytes."""
    with _in_silence(image), _faults_of_the_file(start, decoding):
        pixels = jpeg.pixels(data, image.mode, image.size) if data is not None else None
        if pixels is None:
            image.load()
            pixels = image
        return pixels


def _in_silence(image: Image.Image) -> AbstractContextManager[None]:
    """While an image of this kind is decoded: libraries that would write to stderr do not."""
    if image.format != "TIFF":
        return nullcontext()
    from hiera_cli.images import libtiff  # which most runs have no use for

    return libtiff.silenced()


def _by_the_recipe(image: Image.Image, how: Image.Transpose | None, decoding: Decoding) -> NDArray[Any]:
    """The array of an image that is loaded. how: what turns it upright."""
    try:
        image = flat(turned(image, how))
        if decoding.see is not None:
            decoding.see(image)
        cropped = crop(image)
        return cropped.copy() if decoding.crops else normalised(cropped)  # torch takes no arrays that are read-only
    except MemoryError as error:
        raise _no_memory() from error


def _check_pixels(image: Image.Image, decoding: Decoding) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise DecodeError("damaged or truncated image: it has no pixels")
    if pixels > decoding.max_pixels:
        raise _too_large(pixels, decoding)


def _too_large(pixels: int, decoding: Decoding) -> TooLargeError:
    message = f"its {pixels:,} pixels are over the limit of {decoding.max_pixels:,}"
    return TooLargeError(message, remedy="max_pixels")


def _no_memory() -> TooLargeError:
    return TooLargeError("there is not enough memory to decode it")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text and not isinstance(error, (KeyError, struct.error)) else type(error).__name__


def _opened(file: io.BufferedReader, start: bytes, data: bytes | None, decoding: Decoding) -> Image.Image:
    """An image of which the header is read, and what it says of size and extent checked. data: a JPEG's bytes."""
    formats: tuple[str, ...] = FORMATS
    if _is_heic(start):
        try:
            import pillow_heif
        except ImportError as error:
            raise DecodeError("HEIC needs a decoder: pip install 'hiera-cli[heic]'") from error
        pillow_heif.register_heif_opener()
        formats = ("HEIF", *FORMATS)
    with _faults_of_the_file(start, decoding):
        if data is not None:
            jpeg.check_scans(data)
        image = _shown_by_icon(file, start, decoding) or Image.open(file, formats=formats)
    _check_pixels(image, decoding)
    if image.format == "TIFF":
        check_thumbnail(image)
        check_extent(image, file)
    return image


def _shown_by_icon(stream: io.BufferedReader, start: bytes, decoding: Decoding) -> Image.Image | None:
    """The PNG or JPEG 2000 file that an icon shows, to be read like any other: the icon may tell another size.

    None: the icon holds a bitmap, or it is not an icon. Raises TooLargeError: a bitmap over the limit.
    """
    try:
        if start.startswith(b"\0\0\1\0"):
            from PIL import IcoImagePlugin  # it is not among what Pillow imports for a JPEG or PNG

            pillow.listen_to(IcoImagePlugin)
            offset = IcoImagePlugin.IcoFile(stream).entry[0].offset
        elif start.startswith(b"icns"):
            from PIL import IcnsImagePlugin

            icon = IcnsImagePlugin.IcnsFile(stream)
            pictures = [code for code, _ in icon.SIZES[icon.bestsize()] if code in icon.dct]
            offset = icon.dct[pictures[0]][0]
        else:
            return None
        stream.seek(offset)
        inside = Metered(io.BytesIO(stream.read()))
        check_pieces(inside)
        image = Image.open(inside, formats=("PNG", "JPEG2000", "DIB"))
    except (SyntaxError, IndexError, struct.error):  # Pillow says what is wrong with it
        return None
    if image.format != "DIB":
        return image
    if image.width * image.height // 2 > decoding.max_pixels:  # colours and mask, one below the other
        raise _too_large(image.width * image.height // 2, decoding)
    return None


def _is_heic(start: bytes) -> bool:
    """By the brands of its first box. AVIF has the same container, and may name HEIF's general brands first."""
    if start[4:8] != b"ftyp":
        return False
    brands = {start[at : at + 4] for at in range(8, min(len(start), int.from_bytes(start[:4], "big")), 4)}
    return bool(brands & HEIC_BRANDS) and not brands & {b"avif", b"avis"}


def _draft(image: Image.Image) -> None:
    """Have a large JPEG decoded at a reduced DCT scale, at least twice the size that it is resized to."""
    if image.format in ("JPEG", "MPO") and min(image.size) >= 4 * RESIZE:
        scale = 2 * RESIZE / min(image.size)
        image.draft(None, (int(image.width * scale), int(image.height * scale)))


def _need(image: Image.Image, pixels: int) -> int:
    """About how many bytes it takes to decode and preprocess an image of which the header is read, as measured.

    pixels: of the whole, where the image is to be decoded at a reduced scale.
    """
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    beside = max(stored, 4 if image.mode == "P" else 0)  # turned upright, or converted
    decoder = DECODERS_NEED.get(image.format or "", 0)
    coefficients = 6 if "progressive" in image.info else 0
    return image.width * image.height * (stored + beside + decoder) + pixels * coefficients


@collected()
def read(image: Image.Image, decoding: Decoding | None = None) -> None:
    """Have an image that Pillow has opened in memory. Raises InputError: damaged, truncated, over the limit."""
    decoding = decoding or Decoding()
    _check_pixels(image, decoding)
    with _limit_for_pillow(decoding):
        _loaded(image, None, b"", decoding)


def decode_bytes(data: bytes, decoding: Decoding | None = None) -> NDArray[Any]:
    """`decode` for an image that is in memory."""
    if not data:
        raise DecodeError("no bytes at all")
    return decode(io.BytesIO(data), decoding)
