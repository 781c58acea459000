"""What `resolve` finds: everything that makes a model, and nothing of it loaded yet."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import safe_open

from hiera_cli.checkpoints.labels import Label
from hiera_cli.checkpoints.layouts import Layout, expected_shapes
from hiera_cli.checkpoints.tensors import check_numbers, has_bf16, is_safetensors, read_tensors, reading, unreadable
from hiera_cli.model.architecture import Architecture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class FileStamp(NamedTuple):
    """What changes when a file is written or replaced. size: bytes. mtime_ns, ctime_ns: since the epoch."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class Checkpoint:
    """Everything that makes a classifier or a backbone, and nothing of it loaded yet.

    name: what a record's "model" says: the Hub repository, "demo", or the path as it was given.
    weights: the file, its tensors' names in this layout. labels: by index, as many as the model has classes; a
    backbone has none.
    """

    name: str
    weights: Path
    layout: Layout
    architecture: Architecture
    labels: tuple[Label, ...]

    def stamp(self) -> FileStamp:
        """Of the weights' file: while it stays, so does `digest`. Raises CheckpointError if the file is gone."""
        try:
            status = os.stat(self.weights)
        except OSError as error:
            raise unreadable(self.weights, error) from error
        return FileStamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def digest(self) -> str:
        """The sha256 of the weights' file, in hexadecimal: of its bytes, which takes a second for some gigabytes.

        Raises CheckpointError if it can't be read.
        """
        digest = hashlib.sha256()
        try:
            with self.weights.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise unreadable(self.weights, error) from error
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors under the model's own names, mapped from the file where the format allows it.

        Raises CheckpointError if the file is damaged or its tensors are not those of this architecture.
        """
        tensors = read_tensors(self.weights)
        return {ours: tensors[theirs].contiguous() for ours, theirs in self._names().items()}

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The same in fp32, for an engine that has no torch, and without it where the file's format allows."""
        with reading(self.weights):
            if not is_safetensors(self.weights) or has_bf16(self.weights):  # numpy has no bf16
                return {name: tensor.float().numpy() for name, tensor in self.state_dict().items()}
            with safe_open(self.weights, framework="numpy") as file:
                arrays = {ours: file.get_tensor(theirs) for ours, theirs in self._names().items()}
        for name, array in arrays.items():
            check_numbers(self.weights, name, float(array.sum(dtype="float32")))
        return {name: array.astype("float32", copy=False) for name, array in arrays.items()}

    def classifier(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The last layer's weight (classes, C) and bias (classes,), in fp32; None for a backbone, which has none.

        Without torch where the file's format allows. Raises CheckpointError.
        """
        return self._layer("head.fc") if self.architecture.num_classes else None

    def last_norm(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The weight and bias of the LayerNorm before the classifier, (C,), in fp32. Raises CheckpointError."""
        return self._layer("head.norm")

    def _layer(self, ours: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        names = [self._names()[f"{ours}.{each}"] for each in ("weight", "bias")]
        with reading(self.weights):
            if not is_safetensors(self.weights) or has_bf16(self.weights):
                tensors = read_tensors(self.weights)
                weight, bias = (tensors[name].float().numpy() for name in names)
            else:
                with safe_open(self.weights, framework="numpy") as file:
                    weight, bias = (file.get_tensor(name).astype("float32", copy=False) for name in names)
        for name, array in zip(names, (weight, bias), strict=True):
            check_numbers(self.weights, name, float(array.sum(dtype="float32")))
        return weight, bias

    def _names(self) -> dict[str, str]:
        return {name: self.layout.name(name, self.architecture) for name in expected_shapes(self.architecture)}
