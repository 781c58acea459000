"""config.json → architecture and labels."""

from __future__ import annotations

import json
import re
import reprlib
from pathlib import Path
from typing import Any

from hiera_cli.checkpoints.labels import Label, imagenet_labels
from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.errors import CheckpointError
from hiera_cli.model.architecture import (
    IMAGE_SIZE,
    LAYER_NORM_EPS,
    MASK_UNIT,
    MASK_UNIT_ATTENTION,
    MLP_RATIO,
    NUM_STAGES,
    PATCH_PADDING,
    PATCH_SIZE,
    PATCH_STRIDE,
    Architecture,
)
from hiera_cli.system.printable import shortened

MAX_CONFIG_BYTES = 16 << 20

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


def default_labels(num_classes: int) -> tuple[Label, ...]:
    """ImageNet's for 1000 classes; else LABEL_0, LABEL_1, … as transformers calls classes without a name."""
    if num_classes == len(imagenet_labels()):
        return imagenet_labels()
    return tuple(Label(index, None, f"LABEL_{index}") for index in range(num_classes))


def read_config(file: Path) -> dict[str, Any]:
    """The entries of a config.json, unchecked. Raises CheckpointError if it can't be read or is not a JSON object."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{file} is not a model configuration: it is over {MAX_CONFIG_BYTES >> 20} MiB")
        entries = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read the model configuration {file}: {shortened(str(error))}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file} is not the configuration of a Hiera")
    return entries


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key appears twice")
    return entries


def architecture_from_config(
    entries: dict[str, Any], file: Path, num_classes: int, query_pools: int = NUM_STAGES - 1
) -> Architecture:
    """The architecture that a config.json of the transformers layout describes.

    entries: of the file, with a model_type. num_classes: as the weights have, 0 for a backbone. query_pools: how many
    there are to be. Raises CheckpointError for another kind of model, and for a Hiera that this implementation does not
    support.
    """
    if entries["model_type"] != "hiera":
        raise CheckpointError(f"{file} describes a {reprlib.repr(entries['model_type'])} model, not a Hiera")
    check_fixed(entries, file, FIXED_CONFIG, num_query_pool=query_pools)
    # What a file leaves out has transformers' default, which is the base model's.
    base = PUBLISHED["base"].architecture
    embed_dim = entries.get("embed_dim", base.embed_dim)
    num_heads = entries.get("num_heads", list(base.num_heads))
    depths = entries.get("depths", list(base.depths))
    for key, value, limit in (("num_heads", num_heads, 1024), ("depths", depths, 1024)):
        if not (isinstance(value, list) and len(value) == NUM_STAGES and all(is_count(v, limit) for v in value)):
            raise CheckpointError(
                f"{file}: {key} is {reprlib.repr(value)}, which is not one positive number for each of four stages"
            )
    if not is_count(embed_dim, 65536):
        raise CheckpointError(
            f"{file}: embed_dim is {reprlib.repr(embed_dim)}, which is not a sensible number of channels"
        )
    architecture = Architecture(embed_dim, tuple(num_heads), tuple(depths), num_classes, query_pools)
    for stage, heads in enumerate(num_heads):
        if architecture.dim(stage) % heads:
            raise CheckpointError(
                f"{file}: {heads} heads do not divide {architecture.dim(stage)} channels at stage {stage + 1}"
            )
    return architecture


def check_fixed(entries: dict[str, Any], file: Path, defaults: dict[str, Any], **otherwise: Any) -> None:
    """Raise CheckpointError where a file asks for what is not built in.

    defaults: what an entry that is left out means, and what is built in, but for `otherwise`.
    """
    for key, default in defaults.items():
        value, built_in = entries.get(key, default), otherwise.get(key, default)
        if value != built_in:
            raise CheckpointError(f"{file}: {key} is {reprlib.repr(value)}; only {built_in!r} is supported")


def is_count(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit


def labels_from_config(entries: dict[str, Any], num_classes: int, file: Path) -> tuple[Label, ...]:
    """The labels that a config.json names, else the default ones; none for a backbone, whatever it names.

    Raises CheckpointError if it does not name each class of the model once.
    """
    id2label = entries.get("id2label")
    if id2label is None or not num_classes:
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
