"""Masked image modelling: noise → what is hidden of an image; a prediction → its loss and a picture. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiera_cli.errors import InferenceError
from hiera_cli.images.recipe import Pixels, seen
from hiera_cli.model.architecture import GRID, IMAGE_SIZE, MASK_UNIT, MASK_UNITS, PAINTED_GRID, PAINTED_PATCH
from hiera_cli.result import Result
from hiera_cli.tasks.task import Batches

GREY = 128  # of what the model did not see
GAP, GAP_COLOUR = 8, 255  # between the three pictures: pixels, white
VARIANCE_EPS = 1e-6  # as in the loss: of a patch of one colour


@dataclass(frozen=True, slots=True)
class Reconstructed(Result):
    """A Result with the loss of its prediction, as the paper defines it; None for an error.

    picture: the crop, what the model saw, what it painted. file: where it was saved, "" if it was not.
    """

    loss: float | None = None
    picture: Image.Image | None = None
    file: str = ""

    done: ClassVar[str] = "reconstructed"

    def answer(self) -> dict[str, Any]:
        """The loss, to six decimals, and the picture's file."""
        return {"loss": None if self.loss is None else round(self.loss, 6), "picture": self.file or None}


class Predictor(Protocol):
    """The model that this task takes: autoencoder.py has it."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Batches: ...

    def predict(
        self, pixels: NDArray[np.float32], noise: NDArray[np.float32], *, mask_ratio: float | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]: ...


Row = tuple[Pixels, NDArray[np.float32], NDArray[np.bool_], float]  # pixels, prediction, visible, loss


@dataclass(frozen=True)
class Reconstruct:
    """Hide a share of each image, and paint it. pictures: whether pictures are wanted, beside the losses."""

    mask_ratio: float = 0.6
    seed: int = 0
    pictures: bool = True

    kind: ClassVar[type[Reconstructed]] = Reconstructed

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in each record."""
        return {"mask_ratio": self.mask_ratio, "seed": self.seed}

    @property
    def result_bytes(self) -> int:
        """Of a Result that waits."""
        return 500_000 if self.pictures else 1_000

    def submit(
        self, model: Predictor, pixels: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> Callable[[], Iterable[Row]]:
        """Predict a batch."""
        noise = np.stack([noise_for(self.seed, place) for place in places])
        rows = zip(pixels, *model.predict(np.stack(pixels), noise, mask_ratio=self.mask_ratio), strict=True)
        return lambda: rows

    def answer(self, row: Row, model: Predictor) -> dict[str, Any]:
        """Raises InferenceError if the loss is not a number."""
        pixels, prediction, visible, loss = row
        if not np.isfinite(loss):
            raise InferenceError("the model gave values that are not numbers")
        shown = picture(pixels, prediction, visible) if self.pictures else None
        return {"loss": float(loss), "picture": shown}


def noise_for(seed: int, place: int) -> NDArray[np.float32]:
    """What decides which mask units of an image are hidden: (MASK_UNITS,), from 0 to 1.

    seed: of the run. place: of the image among the inputs, from 0. Both are 0 or more. Of nothing else: the same on any
    device, in any batch, and whether or not the other inputs can be read.
    """
    return np.random.Generator(np.random.PCG64([seed, place])).random(MASK_UNITS, dtype=np.float32)


def painted(pixels: Pixels, prediction: NDArray[np.float32], visible: NDArray[np.bool_]) -> Pixels:
    """What the model painted in the places that it did not see, the others as they are: normalised (3, 224, 224).

    pixels: (3, 224, 224). prediction: (196, 768), of each patch less its mean and over its deviation, which only the
    true patch tells: a picture made so shows the model's forms and textures in the image's own brightness and contrast.
    visible: (49,).
    """
    true = pixels.reshape(3, PAINTED_GRID, PAINTED_PATCH, PAINTED_GRID, PAINTED_PATCH).transpose(1, 3, 0, 2, 4)
    patches = true.reshape(PAINTED_GRID**2, -1).astype(np.float64)
    deviation = np.sqrt(patches.var(1, ddof=1, keepdims=True) + VARIANCE_EPS)
    restored = (prediction * deviation + patches.mean(1, keepdims=True)).reshape(true.shape)
    whole = restored.transpose(2, 0, 3, 1, 4).reshape(pixels.shape).astype(np.float32)
    return np.where(_shown(visible), pixels, whole)


def picture(pixels: Pixels, prediction: NDArray[np.float32], visible: NDArray[np.bool_]) -> Image.Image:
    """Three pictures side by side: the crop, what the model saw of it (the rest grey), and what it painted.

    Arguments as those of `painted`. Returns an image in RGB, 3 · 224 pixels and two gaps wide, 224 high.
    """
    crop = seen(pixels)
    masked = np.where(_shown(visible)[..., None], crop, np.uint8(GREY))
    gap = np.full((IMAGE_SIZE, GAP, 3), GAP_COLOUR, np.uint8)
    row = [crop, gap, masked, gap, seen(painted(pixels, prediction, visible))]
    return Image.fromarray(np.concatenate(row, axis=1))


def _shown(visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """By mask unit (49,) → by pixel (224, 224)."""
    units = GRID // MASK_UNIT
    side = IMAGE_SIZE // units
    return visible.reshape(units, units).repeat(side, 0).repeat(side, 1)
