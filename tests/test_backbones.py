"""A Hiera without a classifier: every layout loads, checked strictly, and is refused where labels are wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_maker import SMALL, backbones, reference_model, save
from conftest import SAMPLES, Call, Hiera
from hub_server import Hub
from safetensors.torch import load_file, save_file

from hiera_cli import load_classifier
from hiera_cli.checkpoints.layouts import TRANSFORMERS_BACKBONE, expected_shapes
from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.checkpoints.resolve import resolve
from hiera_cli.errors import CheckpointError

CAT = SAMPLES / "cat.jpg"
BACKBONE = replace(SMALL, num_classes=0)
LAYOUTS = ["transformers", "prefixed", "timm", "original", "pretrained"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Hiera in the transformers layout."""
    return save(reference_model(SMALL), tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The backbone of the same in each layout. Its size counts as a published one: some have no configuration."""
    monkeypatch.setitem(PUBLISHED, "miniature", replace(PUBLISHED["tiny"], architecture=SMALL))
    return backbones(reference_model(SMALL), tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_backbone_of_any_layout_has_the_tensors_of_its_classifier_but_the_last_layer(
    classifier: Path, saved: dict[str, Path], layout: str
) -> None:
    checkpoint = resolve(str(saved[layout]))
    assert (checkpoint.name, checkpoint.architecture, checkpoint.labels) == (str(saved[layout]), BACKBONE, ())
    expected = resolve(str(classifier)).state_dict()
    del expected["head.fc.weight"], expected["head.fc.bias"]
    tensors, arrays = checkpoint.state_dict(), checkpoint.arrays()
    assert list(tensors) == list(arrays) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor)
        assert np.array_equal(arrays[name], tensor.numpy())


def test_a_backbone_has_the_names_and_shapes_of_transformers_own_in_every_size() -> None:
    from transformers import HieraConfig, HieraModel

    for model in PUBLISHED.values():
        size = replace(model.architecture, num_classes=0)
        config = HieraConfig(embed_dim=size.embed_dim, num_heads=list(size.num_heads), depths=list(size.depths))
        with torch.device("meta"):
            theirs = HieraModel(config).state_dict()
        ours = expected_shapes(size)
        assert {TRANSFORMERS_BACKBONE.name(name, size): shape for name, shape in ours.items()} == {
            name: tuple(tensor.shape) for name, tensor in theirs.items()
        }
    assert sum(map(math.prod, expected_shapes(replace(PUBLISHED["tiny"].architecture, num_classes=0)).values())) == (
        27_141_216  # as published
    )


Edit = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("encoder.stages.0.layers.0.attn.qkv.weight"), r"attn\.qkv\.weight is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is left over"),
        (lambda t: t.update({"classifier.weight": torch.zeros(2, 128)}), r"classifier\.weight is left over"),
        (
            lambda t: t.update({"pooler.layernorm.bias": torch.zeros(5)}),
            r"pooler\.layernorm\.bias has the shape \[5\], not \[128\]",
        ),
        (
            lambda t: [t.pop("pooler.layernorm.weight"), t.pop("pooler.layernorm.bias")],
            "lacks the last LayerNorm of a Hiera: it gives neither labels nor features",
        ),
    ],
)
def test_tensors_that_are_not_exactly_a_backbone_are_refused_by_name(
    saved: dict[str, Path], edit: Edit, message: str
) -> None:
    file = saved["transformers"] / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=message):
        resolve(str(file))


@pytest.mark.parametrize("layout", ["timm", "original", "pretrained"])
def test_no_tensor_of_another_layout_is_taken_for_a_backbones(saved: dict[str, Path], layout: str) -> None:
    file = saved[layout] / "model.safetensors" if layout == "timm" else saved[layout]
    tensors = load_file(file) if layout == "timm" else torch.load(file)["model_state"]
    tensors["head.projection.weight" if layout == "timm" else "head.fc.weight"] = torch.zeros(2, 128)
    save_file(tensors, "mixed.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.(fc|projection)\.weight is left over"):
        resolve("mixed.safetensors")


def test_what_a_configuration_calls_a_backbones_classes_is_of_no_account(saved: dict[str, Path]) -> None:
    config = saved["transformers"] / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": {"0": "cat", "1": "dog"}}))
    assert resolve(str(saved["transformers"])).labels == ()


@pytest.mark.parametrize("command", [("classify", CAT), ("labels",), ("bench", "-q")], ids=lambda words: words[0])
def test_where_labels_are_wanted_a_backbone_is_refused_with_the_command_for_it(
    saved: dict[str, Path], call: Call, command: tuple[str, ...]
) -> None:
    model = saved["transformers"]
    done = call(*command, "-m", model)
    assert (done.status, done.out, done.err) == (
        2,
        "",
        f"hiera: error: {model} is a Hiera backbone without a classifier: it gives no labels\n"
        f"  For its features: hiera embed -m {model} INPUT... -o FILE\n",
    )


def test_python_says_so_too(saved: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="is a Hiera backbone without a classifier: it gives no labels"):
        load_classifier(str(saved["timm"]), labels=True)


def test_a_backbone_of_the_hub_is_downloaded_and_called_by_its_repository(
    hub: Hub, hiera: Hiera, saved: dict[str, Path], tmp_path: Path
) -> None:
    repository = tmp_path / "root" / "facebook" / "hiera-tiny-224-hf"
    repository.parent.mkdir(parents=True)
    saved["transformers"].rename(repository)
    hub.root = tmp_path / "root"
    assert hiera("download", "facebook/hiera-tiny-224-hf", "-q").returncode == 0
    done = hiera("classify", CAT, "-m", "facebook/hiera-tiny-224-hf")
    assert done.stderr == (
        "hiera: error: facebook/hiera-tiny-224-hf is a Hiera backbone without a classifier: it gives no labels\n"
        "  For its features: hiera embed -m facebook/hiera-tiny-224-hf INPUT... -o FILE\n"
    )


def transformers_autoencoder(folder: Path) -> Path:
    from transformers import HieraConfig, HieraForPreTraining

    config = HieraConfig(
        embed_dim=SMALL.embed_dim,
        num_heads=list(SMALL.num_heads),
        depths=list(SMALL.depths),
        num_query_pool=2,
        decoder_hidden_size=32,
        decoder_depth=1,
        decoder_num_heads=4,
    )
    HieraForPreTraining(config).save_pretrained(folder)
    return folder


def original_autoencoder(folder: Path) -> Path:
    """Of its names, those that tell what it is."""
    names = ("pos_embed", "encoder_norm.weight", "decoder_embed.weight", "mask_token", "decoder_pos_embed")
    torch.save({"model_state": {name: torch.zeros(1) for name in names}}, "mae_hiera_tiny_224.pth")
    return Path("mae_hiera_tiny_224.pth")


@pytest.mark.parametrize("make", [transformers_autoencoder, original_autoencoder])
def test_a_masked_autoencoder_is_refused_with_the_command_for_it(
    tmp_path: Path, call: Call, make: Callable[[Path], Path]
) -> None:
    model = make(tmp_path / "model")
    weights = model if model.suffix else model / "model.safetensors"
    assert call("classify", CAT, "-m", model).err == (
        f"hiera: error: {weights} is a masked autoencoder: it gives neither labels nor features\n"
        "  `hiera reconstruct` shows what it paints in the places that are hidden from it.\n"
    )
