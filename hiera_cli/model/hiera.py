"""Hiera (Ryali et al., ICML 2023, arXiv 2306.00989) as an image classifier, in plain PyTorch.

Read it from the top: leaf to root. Shapes stand at the ends of lines where the layout changes:
B images, N tokens, C channels, U mask units, T tokens in a mask unit, H heads, D channels of a head.

**Token order.** Between blocks, tokens are not in rows and columns. They stand mask unit by mask unit, and inside
a mask unit the offset within each 2 × 2 group comes first, the finest group leading:

    (unit row, unit column,   finest 2 × 2 offset, middle 2 × 2 offset, coarsest 2 × 2 offset)

So a mask unit is a contiguous run of T tokens, and pooling 2 × 2 neighbours is a max over the leading one of its
axes, (4, T/4): both are views, and nothing is moved again after `unroll`. Three poolings use up the three offsets.
The paper's implementation section and the original `Unroll` have the same idea with the mask units trailing; with
the units leading, the heads' queries, keys and values reach the fused attention kernel as they are, without a copy.

Attribute names are those of timm's checkpoints, which load as they stand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_cli.model import architecture
from hiera_cli.model.architecture import (
    GRID,
    LAYER_NORM_EPS,
    MASK_UNIT,
    MLP_RATIO,
    PATCH_PADDING,
    PATCH_SIZE,
    PATCH_STRIDE,
    POOL,
)


def unroll(x: Tensor) -> Tensor:
    """Bring a grid of tokens into the order that the blocks work in (the module's docstring).

    x: (B, GRID, GRID, C), rows and columns. Returns (B, N, C) with N = GRID².
    """
    units = GRID // MASK_UNIT
    x = x.reshape(-1, units, 2, 2, 2, units, 2, 2, 2, x.shape[-1])  # each side: unit, coarse, middle, fine
    x = x.permute(0, 1, 5, 4, 8, 3, 7, 2, 6, 9)
    return x.reshape(x.shape[0], GRID * GRID, x.shape[-1])


def max_pool(x: Tensor, dim: int, unit_tokens: int) -> Tensor:
    """Query pooling: the maximum over each 2 × 2 group of tokens.

    x: tokens along `dim`, unrolled, `unit_tokens` to a mask unit. Returns the same with N/4 tokens.
    """
    x = torch.unflatten(x, dim, (-1, POOL, unit_tokens // POOL))
    return x.amax(dim + 1).flatten(dim, dim + 1)


class Attention(nn.Module):
    """Multi-head self-attention within each mask unit or over all tokens; with query pooling where the block pools."""

    def __init__(self, shape: architecture.Block) -> None:
        super().__init__()
        self.shape = shape
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim_out)
        self.proj = nn.Linear(shape.dim_out, shape.dim_out)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        shape = self.shape
        group = shape.unit_tokens if shape.within_units else tokens  # tokens that see each other
        qkv = self.qkv(x).view(-1, group, 3, shape.num_heads, shape.dim_out // shape.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 × (B·U or B, H, group, D)
        if shape.pools:
            q = max_pool(q, 2, shape.unit_tokens)
        x = F.scaled_dot_product_attention(q, k, v)
        x = x.transpose(1, 2).reshape(batch, -1, shape.dim_out)  # (B, N or N/4, C)
        return self.proj(x)  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block. The first of stages 2 to 4 doubles the channels and pools the tokens 4 to 1."""

    def __init__(self, shape: architecture.Block) -> None:
        super().__init__()
        self.shape = shape
        self.norm1 = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(shape)
        self.norm2 = nn.LayerNorm(shape.dim_out, eps=LAYER_NORM_EPS)
        self.mlp = MLP(shape.dim_out)
        self.proj = nn.Linear(shape.dim, shape.dim_out) if shape.dim != shape.dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.proj is not None:  # the shortcut follows the *normed* input, pooled like the queries
            x = self.proj(y)
            if self.shape.pools:
                x = max_pool(x, 1, self.shape.unit_tokens)
        x = x + self.attn(y)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """Overlapping patches to tokens: a strided convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH_SIZE, PATCH_STRIDE, PATCH_PADDING)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).permute(0, 2, 3, 1)  # type: ignore[no-any-return]  # (B, GRID, GRID, C)


class Head(nn.Module):
    """Mean over tokens, LayerNorm, linear; in fp32 at any precision, for it costs nothing and decides the label.

    A backbone (num_classes 0) has no linear layer.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.fc = nn.Linear(dim, num_classes) if num_classes else None

    def features(self, x: Tensor) -> Tensor:
        return self.norm(x.mean(1, dtype=torch.float32))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        assert self.fc is not None, "a backbone has no logits"
        return self.fc(self.features(x))  # type: ignore[no-any-return]


class Hiera(nn.Module):
    """A Hiera: pixels (B, 3, 224, 224), normalised, to logits (B, num_classes), features (B, C) or tokens (B, 7, 7, C).

    All in fp32. The last tokens are one a mask unit: back in rows and columns.
    """

    def __init__(self, architecture: architecture.Architecture) -> None:
        super().__init__()
        dim = architecture.embed_dim
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.empty(1, GRID * GRID, dim))
        self.blocks = nn.ModuleList(map(Block, architecture.blocks()))
        self.head = Head(architecture.features, architecture.num_classes)

    def forward(self, pixels: Tensor, output: str = "logits") -> Tensor:
        x = self.patch_embed(pixels)
        x = x + self.pos_embed.view(1, GRID, GRID, -1)
        x = unroll(x)  # (B, N, C)
        for block in self.blocks:
            x = block(x)
        if output == "tokens":
            units = GRID // MASK_UNIT
            return x.float().view(-1, units, units, x.shape[-1])  # type: ignore[no-any-return]
        if output == "features":
            return self.head.features(x)
        return self.head(x)  # type: ignore[no-any-return]

    def to_precision(self, dtype: torch.dtype) -> Hiera:
        """Cast everything but the head, in place."""
        self.patch_embed.to(dtype)
        self.pos_embed.data = self.pos_embed.data.to(dtype)
        self.blocks.to(dtype)
        return self
