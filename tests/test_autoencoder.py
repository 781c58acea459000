"""Masked autoencoders: the reference's predictions in both published layouts, and nothing else loads."""

from __future__ import annotations

import io
import json
import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_published import COCO_CATS
from transformers import HieraConfig, HieraForPreTraining

from hiera_cli import load_autoencoder
from hiera_cli.checkpoints.autoencoder import REPOSITORIES, expected_shapes, resolve_autoencoder
from hiera_cli.checkpoints.published import DEMO_FOLDER, PUBLISHED
from hiera_cli.checkpoints.resolve import resolve
from hiera_cli.engines.placement import Placement
from hiera_cli.errors import CheckpointError, DeviceError, UsageError
from hiera_cli.images.recipe import preprocess
from hiera_cli.model.architecture import Architecture, Decoder
from hiera_cli.model.hiera import unroll
from hiera_cli.model.mae import MaskedAutoencoder, shown_units, units_in_rows_and_columns

SMALL = Architecture(embed_dim=16, num_heads=(1, 2, 4, 8), depths=(1, 2, 2, 1), num_classes=0, query_pools=2)
SMALL_DECODER = Decoder(dim=32, depth=2, num_heads=4, mask_ratio=0.5)
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.standard_normal((3, 3, 224, 224), dtype=np.float32)
NOISE = RANDOM.random((3, 49), dtype=np.float32)


def reference_autoencoder(architecture: Architecture, decoder: Decoder) -> HieraForPreTraining:
    """transformers' masked autoencoder with seeded random weights, so large that every part shows in the answer."""
    torch.manual_seed(0)
    config = HieraConfig(
        embed_dim=architecture.embed_dim,
        num_heads=list(architecture.num_heads),
        depths=list(architecture.depths),
        num_query_pool=2,
        decoder_hidden_size=decoder.dim,
        decoder_depth=decoder.depth,
        decoder_num_heads=decoder.num_heads,
        mask_ratio=decoder.mask_ratio,
    )
    with torch.device("meta"):
        model = HieraForPreTraining(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.uniform_(0.8, 1.2)
        elif name.endswith("bias"):
            parameter.uniform_(-0.1, 0.1)
        elif parameter.dim() == 3:  # positions and the mask token
            parameter.uniform_(-1, 1)
        else:
            parameter.uniform_(-1, 1).mul_((3 / parameter[0].numel()) ** 0.5)
    return model  # type: ignore[no-any-return]


def save_original(model: HieraForPreTraining, file: Path) -> Path:
    """The original release's .pth, its names by the table of the published layouts."""
    starts = np.cumsum([0, *model.config.depths])

    def number(match: re.Match[str]) -> str:
        return f"blocks.{starts[int(match[1])] + int(match[2])}."

    tensors = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"hiera\.encoder\.stages\.(\d+)\.layers\.(\d+)\.", number, name)
        for theirs, ours in (
            ("hiera.embeddings.position_embeddings", "pos_embed"),
            ("hiera.embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("multiscale_fusion.", ""),
            ("decoder.decoder_embeddings", "decoder_embed"),
            ("decoder.mask_token", "mask_token"),
            ("decoder.decoder_position_embeddings", "decoder_pos_embed"),
            ("decoder.decoder_block.layers", "decoder_blocks"),
            ("decoder.decoder_norm", "decoder_norm"),
            ("decoder.decoder_pred", "decoder_pred"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
        ):
            name = name.replace(theirs, ours)
        tensors[name] = tensor
    torch.save({"model_state": tensors, "epoch": 399}, file)
    return file


def check_parity(reference: HieraForPreTraining, model: Path, images: int = 3) -> None:
    pixels, noise = PIXELS[:images], NOISE[:images]
    with torch.inference_mode():
        expected = reference(torch.from_numpy(pixels), noise=torch.from_numpy(noise))
    prediction, visible, loss = load_autoencoder(str(model), device="cpu").predict(pixels, noise)
    assert (prediction.shape, visible.shape, loss.shape) == ((images, 196, 768), (images, 49), (images,))
    assert (prediction.dtype, visible.dtype, loss.dtype) == (np.float32, np.bool_, np.float32)  # type: ignore[comparison-overlap]
    spread = np.ptp(expected.logits.numpy())
    assert spread > 1
    np.testing.assert_allclose(prediction, expected.logits.numpy(), atol=1e-5 * spread, rtol=0)
    patches = visible.reshape(-1, 7, 7).repeat(2, 1).repeat(2, 2).reshape(-1, 196)
    np.testing.assert_array_equal(patches, expected.bool_masked_pos.numpy())
    assert loss.mean() == pytest.approx(expected.loss.item(), abs=1e-5)  # as many are hidden of each image


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[HieraForPreTraining, Path]:
    """A small autoencoder in the transformers layout."""
    reference = reference_autoencoder(SMALL, SMALL_DECODER)
    folder = tmp_path_factory.mktemp("small") / "model"
    reference.save_pretrained(folder)
    return reference, folder


@pytest.fixture
def folder(small: tuple[HieraForPreTraining, Path], tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(small[1], tmp_path / "model"))


@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("small", "base-plus"))]
)
def test_a_file_of_the_original_release_predicts_what_the_reference_does(name: str, tmp_path: Path) -> None:
    reference = reference_autoencoder(PUBLISHED[name].architecture, Decoder())
    check_parity(reference, save_original(reference, tmp_path / "mae_hiera.pth"), images=2)


@pytest.mark.slow
def test_both_published_layouts_are_the_same_model(tmp_path: Path) -> None:
    reference = reference_autoencoder(PUBLISHED["tiny"].architecture, Decoder())
    reference.save_pretrained(tmp_path / "model")
    check_parity(reference, tmp_path / "model")
    check_parity(reference, tmp_path / "model" / "model.safetensors")
    original = resolve_autoencoder(str(save_original(reference, tmp_path / "mae_hiera.pth")))
    published = resolve_autoencoder(str(tmp_path / "model"))
    assert (original.architecture, original.decoder) == (published.architecture, published.decoder)
    ours, theirs = original.state_dict(), published.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_an_autoencoder_of_other_numbers_follows_its_configuration(small: tuple[HieraForPreTraining, Path]) -> None:
    check_parity(*small)
    checkpoint = resolve_autoencoder(str(small[1]))
    assert (checkpoint.name, checkpoint.decoder) == (str(small[1]), SMALL_DECODER)
    assert checkpoint.architecture == SMALL


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_of_published_autoencoders_is_true_of_the_module(name: str) -> None:
    size = PUBLISHED[name].architecture
    architecture = Architecture(size.embed_dim, size.num_heads, size.depths, num_classes=0, query_pools=2)
    with torch.device("meta"):
        state = MaskedAutoencoder(architecture, Decoder()).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == PUBLISHED[name].mae_parameters
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected_shapes(architecture, Decoder())


def test_a_published_name_means_the_pretraining_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=re.escape(REPOSITORIES["base-plus"])):
        load_autoencoder("Base+", offline=True)
    assert REPOSITORIES["base-plus"] == "facebook/hiera-base-plus-224-mae-hf"


def test_an_image_has_the_same_prediction_in_whatever_batch_it_is() -> None:
    autoencoder = load_autoencoder("demo", device="cpu")
    together = autoencoder.predict(PIXELS, NOISE)
    for number in range(3):
        alone = autoencoder.predict(PIXELS[number : number + 1], NOISE[number : number + 1])
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[number])
    assert autoencoder.batch_size == 1  # which makes it so for models of any size, on any processor


def test_what_is_hidden_does_not_show_in_the_prediction() -> None:
    autoencoder = load_autoencoder("demo", device="cpu")
    prediction, visible, loss = autoencoder.predict(PIXELS[:1], NOISE[:1])
    hidden = ~visible.reshape(7, 7).repeat(32, 0).repeat(32, 1)
    changed = autoencoder.predict(np.where(hidden, np.float32(3), PIXELS[:1]), NOISE[:1])
    np.testing.assert_array_equal(changed[0], prediction)
    assert changed[2] != loss


@pytest.mark.parametrize(("ratio", "shown"), [(None, 19), (0.9, 4), (0.02, 48), (0.97, 1)])
def test_the_mask_ratio_says_how_many_units_are_shown(ratio: float | None, shown: int) -> None:
    _, visible, loss = load_autoencoder("demo", device="cpu").predict(PIXELS, NOISE, mask_ratio=ratio)
    assert visible.sum(1).tolist() == [shown] * 3
    assert (NOISE[visible].reshape(3, -1).max(1) < NOISE[~visible].reshape(3, -1).min(1)).all()
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.99, -1, float("nan")])
def test_a_mask_ratio_that_hides_nothing_or_all_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match=f"a mask ratio of {ratio} does not leave mask units both to see"):
        load_autoencoder("demo", device="cpu").predict(PIXELS, NOISE, mask_ratio=ratio)


def test_arrays_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"noise \(B, 49\), not \(3, 3, 224, 224\) and \(2, 49\)"):
        load_autoencoder("demo", device="cpu").predict(PIXELS, NOISE[:2])


def test_the_tokens_of_a_unit_come_back_in_rows_and_columns() -> None:
    rows, columns = torch.meshgrid(torch.arange(56), torch.arange(56), indexing="ij")
    grid = units_in_rows_and_columns(unroll(torch.stack([rows, columns], -1)[None]), 49)
    assert grid.shape == (49, 2, 8, 8)
    for number, unit in enumerate(grid):
        row, column = 8 * (number // 7), 8 * (number % 7)
        assert torch.equal(unit, torch.stack([rows, columns])[:, row : row + 8, column : column + 8])


def test_equal_noise_shows_the_first_units() -> None:
    shown, visible = shown_units(torch.zeros(1, 49), 0.6)
    assert shown.tolist() == [list(range(19))]
    assert visible.nonzero()[:, 1].tolist() == list(range(19))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "cpu has not enough free memory for a single image"),
        (RuntimeError("no such kernel"), "cpu failed: no such kernel"),
    ],
    ids=repr,
)
def test_a_device_that_fails_is_told_in_a_sentence(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = load_autoencoder("demo", device="cpu")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(autoencoder, "_model", fail)
    with pytest.raises(DeviceError) as raised:
        autoencoder.predict(PIXELS, NOISE)
    assert raised.value.message == message


def test_a_batch_that_does_not_fit_is_halved_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = load_autoencoder("demo", device="cpu")
    expected = autoencoder.predict(PIXELS, NOISE)
    autoencoder.batch_size = 64
    run = autoencoder._run
    sizes = []

    def short_of_memory(images: Any, ratio: float) -> Any:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(images, ratio)

    monkeypatch.setattr(autoencoder, "_run", short_of_memory)
    for got, wanted in zip(autoencoder.predict(PIXELS, NOISE), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert sizes == [3, 1, 2, 1, 1]
    assert autoencoder.batch_size == 1


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="no device is called 'gpu'"):
        load_autoencoder("demo", device="gpu")


Edit = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("encoder_norm.bias"), "is not this Hiera: encoder_norm.bias is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "is not this Hiera: extra is left over"),
        (
            lambda t: t.update({"decoder.decoder_block.layers.1.mlp.fc1.bias": torch.zeros(5)}),
            r"decoder.decoder_block.layers.1.mlp.fc1.bias has the shape \[5\], not \[128\]",
        ),
        (lambda t: t.pop("decoder.mask_token"), "holds no Hiera masked autoencoder"),
    ],
)
def test_tensors_that_are_not_exactly_an_autoencoder_are_refused_by_name(
    edit: Edit, message: str, folder: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        resolve_autoencoder(str(folder))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"num_query_pool": 3}, "num_query_pool is 3; only 2 is supported"),
        ({"normalize_pixel_loss": False}, "normalize_pixel_loss is False; only True is supported"),
        ({"decoder_num_heads": 5}, "5 heads do not divide the decoder's 32 channels"),
        ({"decoder_depth": 0}, "decoder_depth is 0, which is not a sensible number"),
        ({"decoder_hidden_size": "wide"}, "decoder_hidden_size is 'wide', which is not a sensible number"),
        ({"mask_ratio": 0.99}, "mask_ratio is 0.99, which does not leave mask units both to see and to predict"),
        ({"mask_ratio": None}, "mask_ratio is None, which does not leave"),
        ({"decoder_depth": 3}, "decoder.decoder_block.layers.2.norm1.weight is missing|layers.2.*is missing"),
        ({"model_type": "vit"}, "describes a 'vit' model"),
    ],
)
def test_a_configuration_that_is_not_this_autoencoder_is_refused(
    entries: dict[str, object], message: str, folder: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))
    with pytest.raises(CheckpointError, match=message):
        resolve_autoencoder(str(folder))


def test_a_classifier_is_no_autoencoder_and_an_autoencoder_no_classifier(folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is a Hiera without a decoder: it reconstructs nothing"
    ):
        resolve_autoencoder(str(DEMO_FOLDER))
    with pytest.raises(CheckpointError, match="is a masked autoencoder: it gives neither labels nor features"):
        resolve(str(folder))


def test_loading_initialises_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_without_storage(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        assert tensor.is_meta
        return tensor

    for name in ("uniform_", "normal_", "zero_", "fill_"):
        monkeypatch.setattr(torch.Tensor, name, only_without_storage)
    weights = resolve_autoencoder(str(folder)).state_dict()
    for name, parameter in load_autoencoder(str(folder), device="cpu")._model.state_dict().items():
        assert torch.equal(parameter, weights[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_predicts_what_the_cpu_does() -> None:
    from hiera_cli import Autoencoder

    checkpoint = resolve_autoencoder("demo")
    expected = Autoencoder(checkpoint, Placement("cpu", "fp32")).predict(PIXELS, NOISE)
    got = Autoencoder(checkpoint, Placement("cuda:0", "fp32")).predict(PIXELS, NOISE)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-5 * np.ptp(expected[0]))  # type: ignore[call-overload]
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(got[2], expected[2], atol=1e-5)


# ---- the real weights

# From transformers' own integration test of facebook/hiera-tiny-224-mae-hf.
LOGITS = [
    [1.6407, 1.6506, 1.6541, 1.6617, 1.6703],
    [1.9730, 1.9842, 1.9848, 1.9896, 1.9947],
    [1.5949, 1.8262, 1.2602, 1.4801, 1.4448],
    [1.2341, 1.7907, 0.8618, 1.5202, 1.4523],
    [2.0140, 1.9846, 1.9434, 1.9019, 1.8648],
]


@pytest.mark.network
def test_the_real_autoencoder_gives_the_published_values() -> None:
    with urllib.request.urlopen(COCO_CATS, timeout=30) as response:
        pixels = preprocess(Image.open(io.BytesIO(response.read())))
    torch.manual_seed(2)
    prediction, _, _ = load_autoencoder("tiny", device="cpu").predict(pixels[None], torch.rand(1, 49).numpy())
    np.testing.assert_allclose(prediction[0, :5, :5], LOGITS, atol=1e-4)
