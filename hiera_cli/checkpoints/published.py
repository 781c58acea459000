"""The models that were published, and the demo: their names, numbers and repositories. Free of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hiera_cli.model.architecture import Architecture
from hiera_cli.system.near import near


@dataclass(frozen=True)
class PublishedModel:
    """One line of the official model zoo.

    repository, parameters: of the classifier, with the 1000-class head. accuracy: ImageNet-1K top-1, percent, one
    224 × 224 crop. mae_repository, mae_parameters: of the masked autoencoder that it was fine-tuned from.
    """

    name: str
    repository: str
    architecture: Architecture
    parameters: int
    accuracy: float
    mae_repository: str
    mae_parameters: int

    @property
    def weight_bytes(self) -> int:
        """Size of the classifier's weights in fp32, as they are published."""
        return 4 * self.parameters

    @property
    def mae_weight_bytes(self) -> int:
        """The same of the masked autoencoder's."""
        return 4 * self.mae_parameters


LICENCE = "CC BY-NC 4.0 (non-commercial use)"


def _published(
    name: str,
    embed_dim: int,
    heads: int,
    depths: tuple[int, int, int, int],
    parameters: int,
    accuracy: float,
    mae_parameters: int,
) -> PublishedModel:
    num_heads = (heads, heads * 2, heads * 4, heads * 8)
    return PublishedModel(
        name,
        f"facebook/hiera-{name}-224-in1k-hf",
        Architecture(embed_dim, num_heads, depths),
        parameters,
        accuracy,
        f"facebook/hiera-{name}-224-mae-hf",
        mae_parameters,
    )


PUBLISHED = {
    model.name: model
    for model in (
        _published("tiny", 96, 1, (1, 2, 7, 2), 27_910_216, 82.8, 55_020_896),
        _published("small", 96, 1, (1, 2, 11, 2), 35_008_072, 83.8, 62_118_752),
        _published("base", 96, 1, (2, 3, 16, 3), 51_524_968, 84.5, 78_635_648),
        _published("base-plus", 112, 2, (2, 3, 16, 3), 69_896_616, 85.2, 97_584_064),
        _published("large", 144, 2, (2, 6, 36, 4), 213_739_912, 86.1, 242_875_808),
        _published("huge", 256, 4, (2, 6, 36, 4), 672_779_752, 86.9, 710_081_792),
    )
}
# What a size's name stands for: its classifier, or its masked autoencoder where a command needs that.
REPOSITORIES = {name for model in PUBLISHED.values() for name in (model.repository, model.mae_repository)}

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


MODELS = (*PUBLISHED, DEMO)


def model_name(text: str) -> str:
    """The name of the model that is meant: `tiny` for Tiny, hiera-tiny and HIERA_TINY, `base-plus` for base+.

    Anything else is returned as it is, as is what a file or folder is really called.
    """
    if text in MODELS or os.path.exists(os.path.expanduser(text)):
        return text
    name = _plain(text)
    return name if name in MODELS else text


def short_name(repository: str) -> str:
    """The name of the classifier that a repository holds, such as tiny; another repository's is its own."""
    return next((model.name for model in PUBLISHED.values() if model.repository == repository), repository)


def near_model(text: str) -> str | None:
    """The model that was probably meant by what is not the name of one; None if none is much like it."""
    return None if {*"/\\."} & {*text} else near(_plain(text), MODELS)  # those are paths


def _plain(text: str) -> str:
    name = text.casefold().replace("_", "-").removeprefix("hiera-")
    return f"{name.removesuffix('+').removesuffix('-')}-plus" if name.endswith("+") else name
