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

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from hiera_cli.errors import DecodeError, TooLargeError
from hiera_cli.images.remarks import collected, remark
from hiera_cli.model.architecture import IMAGE_SIZE

RESIZE = 256  # short side, pixels
CROP = IMAGE_SIZE
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])

# A resize to 256 × (256 · ratio) is thrown away but for its middle. Up to this ratio the whole is resized, which gives
# the reference's very bits; beyond it only the crop is (a few levels off at most), or 1 × 3000 would take 590 MB.
MAX_WHOLE_RATIO = 16

BAND = 1 << 20  # pixels: what is converted at a time

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
NORMALISED: NDArray[np.float32] = np.stack(
    [(np.arange(256) / 255 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
).astype(np.float32)

Pixels = NDArray[np.float32]  # (3, 224, 224), normalised
Crop = NDArray[np.uint8]  # (224, 224, 3), what is to be normalised


@collected()
def preprocess(image: Image.Image) -> Pixels:
    """An image of any mode and size → float32 (3, 224, 224), normalised, by the recipe in the module's docstring."""
    if not isinstance(image, Image.Image):
        raise TypeError(f"an image is a PIL.Image, not {type(image).__name__}")
    image.load()
    return normalised(crop(flat(turned(image, orientation(image)))))


def from_array(array: NDArray[np.uint8], max_pixels: int) -> Image.Image:
    """The image of an array: uint8, (height, width, 3) in RGB, (height, width, 4) with alpha, (height, width) in grey.

    Raises TypeError for any other, TooLargeError for more pixels.
    """
    shape = array.shape
    if array.dtype != np.uint8 or not array.size or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))):
        raise TypeError(f"an array as an input is uint8, (height, width, 3), not {array.dtype}, {shape}")
    if shape[0] * shape[1] > max_pixels:  # before it is copied: a view may be larger than all memory
        raise TooLargeError(
            f"its {shape[0] * shape[1]:,} pixels are over the limit of {max_pixels:,}", remedy="max_pixels"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: alpha on white, 16-bit and floating-point samples scaled."""
    return flat(image).convert("RGB")


def normalised(pixels: NDArray[np.uint8]) -> Pixels:
    """(224, 224, 3) → (3, 224, 224)."""
    normalised = np.empty((3, CROP, CROP), np.float32)
    for channel in range(3):  # "clip" clips nothing of 8 bits; without it, take() makes a copy of `out`
        np.take(NORMALISED[channel], pixels[..., channel], out=normalised[channel], mode="clip")
    return normalised


def seen(pixels: Pixels | Crop) -> Crop:
    """Normalised pixels back as an image, (224, 224, 3). What is still a crop stays one."""
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    rgb: NDArray[np.float64] = (pixels.transpose(1, 2, 0) * STD + MEAN) * 255
    return np.rint(rgb).clip(0, 255).astype(np.uint8)


def orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns the image upright. To be asked once it is loaded: TIFF applies its orientation then, and forgets it.

    Damaged EXIF data is no reason to lose a good picture: it counts as none.
    """
    try:
        return ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        remark("its EXIF data are damaged: whether it is to be turned is not known")
        return None


def turned(image: Image.Image, how: Image.Transpose | None) -> Image.Image:
    return image if how is None else image.transpose(how)


def flat(image: Image.Image) -> Image.Image:
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
        image = _in_mode(image, "RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _in_mode(image, mode)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert by the file's own palette and its transparent colour, which may be wrong: DecodeError then."""
    try:
        return image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:
        raise DecodeError(f"its colours ({image.mode}) can't be converted: {error}"[:200]) from error


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


def crop(image: Image.Image) -> NDArray[np.uint8]:
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
