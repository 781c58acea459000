"""Checkpoints in the published layouts, made with transformers from a seed, whose right answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import HieraConfig, HieraForImageClassification

from hiera_cli.checkpoints.labels import imagenet_labels
from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.images.recipe import preprocess
from hiera_cli.model.architecture import Architecture

SMALL = Architecture(embed_dim=16, num_heads=(1, 2, 4, 8), depths=(1, 2, 2, 1))


def reference_model(architecture: Architecture, id2label: dict[int, str] | None = None) -> HieraForImageClassification:
    """transformers' Hiera with seeded random weights, larger than its own initialisation so that answers differ."""
    torch.manual_seed(0)
    labels = id2label or {label.index: label.text for label in imagenet_labels()[: architecture.num_classes]}
    config = HieraConfig(
        embed_dim=architecture.embed_dim,
        num_heads=list(architecture.num_heads),
        depths=list(architecture.depths),
        id2label=labels,
        label2id={text: index for index, text in labels.items()},
    )
    with torch.device("meta"):
        model = HieraForImageClassification(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if "layernorm" in name and name.endswith("weight"):
            parameter.uniform_(0.8, 1.2)
        elif name.endswith("bias"):
            parameter.uniform_(-0.1, 0.1)
        else:
            fan_in = parameter[0].numel() if parameter.dim() > 1 and "position" not in name else 4
            parameter.uniform_(-1, 1).mul_((3 / fan_in) ** 0.5)
    return model  # type: ignore[no-any-return]


def fit_classifier(model: HieraForImageClassification, images: dict[Path, int]) -> None:
    """Set the classifier so that the model says of each image what is true of it, confidently."""
    pixels = np.stack([preprocess(Image.open(path)) for path in images])
    features = model.hiera(torch.from_numpy(pixels)).pooler_output  # (images, channels)
    wanted = torch.zeros(len(images), int(model.config.num_labels or 0))
    wanted[range(len(images)), list(images.values())] = 12.0
    centre = features.mean(0)
    weight = torch.linalg.lstsq(features - centre, wanted - wanted.mean(0), driver="gelsd").solution.T
    classifier: Any = model.classifier
    classifier.weight.copy_(weight)
    classifier.bias.copy_(wanted.mean(0) - weight @ centre)


def save(model: HieraForImageClassification, folder: Path) -> Path:
    """In the published layout, as transformers writes it."""
    model.save_pretrained(folder)
    return folder


def to_original(tensors: dict[str, Tensor], depths: tuple[int, ...], *, head: str, norm: str) -> dict[str, Tensor]:
    """transformers' names → those of the original release or timm, by the table of the published layouts."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("hiera.embeddings.position_embeddings", "pos_embed")
        name = name.replace("hiera.embeddings.patch_embeddings.projection", "patch_embed.proj")
        name = name.replace("hiera.pooler.layernorm", norm).replace("classifier", head)
        name = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        if name.startswith("hiera.encoder.stages."):
            _, _, _, stage, _, layer, rest = name.split(".", 6)
            name = f"blocks.{sum(depths[: int(stage)]) + int(layer)}.{rest}"
        renamed[name] = tensor
    return renamed


def save_original(model: HieraForImageClassification, file: Path) -> Path:
    """The original release's .pth: tensors under `model_state`."""
    tensors = to_original(model.state_dict(), tuple(model.config.depths), head="head.projection", norm="norm")
    torch.save({"model_state": tensors, "epoch": 299}, file)
    return file


def backbones(model: HieraForImageClassification, folder: Path) -> dict[str, Path]:
    """Its backbone in each of the layouts, as a folder or a file that `-m` takes, by what they are called here."""
    depths = tuple(model.config.depths)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("hiera.")}
    model.hiera.save_pretrained(folder / "transformers")
    made = {"transformers": folder / "transformers"}
    for name, norm in (("original", "norm"), ("pretrained", "encoder_norm")):
        made[name] = folder / f"{name}.pth"
        torch.save({"model_state": to_original(tensors, depths, head="", norm=norm)}, made[name])
    for name, renamed in (("prefixed", tensors), ("timm", to_original(tensors, depths, head="", norm="head.norm"))):
        made[name] = folder / name
        made[name].mkdir()
        save_file({each: tensor.contiguous() for each, tensor in renamed.items()}, made[name] / "model.safetensors")
    (made["timm"] / "config.json").write_text('{"architecture": "hiera_tiny_224", "num_classes": 0}')
    (made["prefixed"] / "config.json").write_text(json.dumps(model.config.to_dict()))  # type: ignore[no-untyped-call]
    return made


def save_timm(model: HieraForImageClassification, folder: Path) -> Path:
    """A timm repository's two files."""
    tensors = to_original(model.state_dict(), tuple(model.config.depths), head="head.fc", norm="head.norm")
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    config: dict[str, Any] = {"architecture": "hiera_tiny_224", "num_classes": model.config.num_labels}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tiny_model(samples: dict[Path, int]) -> HieraForImageClassification:
    """Hiera-Tiny's shape, with ImageNet's classes, right on the sample images."""
    model = reference_model(PUBLISHED["tiny"].architecture)
    fit_classifier(model, samples)
    return model
