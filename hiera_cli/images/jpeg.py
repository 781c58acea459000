"""JPEGs whose damage shows.

libjpeg fills what is missing with grey and says so in a warning, and Pillow throws its warnings away. So the scans are
held against what a whole picture needs, and the pixels come from simplejpeg: the same libjpeg-turbo, the same bits, and
the decoder's first warning with them.
"""

from __future__ import annotations

import re

from PIL import Image

from hiera_cli.errors import DecodeError, TooLargeError
from hiera_cli.images.remarks import remark

SIGNATURE = b"\xff\xd8\xff"

# However few bytes a scan has, the decoder goes over the whole picture for it. Encoders write some dozen of them.
MAX_SCANS = 500
MAX_SCANNED_PIXELS = 12_000_000_000  # scans × pixels: 15 seconds of one core
MAX_SEGMENTS = 100_000

_NOT_IN_A_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)  # a marker that a segment follows, or the end
_EOI, _SOS = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_NOTHING = 16  # as a number of missing bits: more than any scan leaves out

# What libjpeg says when data of the picture is missing or wrong. Its other warnings are of odd version numbers, bytes
# between segments and the like, with which pictures are whole.
_WARNINGS = re.compile("Corrupt JPEG data|Warning|Premature end|Invalid SOS|Inconsistent progression|Unknown Adobe")
_DAMAGE = re.compile("premature end of data segment|bad Huffman code|bad arithmetic code|instead of RST")

_MODES = {"L": ("GRAY", "L"), "RGB": ("RGBX", "RGB"), "CMYK": ("CMYK", "CMYK;I")}  # Pillow's: simplejpeg's, raw mode


def check_scans(data: bytes) -> None:
    """Read the headers of a JPEG's scans and hold them against what its picture needs.

    Raises DecodeError: a component, a band of frequencies or the last bits of one never come, as in a file that was cut
    between two scans. Raises TooLargeError: more scans or segments than are worked through.
    """
    missing: dict[int, list[int]] = {}  # component → for each of its 64 frequencies, how many bits have yet to come
    progressive = False
    pixels = scans = at = 0
    for _ in range(MAX_SEGMENTS):
        found = _NOT_IN_A_SCAN.search(data, at)
        if found is None or found[0][1] == _EOI:
            break
        marker, start = found[0][1], found.end() + 2
        at = found.end() + int.from_bytes(data[found.end() : start], "big")
        segment = data[start:at]
        if marker in _FRAMES and len(segment) >= 6:
            progressive = marker in _PROGRESSIVE
            pixels = int.from_bytes(segment[1:3], "big") * int.from_bytes(segment[3:5], "big")
            missing = {component: [_NOTHING] * 64 for component in segment[6::3]}
        elif marker == _SOS and len(segment) >= 4:
            scans += 1
            if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS:
                raise TooLargeError(f"a JPEG of more than {scans - 1} scans of its size is not decoded")
            components = segment[1 : 1 + 2 * segment[0] : 2]
            first, last, bits = (segment[-3], segment[-2], segment[-1] & 15) if progressive else (0, 63, 0)
            for component in missing.keys() & set(components):
                band = slice(first, last + 1)
                missing[component][band] = [bits] * len(missing[component][band])
            if not progressive and not any(map(any, missing.values())):
                return  # nothing can come after it
    else:
        raise TooLargeError(f"a JPEG of more than {MAX_SEGMENTS:,} segments is not decoded")
    if scans and any(map(any, missing.values())):
        raise DecodeError("damaged or truncated image: scans of the JPEG are missing")


def pixels(data: bytes, mode: str, size: tuple[int, int]) -> Image.Image | None:
    """Decode a JPEG at the scale at which it has this size. mode: Pillow's. None: it is left to Pillow.

    The pixels are those that Pillow gives, bit for bit. Raises DecodeError if the decoder says that data of the
    picture is missing or wrong.
    """
    try:
        import simplejpeg
    except ImportError:
        return None
    width, height = size
    colours, raw_mode = _MODES[mode]
    try:
        array = simplejpeg.decode_jpeg(data, colours, min_height=height, min_width=width)
    except ValueError as error:
        if _DAMAGE.search(str(error)):
            raise DecodeError(f"damaged or truncated image: {error}") from error
        if _WARNINGS.match(str(error)):  # the rest is of what simplejpeg does not do
            remark(str(error))
        return None
    if array.shape[:2] != (height, width):
        return None
    if mode == "RGB":
        # Pillow keeps RGB in four bytes, as they stand here. `frombuffer` would say RGBX to them, and a fourth channel
        # makes a resize slower; a copy takes longer than what is gained by decoding here.
        core = Image.core.map_buffer(array, size, "raw", 0, (raw_mode, 0, 1))  # type: ignore[attr-defined]
        image = Image.Image()._new(core)
        image.readonly = 1
        return image
    return Image.frombytes(mode, size, array, "raw", raw_mode)
