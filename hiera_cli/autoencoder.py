"""The Python face of masked image modelling: load a pretraining checkpoint, give it pixels, get what it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hiera_cli.checkpoints.autoencoder import AutoencoderCheckpoint, resolve_autoencoder
from hiera_cli.engines.engine import faults, in_halves
from hiera_cli.engines.machine import this_machine
from hiera_cli.engines.placement import Placement, choose
from hiera_cli.engines.torch_engine import described
from hiera_cli.errors import UsageError
from hiera_cli.model.architecture import IMAGE_SIZE, MASK_UNITS, visible_units
from hiera_cli.model.mae import MaskedAutoencoder

if TYPE_CHECKING:
    from hiera_cli.checkpoints.hub import Progress

Predicted = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]
Shown = tuple[NDArray[np.float32], NDArray[np.float32]]  # an image's pixels (3, 224, 224) and noise (49,)


class Autoencoder:
    """A masked autoencoder on a device, in PyTorch and fp32.

    checkpoint: what was loaded. placement: where it runs. batch_size: images that run together; it shrinks when memory
    runs out. On a CPU each image runs alone, and so has the same answer, to the bit, in whatever batch it is given.
    """

    def __init__(self, checkpoint: AutoencoderCheckpoint, placement: Placement) -> None:
        self.checkpoint = checkpoint
        self.placement = placement
        self._device = torch.device(placement.device)
        self.batch_size = 1 if self._device.type == "cpu" else 64
        self.in_flight = 1
        self.takes_crops = False
        self.precision = "fp32"
        with faults(placement, "the weights"):
            with torch.device("meta"):  # no storage and no initialisation: the checkpoint's tensors are put in
                self._model = MaskedAutoencoder(checkpoint.architecture, checkpoint.decoder)
            self._model.load_state_dict(checkpoint.state_dict(), strict=True, assign=True)
            self._model.requires_grad_(False).eval().float().to(self._device)

    @property
    def name(self) -> str:
        """As records have it: the Hub repository, "demo", or the path that was given."""
        return self.checkpoint.name

    @property
    def engine(self) -> Autoencoder:
        """What the pipeline asks for batches: this."""
        return self

    def describe(self) -> str:
        """The device, by name, and the precision."""
        return described(self._device, self.precision)

    def predict(
        self, pixels: NDArray[np.float32], noise: NDArray[np.float32], *, mask_ratio: float | None = None
    ) -> Predicted:
        """Predict every patch of images of which most is hidden.

        pixels: (B, 3, 224, 224), as `preprocess` gives each; other floating-point numbers are converted.
        noise: (B, 49), finite: the mask units with the smallest are shown. mask_ratio: the share that is hidden,
        between 0 and 1; the checkpoint's own unless given.

        Returns the prediction (B, 196, 768): of each of 14 × 14 patches of 16 × 16 pixels, by rows, the 3 channels'
        normalised pixels less the patch's mean and over its deviation; what was shown, (B, 49) bool; and each image's
        loss (B,), the mean squared error of that over the hidden patches.

        Raises UsageError for a mask ratio that hides nothing or all, TypeError or ValueError for other arrays,
        DeviceError if not even one image fits or the device fails.
        """
        if not isinstance(pixels, np.ndarray) or not isinstance(noise, np.ndarray):
            raise TypeError(f"pixels and noise are arrays, not {type(pixels).__name__} and {type(noise).__name__}")
        if pixels.dtype.kind != "f" or noise.dtype.kind != "f" or not np.isfinite(noise).all():
            raise ValueError("pixels and noise are floating-point numbers, normalised and finite: see preprocess")
        pixels, noise = pixels.astype(np.float32, copy=False), noise.astype(np.float32, copy=False)
        ratio = self.checkpoint.decoder.mask_ratio if mask_ratio is None else mask_ratio
        if not 0 < ratio < 1 or not 0 < visible_units(ratio) < MASK_UNITS:
            raise UsageError(f"a mask ratio of {ratio} does not leave mask units both to see and to predict")
        if (
            pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE)
            or noise.shape != (len(pixels), MASK_UNITS)
            or not len(pixels)
        ):
            raise ValueError(
                f"pixels are (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}) and noise (B, {MASK_UNITS}), "
                f"not {pixels.shape} and {noise.shape}"
            )
        images = list(zip(pixels, noise, strict=True))
        parts: list[Predicted] = []
        done = 0
        with torch.inference_mode(), _full_fp32(), faults(self.placement, "a single image"):
            while done < len(images):
                batch = images[done : done + self.batch_size]
                parts += in_halves(lambda some: self._run(some, ratio), batch, self._halved)
                done += len(batch)
        prediction, visible, loss = (np.concatenate(each) for each in zip(*parts, strict=True))
        return prediction, visible, loss

    def _run(self, images: Sequence[Shown], mask_ratio: float) -> Predicted:
        pixels, noise = (torch.from_numpy(np.stack(each)).to(self._device) for each in zip(*images, strict=True))
        prediction, visible, loss = self._model(pixels, noise, mask_ratio)
        return prediction.cpu().numpy(), visible.cpu().numpy(), loss.cpu().numpy()

    def _halved(self, size: int) -> None:
        self.batch_size = min(self.batch_size, size)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _full_fp32() -> AbstractContextManager[None]:
    """Within it convolutions on CUDA are computed in fp32, and not in TF32: that means the reference's numbers."""
    if not torch.cuda.is_available():
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def load_autoencoder(
    model: str = "tiny", *, device: str = "auto", offline: bool = False, progress: Progress | None = None
) -> Autoencoder:
    """Load a masked autoencoder, downloading its weights if they are not on this machine.

    model: tiny … huge (facebook/hiera-…-224-mae-hf), demo, a Hub repository, a folder or a file. device: as
    `load_classifier` has it. It runs in PyTorch, in fp32. Raises CheckpointError or DeviceError.
    """
    checkpoint = resolve_autoencoder(model, offline=offline, progress=progress)
    return Autoencoder(checkpoint, choose("torch", device, "fp32", this_machine("torch", device)))
