"""The numbers that make one Hiera differ from another. Free of torch."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Architecture:
    """A Hiera classifier in numbers.

    embed_dim: channels at stage 1; they double at each stage.
    num_heads: attention heads, by stage.
    depths: blocks, by stage.
    num_classes: length of the logits.
    """

    embed_dim: int
    num_heads: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    num_classes: int = 1000

    def dim(self, stage: int) -> int:
        """Channels at a stage, counted from 0."""
        return int(self.embed_dim << stage)
