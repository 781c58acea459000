"""The numbers that make one Hiera differ from another, and the six that were published. Free of torch."""

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


@dataclass(frozen=True)
class PublishedModel:
    """One line of the official model zoo.

    parameters: with the 1000-class head. accuracy: ImageNet-1K top-1, percent, one 224 × 224 crop.
    """

    name: str
    repository: str
    architecture: Architecture
    parameters: int
    accuracy: float

    @property
    def weight_bytes(self) -> int:
        """Size of the weights in fp32, as they are published."""
        return 4 * self.parameters


LICENCE = "CC BY-NC 4.0 (non-commercial use)"


def _published(
    name: str,
    embed_dim: int,
    heads: int,
    depths: tuple[int, int, int, int],
    parameters: int,
    accuracy: float,
) -> PublishedModel:
    num_heads = (heads, heads * 2, heads * 4, heads * 8)
    repository = f"facebook/hiera-{name}-224-in1k-hf"
    return PublishedModel(name, repository, Architecture(embed_dim, num_heads, depths), parameters, accuracy)


PUBLISHED = {
    model.name: model
    for model in (
        _published("tiny", 96, 1, (1, 2, 7, 2), 27_910_216, 82.8),
        _published("small", 96, 1, (1, 2, 11, 2), 35_008_072, 83.8),
        _published("base", 96, 1, (2, 3, 16, 3), 51_524_968, 84.5),
        _published("base-plus", 112, 2, (2, 3, 16, 3), 69_896_616, 85.2),
        _published("large", 144, 2, (2, 6, 36, 4), 213_739_912, 86.1),
        _published("huge", 256, 4, (2, 6, 36, 4), 672_779_752, 86.9),
    )
}
