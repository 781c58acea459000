"""Hiera as a masked autoencoder (arXiv 2306.00989, section 3; MAE: He et al., arXiv 2111.06377), in plain PyTorch.

Most mask units of an image are hidden. The encoder is Hiera without its last query pooling; it is shown the others
alone, and so is as fast as they are few. What its stages say of them is fused, put back in its place among mask tokens,
and a small transformer, the decoder, predicts the pixels of every patch.

Hiera's tokens stand mask unit by mask unit (hiera.py), so the hidden ones are left out by leaving out whole runs, and
its blocks work on what remains as they are: attention within units takes any number of them, global attention all.

Read it from the top. Shapes stand at the ends of lines, in the letters of hiera.py; here U is the number of mask units
that are shown. Attribute names are those of the original release's checkpoints, which load as they stand.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

from hiera_cli.model.architecture import (
    GRID,
    LAYER_NORM_EPS,
    MAE_QUERY_POOLS,
    MASK_UNIT,
    MASK_UNITS,
    PAINTED_GRID,
    PAINTED_PATCH,
    Architecture,
    Decoder,
    visible_units,
)
from hiera_cli.model.hiera import Block, PatchEmbed, unroll

UNITS = GRID // MASK_UNIT  # along each side of an image: 7
SIDE = PAINTED_GRID // UNITS  # tokens along each side of a mask unit that come out of the encoder: 2
VARIANCE_EPS = 1e-6  # of a patch of one colour


def shown_units(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Which mask units the encoder is shown: those with the smallest noise.

    noise: (B, MASK_UNITS). Returns their numbers (B, U), ascending, and (B, MASK_UNITS) bool, true where one is shown.
    """
    shown = noise.argsort(dim=1, stable=True)[:, : visible_units(mask_ratio)].sort(dim=1).values
    return shown, torch.zeros_like(noise, dtype=torch.bool).scatter(1, shown, True)


def enlarged(visible: Tensor, side: int) -> Tensor:
    """(B, MASK_UNITS) → (B, UNITS · side, UNITS · side): each unit's value at all of its places."""
    return visible.view(-1, UNITS, UNITS).repeat_interleave(side, 1).repeat_interleave(side, 2)


def units_in_rows_and_columns(x: Tensor, units: int) -> Tensor:
    """Bring the tokens of each mask unit back from the order that the blocks work in (hiera.py).

    x: (B, U·T, C). Returns (B·U, C, √T, √T).
    """
    unit_tokens = x.shape[1] // units
    offsets = unit_tokens.bit_length() - 1  # twos in T: row and column of the finest 2 × 2, of the next, …
    x = x.reshape(-1, *(2,) * offsets, x.shape[-1])
    x = x.permute(0, offsets + 1, *range(offsets - 1, 0, -2), *range(offsets, 0, -2))
    side = 1 << offsets // 2
    return x.reshape(*x.shape[:2], side, side)


def patches(pixels: Tensor) -> Tensor:
    """(B, 3, 224, 224) → (B, 196, 768): what is to be predicted, channel first, then rows, then columns of a patch."""
    x = pixels.reshape(-1, 3, PAINTED_GRID, PAINTED_PATCH, PAINTED_GRID, PAINTED_PATCH)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(len(pixels), PAINTED_GRID**2, -1)


def reconstruction_loss(prediction: Tensor, pixels: Tensor, visible: Tensor) -> Tensor:
    """Mean squared error on the hidden patches, each normalised by its own mean and (unbiased) variance.

    prediction: (B, 196, 768). visible: (B, MASK_UNITS). Returns (B,), of each image; NaN where nothing is hidden.
    """
    target = patches(pixels)
    variance, mean = torch.var_mean(target, -1, keepdim=True)
    error = (prediction - (target - mean) / (variance + VARIANCE_EPS).sqrt()).square().mean(-1)  # (B, 196)
    hidden = ~enlarged(visible, SIDE).flatten(1)
    return (error * hidden).sum(1) / hidden.sum(1)


class MaskedAutoencoder(nn.Module):
    """A Hiera with its decoder: what the paper pretrains.

    pixels (B, 3, 224, 224), normalised, and noise (B, 49), which decides what is hidden, to the prediction
    (B, 196, 768) of every patch, normalised; to what was shown, (B, 49) bool; and to the loss (B,). All in fp32.
    """

    def __init__(self, architecture: Architecture, decoder: Decoder) -> None:
        super().__init__()
        dim, features = architecture.embed_dim, architecture.features
        self.mask_ratio = decoder.mask_ratio
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.empty(1, GRID * GRID, dim))
        self.blocks = nn.ModuleList(map(Block, architecture.blocks()))
        self.fused_after = tuple(accumulate(architecture.depths))[:MAE_QUERY_POOLS]  # blocks: the ends of stages 1, 2
        self.multi_scale_fusion_heads = nn.ModuleList(
            nn.Conv2d(architecture.dim(stage), features, kernel, kernel)
            for stage, kernel in ((stage, 1 << (MAE_QUERY_POOLS - stage)) for stage in range(MAE_QUERY_POOLS))
        )
        self.encoder_norm = nn.LayerNorm(features, eps=LAYER_NORM_EPS)
        self.decoder_embed = nn.Linear(features, decoder.dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder.dim))
        self.decoder_pos_embed = nn.Parameter(torch.empty(1, PAINTED_GRID**2, decoder.dim))
        self.decoder_blocks = nn.ModuleList(map(Block, decoder.blocks()))
        self.decoder_norm = nn.LayerNorm(decoder.dim, eps=LAYER_NORM_EPS)
        self.decoder_pred = nn.Linear(decoder.dim, 3 * PAINTED_PATCH**2)

    def forward(self, pixels: Tensor, noise: Tensor, mask_ratio: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        shown, visible = shown_units(noise, self.mask_ratio if mask_ratio is None else mask_ratio)
        encoded = self.encode(pixels, shown, visible)
        prediction = self.decode(encoded, shown)
        return prediction, visible, reconstruction_loss(prediction, pixels, visible)

    def encode(self, pixels: Tensor, shown: Tensor, visible: Tensor) -> Tensor:
        """What is known of the mask units that are shown: (B, U·4, C), four tokens a unit, in rows and columns."""
        batch, units = shown.shape
        # The patches of the convolution overlap: what is hidden is hidden before it.
        x = self.patch_embed(pixels * enlarged(visible, pixels.shape[-1] // UNITS)[:, None])
        x = unroll(x + self.pos_embed.view(1, GRID, GRID, -1))  # (B, N, C)
        x = x.view(batch, MASK_UNITS, -1, x.shape[-1])
        x = x[torch.arange(batch, device=x.device)[:, None], shown].flatten(1, 2)  # (B, U·T, C)
        heads = dict(zip(self.fused_after, self.multi_scale_fusion_heads, strict=True))
        fused = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in heads:
                y = heads[number](units_in_rows_and_columns(x, units))  # (B·U, C, 2, 2)
                fused.append(y.flatten(2).transpose(1, 2).reshape(batch, -1, y.shape[1]))
        return self.encoder_norm(sum(fused) + x)  # type: ignore[no-any-return]

    def decode(self, encoded: Tensor, shown: Tensor) -> Tensor:
        """The prediction of every patch: (B, 196, 768)."""
        batch, units = shown.shape
        x = self.decoder_embed(encoded)
        whole = self.mask_token.view(1, 1, 1, -1).repeat(batch, MASK_UNITS, SIDE * SIDE, 1)
        whole[torch.arange(batch, device=x.device)[:, None], shown] = x.view(batch, units, SIDE * SIDE, -1)
        whole = whole.view(batch, UNITS, UNITS, SIDE, SIDE, -1).transpose(2, 3)
        x = whole.reshape(batch, PAINTED_GRID**2, -1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))  # type: ignore[no-any-return]
