"""A decoded image → a small JPEG of it."""

from __future__ import annotations

import io

from PIL import Image

SIDE = 256  # pixels, of the long side, at most: what a tile of a page shows on a screen of two pixels a point
LEAST = 192  # of one that is made by the quick way
QUALITY = 75
BYTES = 12_000  # about, of one that is kept: of a photo they are 6,000 to 12,000


def thumbnail(image: Image.Image) -> bytes:
    """The whole picture as a JPEG, its long side 192 to 256 pixels, or as it is where it is smaller.

    image: upright, of 8 bits, grey or RGB. Nothing of the file goes with it but its pixels: no comment, no EXIF data.
    """
    long = max(image.size)
    if long > SIDE:
        factor = -(-long // SIDE)
        if long >= LEAST * factor:
            image = image.reduce(factor)  # means of whole squares: an eighth of the time
        else:
            width, height = (max(1, round(each * SIDE / long)) for each in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, comment=b"")
    return data.getvalue()
