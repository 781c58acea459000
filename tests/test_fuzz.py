"""No file, however broken, ends a run: thousands of damaged and made-up files, one record each."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_classifier import Brightness, stand_in

from hiera_cli.errors import InputError
from hiera_cli.images import decode
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.stream import Stream
from hiera_cli.tasks.classify import Classify

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "ICO",
    "ICNS",
    "DDS",
    "PCX",
    "SGI",
    "QOI",
)
CASES = 5200


def originals() -> list[bytes]:
    """One small picture in every format and several modes."""
    Image.init()
    with Image.open(SAMPLES / "cat.jpg") as photo:
        picture = photo.convert("RGB").resize((48, 40))
    made = []
    for name in FORMATS:
        for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"):
            stream = io.BytesIO()
            try:
                (picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)).save(stream, name)
            except (OSError, ValueError, KeyError):  # this format has no such mode, or this Pillow does not write it
                continue
            made.append(stream.getvalue())
    stream = io.BytesIO()
    picture.save(
        stream,
        "JPEG",
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
        progressive=True,
    )
    return [*made, stream.getvalue()]


def damaged(data: bytes, other: bytes, choice: random.Random) -> bytes:
    """One of the ways in which files break."""
    broken = bytearray(data)
    way = choice.randrange(6)
    if way == 0:  # bits flipped, most of them in the header
        for _ in range(choice.randint(1, 12)):
            broken[choice.randrange(min(len(broken), choice.choice((40, 400, len(broken)))))] ^= 1 << choice.randrange(
                8
            )
    elif way == 1:  # cut
        del broken[choice.randrange(len(broken)) :]
    elif way == 2:  # spliced with another format
        broken = bytearray(data[: choice.randrange(len(data))] + other[choice.randrange(len(other)) :])
    elif way == 3:  # a run of bytes overwritten
        start = choice.randrange(len(broken))
        broken[start : start + 8] = choice.choice((b"\0" * 8, b"\xff" * 8, choice.randbytes(8)))
    elif way == 4:  # a piece left out or doubled
        start = choice.randrange(len(broken))
        broken[start : start + choice.randrange(64)] = broken[start : start + 32] * choice.randrange(3)
    else:  # another format's signature
        broken[:16] = other[:16]
    return bytes(broken)


@pytest.mark.slow
def test_five_thousand_broken_files_give_one_record_each(tmp_path: Path) -> None:
    choice = random.Random(0)
    whole = originals()
    assert len(whole) > 30
    paths = []
    for number in range(CASES):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(damaged(choice.choice(whole), choice.choice(whole), choice))
        paths.append(str(path))
    results = list(Stream(map(Source, paths), lambda: stand_in(Brightness(32)), Classify(1)))
    assert [result.path for result in results] == paths
    outcomes = {result.error.type if result.error else "ok" for result in results}
    assert outcomes <= {"ok", "DecodeError", "TooLargeError"}
    assert {"ok", "DecodeError"} <= outcomes
    messages = [result.error.message for result in results if result.error]
    assert all(0 < len(message) < 300 and "\n" not in message for message in messages)


def test_whole_files_of_every_format_are_read() -> None:
    for data in originals():
        pixels = decode.decode_bytes(data)
        assert pixels.shape == (3, 224, 224)
        assert np.isfinite(pixels).all()


SIGNATURES = [
    *(b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP", b"BM", b"II*\0", b"MM\0*", b"8BPS\0\1"),
    *(b"\0\0\0\x20ftypavif", b"\0\0\0\x20ftypheic", b"P6 9 9 255\n", b"qoif", b"\x01\xda", b"\0\0\1\0\1\0"),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(start=st.sampled_from(SIGNATURES), rest=st.binary(max_size=300))
def test_made_up_bytes_are_an_image_or_an_error(start: bytes, rest: bytes) -> None:
    try:
        pixels = decode.decode_bytes(start + rest)
    except InputError:
        return
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.float32
