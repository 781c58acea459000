"""The published layouts: how each names the tensors, and the shapes that an architecture gives them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from hiera_cli.errors import CheckpointError
from hiera_cli.model.architecture import GRID, MLP_RATIO, PATCH_SIZE, Architecture
from hiera_cli.system.printable import shortened


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors.

    names: from the model's own name of a tensor, or of the module that it belongs to, to theirs where they differ.
    by_stage: blocks are counted within their stage, below what they call `blocks`, and name the two norms differently.
    """

    names: Mapping[str, str]
    by_stage: bool = False

    def name(self, ours: str, architecture: Architecture) -> str:
        """What they call one of the model's tensors."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", ours)
        if not match or not self.by_stage:
            return translated(ours, self.names)
        stage, layer = 0, int(match[1])
        while layer >= architecture.depths[stage]:
            layer -= architecture.depths[stage]
            stage += 1
        return f"{self.names['blocks']}.{stage}.layers.{layer}.{translated(match[2], self.names)}"


def translated(name: str, table: Mapping[str, str]) -> str:
    """A tensor's name by a table of names: its own entry, else that of its module, else as it is."""
    module, dot, parameter = name.rpartition(".")
    return table.get(name) or table.get(module, module) + dot + parameter


TIMM = Layout({})  # the model's own names
ORIGINAL = Layout({"head.norm": "norm", "head.fc": "head.projection"})
ORIGINAL_MAE = Layout({"head.norm": "encoder_norm", "head.fc": "head.projection"})
TRANSFORMERS = Layout(
    {
        "pos_embed": "hiera.embeddings.position_embeddings",
        "patch_embed.proj": "hiera.embeddings.patch_embeddings.projection",
        "blocks": "hiera.encoder.stages",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "head.norm": "hiera.pooler.layernorm",
        "head.fc": "classifier",
    },
    by_stage=True,
)
TRANSFORMERS_BACKBONE = Layout(
    {ours: theirs.removeprefix("hiera.") for ours, theirs in TRANSFORMERS.names.items() if ours != "head.fc"},
    by_stage=True,
)
LAYOUTS = (TRANSFORMERS, TRANSFORMERS_BACKBONE, TIMM, ORIGINAL_MAE, ORIGINAL)

Shape = tuple[int, ...]


def is_autoencoder(names: Container[str]) -> bool:
    """Whether the names of a file's tensors are those of a masked autoencoder, transformers' or the original's."""
    return "decoder.mask_token" in names or "mask_token" in names


def find_layout(names: Container[str], file: Path) -> Layout:
    """Which of the published layouts the names of a file's tensors are in. Raises CheckpointError for any other."""
    for layout in LAYOUTS:
        if all(translated(name, layout.names) in names for name in ("pos_embed", "head.norm.weight")):
            return layout
    if any(translated("pos_embed", layout.names) in names for layout in LAYOUTS):
        raise CheckpointError(f"{file} lacks the last LayerNorm of a Hiera: it gives neither labels nor features")
    raise CheckpointError(f"{file} is not a Hiera in any of the three published layouts")


def expected_shapes(architecture: Architecture) -> dict[str, Shape]:
    """The shape of every tensor of a Hiera, by the model's own names. A backbone has no `head.fc`."""
    shapes: dict[str, Shape] = {}

    def layer(name: str, weight: Shape) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    shapes["pos_embed"] = (1, GRID * GRID, architecture.embed_dim)
    layer("patch_embed.proj", (architecture.embed_dim, 3, PATCH_SIZE, PATCH_SIZE))
    for number, block in enumerate(architecture.blocks()):
        name, dim, dim_out = f"blocks.{number}", block.dim, block.dim_out
        layer(f"{name}.norm1", (dim,))
        layer(f"{name}.attn.qkv", (3 * dim_out, dim))
        layer(f"{name}.attn.proj", (dim_out, dim_out))
        layer(f"{name}.norm2", (dim_out,))
        layer(f"{name}.mlp.fc1", (MLP_RATIO * dim_out, dim_out))
        layer(f"{name}.mlp.fc2", (dim_out, MLP_RATIO * dim_out))
        if dim != dim_out:
            layer(f"{name}.proj", (dim_out, dim))
    layer("head.norm", (architecture.features,))
    if architecture.num_classes:
        layer("head.fc", (architecture.num_classes, architecture.features))
    return shapes


def check_shapes(shapes: Mapping[str, Shape], layout: Layout, architecture: Architecture, file: Path) -> None:
    """Raise CheckpointError unless a file's tensors are those of the architecture: none missing, left over or reshaped.

    shapes: by the names in the file, which is in this layout.
    """
    hold_against(
        {layout.name(name, architecture): shape for name, shape in expected_shapes(architecture).items()}, shapes, file
    )


def hold_against(expected: Mapping[str, Shape], shapes: Mapping[str, Shape], file: Path) -> None:
    """Raise CheckpointError, by name, for tensors that are missing, left over or of the wrong shape."""
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{shortened(name)} is left over" for name in shapes if name not in expected]
    problems += [
        f"{name} has the shape {reprlib.repr(list(shapes[name]))}, not {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{file} is not this Hiera: {'; '.join(problems[:3])}{more}")
