"""Names, folders and files → verified weights. Every layout loads; nothing else does."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_maker import SMALL, reference_model, save, save_original, save_timm
from conftest import Open
from safetensors.torch import load_file, save_file

from hiera_cli import checkpoints, packed
from hiera_cli.architecture import PUBLISHED
from hiera_cli.checkpoints import resolve
from hiera_cli.errors import CheckpointError
from hiera_cli.labels import Label, imagenet_labels
from hiera_cli.placement import Placement
from hiera_cli.torch_engine import TorchEngine

PIXELS = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Hiera in the transformers layout."""
    return save(reference_model(SMALL), tmp_path_factory.mktemp("small") / "model")


@pytest.fixture
def folder(small: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(small, tmp_path / "model"))


def test_the_three_published_layouts_give_the_same_logits(tiny_folder: Path, tmp_path: Path, open_fp32: Open) -> None:
    from transformers import HieraForImageClassification

    reference = HieraForImageClassification.from_pretrained(tiny_folder).eval()
    with torch.inference_mode():
        expected = reference(torch.from_numpy(PIXELS)).logits.numpy()
    for path in (
        tiny_folder,
        tiny_folder / "model.safetensors",
        save_timm(reference, tmp_path / "timm"),
        save_original(reference, tmp_path / "mae_hiera_tiny_224.pth"),
    ):
        checkpoint = resolve(str(path))
        assert checkpoint.architecture == PUBLISHED["tiny"].architecture
        assert checkpoint.labels == imagenet_labels()
        assert checkpoint.name == str(path)
        np.testing.assert_allclose(open_fp32(checkpoint).logits(PIXELS), expected, atol=1e-5 * np.ptp(expected))


def test_a_fine_tuned_hiera_has_its_own_labels(tmp_path: Path, open_fp32: Open) -> None:
    architecture = checkpoints.replace(SMALL, num_classes=3)
    save(reference_model(architecture, {0: "cat", 1: "dog", 2: "crane"}), tmp_path)
    checkpoint = resolve(str(tmp_path))
    assert checkpoint.labels == (Label(0, None, "cat"), Label(1, None, "dog"), Label(2, None, "crane"))
    assert open_fp32(checkpoint).logits(PIXELS).shape == (2, 3)


def test_labels_that_nobody_named_are_numbered(folder: Path) -> None:
    (folder / "config.json").unlink()
    tiny = reference_model(checkpoints.replace(PUBLISHED["tiny"].architecture, num_classes=2))
    save_file({name: tensor.contiguous() for name, tensor in tiny.state_dict().items()}, folder / "model.safetensors")
    assert [label.text for label in resolve(str(folder)).labels] == ["LABEL_0", "LABEL_1"]


def test_half_precision_weights_load(folder: Path, open_fp32: Open) -> None:
    expected = open_fp32(resolve(str(folder))).logits(PIXELS)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    got = open_fp32(resolve(str(folder))).logits(PIXELS)
    np.testing.assert_allclose(got, expected, atol=0.05 * np.ptp(expected))


def test_loading_initialises_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(folder))

    def only_without_storage(tensor: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        assert tensor.is_meta
        return tensor

    for name in ("uniform_", "normal_", "zero_", "fill_"):
        monkeypatch.setattr(torch.Tensor, name, only_without_storage)
    monkeypatch.setattr(packed, "works", lambda dtype: False)
    weights = checkpoint.state_dict()
    engine = TorchEngine(checkpoint, Placement("cpu", "fp32"))
    for name, parameter in engine._model.state_dict().items():
        assert torch.equal(parameter, weights[name])


def edit_config(folder: Path, **entries: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def set_tensor(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.__setitem__(name, value)


QKV = "hiera.encoder.stages.0.layers.0.attn.qkv.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(QKV), "stages.0.layers.0.attn.qkv.weight is missing"),
        (set_tensor("extra", torch.zeros(1)), "extra is left over"),
        (
            set_tensor("hiera.pooler.layernorm.bias", torch.zeros(5)),
            r"hiera.pooler.layernorm.bias has the shape \[5\], not \[128\]",
        ),
        (lambda t: [t.pop("classifier.weight"), t.pop("classifier.bias")], "has no classifier"),
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("hiera.")], "holds no Hiera classifier"),
        (set_tensor("classifier.weight", torch.zeros(())), r"the classifier's weight has the shape \[\]"),
    ],
)
def test_tensors_that_are_not_exactly_a_hiera_are_refused_by_name(
    folder: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    edit_weights(folder, edit)
    with pytest.raises(CheckpointError, match=message):
        resolve(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    edit_weights(folder, lambda tensors: tensors["classifier.bias"].__setitem__(3, value))
    with pytest.raises(CheckpointError, match=r"classifier.bias holds weights that are not numbers"):
        resolve(str(folder)).state_dict()


def test_integer_weights_are_refused(folder: Path) -> None:
    edit_weights(folder, set_tensor("classifier.bias", torch.zeros(1000, dtype=torch.int64)))
    with pytest.raises(CheckpointError, match="not floating-point"):
        resolve(str(folder)).state_dict()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "vit"}, "describes a 'vit' model"),
        ({"image_size": [448, 448]}, r"image_size is \[448, 448\]; only \[224, 224\] is supported"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"embed_dim": 10**12}, "embed_dim is 1000000000000"),
        ({"embed_dim": "96"}, "embed_dim is '96'"),
        ({"depths": [2**60, 1, 1, 1]}, "depths is"),
        ({"depths": [1, 2, 2]}, "depths is"),
        ({"depths": [1, 2, 3, 1]}, "is missing"),
        ({"num_heads": [0, 1, 1, 1]}, "num_heads is"),
        ({"num_heads": [3, 2, 4, 8]}, "3 heads do not divide 16 channels at stage 1"),
        ({"embed_dim": 32, "num_heads": [1, 2, 4, 8]}, "has the shape"),
        ({"id2label": {"0": "cat"}}, "id2label names 1 classes, but the model's classifier has 1000"),
        ({"id2label": "cat"}, "id2label names 0 classes"),
    ],
)
def test_a_configuration_that_is_not_this_hiera_is_refused(
    folder: Path, entries: dict[str, object], message: str
) -> None:
    edit_config(folder, **entries)
    with pytest.raises(CheckpointError, match=message):
        resolve(str(folder))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, "\x00", '{"a": 1e999999999}'])
def test_a_configuration_that_is_no_json_object_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        resolve(str(folder))


def header_of(entries: dict[str, object]) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def far_away(start: int, end: int) -> dict[str, object]:
    return {"hiera.x": {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"this is a text file and no safetensors at all",
        b"<!DOCTYPE html><html>a login page</html>",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**63 - 1) + b"{}",
        struct.pack("<Q", 10**7) + b"{" * 10**7,
        header_of(far_away(0, 2**62)),
        header_of(far_away(2**40, 2**40 + 4)) + b"1234",
        header_of({**far_away(0, 8), "hiera.y": far_away(4, 12)["hiera.x"]}) + bytes(12),
        header_of({"hiera.x": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}) + bytes(4),
        header_of({"hiera.x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + bytes(4),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_damaged_or_hostile_safetensors_are_refused_at_once(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        resolve(str(folder))


def test_a_truncated_file_is_refused(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100_000)
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        resolve(str(folder))


def test_a_flipped_bit_in_the_header_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    for position in (0, 8, 20, 40):
        content[position] ^= 0x10
        file.write_bytes(content)
        with pytest.raises(CheckpointError):
            resolve(str(folder))
        content[position] ^= 0x10


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", [torch.save, lambda bomb, file: file.write_bytes(pickle.dumps(bomb))])
def test_a_pickle_that_runs_code_is_refused_and_runs_none(writer: Callable[..., object], tmp_path: Path) -> None:
    file = tmp_path / "hiera.pth"
    writer({"model_state": Bomb(tmp_path / "owned")}, file)
    with pytest.raises(CheckpointError, match="holds more than tensors") as raised:
        resolve(str(file))
    assert "never code" in raised.value.hint
    assert not (tmp_path / "owned").exists()


def test_a_pickle_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state": {"pos_embed": 3}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="not a state dict"):
        resolve(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(CheckpointError, match="out of its folder"):
        resolve(str(folder))


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["tinny", "", "a/b/c", "../x", "org/..", "/no/such/file"])
def test_a_model_of_no_known_kind_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(CheckpointError, match="no model, folder or file is called") as raised:
        resolve(name)
    assert "tiny, small, base, base-plus, large, huge, demo" in raised.value.hint
