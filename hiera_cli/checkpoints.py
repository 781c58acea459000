"""A model's name, Hub repository, folder or file → verified weights, architecture and labels.

Three layouts of the same network are published, and each loads: transformers, the original release, timm. The model's
own attribute names are timm's; the others are a table of names. Nothing is guessed: a tensor that is missing, left over
or of the wrong shape refuses the checkpoint, by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
import stat
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError, safe_open

from hiera_cli import hub
from hiera_cli.architecture import (
    GRID,
    IMAGE_SIZE,
    LAYER_NORM_EPS,
    MASK_UNIT,
    MASK_UNIT_ATTENTION,
    MLP_RATIO,
    NUM_STAGES,
    PATCH_PADDING,
    PATCH_SIZE,
    PATCH_STRIDE,
    PUBLISHED,
    Architecture,
)
from hiera_cli.errors import CheckpointError, DeviceError, is_out_of_memory
from hiera_cli.labels import Label, imagenet_labels
from hiera_cli.names import MODELS, model_name, near_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_CONFIG_BYTES = 16 << 20
DTYPES = ("F32", "F16", "BF16", "F64")  # that weights may be stored in, as safetensors calls them
MAX_HEADER_BYTES = 8 << 20  # huge needs 80 KB

# The rest of a transformers config.json, which this implementation has built in. A file that says otherwise is refused.
FIXED_CONFIG: dict[str, Any] = {
    "image_size": [IMAGE_SIZE, IMAGE_SIZE],
    "patch_size": [PATCH_SIZE, PATCH_SIZE],
    "patch_stride": [PATCH_STRIDE, PATCH_STRIDE],
    "patch_padding": [PATCH_PADDING, PATCH_PADDING],
    "mlp_ratio": MLP_RATIO,
    "embed_dim_multiplier": 2,
    "num_query_pool": NUM_STAGES - 1,
    "query_stride": [2, 2],
    "masked_unit_size": [MASK_UNIT, MASK_UNIT],
    "masked_unit_attention": list(MASK_UNIT_ATTENTION),
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": LAYER_NORM_EPS,
}


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors.

    names: from the model's own name of a tensor, or of the module that it belongs to, to theirs where they differ.
    by_stage: blocks are counted within their stage, and have names of their own for the two norms.
    """

    names: Mapping[str, str]
    by_stage: bool = False

    def name(self, ours: str, architecture: Architecture) -> str:
        """What they call one of the model's tensors."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", ours)
        if not match or not self.by_stage:
            return _translated(ours, self.names)
        stage, layer = 0, int(match[1])
        while layer >= architecture.depths[stage]:
            layer -= architecture.depths[stage]
            stage += 1
        return f"hiera.encoder.stages.{stage}.layers.{layer}.{_translated(match[2], self.names)}"


def _translated(name: str, table: Mapping[str, str]) -> str:
    module, dot, parameter = name.rpartition(".")
    return table.get(name) or table.get(module, module) + dot + parameter


TIMM = Layout({})  # the model's own names
ORIGINAL = Layout({"head.norm": "norm", "head.fc": "head.projection"})
ORIGINAL_MAE = Layout({"head.norm": "encoder_norm", "head.fc": "head.projection"})
TRANSFORMERS = Layout(
    {
        "pos_embed": "hiera.embeddings.position_embeddings",
        "patch_embed.proj": "hiera.embeddings.patch_embeddings.projection",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "head.norm": "hiera.pooler.layernorm",
        "head.fc": "classifier",
    },
    by_stage=True,
)


class FileStamp(NamedTuple):
    """What changes when a file is written or replaced. size: bytes. mtime_ns, ctime_ns: since the epoch."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class Checkpoint:
    """Everything that makes a classifier, and nothing of it loaded yet.

    name: what a record's "model" says: the Hub repository, "demo", or the path as it was given.
    weights: the file, its tensors' names in this layout. labels: by index, as many as the model has classes.
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
            raise _unreadable(self.weights, error) from error
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
            raise _unreadable(self.weights, error) from error
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors under the model's own names, mapped from the file where the format allows it.

        Raises CheckpointError if the file is damaged or its tensors are not those of this architecture.
        """
        tensors = _read_tensors(self.weights)
        return {ours: tensors[theirs].contiguous() for ours, theirs in self._names().items()}

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The same in fp32, for an engine that has no torch, and without it where the file's format allows."""
        with _reading(self.weights):
            if not _is_safetensors(self.weights) or _has_bf16(self.weights):  # numpy has no bf16
                return {name: tensor.float().numpy() for name, tensor in self.state_dict().items()}
            with safe_open(self.weights, framework="numpy") as file:
                arrays = {ours: file.get_tensor(theirs) for ours, theirs in self._names().items()}
        for name, array in arrays.items():
            _check_numbers(self.weights, name, float(array.sum(dtype="float32")))
        return {name: array.astype("float32", copy=False) for name, array in arrays.items()}

    def _names(self) -> dict[str, str]:
        return {name: self.layout.name(name, self.architecture) for name in expected_shapes(self.architecture)}


def resolve(model: str, *, offline: bool = False, progress: hub.Progress | None = None) -> Checkpoint:
    """Find a model and read everything about it but the weights themselves.

    model: a published name (`tiny` … `huge`, and what `model_name` takes for one), `demo`, a Hub repository
    (`ORG/NAME`), a folder or a file.
    offline: only what is on this machine already. progress: told about a download, should there be one.
    Raises CheckpointError (its message says what was tried).
    """
    model = model_name(model)
    if model == DEMO:
        return replace(from_folder(DEMO_FOLDER), name=DEMO)
    if model in PUBLISHED:
        return _from_hub(record_name(model), offline, progress)
    check_name(model)
    path = Path(os.path.expanduser(model))
    if _mode(path) is None:
        return _from_hub(model, offline, progress)
    return replace(from_folder(path) if path.is_dir() else from_file(path), name=model)


def record_name(model: str) -> str:
    """What `resolve` calls a model in its records."""
    return PUBLISHED[model].repository if model in PUBLISHED else model


def check_name(model: str) -> None:
    """Raise CheckpointError if a model is called by no name that `resolve` knows, before anything is read."""
    known = model in MODELS or hub.is_repository_name(model)
    if not known and not (model and _mode(Path(os.path.expanduser(model)))):
        close = near_model(model)
        raise CheckpointError(
            f"no model, folder or file is called {model!r}",
            (f"Did you mean {close}?\n" if close else "")
            + f"Name one of {', '.join(MODELS)}, a Hub repository (ORG/NAME), a folder or a weights file.",
        )


def _from_hub(repository: str, offline: bool, progress: hub.Progress | None) -> Checkpoint:
    config, weights = hub.fetch(repository, (CONFIG, WEIGHTS), offline=offline, progress=progress)
    try:
        return replace(_describe(weights, config), name=repository)
    except CheckpointError as error:
        if not error.hint:  # a damaged file in the cache can be had again
            error.hint = f"If the cached copy is damaged, fetch it again: hiera download --force {repository}"
        raise


def from_folder(folder: Path) -> Checkpoint:
    """A folder in the transformers layout (or timm's, which has the same two file names)."""
    weights, config = folder / WEIGHTS, folder / CONFIG
    if not _is_file(weights):
        raise CheckpointError(
            f"{folder} has no {WEIGHTS}",
            f"A model folder holds {CONFIG} and {WEIGHTS}: `hiera download --to DIR` makes one.",
        )
    has_config = _is_file(config)
    for file in (config, weights):
        if file.is_symlink() and not _stays_near(file, folder):
            raise CheckpointError(
                f"{file} is a link to {os.path.realpath(file)}, out of its folder",
                "If that is meant, name the weights file itself: -m PATH/model.safetensors",
            )
    return _describe(weights, config if has_config else None)


def _mode(path: Path) -> int | None:
    """Of what is there, None for nothing. Raises CheckpointError if that can't be told."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise CheckpointError(f"{path} is a link to {os.path.realpath(path)}, where nothing is") from None
        return None
    except OSError as error:  # permissions, a loop of links, a name too long
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise CheckpointError(f"no file can have the name {str(path)!r}: {error}") from error


def _is_file(path: Path) -> bool:
    """Whether a file is there. Raises CheckpointError for what can't be read as one: a pipe would never end."""
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is no regular file: weights and their configuration are read from nothing else")
    return mode is not None


def _stays_near(link: Path, folder: Path) -> bool:
    """Whether a link ends inside its folder, or in the blobs of the Hub cache that the folder is a snapshot of."""
    target, home = Path(os.path.realpath(link)), Path(os.path.realpath(folder))
    return home in target.parents or (home.parent.name == "snapshots" and home.parent.parent in target.parents)


def from_file(file: Path) -> Checkpoint:
    """One weights file, safetensors or the original release's .pth; a Hiera config.json beside it is heeded."""
    _is_file(file)
    config = file.parent / CONFIG
    return _describe(file, config if _is_hiera_config(config) else None)


def _is_hiera_config(config: Path) -> bool:
    try:
        return _is_file(config) and _read_config(config).get("model_type") == "hiera"
    except CheckpointError:  # of something else
        return False


def _describe(weights: Path, config: Path | None) -> Checkpoint:
    """Architecture and labels, from the configuration where there is one, else from the tensors' shapes."""
    entries = _read_config(config) if config is not None else {}
    shapes = _read_shapes(weights)
    layout = find_layout(shapes, weights)
    num_classes = _num_classes(shapes[_translated("head.fc.weight", layout.names)], weights)
    if config is not None and "model_type" in entries:
        architecture = _architecture_from_config(entries, config, num_classes)
        labels = _labels_from_config(entries, architecture.num_classes, config)
    else:
        if config is not None and not str(entries.get("architecture", "")).startswith("hiera"):
            raise CheckpointError(f"{config} is not the configuration of a Hiera classifier")
        architecture = replace(_published_size(shapes, layout, weights), num_classes=num_classes)
        labels = default_labels(num_classes)
    _check_shapes(shapes, layout, architecture, weights)
    return Checkpoint(str(weights), weights, layout, architecture, labels)


def default_labels(num_classes: int) -> tuple[Label, ...]:
    """ImageNet's for 1000 classes; else LABEL_0, LABEL_1, … as transformers calls classes without a name."""
    if num_classes == len(imagenet_labels()):
        return imagenet_labels()
    return tuple(Label(index, None, f"LABEL_{index}") for index in range(num_classes))


# ---- config.json


def _read_config(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{file} is no model configuration: it is over {MAX_CONFIG_BYTES >> 20} MiB")
        entries = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read the model configuration {file}: {_shown(str(error))}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file} is not the configuration of a Hiera classifier")
    return entries


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands there twice")
    return entries


def _architecture_from_config(entries: dict[str, Any], file: Path, num_classes: int) -> Architecture:
    if entries["model_type"] != "hiera":
        raise CheckpointError(f"{file} describes a {reprlib.repr(entries['model_type'])} model, not a Hiera classifier")
    for key, built_in in FIXED_CONFIG.items():
        value = entries.get(key, built_in)
        if value != built_in:
            raise CheckpointError(f"{file}: {key} is {reprlib.repr(value)}; only {built_in!r} is supported")
    # What a file leaves out has transformers' default, which is the base model's.
    base = PUBLISHED["base"].architecture
    embed_dim = entries.get("embed_dim", base.embed_dim)
    num_heads = entries.get("num_heads", list(base.num_heads))
    depths = entries.get("depths", list(base.depths))
    for key, value, limit in (("num_heads", num_heads, 1024), ("depths", depths, 1024)):
        if not (isinstance(value, list) and len(value) == NUM_STAGES and all(_is_count(v, limit) for v in value)):
            raise CheckpointError(
                f"{file}: {key} is {reprlib.repr(value)}, which is not one positive number for each of four stages"
            )
    if not _is_count(embed_dim, 65536):
        raise CheckpointError(
            f"{file}: embed_dim is {reprlib.repr(embed_dim)}, which is not a sensible number of channels"
        )
    architecture = Architecture(embed_dim, tuple(num_heads), tuple(depths), num_classes)
    for stage, heads in enumerate(num_heads):
        if architecture.dim(stage) % heads:
            raise CheckpointError(
                f"{file}: {heads} heads do not divide {architecture.dim(stage)} channels at stage {stage + 1}"
            )
    return architecture


def _is_count(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit


def _labels_from_config(entries: dict[str, Any], num_classes: int, file: Path) -> tuple[Label, ...]:
    id2label = entries.get("id2label")
    if id2label is None:
        return default_labels(num_classes)
    if not isinstance(id2label, dict) or set(id2label) != {str(index) for index in range(num_classes)}:
        count = len(id2label) if isinstance(id2label, (dict, list)) else 0
        raise CheckpointError(f"{file}: id2label names {count} classes, but the model's classifier has {num_classes}")
    imagenet = imagenet_labels() if num_classes == len(imagenet_labels()) else ()
    labels = []
    for index in range(num_classes):
        text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", str(id2label[str(index)]))  # half of a pair
        wnid = imagenet[index].wnid if imagenet and imagenet[index].text == text else None
        labels.append(Label(index, wnid, text))
    return tuple(labels)


# ---- tensors: names and shapes

Shape = tuple[int, ...]


def find_layout(names: Container[str], file: Path) -> Layout:
    """Which of the published layouts the names of a file's tensors are in. Raises CheckpointError for any other."""
    for layout in (TRANSFORMERS, TIMM, ORIGINAL_MAE, ORIGINAL):
        if all(
            _translated(name, layout.names) in names for name in ("pos_embed", "head.norm.weight", "head.fc.weight")
        ):
            return layout
    if any(_translated("pos_embed", layout.names) in names for layout in (TRANSFORMERS, TIMM)):
        raise CheckpointError(
            f"{file} has no classifier (it may be a Hiera backbone, or a pretraining checkpoint): it gives no labels"
        )
    raise CheckpointError(f"{file} holds no Hiera classifier (none of its three published layouts)")


def _num_classes(shape: Shape, file: Path) -> int:
    if len(shape) != 2 or shape[0] < 1:
        raise CheckpointError(f"{file}: the classifier's weight has the shape {reprlib.repr(list(shape))}")
    return shape[0]


def _published_size(shapes: Mapping[str, Shape], layout: Layout, file: Path) -> Architecture:
    """By the tensors alone. The number of heads shows in none of them, so only published sizes are known."""
    embed_dim = (0, *shapes[_translated("pos_embed", layout.names)])[-1]
    blocks = sum(name.endswith(".attn.qkv.weight") for name in shapes)
    for model in PUBLISHED.values():
        if (embed_dim, blocks) == (model.architecture.embed_dim, sum(model.architecture.depths)):
            return model.architecture
    raise CheckpointError(
        f"{file}: {blocks} blocks with {embed_dim} channels is none of the published sizes",
        f"Put the {CONFIG} of the transformers layout beside it.",
    )


def expected_shapes(architecture: Architecture) -> dict[str, Shape]:
    """The name and shape of every tensor of a Hiera classifier, in the model's own names."""
    shapes: dict[str, Shape] = {}

    def layer(name: str, weight: Shape) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    dim = architecture.embed_dim
    shapes["pos_embed"] = (1, GRID * GRID, dim)
    layer("patch_embed.proj", (dim, 3, PATCH_SIZE, PATCH_SIZE))
    block = 0
    for stage in range(NUM_STAGES):
        dim_out = architecture.dim(stage)
        for _ in range(architecture.depths[stage]):
            layer(f"blocks.{block}.norm1", (dim,))
            layer(f"blocks.{block}.attn.qkv", (3 * dim_out, dim))
            layer(f"blocks.{block}.attn.proj", (dim_out, dim_out))
            layer(f"blocks.{block}.norm2", (dim_out,))
            layer(f"blocks.{block}.mlp.fc1", (MLP_RATIO * dim_out, dim_out))
            layer(f"blocks.{block}.mlp.fc2", (dim_out, MLP_RATIO * dim_out))
            if dim != dim_out:
                layer(f"blocks.{block}.proj", (dim_out, dim))
            dim, block = dim_out, block + 1
    layer("head.norm", (dim,))
    layer("head.fc", (architecture.num_classes, dim))
    return shapes


def _check_shapes(shapes: Mapping[str, Shape], layout: Layout, architecture: Architecture, file: Path) -> None:
    expected = {layout.name(name, architecture): shape for name, shape in expected_shapes(architecture).items()}
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{_shown(name)} is left over" for name in shapes if name not in expected]
    problems += [
        f"{name} has the shape {reprlib.repr(list(shapes[name]))}, not {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{file} is not this Hiera: {'; '.join(problems[:3])}{more}")


# ---- reading files


def _unreadable(file: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"cannot read {file}: {error.strerror or error}")


def _is_safetensors(file: Path) -> bool:
    """By the first bytes: a .pth is a zip archive (or, before torch 1.6, a pickle)."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return not (start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{")


def _read_shapes(file: Path) -> dict[str, Shape]:
    """By the tensors' names. Raises CheckpointError if the file is none that is read here, or its numbers are not."""
    with _reading(file):
        if _is_safetensors(file):
            _check_header(file)
            with safe_open(file, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                found = {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
        else:
            from hiera_cli import pth  # it takes time to import, which safetensors need not wait for

            found = {name: (each.dtype, each.shape) for name, each in pth.describe(file).items()}
    for name, (dtype, _) in found.items():
        if dtype not in DTYPES:
            raise CheckpointError(f"{file}: {_shown(name)} holds {dtype} numbers, not one of {', '.join(DTYPES)}")
    return {name: shape for name, (_, shape) in found.items()}


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What goes wrong with a weights file, in a sentence."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise DeviceError(f"there is not enough free memory to read {file}", "Free some.") from error
        if isinstance(error, OSError):
            raise _unreadable(file, error) from error
        raise CheckpointError(f"{file} is not a safetensors file, or a damaged one: {_shown(str(error))}") from error


def _shown(text: str) -> str:
    """A text that a file may make as long as it likes, cut."""
    return text if len(text) <= 200 else f"{text[:200]}…"


def _check_header(file: Path) -> None:
    """Refuse an absurd header before anything is allocated for it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if size < 10 or header > min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(f"{file} is not a safetensors file, or a damaged one: it does not begin as they do")


def _read_tensors(file: Path) -> dict[str, Tensor]:
    import torch
    from safetensors.torch import load_file

    with _reading(file):
        if _is_safetensors(file):
            tensors = load_file(file)
        else:
            from hiera_cli import pth

            tensors = pth.load(file)
    for name, tensor in tensors.items():
        _check_numbers(file, name, float(tensor.sum(dtype=torch.float32)))
    return tensors


def _check_numbers(file: Path, name: str, total: float) -> None:
    """total: the sum of a tensor, which is finite unless a weight is not (or the weights are absurd)."""
    if not math.isfinite(total):
        raise CheckpointError(f"{file}: {name} holds weights that are not numbers (NaN or infinity)")


def _has_bf16(file: Path) -> bool:
    with safe_open(file, framework="numpy") as tensors:
        return any(tensors.get_slice(name).get_dtype() == "BF16" for name in tensors.keys())  # noqa: SIM118
