"""Image files → the normalised array that the model reads.

The recipe is that of the published checkpoints (transformers' BitImageProcessor), bit for bit where the decoder gives
the same pixels:

1. the EXIF orientation is applied
2. RGB; alpha is composited on white, 16 bits are scaled to 8
3. bicubic resize (Pillow's filter) of the short side to 256, the long side to int(256 · long / short)
4. centre crop, 224 × 224
5. × 1/255, minus the ImageNet mean, over its deviation
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from hiera_cli import jpeg, signatures
from hiera_cli.architecture import IMAGE_SIZE
from hiera_cli.errors import DecodeError, InputError, NotFoundError, ReadError, TooLargeError
from hiera_cli.limits import MAX_PIXELS
from hiera_cli.remarks import collected, remark

RESIZE = 256  # short side, pixels
CROP = IMAGE_SIZE
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])

# A resize to 256 × (256 · ratio) is thrown away but for its middle. Up to this ratio the whole is resized, which gives
# the reference's very bits; beyond it only the crop is (a few levels off at most), or 1 × 3000 would take 590 MB.
MAX_WHOLE_RATIO = 16

BAND = 1 << 20  # pixels: what is converted at a time

# What a decoder is chosen from, by the file's content and never by its name. Formats that run other programs
# (PostScript), that have no signature (TGA takes random bytes for a picture) or are no pictures are not on it.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM",
    "QOI", "ICO", "ICNS", "DDS", "PCX", "PSD", "SGI",
)  # fmt: skip
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Normalisation as a table: 256 values a channel, computed in double as the reference does.
_NORMALISED: NDArray[np.float32] = np.stack(
    [(np.arange(256) / 255 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
).astype(np.float32)

Pixels = NDArray[np.float32]

MAX_BYTES = 2 << 30  # of a file: 12 for each of MAX_PIXELS

# Bounds on what takes a decoder written in Python, or one that starts anew at each, a minute or hours: 20 seconds.
MAX_READS = 17_000_000  # pieces of a file: a chunk, a byte of a comment, a pixel of QOI. Whole photos take thousands
MAX_PLAIN_BYTES = 128 << 20  # of PPM with its numbers as text
MAX_PROFILES = 16  # compressed colour profiles in a PNG, which has one

MAX_STRIPS = 1_000_000  # or tiles of a TIFF
TIFF_SIGNATURES: dict[bytes, Literal["little", "big"]] = {
    **{b"II*\0": "little", b"MM\0*": "big"},
    **{b"II+\0": "little", b"MM\0+": "big"},  # BigTIFF
}

# Bytes for each pixel that a decoder has beside the image itself.
DECODERS_NEED = {"WEBP": 8, "AVIF": 4, "HEIF": 8, "JPEG2000": 16}


class Room:
    """Memory that pictures share while they are decoded, in bytes. One that needs more than all of it is decoded alone.

    One object for all threads that decode side by side.
    """

    def __init__(self, size: int = 2 << 30) -> None:
        self.size = size
        self._used = 0
        self._changed = threading.Condition()
        # Whoever waits for room has the turn: smaller pictures do not pass a large one for ever.
        self._turn = threading.Lock()

    @contextmanager
    def hold(self, need: int) -> Iterator[None]:
        """Wait until there is room for `need` bytes, and keep it for the block."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + need <= self.size)
            self._used += need
        try:
            yield
        finally:
            with self._changed:
                self._used -= need
                self._changed.notify_all()


@dataclass(frozen=True)
class Decoding:
    """How far an image may go, and how it is decoded.

    max_pixels: larger ones are refused before they are decoded. full: decode large JPEGs in full, as the reference
    does, not at a reduced scale. room: the memory that the images decoded side by side share.
    """

    max_pixels: int = MAX_PIXELS
    full: bool = False
    room: Room = field(default_factory=Room, compare=False)

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


def load(path: str, decoding: Decoding | None = None) -> Pixels:
    """Read one file. Returns float32 (3, 224, 224).

    Raises InputError: nothing there, not a regular file, unreadable, no image, over a limit, truncated.
    """
    decoding = decoding or Decoding()
    try:
        _check_file(os.stat(path), decoding)  # before it is opened: that alone may set a device in motion
        with open(path, "rb", buffering=0, opener=_open_at_once) as stream:
            _check_file(os.fstat(stream.fileno()), decoding)  # it may be another one by now
            return decode(stream, decoding)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ReadError(f"cannot read the file: {getattr(error, 'strerror', None) or error}") from error


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
        raise TooLargeError(f"its {size:,} bytes are over the limit of {limit:,} (--max-pixels raises it)")


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
def decode(stream: io.RawIOBase | io.BytesIO, decoding: Decoding | None = None) -> Pixels:
    """Decode and preprocess one image, and close its stream. Returns float32 (3, 224, 224). Raises InputError."""
    decoding = decoding or Decoding()
    start = stream.read(signatures.START) or b""
    data = None
    if start.startswith(jpeg.SIGNATURE):
        _check_bytes(stream.seek(0, os.SEEK_END), decoding.max_jpeg_bytes)
        stream.seek(0)
        data = stream.read()
    stream.seek(0)
    with _Metered(stream if data is None else io.BytesIO(data)) as file:
        with _faults_of_the_file(start, decoding):
            if data is not None:
                jpeg.check_scans(data)
            image = _open(file, start, decoding)
            pixels = image.width * image.height
            if not decoding.full:
                _draft(image)
        with decoding.room.hold(_need(image, pixels) + len(data or b"")):
            with _faults_of_the_file(start, decoding):
                image = _flat(_upright(image, data))
            try:
                return _normalised(_crop(image))
            except MemoryError as error:
                raise _no_memory() from error


@contextmanager
def _faults_of_the_file(start: bytes, decoding: Decoding) -> Iterator[None]:
    """What decoding raises, as InputError. start: the first bytes of the file."""
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


def _upright(image: Image.Image, data: bytes | None) -> Image.Image:
    """The pixels of an image of which the header is read, with its EXIF orientation applied. data: a JPEG's bytes."""
    pixels = jpeg.pixels(data, image.mode, image.size) if data is not None else None
    if pixels is None:
        image.load()
        pixels = image
    return _turned(pixels, _orientation(image))


class _Metered(io.BufferedReader):
    """Counts the reads, so that no file keeps a decoder busy for ever."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises TooLargeError after MAX_READS reads."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise TooLargeError(f"it falls into more than {MAX_READS:,} pieces, and is not decoded")
        return super().read(size)


def _check_pixels(image: Image.Image, decoding: Decoding) -> None:
    pixels = image.width * image.height
    if pixels > decoding.max_pixels:
        raise _too_large(pixels, decoding)


def _too_large(pixels: int, decoding: Decoding) -> TooLargeError:
    return TooLargeError(
        f"its {pixels:,} pixels are over the limit of {decoding.max_pixels:,} (--max-pixels raises it)"
    )


def _no_memory() -> TooLargeError:
    return TooLargeError("there is not enough memory to decode it")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text and not isinstance(error, (KeyError, struct.error)) else type(error).__name__


def _open(stream: io.BufferedReader, start: bytes, decoding: Decoding) -> Image.Image:
    """Read the header of an image, and check what it says of size and extent."""
    _settle_pillow(decoding)
    formats: tuple[str, ...] = FORMATS
    if _is_heic(start):
        try:
            import pillow_heif
        except ImportError as error:
            raise DecodeError("HEIC needs a decoder: pip install 'hiera-cli[heic]'") from error
        pillow_heif.register_heif_opener()
        formats = ("HEIF", *FORMATS)
    _check_pieces(stream)
    image = _shown_by_icon(stream, start, decoding) or Image.open(stream, formats=formats)
    _check_pixels(image, decoding)
    if image.format == "TIFF":
        from hiera_cli import libtiff  # which most runs have no use for

        libtiff.silence()
        _check_thumbnail(image)
        _check_extent(image, stream)
    return image


def _settle_pillow(decoding: Decoding) -> None:
    """Set what Pillow has once for a whole process: its own limit, which is never to be under ours."""
    if Image.MAX_IMAGE_PIXELS is not None and decoding.max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = -(-decoding.max_pixels // 2)  # it refuses twice as many


def _shown_by_icon(stream: io.BufferedReader, start: bytes, decoding: Decoding) -> Image.Image | None:
    """The PNG or JPEG 2000 file that an icon shows, to be read like any other: the icon may tell another size.

    None: the icon holds a bitmap, or is none. Raises TooLargeError: a bitmap over the limit.
    """
    try:
        if start.startswith(b"\0\0\1\0"):
            from PIL import IcoImagePlugin  # it is not among what Pillow imports for a JPEG or PNG

            offset = IcoImagePlugin.IcoFile(stream).entry[0].offset
        elif start.startswith(b"icns"):
            from PIL import IcnsImagePlugin

            icon = IcnsImagePlugin.IcnsFile(stream)
            pictures = [code for code, _ in icon.SIZES[icon.bestsize()] if code in icon.dct]
            offset = icon.dct[pictures[0]][0]
        else:
            return None
        stream.seek(offset)
        inside = _Metered(io.BytesIO(stream.read()))
        _check_pieces(inside)
        image = Image.open(inside, formats=("PNG", "JPEG2000", "DIB"))
    except (SyntaxError, IndexError, struct.error):  # Pillow says what is wrong with it
        return None
    if image.format != "DIB":
        return image
    if image.width * image.height // 2 > decoding.max_pixels:  # colours and mask, one below the other
        raise _too_large(image.width * image.height // 2, decoding)
    return None


def _check_pieces(stream: io.BufferedReader) -> None:
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
    stream.seek(min(int.from_bytes(offset, order), sys.maxsize))
    entries = int.from_bytes(stream.read(8 if wide else 2), order)
    most = 0
    for _ in range(min(entries, 65_535)):
        entry = stream.read(20 if wide else 12)
        if int.from_bytes(entry[:2], order) in (273, 324):
            most = max(most, int.from_bytes(entry[4 : 12 if wide else 8], order))
    return most


def _check_thumbnail(image: Image.Image) -> None:
    """Raise DecodeError for a TIFF that begins with a small copy of its picture: RAW photos do, and hold no other."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(254) == 1 and min(image.size) < CROP:
        raise DecodeError(f"its first page is a thumbnail of {image.width} × {image.height}. {signatures.RAW}")


def _check_extent(image: Image.Image, stream: io.BufferedReader) -> None:
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
    return () if value is None else value if isinstance(value, tuple) else (value,)


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
def preprocess(image: Image.Image) -> Pixels:
    """An image of any mode and size → float32 (3, 224, 224), normalised, by the recipe in the module's docstring."""
    image.load()
    return _normalised(_crop(_flat(_turned(image, _orientation(image)))))


def read(image: Image.Image, decoding: Decoding | None = None) -> None:
    """Have an image that Pillow has opened in memory. Raises InputError: damaged, truncated, over the limit."""
    decoding = decoding or Decoding()
    with _faults_of_the_file(b"", decoding):
        _check_pixels(image, decoding)
        image.load()


def prepare(image: Image.Image, decoding: Decoding | None = None) -> Pixels:
    """`preprocess` for an image of which nothing is known: whatever is wrong with it is an InputError."""
    with _faults_of_the_file(b"", decoding or Decoding()):
        return preprocess(image)


def from_array(array: NDArray[np.uint8]) -> Image.Image:
    """The image of an array: uint8, (height, width, 3) in RGB, (height, width, 4) with alpha, (height, width) in grey.

    Raises TypeError for any other.
    """
    shape = array.shape
    if array.dtype != np.uint8 or not array.size or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))):
        raise TypeError(f"an array as an input is uint8, (height, width, 3), not {array.dtype}, {shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: alpha on white, 16-bit and floating-point samples scaled."""
    return _flat(image).convert("RGB")


def _normalised(pixels: NDArray[np.uint8]) -> Pixels:
    """(224, 224, 3) → (3, 224, 224)."""
    normalised = np.empty((3, CROP, CROP), np.float32)
    for channel in range(3):  # "clip" clips nothing of 8 bits; without it, take() makes a copy of `out`
        np.take(_NORMALISED[channel], pixels[..., channel], out=normalised[channel], mode="clip")
    return normalised


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright. To be asked once it is loaded: TIFF applies its orientation then, and forgets it.

    Damaged EXIF data is no reason to lose a good picture: it counts as none.
    """
    try:
        return ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        remark("its EXIF data are damaged: whether it is to be turned is not known")
        return None


def _turned(image: Image.Image, how: Image.Transpose | None) -> Image.Image:
    return image if how is None else image.transpose(how)


def _flat(image: Image.Image) -> Image.Image:
    """8 bits, grey or RGB: alpha on white, 16-bit and floating-point samples scaled.

    A large image is converted band by band: beside it there is its result, and no third one.
    """
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if image.mode in ("L", "RGB") and not transparent:
        return image
    samples = _range(image) if image.mode == "F" or image.mode.startswith("I") else None
    mode = "RGB" if samples is None or transparent else "L"
    if image.width * image.height <= BAND:
        return _converted(image, mode, samples, transparent)
    flat = Image.new(mode, image.size)
    for top, band in _bands(image):
        flat.paste(_converted(band, mode, samples, transparent), (0, top))
    return flat


def _converted(image: Image.Image, mode: str, samples: tuple[float, float] | None, transparent: bool) -> Image.Image:
    """To L or RGB. samples: the range of wide ones. transparent: there is alpha, of any kind."""
    if samples is not None:
        image = _eight_bits(image, *samples)
    elif image.mode == "La":  # Pillow takes it to RGBA by way of LA alone
        image = image.convert("LA")
    if transparent:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, rows), from top to bottom."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _range(image: Image.Image) -> tuple[float, float]:
    """The range of an image's wide samples. Of 16 bits it is the whole; of others what their values show."""
    extremes = [(samples.min(), samples.max()) for samples in (np.asarray(band) for _, band in _bands(image))]
    low, high = float(np.min(extremes)), float(np.max(extremes))
    if not np.isfinite([low, high]).all():
        raise DecodeError("it holds samples that are not numbers")
    ranges = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    if low >= 0 and high <= ranges[-1]:
        return 0.0, next(limit for limit in ranges if high <= limit)
    return low, high


def _eight_bits(image: Image.Image, low: float, high: float) -> Image.Image:
    """Wide grey samples to 8 bits: low becomes 0, high 255.

    A PNG may name one grey that stands for full transparency.
    """
    samples = np.asarray(image)
    scaled = (samples.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    grey = Image.fromarray(np.rint(scaled).astype(np.uint8))
    if isinstance(hidden := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(samples == hidden, 0, 255).astype(np.uint8)))
    return grey


def _crop(image: Image.Image) -> NDArray[np.uint8]:
    """The middle of the resized image of 8 bits: (224, 224, 3)."""
    short, long = sorted(image.size)
    new_long = int(RESIZE * long / short)
    width, height = (RESIZE, new_long) if image.width <= image.height else (new_long, RESIZE)
    left, top = (width - CROP) // 2, (height - CROP) // 2
    if long <= MAX_WHOLE_RATIO * short:
        whole = image.resize((width, height), Image.Resampling.BICUBIC)
        cropped = whole.crop((left, top, left + CROP, top + CROP))
    else:
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + CROP) * x, (top + CROP) * y)
        cropped = image.resize((CROP, CROP), Image.Resampling.BICUBIC, box=box)
    return np.asarray(cropped.convert("RGB"))  # grey becomes RGB now that it is small: the same values


def decode_bytes(data: bytes, decoding: Decoding | None = None) -> Pixels:
    """`decode` for an image that is in memory."""
    if not data:
        raise DecodeError("no bytes at all")
    return decode(io.BytesIO(data), decoding)
