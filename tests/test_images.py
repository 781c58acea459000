"""Files to arrays: the reference's recipe on every kind of picture, and one clean error for everything that is none."""

from __future__ import annotations

import functools
import io
import os
import random
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image, ImageFile, ImageOps, PngImagePlugin, features
from test_classifier import Brightness, stand_in
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from typer.testing import CliRunner

from hiera_cli.commands import run
from hiera_cli.commands.app import app
from hiera_cli.errors import DecodeError, HieraError, InputError, NotFoundError, ReadError, TooLargeError
from hiera_cli.images import bounds, decode, recipe
from hiera_cli.images.decode import Decoding
from hiera_cli.images.room import Room
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.tasks.classify import Classify

FOLDER = Path(__file__).parent.parent / "sample_images"
SAMPLES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".jpg", ".png"))
LEVEL = 1 / 255 / 0.224  # one step of 8 bits, after normalisation
WHITE = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


@functools.cache
def photo(width: int = 301, height: int = 237) -> Image.Image:
    """A natural picture without any symmetry."""
    with Image.open(FOLDER / "cat.jpg") as image:
        return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    Image.init()
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {format}")
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def refusal(data: bytes, kind: type[HieraError] = DecodeError, decoding: Decoding | None = None) -> str:
    """The message that these bytes are refused with."""
    with pytest.raises(kind) as caught:
        decode.decode_bytes(data, decoding)
    return caught.value.message


def reference(image: Image.Image) -> np.ndarray:
    """The array of transformers, set up as the published checkpoints are."""
    processor = BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=Image.Resampling.BICUBIC,
    )
    return np.asarray(processor(ImageOps.exif_transpose(image), return_tensors="np")["pixel_values"][0])


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape == (3, 224, 224)
    return float(np.abs(one - other).max())


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape == (3, 224, 224)
    return float(np.abs(one - other).mean())


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


Resizes = list[tuple[tuple[int, int], tuple[int, int]]]


@pytest.fixture
def resizes(monkeypatch: pytest.MonkeyPatch) -> Resizes:
    """What Pillow is asked to resize, in order: (size of the decoded image, new size)."""
    seen: Resizes = []
    resize = Image.Image.resize

    def spy(self: Image.Image, size: tuple[int, int], *arguments: Any, **options: Any) -> Image.Image:
        seen.append((self.size, size))
        return resize(self, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    return seen


# The recipe


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_images_are_preprocessed_as_by_the_reference(path: Path) -> None:
    with Image.open(path) as image:
        expected = reference(image)
    got = decode.load(str(path))
    assert got.dtype == np.float32
    assert difference(got, expected) <= 1e-6


@pytest.mark.parametrize(
    "size",
    [(257, 999), (999, 257), (300, 300), (224, 224), (256, 256), (255, 257), (225, 224), (1, 1), (2, 3), (100, 37)],
    ids=str,
)
def test_any_size_is_preprocessed_as_by_the_reference(size: tuple[int, int]) -> None:
    image = noise(*size)
    assert difference(recipe.preprocess(image), reference(image)) <= 1e-6


@pytest.mark.parametrize("size", [(300, 200), (40, 77)], ids=str)
def test_grey_is_preprocessed_as_by_the_reference(size: tuple[int, int]) -> None:
    image = noise(*size).convert("L")
    assert difference(recipe.preprocess(image), reference(image)) <= 1e-6


def test_the_crop_is_of_the_centre() -> None:
    image = Image.new("RGB", (512, 256), "black")
    image.paste("white", (256, 0, 512, 256))
    got = recipe.preprocess(image)
    np.testing.assert_allclose(got[:, 100, 200], WHITE, rtol=1e-6)
    np.testing.assert_array_equal(got[:, :, :100], got[:, :1, :1].repeat(224, 1).repeat(100, 2))
    assert got[0, 0, 111] < 0 < got[0, 0, 112]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_bytes_in_memory_give_the_array_of_the_file(path: Path) -> None:
    np.testing.assert_array_equal(decode.decode_bytes(path.read_bytes()), decode.load(str(path)))


# EXIF

# How an upright picture is stored under each value of the tag: the inverse of what a viewer does.
STORED_AS: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda image: image,
    2: ImageOps.mirror,
    3: lambda image: image.rotate(180, expand=True),
    4: ImageOps.flip,
    5: lambda image: ImageOps.mirror(image.rotate(-90, expand=True)),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: ImageOps.mirror(image.rotate(90, expand=True)),
    8: lambda image: image.rotate(-90, expand=True),
}


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
    ids=["PNG", "TIFF", "TIFF by libtiff", "WebP"],
)
@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_exif_orientation_gives_the_upright_picture(
    orientation: int, format: str, options: dict[str, Any]
) -> None:
    image = photo()
    data = encode(STORED_AS[orientation](image), format, exif=exif(orientation), **options)
    np.testing.assert_array_equal(decode.decode_bytes(data), recipe.preprocess(image))


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("format", ["JPEG", pytest.param("AVIF", marks=needs_avif)])
def test_every_exif_orientation_is_applied_to_lossy_formats(format: str, orientation: int) -> None:
    image = photo()
    data = encode(STORED_AS[orientation](image), format, exif=exif(orientation), quality=95)
    assert mean_difference(decode.decode_bytes(data), recipe.preprocess(image)) < 0.1


@pytest.mark.parametrize("orientation", STORED_AS)
def test_sixteen_bit_pictures_are_turned_upright_too(orientation: int) -> None:
    grey = photo().convert("L")
    wide = Image.fromarray(np.asarray(STORED_AS[orientation](grey)).astype(np.uint16) * 257)
    data = encode(wide, "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(decode.decode_bytes(data), recipe.preprocess(grey))


def test_orientation_that_comes_after_the_pixels_of_a_png_is_applied() -> None:
    image = photo()
    data = encode(STORED_AS[6](image), "PNG")
    end = data.index(b"IEND") - 4
    data = data[:end] + png_chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) + data[end:]
    np.testing.assert_array_equal(decode.decode_bytes(data), recipe.preprocess(image))


def test_orientation_from_xmp_counts_as_in_the_reference() -> None:
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(photo(), "JPEG", xmp=packet)
    with Image.open(io.BytesIO(data)) as image:
        assert difference(decode.decode_bytes(data), reference(image)) <= 1e-6
    assert difference(decode.decode_bytes(data), decode.decode_bytes(encode(photo(), "JPEG"))) > 1


def tiff_tag(count: int, value: bytes, kind: int = 3) -> bytes:
    """EXIF data of one tag, the orientation, as a camera would not write it."""
    entry = struct.pack("<HHI", ExifTags.Base.Orientation, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"Exif\0\0" + b"\xff" * 40, id="not TIFF"),
        pytest.param(b"Exif\0\0MM", id="half a header"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\x7f", id="pointer to nowhere"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff", id="65535 tags and no data"),
        pytest.param(tiff_tag(1, b"\0\0"), id="0"),
        pytest.param(tiff_tag(1, b"\x09\0"), id="9"),
        pytest.param(tiff_tag(1, b"\xff\xff"), id="65535"),
        pytest.param(tiff_tag(2, b"6\0", kind=2), id="text"),
        pytest.param(tiff_tag(2**32 - 1, b"\0\0\0\x7f", kind=12), id="four billion values"),
    ],
)
def test_damaged_exif_data_is_ignored(data: bytes, format: str) -> None:
    with_exif, without = encode(photo(), format, exif=data), encode(photo(), format)
    assert data.removeprefix(b"Exif\0\0") in with_exif
    np.testing.assert_array_equal(decode.decode_bytes(with_exif), decode.decode_bytes(without))


def test_no_corruption_of_exif_data_loses_the_picture() -> None:
    draw = random.Random(0)
    whole = exif(1)
    whole[ExifTags.Base.Make] = "maker"
    whole[ExifTags.Base.XResolution] = 72.0
    whole.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:01:01 00:00:00"
    tags = whole.tobytes()
    for _ in range(150):
        damaged = bytearray(tags)
        for _ in range(draw.randint(1, 8)):
            damaged[draw.randrange(6, len(tags))] = draw.randrange(256)
        decode.decode_bytes(encode(Image.new("RGB", (20, 30)), "JPEG", exif=bytes(damaged[: draw.randint(7, 200)])))


# Modes and formats


def test_black_and_white_is_preprocessed_as_its_grey_picture() -> None:
    image = photo().convert("1")
    expected = recipe.preprocess(image.convert("L"))
    np.testing.assert_array_equal(decode.decode_bytes(encode(image, "PNG")), expected)
    np.testing.assert_array_equal(decode.decode_bytes(encode(image, "TIFF", compression="group4")), expected)
    assert len(np.unique(expected)) > 100  # not nearest neighbour, which is all that Pillow does with mode 1


@pytest.mark.parametrize(
    ("format", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")], ids=["PNG", "TIFF II", "TIFF MM"]
)
def test_sixteen_bit_grey_is_scaled_and_not_clipped(format: str, dtype: str) -> None:
    grey = photo().convert("L")
    finer = np.random.default_rng(0).integers(-128, 129, (grey.height, grey.width))
    wide = (np.asarray(grey).astype(int) * 257 + finer).clip(0, 65535)
    data = encode(Image.fromarray(wide.astype(dtype)), format)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode.startswith("I;16")
    if format == "TIFF":
        assert data.startswith(b"MM" if dtype == ">u2" else b"II")
    assert difference(decode.decode_bytes(data), recipe.preprocess(grey)) < 1.01 * LEVEL


def test_sixteen_bit_colour_is_scaled_and_not_clipped() -> None:
    image = photo(64, 48)
    rows = np.asarray(image).astype(">u2") * 257
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines))
    got = decode.decode_bytes(data + png_chunk(b"IEND", b""))
    assert difference(got, recipe.preprocess(image)) < 1.01 * LEVEL


def stretched(grey: Image.Image) -> np.ndarray:
    """The picture's samples, with the darkest at 0 and the lightest at 255."""
    samples = np.asarray(grey).astype(np.float64)
    return (samples - samples.min()) * 255 / (samples.max() - samples.min())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda samples: (samples * 257).astype(np.int32), id="int, of 16 bits"),
        pytest.param(lambda samples: (samples * 8_000_000).astype(np.int32), id="int, wide"),
        pytest.param(lambda samples: (samples * 100 - 5000).astype(np.int32), id="int, negative"),
        pytest.param(lambda samples: (samples / 255).astype(np.float32), id="float, up to 1"),
        pytest.param(lambda samples: samples.astype(np.float32), id="float, up to 255"),
        pytest.param(lambda samples: (samples * 1e6 - 5e6).astype(np.float32), id="float, wide"),
    ],
)
def test_wide_samples_are_scaled_to_their_range(change: Callable[[np.ndarray], np.ndarray]) -> None:
    samples = stretched(photo().convert("L"))
    data = encode(Image.fromarray(change(samples)), "TIFF")
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode in ("I", "F")
    expected = recipe.preprocess(Image.fromarray(np.rint(samples).astype(np.uint8)))
    assert difference(decode.decode_bytes(data), expected) < 1.01 * LEVEL


@pytest.mark.parametrize("fraction", [0.25, 0.75])
def test_a_dark_float_picture_is_not_stretched(fraction: float) -> None:
    grey = Image.fromarray(np.full((30, 30), fraction, np.float32))
    expected = recipe.preprocess(Image.new("L", (30, 30), round(255 * fraction)))
    assert difference(decode.decode_bytes(encode(grey, "TIFF")), expected) < 1.01 * LEVEL


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_samples_that_are_no_numbers_are_an_error(value: float) -> None:
    samples = np.zeros((30, 30), np.float32)
    samples[3, 4] = value
    assert "not numbers" in refusal(encode(Image.fromarray(samples), "TIFF"))


@pytest.mark.parametrize("value", [0, 7, -7, 70_000], ids=str)
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_wide_samples_of_one_value_are_a_flat_picture(dtype: type, value: int) -> None:
    got = decode.decode_bytes(encode(Image.fromarray(np.full((30, 30), value, dtype)), "TIFF"))
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got, np.broadcast_to(got[:, :1, :1], got.shape))


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_are_looked_up(format: str) -> None:
    image = photo().quantize(64)
    data = encode(image, format)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "P"
    np.testing.assert_array_equal(decode.decode_bytes(data), recipe.preprocess(image.convert("RGB")))


def half_hidden(hidden: Any, mode: str, shown: Any) -> Image.Image:
    """A picture whose left half is `hidden` and whose right half is `shown`."""
    image = Image.new(mode, (64, 64), hidden)
    image.paste(shown, (32, 0, 64, 64))
    return image


RED_RIGHT = recipe.preprocess(half_hidden((255, 255, 255), "RGB", (200, 0, 0)))
GREY_RIGHT = recipe.preprocess(half_hidden((255, 255, 255), "RGB", (90, 90, 90)))


@pytest.mark.parametrize("hidden", [(0, 255, 0), (0, 0, 0), (17, 99, 250)], ids=str)
@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})],
    ids=["PNG", "TIFF", "WebP"],
)
def test_colours_under_transparent_pixels_do_not_show(
    hidden: tuple[int, ...], format: str, options: dict[str, Any]
) -> None:
    data = encode(half_hidden((*hidden, 0), "RGBA", (200, 0, 0, 255)), format, **options)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.getpixel((0, 0)) == (*hidden, 0)
    np.testing.assert_array_equal(decode.decode_bytes(data), RED_RIGHT)


@pytest.mark.parametrize("hidden", [0, 128, 255])
def test_grey_under_transparent_pixels_does_not_show(hidden: int) -> None:
    data = encode(half_hidden((hidden, 0), "LA", (90, 255)), "PNG")
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "LA"
    np.testing.assert_array_equal(decode.decode_bytes(data), GREY_RIGHT)


@pytest.mark.parametrize("alpha", [0, 64, 128, 255])
def test_alpha_is_composited_on_white(alpha: int) -> None:
    got = decode.decode_bytes(encode(Image.new("RGBA", (30, 30), (100, 0, 200, alpha)), "PNG"))
    mixed = tuple(round((colour * alpha + 255 * (255 - alpha)) / 255) for colour in (100, 0, 200))
    assert difference(got, recipe.preprocess(Image.new("RGB", (30, 30), mixed))) < 1.01 * LEVEL


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_the_transparent_colour_of_a_palette_becomes_white(format: str) -> None:
    image = half_hidden(0, "P", 1)
    image.putpalette([0, 255, 0, 200, 0, 0])
    data = encode(image, format, transparency=0)
    np.testing.assert_array_equal(decode.decode_bytes(data), RED_RIGHT)


def test_half_transparent_colours_of_a_palette_are_composited() -> None:
    image = half_hidden(0, "P", 1)
    image.putpalette([0, 255, 0, 200, 0, 0])
    data = encode(image, "PNG", transparency=b"\x80\xff")
    expected = recipe.preprocess(half_hidden((127, 255, 127), "RGB", (200, 0, 0)))
    assert difference(decode.decode_bytes(data), expected) < 1.01 * LEVEL


@pytest.mark.parametrize(
    ("mode", "hidden", "shown", "expected"),
    [
        ("RGB", (0, 255, 0), (200, 0, 0), RED_RIGHT),
        ("L", 7, 90, GREY_RIGHT),
        ("I;16", 7 * 257, 90 * 257, GREY_RIGHT),
    ],
    ids=["colour", "grey", "16-bit grey"],
)
def test_the_colour_that_a_png_declares_transparent_becomes_white(
    mode: str, hidden: object, shown: object, expected: np.ndarray
) -> None:
    data = encode(half_hidden(hidden, mode, shown), "PNG", transparency=hidden)
    assert b"tRNS" in data
    np.testing.assert_array_equal(decode.decode_bytes(data), expected)


def test_cmyk_jpeg_has_the_colours_of_its_original() -> None:
    data = encode(photo().convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == "CMYK"
    assert mean_difference(decode.decode_bytes(data), recipe.preprocess(photo())) < 0.1


@pytest.mark.parametrize("mode", ["L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_every_mode_gives_the_picture(mode: str) -> None:
    grey = photo().convert("L").convert("RGB")
    image = grey.convert(mode)
    assert image.mode == mode
    tolerance = 0.25 if mode.startswith("P") else 0.02  # Pillow's own palette is coarse
    assert mean_difference(recipe.preprocess(image), recipe.preprocess(grey)) < tolerance


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("BMP", {}, 0),
        ("PPM", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 0.1),
        ("JPEG", {"quality": 95}, 0.1),
        ("JPEG", {"quality": 95, "progressive": True}, 0.1),
        ("JPEG2000", {}, 0),
        pytest.param("AVIF", {"quality": 95}, 0.1, marks=needs_avif),
        ("QOI", {}, 0),
        ("PCX", {}, 0),
        ("SGI", {}, 0),
        ("DDS", {}, 0),
    ],
)
def test_every_format_gives_the_picture_whatever_its_name(
    tmp_path: Path, format: str, options: dict[str, Any], tolerance: float
) -> None:
    got = decode.load(write(tmp_path / "picture.txt", encode(photo(150, 110), format, **options)))
    assert mean_difference(got, recipe.preprocess(photo(150, 110))) <= tolerance


def test_icon_gives_its_picture() -> None:
    image = photo(128, 96)
    np.testing.assert_array_equal(
        decode.decode_bytes(encode(image, "ICO", sizes=[(128, 96)])), recipe.preprocess(image)
    )


def test_mac_icon_gives_its_largest_picture() -> None:
    image = photo(1024, 1024)
    np.testing.assert_array_equal(decode.decode_bytes(encode(image, "ICNS")), recipe.preprocess(image))


def test_photoshop_file_gives_its_flattened_picture() -> None:
    image = photo(60, 40)
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 40, 60, 8, 3)
    planes = b"".join(band.tobytes() for band in image.split())
    sections = bytes(3 * 4) + struct.pack(">H", 0)  # no palette, resources or layers; uncompressed
    np.testing.assert_array_equal(decode.decode_bytes(header + sections + planes), recipe.preprocess(image))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("MPO", {"quality": 95}),
        pytest.param("AVIF", {"quality": 95}, marks=needs_avif),
    ],
    ids=["GIF", "WebP", "APNG", "multi-page TIFF", "MPO", "AVIF"],
)
def test_the_first_frame_or_page_stands_for_the_file(format: str, options: dict[str, Any]) -> None:
    first, *others = (Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue"))
    data = encode(first, format, save_all=True, append_images=others, **options)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.format == format
        assert getattr(stored, "n_frames", 1) == 3
    assert difference(decode.decode_bytes(data), recipe.preprocess(first)) < 4 * LEVEL


@pytest.mark.parametrize(("size", "kind"), [((160, 120), 1), ((160, 120), 0), ((300, 224), 1)])
def test_a_tiff_that_begins_with_a_thumbnail_of_a_raw_photo_is_not_taken_for_the_photo(
    size: tuple[int, int], kind: int
) -> None:
    data = encode(photo(*size), "TIFF", tiffinfo={254: kind})
    if size[0] < 224 and kind:
        with pytest.raises(
            DecodeError, match=r"^its first page is a thumbnail of 160 × 120\. RAW photos are not read;"
        ):
            decode.decode_bytes(data)
    else:
        np.testing.assert_array_equal(decode.decode_bytes(data), recipe.preprocess(photo(*size)))


def isobmff(*brands: bytes) -> bytes:
    """The start of a HEIC or AVIF file: the major brand, then the compatible ones."""
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(box) + 4) + box


def heic(image: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95, **options)
    return stream.getvalue()


def test_heic_is_read_by_the_plugin() -> None:
    data = heic(photo())
    assert data[4:12] == b"ftypheic"
    assert mean_difference(decode.decode_bytes(data), recipe.preprocess(photo())) < 0.1


@pytest.mark.parametrize("orientation", STORED_AS)
def test_heic_is_turned_upright_once(orientation: int) -> None:
    data = heic(STORED_AS[orientation](photo()), exif=exif(orientation).tobytes())
    assert mean_difference(decode.decode_bytes(data), recipe.preprocess(photo())) < 0.1


def test_truncated_heic_is_an_error() -> None:
    data = heic(photo())
    refusal(data[: len(data) * 6 // 10])


@pytest.mark.parametrize("brands", [(b"heic",), (b"heix",), (b"hevc",), (b"mif1", b"mif1", b"heic"), (b"msf1",)])
def test_heic_without_the_plugin_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brands: tuple[bytes, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = write(tmp_path / "photo.jpg", isobmff(*brands) + bytes(100))
    with pytest.raises(DecodeError, match=r"hiera-cli\[heic\]"):
        decode.load(path)


@needs_avif
@pytest.mark.parametrize("plugin", [True, False], ids=["with pillow-heif", "without pillow-heif"])
def test_avif_under_the_brand_that_it_shares_with_heic_is_read(monkeypatch: pytest.MonkeyPatch, plugin: bool) -> None:
    if plugin:
        pytest.importorskip("pillow_heif")
    else:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = encode(photo(), "AVIF", quality=95)
    assert b"avif" in data[16:32]  # still among the compatible brands
    shared = data.replace(b"ftypavif", b"ftypmif1", 1)
    np.testing.assert_array_equal(decode.decode_bytes(shared), decode.decode_bytes(data))


def test_heic_plugin_is_imported_only_when_a_heic_is_met() -> None:
    code = (
        "import sys; from hiera_cli.images import decode; decode.suffixes(); decode.load(sys.argv[1]);"
        "print('pillow_heif' in sys.modules)"
    )
    jpeg = next(path for path in SAMPLES if path.suffix == ".jpg")
    done = subprocess.run([sys.executable, "-c", code, jpeg], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_suffixes_are_those_of_pictures() -> None:
    got = decode.suffixes()
    assert got >= {".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".mpo", ".jp2"}
    assert not got & {".eps", ".ps", ".pdf", ".svg", ".txt", ".tga", ".html", ".mp4", ".wmf", ""}
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in got)


# Sizes


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 3000), (3000, 1), (1, 16), (1, 17), (17, 1), (2, 5000), (65000, 1)], ids=str
)
def test_no_size_makes_a_large_resize(size: tuple[int, int], resizes: Resizes) -> None:
    got = decode.decode_bytes(encode(Image.new("RGB", size, "white"), "PNG"))
    assert resizes
    assert max(width * height for _, (width, height) in resizes) <= 256 * 256 * 16
    np.testing.assert_allclose(got, np.broadcast_to(np.array(WHITE)[:, None, None], got.shape), rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 16), (16, 1), (16, 256), (256, 16), (33, 528)], ids=str)
def test_up_to_a_ratio_of_sixteen_the_array_is_the_reference_exactly(size: tuple[int, int]) -> None:
    image = noise(*size)
    assert difference(recipe.preprocess(image), reference(image)) <= 1e-6


@pytest.mark.parametrize(
    "size",
    [(30, 900), (900, 30), (1, 100), (100, 1), (10, 161), (161, 10), (7, 120), (120, 7), (10001, 601), (601, 10001)],
    ids=str,
)
def test_extreme_ratios_give_the_crop_of_the_reference(size: tuple[int, int]) -> None:
    image = photo(*size)
    assert difference(recipe.preprocess(image), reference(image)) < 3 * LEVEL


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)], ids=str)
def test_an_extreme_ratio_shows_the_middle(size: tuple[int, int]) -> None:
    image = Image.new("L", size, 0)
    width, height = size
    image.paste(255, (width * 499 // 1000, height * 499 // 1000, -(-width * 501 // 1000), -(-height * 501 // 1000)))
    np.testing.assert_allclose(recipe.preprocess(image).mean((1, 2)), WHITE, rtol=1e-6)


# Large JPEGs


@pytest.mark.parametrize(
    ("size", "decoded", "tolerance"),
    [
        ((2048, 1536), (1024, 768), 0.02),
        ((1536, 2048), (768, 1024), 0.02),
        ((1024, 1024), (512, 512), 0.02),
        ((2048, 2048), (512, 512), 0.02),
        ((2047, 2047), (1024, 1024), 0.02),
        ((3001, 1025), (1501, 513), 0.03),  # half a pixel wider than it was
    ],
    ids=str,
)
def test_large_jpeg_is_decoded_at_a_reduced_scale(
    size: tuple[int, int], decoded: tuple[int, int], tolerance: float, resizes: Resizes
) -> None:
    data = encode(photo(*size), "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as whole:
        expected = recipe.preprocess(whole)
    assert resizes.pop()[0] == size
    resizes.clear()
    got = decode.decode_bytes(data)
    assert [before for before, _ in resizes] == [decoded]
    assert min(decoded) >= 512
    assert mean_difference(got, expected) < tolerance


@pytest.mark.parametrize("orientation", [3, 6])
def test_large_jpeg_is_turned_upright(orientation: int, resizes: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    image = photo(2048, 1536)
    data = encode(STORED_AS[orientation](image), "JPEG", quality=92, exif=exif(orientation))
    resizes.clear()
    got = decode.decode_bytes(data)
    assert [before for before, _ in resizes] == [(1024, 768)]
    assert mean_difference(got, recipe.preprocess(image)) < 0.05


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_large_grey_and_cmyk_jpegs_are_decoded_at_a_reduced_scale(mode: str, resizes: Resizes) -> None:
    data = encode(photo(1200, 1100).convert(mode), "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as whole:
        expected = recipe.preprocess(whole)
    resizes.clear()
    got = decode.decode_bytes(data)
    assert [before for before, _ in resizes] == [(600, 550)]
    assert mean_difference(got, expected) < 0.02


@pytest.mark.parametrize("size", [(1000, 1000), (3000, 1000), (1023, 1400)], ids=str)
def test_jpeg_that_is_not_large_is_decoded_in_full(size: tuple[int, int]) -> None:
    data = encode(photo(*size), "JPEG")
    with Image.open(io.BytesIO(data)) as whole:
        expected = recipe.preprocess(whole)
    np.testing.assert_array_equal(decode.decode_bytes(data), expected)


def test_full_decode_gives_the_reference_on_large_jpegs_too(tmp_path: Path) -> None:
    data = encode(photo(2048, 1536), "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        expected = reference(image)
    assert difference(decode.decode_bytes(data, Decoding(full=True)), expected) <= 1e-6
    assert difference(decode.decode_bytes(data), expected) > 0.01
    path = write(tmp_path / "large.jpg", data)
    seen: list[np.ndarray] = []
    classifier = stand_in(
        SimpleNamespace(batch_size=1, in_flight=1, takes_crops=False, precision="fp32", submit=submits(seen))
    )
    [result] = classifier.classify([path], full_decode=True)
    assert result.error is None
    assert difference(seen[0], expected) <= 1e-6
    [result] = classifier.classify([path], max_pixels=2048 * 1536 - 1)
    assert result.error is not None
    assert result.error.type == "TooLargeError"


def submits(seen: list[np.ndarray]) -> Callable[[list[np.ndarray]], Callable[[], np.ndarray]]:
    """An engine's `submit` that keeps what it is given."""

    def submit(pixels: list[np.ndarray]) -> Callable[[], np.ndarray]:
        seen.extend(pixels)
        return lambda: np.zeros((len(pixels), 10), np.float32)

    return submit


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], (178_956_970, False)), (["--full-decode"], (178_956_970, True)), (["--max-pixels", "9"], (9, False))],
    ids=str,
)
def test_the_command_line_says_how_images_are_decoded(
    arguments: list[str], expected: tuple[int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []

    def run_of(
        request: object, output: object, task: object, options: Options, load: object, **more: object
    ) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(run=lambda: 0)

    monkeypatch.setattr(run, "Run", run_of)
    assert CliRunner().invoke(app, ["classify", "cat.jpg", *arguments]).exit_code == 0
    decoding = asked[0].decoding
    assert (decoding.max_pixels, decoding.full) == expected


# Memory


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "I;16", "F"]
)
def test_band_by_band_the_array_is_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode in ("I;16", "F"):
        image = Image.fromarray(
            (np.asarray(photo().convert("L")) * 3.7).astype(np.uint16 if mode == "I;16" else np.float32)
        )
    elif mode == "RGBa":
        image = noise(301, 237).convert("RGBA").convert(mode)
    else:
        image = noise(301, 237).convert(mode)
    assert image.mode == mode
    if mode in ("PA", "LA", "RGBA"):
        image.putalpha(noise(301, 237).convert("L"))
    expected = recipe.preprocess(image)
    monkeypatch.setattr(recipe, "BAND", 3 * 301)
    np.testing.assert_array_equal(recipe.preprocess(image), expected)


PEAK = """
import re, sys
from pathlib import Path
from hiera_cli.images import bounds, decode, recipe

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

decode.load(sys.argv[1])
before = peak()
decode.load(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc here")
@pytest.mark.parametrize(
    ("mode", "colour", "options", "bytes_a_pixel"),
    [
        ("RGB", "red", {}, 5),
        ("RGBA", "red", {}, 9.5),
        ("I;16", 300, {}, 5),
        ("P", 1, {"transparency": 0}, 6.5),
        ("L", 9, {}, 2),
    ],
    ids=["RGB", "RGBA", "16-bit grey", "palette, transparent", "grey"],
)
def test_a_picture_takes_no_more_memory_than_itself_and_its_result(
    tmp_path: Path, mode: str, colour: Any, options: dict[str, Any], bytes_a_pixel: float
) -> None:
    side = 4000
    small = write(tmp_path / "small.png", encode(Image.new(mode, (300, 300), colour), "PNG", **options))
    large = write(tmp_path / "large.png", encode(Image.new(mode, (side, side), colour), "PNG", **options))
    done = subprocess.run([sys.executable, "-c", PEAK, small, large], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert int(done.stdout) * 1024 / side**2 < bytes_a_pixel


def entered(room: Room, need: int, until: threading.Event) -> threading.Event:
    """An event that is set when a thread has got so much room. It keeps it until the other event."""
    inside = threading.Event()

    def hold() -> None:
        with room.hold(need):
            inside.set()
            until.wait(5)

    threading.Thread(target=hold, daemon=True).start()
    return inside


def test_pictures_wait_until_there_is_room_for_them() -> None:
    room, done = Room(100), threading.Event()
    with room.hold(60):
        assert entered(room, 40, done).wait(5)
        second = entered(room, 60, done)
        assert not second.wait(0.05)
        done.set()
    assert second.wait(5)


def test_a_picture_larger_than_the_room_is_decoded_alone() -> None:
    room, done = Room(100), threading.Event()
    done.set()
    with room.hold(1):
        large = entered(room, 500, done)
        assert not large.wait(0.05)
    assert large.wait(5)
    with room.hold(500):
        small = entered(room, 1, done)
        assert not small.wait(0.05)
    assert small.wait(5)


def test_small_pictures_do_not_pass_a_large_one_that_waits() -> None:
    room, done = Room(100), threading.Event()
    with room.hold(60):
        large = entered(room, 60, done)
        give_up = time.monotonic() + 5
        while not room._turn.locked() and time.monotonic() < give_up:
            time.sleep(0.001)
        small = entered(room, 10, done)
        assert not small.wait(0.05)
        assert not large.is_set()
    assert large.wait(5)
    assert small.wait(5)
    done.set()


def test_room_is_given_back_by_a_picture_that_fails() -> None:
    room = Room(100)
    for _ in range(3):
        with pytest.raises(DecodeError):
            decode.decode_bytes(encode(photo(), "PNG")[:5000], Decoding(room=room))
    with room.hold(100):
        pass


def test_the_threads_of_a_run_share_one_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Image.Image] = []
    crop = recipe.crop
    lock = threading.Lock()

    def counted(image: Image.Image) -> np.ndarray:
        assert lock.acquire(blocking=False), "two at once"
        decoded.append(image)
        try:
            return crop(image)
        finally:
            lock.release()

    monkeypatch.setattr(decode, "crop", counted)
    paths = [write(tmp_path / f"{number}.png", encode(photo(), "PNG")) for number in range(12)]
    options = Options(workers=4, decoding=Decoding(room=Room(1)))
    results = list(Stream(map(Source, paths), lambda: stand_in(Brightness()), Classify(), options))
    assert [result.path for result in results] == paths
    assert len(decoded) == 12


OURS = [(decode, name) for name in ("check_pieces", "orientation", "turned", "flat", "crop", "normalised", "_need")]


@pytest.mark.parametrize(
    ("module", "name"), [*OURS, (recipe, "_in_mode"), (recipe, "_range")], ids=lambda each: str(each)
)
def test_a_fault_of_ours_is_not_called_damage(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr(module, name, faulty)
    image = Image.fromarray(np.full((30, 20), 70_000, np.int32)) if name == "_range" else photo(30, 20).convert("RGBA")
    with pytest.raises(ValueError, match="ours"):
        decode.decode_bytes(encode(image, "TIFF"))
    if name not in ("check_pieces", "_need"):
        with pytest.raises(ValueError, match="ours"):
            decode.decode_image(image)


def test_a_fault_of_ours_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(image: Image.Image) -> np.ndarray:
        raise ValueError("ours")

    monkeypatch.setattr(decode, "flat", faulty)
    path = write(tmp_path / "a.png", encode(photo(), "PNG"))
    with pytest.raises(ValueError, match="ours"):
        list(Stream([Source(path)], lambda: stand_in(Brightness()), Classify()))


def test_colours_that_pillow_can_not_convert_are_an_error_of_the_file() -> None:
    image = Image.new("P", (30, 20))
    image.info["transparency"] = bytes(300)  # more than a palette has colours
    with pytest.raises(DecodeError, match=r"its colours \(P\) can't be converted"):
        decode.decode_image(image)


@pytest.mark.parametrize(
    "data",
    [b"P6 0 5 255\n", b"GIF89a" + bytes(7) + b",\0\0\0\0\0\0\0\0\0\2\0;", b"qoif" + bytes(4) + b"\0\0\0\1\3\0"],
    ids=["PPM", "GIF", "QOI"],
)
def test_a_picture_without_pixels_is_an_error(data: bytes) -> None:
    refusal(data)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)], ids=str)
def test_an_image_in_memory_without_pixels_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(DecodeError, match="it has no pixels"):
        decode.decode_image(Image.new("RGB", size))


# Errors: what is there and is no picture

TRUNCATED = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("GIF", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}),
    ("BMP", {}),
    ("JPEG2000", {}),
    ("PPM", {}),
    ("QOI", {}),
    ("ICO", {}),
    ("ICO", {"bitmap_format": "bmp"}),
    ("DDS", {}),
    ("PCX", {}),
    ("SGI", {}),
    ("SGI", {"rle": True}),
    ("MPO", {}),
    pytest.param("AVIF", {}, marks=needs_avif),
]


@pytest.mark.parametrize(("format", "options"), TRUNCATED)
@pytest.mark.parametrize("fraction", [0.6, 0.9])
def test_truncated_image_is_an_error(tmp_path: Path, fraction: float, format: str, options: dict[str, Any]) -> None:
    data = encode(photo(), format, **options)
    assert decode.decode_bytes(data).shape == (3, 224, 224)
    with pytest.raises(DecodeError):
        decode.load(write(tmp_path / "half", data[: int(fraction * len(data))]))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_truncated_image_is_called_damaged_or_truncated(format: str) -> None:
    data = encode(photo(), format)
    assert refusal(data[: len(data) * 6 // 10]).startswith("damaged or truncated image: ")


def test_truncated_large_jpeg_is_an_error_at_a_reduced_scale_too() -> None:
    data = encode(photo(2048, 1536), "JPEG")
    refusal(data[: len(data) * 6 // 10])


def old_style_jpeg_tiff(image: Image.Image) -> tuple[bytes, int]:
    """A TIFF of compression 6 by hand, as no library writes it any more, and where its JPEG begins."""
    data = encode(image, "JPEG", subsampling="4:2:0")
    count = 13
    samples = 8 + 2 + 12 * count + 4
    start = samples + 6
    tags = [
        *((256, 3, 1, image.width), (257, 3, 1, image.height), (258, 3, 3, samples), (259, 3, 1, 6), (262, 3, 1, 6)),
        *((273, 4, 1, start), (277, 3, 1, 3), (278, 3, 1, image.height), (279, 4, 1, len(data)), (284, 3, 1, 1)),
        *((513, 4, 1, start), (514, 4, 1, len(data)), (530, 3, 2, 2 | 2 << 16)),
    ]
    directory = struct.pack("<H", count) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<3H", 8, 8, 8) + data, start


def test_a_cut_tiff_of_the_old_style_of_jpeg_is_an_error() -> None:
    data, start = old_style_jpeg_tiff(photo())
    assert mean_difference(decode.decode_bytes(data), decode.decode_bytes(data[start:])) < 0.05
    for tenths in range(1, 10):
        cut = start + (len(data) - start) * tenths // 10
        assert refusal(data[:cut]) == "damaged or truncated image: its data reach beyond the end of the file"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "ICO", "PSD", "DDS"])
def test_a_signature_alone_is_an_error(format: str) -> None:
    image = Image.new("RGB", (32, 32))
    data = b"8BPS\0\x01" + bytes(20) if format == "PSD" else encode(image, format)
    for length in (4, 8, 12, 20):
        refusal(data[:length])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO"])
def test_corrupt_bytes_give_an_array_or_an_input_error(format: str) -> None:
    draw = random.Random(1)
    whole = encode(photo(32, 24), format)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 20)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            message, got = "", decode.decode_bytes(bytes(data))
        except InputError as error:
            message = error.message
        else:
            assert got.shape == (3, 224, 224)
        assert len(message) < 300
        assert "\n" not in message


def test_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="empty"):
        decode.load(write(tmp_path / "empty.jpg", b""))
    with pytest.raises(DecodeError):
        decode.decode_bytes(b"")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"This is a shopping list: milk, bread.\n", "not an image"),
        (b"\x00\x01\x02" * 100, "not an image"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML"),
        (b"\n\n  <html><head></head></html>", "HTML"),
        (b"<HTML>", "HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9"/>', "SVG"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "PDF"),
    ],
)
def test_what_is_no_image_is_named_in_the_message(tmp_path: Path, data: bytes, named: str) -> None:
    with pytest.raises(DecodeError, match=named) as caught:
        decode.load(write(tmp_path / "picture.jpg", data))
    assert "damaged" not in caught.value.message


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill showpage\n%%Trailer\n%%EOF\n"
)


@pytest.mark.parametrize("name", ["picture.jpg", "picture.eps", "picture.ps"])
@pytest.mark.parametrize("made", ["by hand", "by Pillow", "with a DOS header"])
def test_postscript_is_never_handed_to_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, name: str
) -> None:
    data = POSTSCRIPT if made != "by Pillow" else encode(photo(30, 20), "EPS")
    if made == "with a DOS header":
        data = b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, len(data), 0, 0, 0, 0, 0xFFFF) + data
    path = write(tmp_path / name, data)
    with Image.open(path) as picture:
        assert picture.format == "EPS"  # Pillow would
    started: list[str] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: started.append("gs"))
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: started.append("process"))
    with pytest.raises(DecodeError):
        decode.load(path)
    assert started == []


def test_tga_is_not_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "picture.tga", encode(photo(30, 20), "TGA"))
    with Image.open(path) as picture:
        assert picture.format == "TGA"  # Pillow would, and takes other files' bytes for it
    with pytest.raises(DecodeError, match="not an image"):
        decode.load(path)


# Errors: too large


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decoded.append)
    with pytest.raises(TooLargeError) as caught:
        decode.load(write(tmp_path / "bomb.png", bomb(30_000, 30_000)))
    assert decoded == []
    assert caught.value.message == "its 900,000,000 pixels are over the limit of 178,956,970"
    assert caught.value.remedy == "max_pixels"


@pytest.mark.parametrize("side", [1, 3, 100, 101, 300, 301])
def test_the_limit_is_the_largest_number_of_pixels_that_is_read(side: int) -> None:
    data = encode(Image.new("RGB", (side, side)), "PNG")
    assert decode.decode_bytes(data, Decoding(max_pixels=side * side)).shape == (3, 224, 224)
    if side > 1:
        message = refusal(data, TooLargeError, Decoding(max_pixels=side * side - 1))
        assert message == f"its {side * side:,} pixels are over the limit of {side * side - 1:,}"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "ICO", "JPEG2000", "MPO"])
def test_each_decoding_has_its_own_limit(format: str) -> None:
    data = encode(photo(200, 100), format, **({"sizes": [(200, 100)]} if format == "ICO" else {}))
    assert decode.decode_bytes(data, Decoding(max_pixels=60_000)).shape == (3, 224, 224)
    refusal(data, TooLargeError, Decoding(max_pixels=15_000))
    assert decode.decode_bytes(data, Decoding(max_pixels=60_000)).shape == (3, 224, 224)


def icon(data: bytes) -> bytes:
    """A Windows icon of 16 × 16, says its directory."""
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 1, len(data), 22) + data


def mac_icon(data: bytes) -> bytes:
    """A Mac icon of 16 × 16, says its directory."""
    return b"icns" + struct.pack(">I", len(data) + 16) + b"icp4" + struct.pack(">I", len(data) + 8) + data


def bitmap(width: int, height: int) -> bytes:
    """The inside of an icon that holds a bitmap: black and white, and the mask below it."""
    rows = -(-width // 32) * 4 * height
    return struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, 1, 0, 2 * rows, 0, 0, 2, 0) + bytes(8 + 2 * rows)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: icon(encode(photo(160, 100), "PNG")), id="PNG in ICO"),
        pytest.param(lambda: icon(bitmap(160, 100)), id="bitmap in ICO"),
        pytest.param(lambda: mac_icon(encode(photo(160, 100), "PNG")), id="PNG in ICNS"),
        pytest.param(lambda: mac_icon(encode(photo(160, 100), "JPEG2000")), id="JPEG 2000 in ICNS"),
    ],
)
def test_the_picture_inside_an_icon_is_held_against_the_limit_before_it_is_decoded(
    data: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decode.decode_bytes(data()).shape == (3, 224, 224)
    assert decode.decode_bytes(data(), Decoding(max_pixels=16_000)).shape == (3, 224, 224)
    decoded: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    message = refusal(data(), TooLargeError, Decoding(max_pixels=15_999))
    assert message == "its 16,000 pixels are over the limit of 15,999"
    assert decoded == []


def test_a_picture_inside_an_icon_is_read_as_if_it_stood_alone() -> None:
    data = encode(half_hidden(0, "P", 1), "PNG", transparency=0)
    np.testing.assert_array_equal(decode.decode_bytes(icon(data)), decode.decode_bytes(data))


@pytest.mark.parametrize("pillows", [None, 100, 1 << 30], ids=str)
def test_pillows_own_limit_neither_counts_nor_changes(pillows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    data = encode(photo(30, 20), "PNG")
    assert decode.decode_bytes(data, Decoding(max_pixels=600)).shape == (3, 224, 224)
    refusal(data, TooLargeError, Decoding(max_pixels=599))
    assert decode.decode_bytes(data, Decoding(max_pixels=400_000_001)).shape == (3, 224, 224)
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_a_higher_limit_holds_for_images_larger_than_pillow_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: None)  # so many pixels take too long
    monkeypatch.setattr(decode, "flat", lambda image: photo())
    data = bomb(20_000, 10_000)
    assert decode.decode_bytes(data, Decoding(max_pixels=200_000_000)).shape == (3, 224, 224)
    message = refusal(data, TooLargeError, Decoding(max_pixels=199_999_999))
    assert message == "its 200,000,000 pixels are over the limit of 199,999,999"
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_pillows_remarks_do_not_reach_a_python_user(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    with pytest.raises(DecodeError):
        decode.decode_bytes(bomb(11_000, 11_000))  # over what Pillow warns from
    decode.decode_bytes(encode(photo(), "JPEG", exif=tiff_tag(2**32 - 1, b"\0\0\0\x7f", kind=12)))
    assert [str(warning.message) for warning in recwarn] == []


# Errors: too much work


def test_a_file_of_a_terabyte_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "sparse.jpg", encode(photo(), "JPEG"))
    os.truncate(path, 1 << 40)
    error = in_time(path)
    assert isinstance(error, TooLargeError)
    assert error.message == "its 1,099,511,627,776 bytes are over the limit of 2,147,483,648"


def test_a_jpeg_of_more_bytes_than_its_pixels_can_need_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "sparse.jpg", encode(photo(), "JPEG"))
    os.truncate(path, 1 << 30)
    error = in_time(path)
    assert isinstance(error, TooLargeError)
    assert error.message == "its 1,073,741,824 bytes are over the limit of 536,870,910"


def test_a_higher_limit_on_pixels_takes_larger_files() -> None:
    assert Decoding(max_pixels=1).max_bytes == 2 << 30
    assert Decoding(max_pixels=1_000_000_000).max_bytes == 12_000_000_000


def of_pieces(format: str) -> bytes:
    """A small picture behind some thousand pieces of metadata, each of which its decoder takes in by itself."""
    if format == "PNG":
        data = encode(photo(30, 20), "PNG")
        return data[:33] + png_chunk(b"tEXt", b"a\0b") * 1000 + data[33:]
    if format == "GIF":
        data = encode(photo(30, 20), "GIF")
        start = 13 + 3 * 256  # after the header and its palette
        return data[:start] + b"!\xfe" + b"\1a" * 1000 + b"\0" + data[start:]
    if format == "PPM":
        return b"P6\n#" + b"a" * 2000 + b"\n30 20 255\n" + photo(30, 20).tobytes()
    return encode(noise(40, 30), "QOI")


@pytest.mark.parametrize("format", ["PNG", "GIF", "PPM", "QOI"])
def test_a_file_that_falls_into_endless_pieces_is_refused(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = of_pieces(format)
    assert decode.decode_bytes(data).shape == (3, 224, 224)
    monkeypatch.setattr(bounds, "MAX_READS", 1000)
    assert refusal(data, TooLargeError) == "it falls into more than 1,000 pieces, and is not decoded"


def test_a_png_of_endless_colour_profiles_is_refused() -> None:
    data = encode(photo(30, 20), "PNG", icc_profile=b"x" * 100_000)
    start = data.index(b"iCCP") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    assert decode.decode_bytes(data).shape == (3, 224, 224)
    many = data[:start] + data[start:end] * 17 + data[end:]
    expected = "a PNG of more than 16 colour profiles is not decoded"
    assert refusal(many, TooLargeError) == expected
    assert refusal(icon(many), TooLargeError) == expected


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("tile", [False, True], ids=["strips", "tiles"])
def test_a_tiff_of_endless_pieces_is_refused(big: bool, tile: bool) -> None:
    count, tag = 1_000_001, 324 if tile else 273
    if big:
        data = b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 1) + struct.pack(">HHQQ", tag, 4, count, 0)
    else:
        data = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", tag, 4, count, 0)
    assert refusal(data, TooLargeError) == "a TIFF of more than 1,000,000 strips or tiles is not decoded"


def test_a_plain_ppm_of_endless_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"P2\n30 20\n255\n" + b"90 " * 600
    assert decode.decode_bytes(data).shape == (3, 224, 224)
    monkeypatch.setattr(bounds, "MAX_PLAIN_BYTES", 1000)
    assert refusal(data, TooLargeError) == "a PPM as text of more than 1,000 bytes is not decoded"


def test_a_picture_that_does_not_fit_in_memory_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert "memory" in refusal(encode(photo(30, 20), "PNG"), TooLargeError)


# Errors: what can't be read


def in_time(path: str) -> BaseException:
    """What `load` raises, at once. Only a broken `load` would block, so the thread is left to itself."""
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            decode.load(path)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it blocks"
    assert raised, "it takes this for an image"
    return raised[0]


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "file", b"x")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    for name in ("nothing.jpg", "file/below.jpg", "no folder/cat.jpg", "dangling.jpg"):
        with pytest.raises(NotFoundError):
            decode.load(str(tmp_path / name))
    with pytest.raises(NotFoundError):
        decode.load("")


def test_a_folder_is_not_read(tmp_path: Path) -> None:
    error = in_time(str(tmp_path))
    assert isinstance(error, ReadError)
    assert "folder" in error.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe.jpg")
    os.mkfifo(path)
    error = in_time(path)
    assert isinstance(error, ReadError)
    assert "pipe" in error.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_file_that_becomes_a_named_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = str(tmp_path / "pipe.jpg")
    os.mkfifo(pipe)
    status = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: status(SAMPLES[0] if path == pipe else path, **more))
    error = in_time(pipe)
    assert isinstance(error, ReadError)
    assert error.message == "a named pipe, not a file"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_socket_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is 100 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        error = in_time("socket.jpg")
    assert isinstance(error, ReadError)
    assert "socket" in error.message


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_not_read(path: str) -> None:
    if not (os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode)):
        pytest.skip("no such device here")
    error = in_time(path)
    assert isinstance(error, ReadError)
    assert "device" in error.message


def test_a_file_of_the_kernel_is_an_input_error() -> None:
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    assert isinstance(in_time("/proc/self/status"), InputError)


def test_a_path_with_a_nul_is_an_input_error() -> None:
    assert isinstance(in_time("cat\0.jpg"), InputError)


def test_a_name_that_is_too_long_is_an_input_error(tmp_path: Path) -> None:
    assert isinstance(in_time(str(tmp_path / ("x" * 5000))), InputError)


def test_a_link_to_itself_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert isinstance(in_time(str(tmp_path / "loop.jpg")), InputError)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_read_error(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.jpg", encode(photo(30, 20), "JPEG"))
    os.chmod(path, 0)
    with pytest.raises(ReadError, match="Permission denied"):
        decode.load(path)


def test_a_link_and_a_strange_name_are_followed(tmp_path: Path) -> None:
    target = tmp_path / "a 'b' [c] \n ü.png"
    data = encode(photo(), "PNG")
    target.write_bytes(data)
    (tmp_path / "link").symlink_to(target)
    for path in (target, tmp_path / "link"):
        np.testing.assert_array_equal(decode.load(str(path)), decode.decode_bytes(data))
