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

import codecs
import io
import os
import re
import stat
import struct
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from hiera_cli.architecture import IMAGE_SIZE
from hiera_cli.errors import DecodeError, InputError, NotFoundError, ReadError, TooLargeError

RESIZE = 256  # short side, pixels
CROP = IMAGE_SIZE
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])

# A resize to 256 × (256 · ratio) is thrown away but for its middle. Up to this ratio the whole is resized, which gives
# the reference's very bits; beyond it only the crop is (a few levels off at most), or 1 × 3000 would take 590 MB.
MAX_WHOLE_RATIO = 16

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

PILLOW_WARNS_FROM = 89_478_485  # pixels, its default; it refuses twice as many
_max_pixels = 2 * PILLOW_WARNS_FROM


def suffixes() -> frozenset[str]:
    """Lower-case file suffixes of the formats that are read here, for a folder walk."""
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in (*FORMATS, "MPO")}
    return frozenset(known | HEIC_SUFFIXES)


def load(path: str) -> Pixels:
    """Read one file. Returns float32 (3, 224, 224).

    Raises InputError: nothing there, not a regular file, unreadable, no image, over the pixel limit, truncated.
    """
    try:
        kind = os.stat(path)
        if not stat.S_ISREG(kind.st_mode):  # opening a pipe or a device may block, and reading one may never end
            raise ReadError(f"{_kind_name(kind.st_mode)}, not a file")
        if kind.st_size == 0:
            raise DecodeError("the file is empty")
        with open(path, "rb") as stream:
            return decode(stream)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ReadError(f"cannot read the file: {getattr(error, 'strerror', None) or error}") from error


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


def decode(stream: IO[bytes]) -> Pixels:
    """Decode and preprocess one image. Returns float32 (3, 224, 224). Raises InputError."""
    try:
        start = stream.read(64)
        stream.seek(0)
        with _open(stream, start) as image:
            if image.width * image.height > _max_pixels:
                raise _too_large(image.width * image.height)
            _draft(image)
            return preprocess(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        numbers = re.findall(r"\d+", str(error))
        raise _too_large(int(numbers[0]) if numbers else 0) from error
    except UnidentifiedImageError as error:
        raise DecodeError(_not_an_image(start)) from error
    except MemoryError as error:
        raise TooLargeError("there is not enough memory to decode it") from error
    except Exception as error:  # a decoder may raise anything at all on a broken file
        raise DecodeError(f"damaged or truncated image: {_reason(error)}") from error


def _too_large(pixels: int) -> TooLargeError:
    return TooLargeError(f"its {pixels:,} pixels are over the limit of {_max_pixels:,} (--max-pixels raises it)")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text and not isinstance(error, (KeyError, struct.error)) else type(error).__name__


def _not_an_image(start: bytes) -> str:
    text = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, not an image"
    if text.startswith((b"<svg", b"<?xml")):
        return "vector graphics (SVG) are not read; render it to PNG first"
    if text.startswith(b"%pdf"):
        return "it is a PDF, not an image"
    return "not an image of a format that is read here"


def _open(stream: IO[bytes], start: bytes) -> Image.Image:
    if _is_heic(start):
        try:
            import pillow_heif
        except ImportError as error:
            raise DecodeError("HEIC needs a decoder: pip install 'hiera-cli[heic]'") from error
        pillow_heif.register_heif_opener()
        return Image.open(stream, formats=("HEIF", *FORMATS))
    return Image.open(stream, formats=FORMATS)


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


def preprocess(image: Image.Image) -> Pixels:
    """An image of any mode and size → float32 (3, 224, 224), normalised, by the recipe in the module's docstring."""
    pixels = _crop(rgb(upright(image)))  # (224, 224, 3)
    return np.stack([_NORMALISED[channel][pixels[..., channel]] for channel in range(3)])


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Damaged EXIF data is no reason to lose a good picture: it counts as none."""
    image.load()  # before the EXIF data is looked at: TIFF applies its own orientation here, and forgets it
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        orientation = None
    return image.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else image


def rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: alpha on white, 16-bit and floating-point samples scaled."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode == "La":  # Pillow takes it to RGBA by way of LA alone
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Wide grey samples to 8 bits. 16 bits by their range; others by the range that their values show.

    A PNG may name one grey that stands for full transparency.
    """
    samples = np.asarray(image)
    low, high = float(samples.min()), float(samples.max())
    ranges = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    if low >= 0 and high <= ranges[-1]:
        low, high = 0.0, next(limit for limit in ranges if high <= limit)
    if not np.isfinite([low, high]).all():
        raise DecodeError("it holds samples that are not numbers")
    scaled = (samples.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    grey = Image.fromarray(np.rint(scaled).astype(np.uint8))
    if isinstance(hidden := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(samples == hidden, 0, 255).astype(np.uint8)))
    return grey


def _crop(image: Image.Image) -> NDArray[np.uint8]:
    """The middle of the resized image: (224, 224, 3)."""
    short, long = sorted(image.size)
    new_long = int(RESIZE * long / short)
    width, height = (RESIZE, new_long) if image.width <= image.height else (new_long, RESIZE)
    left, top = (width - CROP) // 2, (height - CROP) // 2
    if long <= MAX_WHOLE_RATIO * short:
        whole = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(whole)[top : top + CROP, left : left + CROP]
    x, y = image.width / width, image.height / height
    box = (left * x, top * y, (left + CROP) * x, (top + CROP) * y)
    return np.asarray(image.resize((CROP, CROP), Image.Resampling.BICUBIC, box=box))


def decode_bytes(data: bytes) -> Pixels:
    """`decode` for an image that is in memory."""
    if not data:
        raise DecodeError("no bytes at all")
    return decode(io.BytesIO(data))


def limit_pixels(limit: int) -> None:
    """Refuse images of more than `limit` pixels before they are decoded."""
    global _max_pixels
    _max_pixels = limit
    Image.MAX_IMAGE_PIXELS = max(
        PILLOW_WARNS_FROM, -(-limit // 2)
    )  # Pillow refuses from twice this on, for all its users
