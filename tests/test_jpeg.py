"""JPEGs: the same pixels as Pillow's, and damage that libjpeg only warns of is an error."""

from __future__ import annotations

import io
import itertools
import re
import struct
import sys
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from test_images import encode, photo, refusal

from hiera_cli.errors import DecodeError, TooLargeError
from hiera_cli.images import decode, jpeg, recipe

END = b"\xff\xd9"
SCAN = re.compile(rb"\xff\xda")

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"RGB, {sampling}": ("RGB", {"subsampling": sampling}) for sampling in ("4:4:4", "4:2:2", "4:2:0")},
    "RGB, without a transform": ("RGB", {"keep_rgb": True}),
    **{f"{mode}, progressive": (mode, {"progressive": True}) for mode in ("RGB", "L", "CMYK")},
    **{f"{mode}, restart markers": (mode, {"restart_marker_blocks": 3}) for mode in ("RGB", "L", "CMYK")},
}


def by_pillow(data: bytes, scale: int) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if scale > 1:
        image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
    return image


SIZES = [(1, 1), (7, 9), (16, 16), (33, 17), (301, 237)]
SCALES = [1, 2, 4, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_pillows_bit_for_bit(kind: str) -> None:
    mode, options = KINDS[kind]
    for size, scale in itertools.product(SIZES, SCALES):
        data = encode(photo(*size).convert(mode), "JPEG", quality=90, **options)
        same_as_pillows(data, scale)


@pytest.mark.parametrize("sampling", ["440", "411"])
def test_the_pixels_of_rarer_samplings_are_pillows_bit_for_bit(sampling: str) -> None:
    for size, scale in itertools.product(SIZES, SCALES):
        pixels = np.array(photo(*size))
        same_as_pillows(simplejpeg.encode_jpeg(pixels, colorsubsampling=sampling), scale)


def same_as_pillows(data: bytes, scale: int) -> None:
    expected = by_pillow(data, scale)
    got = jpeg.pixels(data, expected.mode, expected.size)
    assert got is not None
    assert got.mode == expected.mode
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_the_pixels_outlive_the_decoders_array() -> None:
    data = encode(photo(), "JPEG")
    kept = [jpeg.pixels(data, "RGB", photo().size) for _ in range(50)]
    expected = np.asarray(by_pillow(data, 1))
    for image in kept:
        assert image is not None
        np.testing.assert_array_equal(np.asarray(image), expected)
        np.testing.assert_array_equal(np.asarray(image.transpose(Image.Transpose.ROTATE_90)), np.rot90(expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
def test_a_cut_jpeg_with_an_end_is_an_error(options: dict[str, Any], mode: str) -> None:
    data = encode(photo(128, 96).convert(mode), "JPEG", **options)
    start = SCAN.search(data).end()  # type: ignore[union-attr]
    for cut in np.linspace(start + 20, len(data) - 12, 12).astype(int):
        assert refusal(data[:cut] + END).startswith("damaged or truncated image: ")


def test_a_cut_large_jpeg_with_an_end_is_an_error_at_a_reduced_scale_too() -> None:
    data = encode(photo(1100, 1050), "JPEG")
    assert "premature end" in refusal(data[: len(data) // 2] + END)


def test_a_progressive_jpeg_cut_between_two_scans_is_an_error() -> None:
    data = encode(photo(128, 96), "JPEG", progressive=True)
    _, *scans = (found.start() for found in SCAN.finditer(data))
    assert len(scans) == 9
    for start in scans:
        tables = data.rfind(b"\xff\xc4", 0, start)  # this scan's Huffman tables stand before it
        for cut in {start, tables}:
            assert refusal(data[:cut] + END) == "damaged or truncated image: scans of the JPEG are missing"


def separate_scans(image: Image.Image) -> bytes:
    """A sequential JPEG with a scan for each component: three grey ones, made into one."""
    parts = [encode(band, "JPEG") for band in image.convert("YCbCr").split()]
    head, frame = parts[0][: parts[0].index(b"\xff\xc0")], parts[0][parts[0].index(b"\xff\xc0") :]
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    sof = frame[:2] + struct.pack(">H", 17) + frame[4:9] + b"\x03" + components
    scans = []
    for number, part in enumerate(parts, start=1):
        scan = part[SCAN.search(part).start() : -2]  # type: ignore[union-attr]
        scans.append(scan[:5] + bytes([number]) + scan[6:])
    tables = frame[len(frame[:2]) + 11 : SCAN.search(frame).start()]  # type: ignore[union-attr]
    return head + sof + tables + b"".join(scans) + END


def test_a_sequential_jpeg_of_several_scans_needs_each_of_them() -> None:
    data = separate_scans(photo(128, 96))
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode.decode_bytes(data), recipe.preprocess(image))
    last = [found.start() for found in SCAN.finditer(data)][-1]
    assert refusal(data[:last] + END) == "damaged or truncated image: scans of the JPEG are missing"


def test_what_the_decoder_warns_of_without_need_loses_no_picture() -> None:
    data = encode(photo(), "JPEG")
    unknown_version = data.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1)
    extraneous_bytes = data[:-2] + b"\0\1\2\3" + END
    for odd in (unknown_version, extraneous_bytes):
        assert jpeg.pixels(odd, "RGB", photo().size) is None
        np.testing.assert_array_equal(decode.decode_bytes(odd), decode.decode_bytes(data))


def test_without_simplejpeg_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo(), "JPEG")
    expected = decode.decode_bytes(data)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert jpeg.pixels(data, "RGB", photo().size) is None
    np.testing.assert_array_equal(decode.decode_bytes(data), expected)
    refusal(data[: len(data) // 2])


def progressive(scans: int) -> bytes:
    """A progressive JPEG with so many more scans, each a repetition of its last one."""
    data = encode(Image.new("L", (16, 16), 90), "JPEG", progressive=True)
    last = [found.start() for found in SCAN.finditer(data)][-1]
    return data[:-2] + data[last:-2] * scans + END


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    assert decode.decode_bytes(progressive(100)).shape == (3, 224, 224)
    message = refusal(progressive(10_000), TooLargeError)
    assert message == "a JPEG of more than 500 scans of its size is not decoded"


def test_the_larger_a_jpeg_the_fewer_scans_it_may_have() -> None:
    data = bytearray(progressive(200))
    frame = data.index(b"\xff\xc2") + 5
    data[frame : frame + 4] = struct.pack(">HH", 13_000, 13_000)
    with pytest.raises(TooLargeError, match="more than 71 scans"):
        jpeg.check_scans(bytes(data))


def test_a_jpeg_of_endless_segments_is_refused() -> None:
    assert "segments" in refusal(b"\xff\xd8" + b"\xff\xfe\0\2" * 200_000, TooLargeError)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\0", b"\xff\xd8\xff\xc0\0\x03\0"])
def test_headers_of_nothing_are_left_to_the_decoder(data: bytes) -> None:
    jpeg.check_scans(data)


def test_damage_is_an_error_of_the_input_alone() -> None:
    data = encode(photo(128, 96), "JPEG")
    with pytest.raises(DecodeError):
        jpeg.pixels(data[: len(data) // 2] + END, "RGB", (128, 96))
