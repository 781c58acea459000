"""A model that was taught → a folder in the transformers layout, which `resolve` and transformers load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.checkpoints.config import FIXED_CONFIG
from hiera_cli.checkpoints.layouts import TRANSFORMERS, expected_shapes
from hiera_cli.checkpoints.published import CONFIG, WEIGHTS
from hiera_cli.errors import OutputError
from hiera_cli.images import recipe
from hiera_cli.model.architecture import Architecture

PREPROCESSOR, CARD = "preprocessor_config.json", "README.md"
FILES = {CONFIG, WEIGHTS, PREPROCESSOR, CARD}
ROOM_BESIDE = 1 << 20  # bytes, for what is not weights


class ModelFolder:
    """A folder for a model: written beside its name (NAME.….part), which it gets when it is complete.

    path: as the user gave it. overwrite: replace the model that is there, if it is one: a folder that holds anything
    but a model's files stays as it is. Raises OutputError where it can't be written, before anything is.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))  # a link stays one
        self._overwrite = overwrite
        self._check()
        self._part = self._target.with_name(f"{self._target.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        try:
            self._part.mkdir()
            self._part.rmdir()
        except OSError as error:
            raise self._cannot_write(error) from error

    def check_room(self, architecture: Architecture) -> None:
        """Raise OutputError if the disk has not enough for the weights of such a model."""
        needed = 4 * sum(int(np.prod(shape)) for shape in expected_shapes(architecture).values()) + ROOM_BESIDE
        with suppress(OSError):
            free = shutil.disk_usage(self._target.parent).free
            if free < needed:
                sizes = f"the model takes {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
                raise OutputError(f"cannot write {self.path}: {sizes}")

    def save(
        self,
        checkpoint: Checkpoint,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        labels: Sequence[str],
        card: str,
    ) -> None:
        """Write the model. checkpoint: of its body, in any layout. weight, bias: (classes, C) and (classes,).

        The same arguments give the same bytes. All weights are fp32, which those of any other type are as well.
        Raises OutputError, and leaves nothing; CheckpointError if the body can't be read.
        """
        shape = checkpoint.architecture
        architecture = Architecture(shape.embed_dim, shape.num_heads, shape.depths, len(labels), shape.query_pools)
        try:
            self._part.mkdir()
            self._write(CONFIG, [_json(_config(architecture, labels))])
            self._write(PREPROCESSOR, [_json(_preprocessor())])
            self._write(CARD, [card.encode()])
            self._write(WEIGHTS, _safetensors(architecture, {**checkpoint.arrays(), **_head(weight, bias)}))
            self._check()
            self._rename()
        except OSError as error:
            raise self._cannot_write(error) from error
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def _check(self) -> None:
        """Raise OutputError for what is there and is not to be replaced."""
        target = self._target
        if all((target.parent / name).exists() for name in (CONFIG, WEIGHTS)):
            raise OutputError(f"{self.path} lies in the folder of another model", remedy="another model folder")
        try:
            there = set(os.listdir(target))
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise OutputError(f"{self.path} is a file: a model is a folder", remedy="another model folder") from None
        except OSError as error:
            raise self._cannot_write(error) from error
        if not there:
            return
        others = sorted(there - FILES)
        if others or not {CONFIG, WEIGHTS} <= there:
            what = f"it holds {others[0]}" if others else f"it lacks {CONFIG} or {WEIGHTS}"
            raise OutputError(
                f"{self.path} exists already, and is no model alone: {what}", remedy="another model folder"
            )
        if not self._overwrite:
            raise OutputError(f"{self.path} exists already", remedy="replace")

    def _write(self, name: str, content: Iterable[bytes]) -> None:
        with (self._part / name).open("wb") as stream:
            for each in content:
                stream.write(each)

    def _rename(self) -> None:
        if not self._target.exists():
            self._part.rename(self._target)
            return
        old = self._part.with_name(f"{self._part.name}.old")
        self._target.rename(old)
        try:
            self._part.rename(self._target)
        except BaseException:
            old.rename(self._target)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror or error}")


def _head(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {"head.fc.weight": weight, "head.fc.bias": bias}


def _config(architecture: Architecture, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "architectures": ["HieraForImageClassification"],
        "model_type": "hiera",
        "dtype": "float32",
        "embed_dim": architecture.embed_dim,
        "hidden_size": architecture.features,
        "num_heads": list(architecture.num_heads),
        "depths": list(architecture.depths),
        **FIXED_CONFIG,
        **{
            name: float(FIXED_CONFIG[name]) for name in ("mlp_ratio", "embed_dim_multiplier")
        },  # as transformers insists
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _preprocessor() -> dict[str, Any]:
    """The recipe of images/recipe.py, in transformers' words."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": recipe.RESIZE},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": recipe.CROP, "width": recipe.CROP},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": recipe.MEAN.tolist(),
        "image_std": recipe.STD.tolist(),
    }


def _json(entries: dict[str, Any]) -> bytes:
    return (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode()


def _safetensors(architecture: Architecture, arrays: dict[str, NDArray[np.float32]]) -> Iterator[bytes]:
    """The bytes of a safetensors file, tensor by tensor. arrays: by the model's own names, fp32."""
    names = {TRANSFORMERS.name(ours, architecture): ours for ours in expected_shapes(architecture)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # without which transformers does not take it
    end = 0
    for theirs, ours in sorted(names.items()):
        start, end = end, end + arrays[ours].nbytes
        header[theirs] = {"dtype": "F32", "shape": list(arrays[ours].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, ours in sorted(names.items()):
        yield np.ascontiguousarray(arrays[ours], "<f4").tobytes()
