"""Explanations drawn: the crop, and for each label the same with its terms over it, on one scale of colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hiera_cli.images.recipe import Crop
from hiera_cli.tasks.explain import Explained
from hiera_cli.tasks.terms import Array, Explanation, in_parts

MOST_LABELS = 23  # in one picture, which is held in memory
SIDE = 448  # pixels of a panel: twice the crop
COLUMNS = 4  # panels in a row
MARGIN, GAP = 16, 16
BAR, SCALE = 20, 110  # widths of the bar of colours, and of it with its numbers
TEXT, SMALL, LINE = 20, 16, 26  # sizes of letters, height of a line
LABEL_LINES = 2
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
DARKEST = 0.55  # that a dark place of the photo takes of a colour's light

# From low to high, in OKLab (lightness, green to red, blue to yellow): steps that look equal, and are told apart by
# lightness alone where colours are not.
ANCHORS = ((0.2, 0.03, -0.08), (0.38, 0.10, -0.09), (0.57, 0.16, 0.02), (0.76, 0.09, 0.10), (0.94, -0.01, 0.10))

Panel = NDArray[np.uint8]  # (SIDE, SIDE, 3)


def with_picture(result: Explained) -> Explained:
    """The Result with its picture in the place of the crop, if it has one."""
    if result.crop is None:
        return result
    return replace(result, crop=None, picture=picture(result.crop, result.explanations))


def picture(crop: Crop, explanations: Sequence[Explanation]) -> Image.Image:
    """The crop, then a panel for each label: the terms over the crop, and below it what it scores; then the scale.

    crop: uint8 (224, 224, 3). explanations: one or more. The colours go from the lowest to the highest of all terms.
    """
    terms = np.stack([each.terms for each in explanations])
    low, high = float(terms.min()), float(terms.max())
    panels = [(_enlarged(crop), ["what the model sees"])]
    panels += [(panel(crop, each.terms, low, high), _caption(each)) for each in explanations]
    rows = -(-len(panels) // COLUMNS)
    across = min(len(panels), COLUMNS)
    height = SIDE + LINE * (LABEL_LINES + 2)
    width = 2 * MARGIN + across * (SIDE + GAP) + SCALE
    sheet = Image.new("RGB", (width, 2 * MARGIN + rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (drawn, lines) in enumerate(panels):
        left = MARGIN + number % COLUMNS * (SIDE + GAP)
        top = MARGIN + number // COLUMNS * height
        sheet.paste(Image.fromarray(drawn), (left, top))
        for place, line in enumerate(lines):
            is_label = place < len(lines) - 2
            size, ink = (TEXT, INK) if is_label else (SMALL, FAINT)
            draw.text((left, top + SIDE + 6 + place * LINE), line, ink, ImageFont.load_default(size))
    _draw_scale(sheet, draw, width - MARGIN - SCALE, low, high)
    return sheet


def panel(crop: Crop, terms: Array, low: float, high: float) -> Panel:
    """The terms (7, 7) over the crop, enlarged: each in the middle of its place, and evenly from one to the next.

    low, high: of the terms, for the ends of the scale of colours.
    """
    shares = ((terms - low) / max(high - low, 1e-12)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(shares).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    colours = scale()[np.rint(smooth.clip(0, 1) * 255).astype(np.intp)]
    light = np.asarray(Image.fromarray(_enlarged(crop)).convert("L"), np.float32)[..., None] / 255
    drawn: Panel = np.rint(colours * (DARKEST + (1 - DARKEST) * light)).astype(np.uint8)
    return drawn


@cache
def scale() -> NDArray[np.uint8]:
    """The colours from low to high, RGB: (256, 3)."""
    anchors, steps = np.array(ANCHORS), np.linspace(0, 1, 256)
    at = np.linspace(0, 1, len(anchors))
    lightness, a, b = (np.interp(steps, at, anchors[:, channel]) for channel in range(3))
    # OKLab → linear light → sRGB: Ottosson, "A perceptual color space for image processing", 2020.
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return colours


def _enlarged(crop: Crop) -> Panel:
    return np.asarray(Image.fromarray(crop).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _draw_scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, low: float, high: float) -> None:
    """The bar of colours beside the panels: its ends, and zero where it lies between them, with their numbers."""
    bar = scale()[np.rint(np.linspace(255, 0, SIDE)).astype(np.intp)]
    sheet.paste(Image.fromarray(np.repeat(bar[:, None], BAR, axis=1)), (left, MARGIN))
    font = ImageFont.load_default(SMALL)
    for value in (high, low, *([0.0] if low < 0 < high else [])):
        share = (value - low) / (high - low) if high > low else 1.0
        at = MARGIN + round((1 - share) * (SIDE - 1))
        if value == 0 and not 20 < at - MARGIN < SIDE - 20:  # where it would stand in the number at an end
            continue
        draw.line((left + BAR, at, left + BAR + 6, at), INK)
        draw.text((left + BAR + 10, min(max(at, MARGIN + 7), MARGIN + SIDE - 7)), f"{value:.2f}", INK, font, "lm")
    draw.text((left, MARGIN + SIDE + 6), "added to\nthe logit", FAINT, font)


def _caption(explanation: Explanation) -> list[str]:
    """The lines below a panel: the label, one or two, and of numbers two."""
    number = f"class {explanation.index}" if explanation.index is not None else f"concept {explanation.wnid}"
    return [
        *_wrapped(drawable(explanation.label)),
        f"{explanation.score:.1%}   {number}",
        in_parts(explanation),
    ]


def _wrapped(text: str) -> list[str]:
    """A label in lines as wide as a panel; the last one is cut where it has more."""
    font = ImageFont.load_default(TEXT)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > SIDE:
            lines.append(word)
        else:
            lines[-1] = longer
    shown = lines[:LABEL_LINES]
    if len(lines) > LABEL_LINES:
        shown[-1] += " ..."
    for place, line in enumerate(shown):
        while font.getlength(line) > SIDE:
            line = line[:-5] + " ..."
        shown[place] = line
    return shown


def drawable(text: str) -> str:
    """A label in the letters of Pillow's font, which are those of ASCII: without accents, ? for what it has not."""
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return "".join(each if " " <= each <= "~" else "?" for each in plain)
