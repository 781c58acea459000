"""The numbers and the blocks that make one Hiera differ from another: the network's one description. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Common to every published Hiera (arXiv 2306.00989, section 3 and appendix).
IMAGE_SIZE = 224  # pixels, each side
PATCH_SIZE, PATCH_STRIDE, PATCH_PADDING = 7, 4, 3  # pixels
GRID = IMAGE_SIZE // PATCH_STRIDE  # tokens along each side at stage 1: 56
MASK_UNIT = 8  # tokens along each side of a mask unit at stage 1
POOL = 4  # tokens that one query pooling merges: 2 × 2
MLP_RATIO = 4
LAYER_NORM_EPS = 1e-6
NUM_STAGES = 4
MASK_UNIT_ATTENTION = (True, True, False, False)  # by stage; False is global attention

# Of the masked autoencoders (section 3.1 of the paper).
MASK_UNITS = (GRID // MASK_UNIT) ** 2  # of an image: 49
MAE_QUERY_POOLS = 2  # so that 2 × 2 tokens of each mask unit come out of the encoder
PAINTED_GRID = GRID >> MAE_QUERY_POOLS  # tokens along each side that come out, and whose patches are predicted: 14
PAINTED_PATCH = IMAGE_SIZE // PAINTED_GRID  # pixels along each side of such a patch: 16


@dataclass(frozen=True)
class Block:
    """The shape of one transformer block.

    dim, dim_out: channels before and after it; where they differ, its shortcut is a linear projection. pools: whether
    it merges 2 × 2 tokens into one. tokens, unit_tokens: before it, of an image and of a mask unit. within_units:
    whether its attention is within mask units, or over all tokens.
    """

    dim: int
    dim_out: int
    num_heads: int
    pools: bool
    tokens: int
    unit_tokens: int
    within_units: bool


@dataclass(frozen=True)
class Architecture:
    """A Hiera in numbers.

    embed_dim: channels at stage 1; they double at each stage.
    num_heads: attention heads, by stage.
    depths: blocks, by stage.
    num_classes: length of the logits; 0 for a backbone, which has no classifier.
    query_pools: at the first block of how many stages, from the second on, tokens are pooled.
    """

    embed_dim: int
    num_heads: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    num_classes: int = 1000
    query_pools: int = NUM_STAGES - 1

    def dim(self, stage: int) -> int:
        """Channels at a stage, counted from 0."""
        return int(self.embed_dim << stage)

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.dim(NUM_STAGES - 1)

    def blocks(self) -> Iterator[Block]:
        """All blocks, in order."""
        dim, tokens, unit_tokens = self.embed_dim, GRID * GRID, MASK_UNIT * MASK_UNIT
        for stage, depth in enumerate(self.depths):
            for layer in range(depth):
                pools = layer == 0 and 0 < stage <= self.query_pools
                # The first block of a stage still attends the way of the stage before it.
                within_units = MASK_UNIT_ATTENTION[max(stage - 1, 0) if layer == 0 else stage]
                yield Block(dim, self.dim(stage), self.num_heads[stage], pools, tokens, unit_tokens, within_units)
                dim = self.dim(stage)
                if pools:
                    tokens, unit_tokens = tokens // POOL, unit_tokens // POOL


@dataclass(frozen=True)
class Decoder:
    """A masked autoencoder's decoder in numbers, and how it was trained. The defaults are those of the published ones.

    dim: channels. depth: blocks. num_heads: attention heads of each. mask_ratio: the share of the mask units that the
    encoder is not shown.
    """

    dim: int = 512
    depth: int = 8
    num_heads: int = 16
    mask_ratio: float = 0.6

    def blocks(self) -> Iterator[Block]:
        """All blocks, in order: global attention over all that comes out of the encoder, in rows and columns."""
        tokens = PAINTED_GRID * PAINTED_GRID
        for _ in range(self.depth):
            yield Block(self.dim, self.dim, self.num_heads, False, tokens, tokens // MASK_UNITS, False)


def visible_units(mask_ratio: float) -> int:
    """How many mask units of an image the encoder is shown."""
    return int(MASK_UNITS * (1 - mask_ratio))
