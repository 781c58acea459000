"""A masked autoencoder's name, Hub repository, folder or file → verified weights and architecture.

It is found the way that a classifier is (resolve.py), and as strictly; only the tensors are others. Two layouts are
published, transformers' and the original release's, whose names are the model's own.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiera_cli.checkpoints import hub, layouts
from hiera_cli.checkpoints.config import architecture_from_config, check_fixed, is_count, read_config
from hiera_cli.checkpoints.layouts import Layout, Shape, find_layout, hold_against, translated
from hiera_cli.checkpoints.published import DEMO_FOLDER, PUBLISHED
from hiera_cli.checkpoints.resolve import Kind, published_size, resolve_kind
from hiera_cli.checkpoints.tensors import read_shapes, read_tensors
from hiera_cli.errors import CheckpointError
from hiera_cli.model.architecture import (
    MAE_QUERY_POOLS,
    MASK_UNITS,
    MLP_RATIO,
    PAINTED_GRID,
    PAINTED_PATCH,
    Architecture,
    Decoder,
    visible_units,
)

if TYPE_CHECKING:
    from torch import Tensor

DEMO_AUTOENCODER_FOLDER = DEMO_FOLDER / "mae"
REPOSITORIES = {name: model.mae_repository for name, model in PUBLISHED.items()}


@dataclass(frozen=True)
class AutoencoderLayout:
    """How one publisher names the tensors: those of the encoder as in a classifier, the others by a table.

    names: from the model's own name of a tensor, or of its module, to theirs where they differ. decoder_blocks: what
    stands before the number of one of the decoder's blocks.
    """

    encoder: Layout
    names: Mapping[str, str]
    decoder_blocks: str

    def name(self, ours: str, architecture: Architecture) -> str:
        """What they call one of the model's tensors."""
        if match := re.fullmatch(r"decoder_blocks\.(\d+)\.(.+)", ours):
            return f"{self.decoder_blocks}.{match[1]}.{translated(match[2], self.encoder.names)}"
        theirs = translated(ours, self.names)
        return theirs if theirs != ours else self.encoder.name(ours, architecture)


ORIGINAL = AutoencoderLayout(layouts.TIMM, {}, "decoder_blocks")  # the model's own names
TRANSFORMERS = AutoencoderLayout(
    layouts.TRANSFORMERS,
    {
        "multi_scale_fusion_heads.0": "multiscale_fusion.multi_scale_fusion_heads.0",
        "multi_scale_fusion_heads.1": "multiscale_fusion.multi_scale_fusion_heads.1",
        "decoder_embed": "decoder.decoder_embeddings",
        "mask_token": "decoder.mask_token",
        "decoder_pos_embed": "decoder.decoder_position_embeddings",
        "decoder_norm": "decoder.decoder_norm",
        "decoder_pred": "decoder.decoder_pred",
    },
    "decoder.decoder_block.layers",
)


@dataclass(frozen=True)
class AutoencoderCheckpoint:
    """Everything that makes a masked autoencoder, and nothing of it loaded yet.

    name: what a record's "model" says: the Hub repository, "demo", or the path as it was given.
    weights: the file, its tensors' names in this layout. architecture: of the encoder.
    """

    name: str
    weights: Path
    layout: AutoencoderLayout
    architecture: Architecture
    decoder: Decoder

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors under the model's own names, mapped from the file where the format allows it.

        Raises CheckpointError if the file is damaged or its tensors are not those of this architecture.
        """
        tensors = read_tensors(self.weights)
        names = expected_shapes(self.architecture, self.decoder)
        return {name: tensors[self.layout.name(name, self.architecture)].contiguous() for name in names}


def resolve_autoencoder(
    model: str, *, offline: bool = False, progress: hub.Progress | None = None
) -> AutoencoderCheckpoint:
    """Find a masked autoencoder and read everything about it but the weights themselves.

    model, offline, progress: as `resolve` has them; the published names mean the pretraining checkpoints here.
    Raises CheckpointError (its message says what was tried).
    """
    return resolve_kind(_AUTOENCODERS, model, offline, progress)


def expected_shapes(architecture: Architecture, decoder: Decoder) -> dict[str, Shape]:
    """The name and shape of every tensor of a masked autoencoder, in the model's own names."""
    encoder = layouts.expected_shapes(replace(architecture, num_classes=0))
    shapes = {name: shape for name, shape in encoder.items() if not name.startswith("head.")}

    def layer(name: str, weight: Shape) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    features, dim = architecture.features, decoder.dim
    for stage in range(MAE_QUERY_POOLS):
        kernel = 1 << (MAE_QUERY_POOLS - stage)
        layer(f"multi_scale_fusion_heads.{stage}", (features, architecture.dim(stage), kernel, kernel))
    layer("encoder_norm", (features,))
    layer("decoder_embed", (dim, features))
    shapes["mask_token"] = (1, 1, dim)
    shapes["decoder_pos_embed"] = (1, PAINTED_GRID**2, dim)
    for number in range(decoder.depth):
        name = f"decoder_blocks.{number}"
        layer(f"{name}.norm1", (dim,))
        layer(f"{name}.attn.qkv", (3 * dim, dim))
        layer(f"{name}.attn.proj", (dim, dim))
        layer(f"{name}.norm2", (dim,))
        layer(f"{name}.mlp.fc1", (MLP_RATIO * dim, dim))
        layer(f"{name}.mlp.fc2", (dim, MLP_RATIO * dim))
    layer("decoder_norm", (dim,))
    layer("decoder_pred", (3 * PAINTED_PATCH**2, dim))
    return shapes


def _describe(name: str, weights: Path, config: Path | None) -> AutoencoderCheckpoint:
    """Architecture and decoder, from the configuration where there is one, else the published ones by their shapes."""
    entries = read_config(config) if config is not None else {}
    shapes = read_shapes(weights)
    layout = _find_layout(shapes, weights)
    if config is not None:
        if "model_type" not in entries:
            raise CheckpointError(f"{config} is not the configuration of a Hiera in the transformers layout")
        architecture = architecture_from_config(entries, config, 0, MAE_QUERY_POOLS)
        decoder = decoder_from_config(entries, config)
    else:
        encoder = {theirs: shape for theirs, shape in shapes.items() if theirs.startswith(("blocks.", "hiera."))}
        pos_embed = layout.name("pos_embed", PUBLISHED["tiny"].architecture)
        size = published_size({**encoder, pos_embed: shapes[pos_embed]}, pos_embed, weights)
        architecture, decoder = replace(size, num_classes=0, query_pools=MAE_QUERY_POOLS), Decoder()
    expected = expected_shapes(architecture, decoder)
    hold_against({layout.name(ours, architecture): shape for ours, shape in expected.items()}, shapes, weights)
    return AutoencoderCheckpoint(name, weights, layout, architecture, decoder)


def _find_layout(shapes: Mapping[str, Shape], file: Path) -> AutoencoderLayout:
    for layout in (TRANSFORMERS, ORIGINAL):
        of_any = PUBLISHED["tiny"].architecture  # these are named alike in all
        if all(layout.name(name, of_any) in shapes for name in ("pos_embed", "mask_token", "decoder_pred.weight")):
            return layout
    try:
        find_layout(shapes, file)
    except CheckpointError:
        raise CheckpointError(
            f"{file} holds no Hiera masked autoencoder (neither of its two published layouts)"
        ) from None
    raise CheckpointError(f"{file} is a Hiera without a decoder: it reconstructs nothing")


def decoder_from_config(entries: dict[str, Any], file: Path) -> Decoder:
    """The decoder that a transformers config.json describes. Raises CheckpointError if it is none."""
    check_fixed(entries, file, {"normalize_pixel_loss": True})
    published = Decoder()  # whose numbers are transformers' defaults, too
    dim = entries.get("decoder_hidden_size", published.dim)
    depth = entries.get("decoder_depth", published.depth)
    heads = entries.get("decoder_num_heads", published.num_heads)
    for key, value, limit in (
        ("decoder_hidden_size", dim, 65536),
        ("decoder_depth", depth, 1024),
        ("decoder_num_heads", heads, 1024),
    ):
        if not is_count(value, limit):
            raise CheckpointError(f"{file}: {key} is {reprlib.repr(value)}, which is not a sensible number")
    if dim % heads:
        raise CheckpointError(f"{file}: {heads} heads do not divide the decoder's {dim} channels")
    ratio = entries.get("mask_ratio", published.mask_ratio)
    if not isinstance(ratio, (int, float)) or not 0 < ratio < 1 or not 0 < visible_units(ratio) < MASK_UNITS:
        raise CheckpointError(
            f"{file}: mask_ratio is {reprlib.repr(ratio)}, which does not leave mask units both to see and to predict"
        )
    return Decoder(dim, depth, heads, float(ratio))


_AUTOENCODERS = Kind(REPOSITORIES, DEMO_AUTOENCODER_FOLDER, _describe)
