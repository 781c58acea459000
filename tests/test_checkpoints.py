"""Names, folders and files → verified weights. Every layout loads; nothing else does."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_maker import SMALL, reference_model, save, save_original, save_timm
from conftest import SAMPLES, Call, Open
from safetensors.torch import load_file, save_file

from hiera_cli.checkpoints.labels import Label, imagenet_labels
from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.checkpoints.resolve import check_name, resolve
from hiera_cli.commands import remedies
from hiera_cli.engines import packed
from hiera_cli.engines.placement import Placement
from hiera_cli.engines.torch_engine import TorchEngine
from hiera_cli.errors import CheckpointError

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

    reference = HieraForImageClassification.from_pretrained(tiny_folder).eval()  # type: ignore[no-untyped-call]
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
        np.testing.assert_allclose(open_fp32(checkpoint).run(PIXELS), expected, atol=1e-5 * np.ptp(expected))


def test_a_fine_tuned_hiera_has_its_own_labels(tmp_path: Path, open_fp32: Open) -> None:
    architecture = replace(SMALL, num_classes=3)
    save(reference_model(architecture, {0: "cat", 1: "dog", 2: "crane"}), tmp_path)
    checkpoint = resolve(str(tmp_path))
    assert checkpoint.labels == (Label(0, None, "cat"), Label(1, None, "dog"), Label(2, None, "crane"))
    assert open_fp32(checkpoint).run(PIXELS).shape == (2, 3)


def test_labels_that_nobody_named_are_numbered(folder: Path) -> None:
    (folder / "config.json").unlink()
    tiny = reference_model(replace(PUBLISHED["tiny"].architecture, num_classes=2))
    save_file({name: tensor.contiguous() for name, tensor in tiny.state_dict().items()}, folder / "model.safetensors")
    assert [label.text for label in resolve(str(folder)).labels] == ["LABEL_0", "LABEL_1"]


def test_half_precision_weights_load(folder: Path, open_fp32: Open) -> None:
    expected = open_fp32(resolve(str(folder))).run(PIXELS)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    got = open_fp32(resolve(str(folder))).run(PIXELS)
    np.testing.assert_allclose(got, expected, atol=0.05 * float(np.ptp(expected)))


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
        assert torch.equal(parameter, weights[name.replace("._layer", "")])


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
        (lambda t: t.pop("classifier.weight"), "classifier.bias is left over"),
        (lambda t: t.pop("hiera.pooler.layernorm.weight"), "lacks the last LayerNorm of a Hiera"),
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith("hiera.")],
            "is not a Hiera in any of the three published layouts",
        ),
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


FLOAT8 = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


@pytest.mark.parametrize("dtype", FLOAT8, ids=FLOAT8.values())
@pytest.mark.parametrize("name", ["model.safetensors", "hiera.pth"])
def test_weights_in_float8_are_refused_in_a_sentence(
    folder: Path, call: Call, engine: str, dtype: torch.dtype, name: str
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    torch.save({"model_state": tensors}, folder / "hiera.pth")
    done = call("classify", SAMPLES / "cat.jpg", "-m", folder / name, "--engine", engine, "--device", "cpu")
    message = f"{folder / name}: classifier.bias holds {FLOAT8[dtype]} numbers, not one of F32, F16, BF16, F64"
    assert (done.status, done.out, done.err) == (2, "", f"hiera: error: {message}\n")


def test_integer_weights_are_refused(folder: Path) -> None:
    edit_weights(folder, set_tensor("classifier.bias", torch.zeros(1000, dtype=torch.int64)))
    with pytest.raises(CheckpointError, match="holds I64 numbers"):
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "hiera", "model_type": "hiera"}', "a key appears twice"),
        ('{"model_type": "hiera", "id2label": {"0": "cat", "0": "dog"}}', "a key appears twice"),
        ('{"model_type": "hiera", "embed_dim": ' + "9" * 5000 + "}", "cannot read the model configuration"),
        ('{"model_type": "hiera", "embed_dim": ' + "9" * 4000 + "}", "embed_dim is 9999"),
        ('{"model_type": "hiera", "layer_norm_eps": NaN}', "layer_norm_eps is nan"),
        ('{"model_type": "hiera", "depths": [' + "1, " * 10**6 + "1]}", "depths is"),
        ('{"model_type": ' + "[" * 500 + "]" * 500 + "}", "describes a"),
        ('{"model_type": "hiera", "patch_size": "' + "x" * 10**6 + '"}', "patch_size is 'xxx"),
    ],
    ids=lambda text: text[:40],
)
def test_an_absurd_configuration_is_refused_in_a_short_sentence(folder: Path, content: str, message: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        resolve(str(folder))
    assert len(raised.value.message) < 500 + len(str(folder))


def test_half_a_surrogate_pair_in_a_label_is_replaced(folder: Path) -> None:
    labels = {str(index): f"LABEL_{index}" for index in range(1000)}
    edit_config(folder, id2label={**labels, "0": "a\ud800b", "1": "\U0001f408", "2": "tab\there", "3": 7})
    assert [label.text for label in resolve(str(folder)).labels[:4]] == ["a\ufffdb", "\U0001f408", "tab\there", "7"]


# ---- what is no file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def zeros_without_end(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files here")
@pytest.mark.parametrize("make", [fifo, listening, zeros_without_end])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_file_is_refused_and_never_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], name: str
) -> None:
    monkeypatch.chdir(folder)  # a socket's name has to be short
    (folder / name).unlink()
    make(Path(name))
    with pytest.raises(CheckpointError, match=rf"{name} is not a regular file"):
        resolve(str(folder))
    if name == "model.safetensors":
        with pytest.raises(CheckpointError, match=rf"{name} is not a regular file"):
            resolve(str(folder / name))
    else:  # it may belong to anything there
        (folder / "model.safetensors").rename(folder / "weights.safetensors")
        with pytest.raises(CheckpointError, match="none of the published sizes"):
            resolve(str(folder / "weights.safetensors"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dangling", "dangling is a link to .*nowhere, which does not exist"),
        ("loop", "cannot read loop: Too many levels of symbolic links"),
        ("x" * 300, "cannot read x+: File name too long"),
        ("nul\0byte", "no file can have the name"),
        ("~nobody-of-this-name/model", "no model, folder or file is called"),
        ("file/below", "not on this machine"),
    ],
    ids=lambda text: text[:20],
)
def test_a_name_that_leads_nowhere_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for look in (check_name, lambda model: resolve(model, offline=True)):
        if look is check_name and name == "file/below":
            continue
        with pytest.raises(CheckpointError, match=message):
            look(name)


def test_a_folder_without_permission_is_told_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.stat

    def forbidden(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(folder / "model")):
            raise PermissionError(13, "Permission denied")
        return look(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", forbidden)
    for model in (folder, folder / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors: Permission denied"):
            resolve(str(model))


def header_of(entries: dict[str, object]) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def far_away(start: int, end: int) -> dict[str, object]:
    return {"hiera.x": {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end]}}


HOSTILE_SAFETENSORS = [
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
    header_of({f"hiera.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**5)}),
    header_of({"__metadata__": {"x" * 7_000_000: "y"}}),
    struct.pack("<Q", 10**6) + b'{"a":' * 200_000,
]


@pytest.mark.parametrize("content", HOSTILE_SAFETENSORS, ids=lambda content: repr(content[:20]))
def test_damaged_or_hostile_safetensors_are_refused_at_once(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        resolve(str(folder))


def test_a_truncated_file_is_refused(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100_000)
    with pytest.raises(CheckpointError, match="is not a safetensors file, or a damaged one"):
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


# ---- the original release's .pth


def stored(numbers: bytes, pickled: bytes, **how: int) -> bytes:
    """An archive as torch.save makes it, of one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("x/data.pkl"), pickled, **how)
        archive.writestr(zipfile.ZipInfo("x/data/0"), numbers, **how)
    return file.getvalue()


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def state(tensor: torch.Tensor) -> bytes:
    return saved({"model_state": {"pos_embed": tensor}})


def nested(depth: int) -> bytes:
    """A tuple of two of a tuple of two of …, as the name of an entry: 2**depth to hash or to print."""
    return b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * depth + b"NsX\x01\x00\x00\x00a" + b"0."


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # remarks on kinds of tensors that are in their infancy
    HOSTILE_PTH: dict[str, tuple[bytes, str]] = {
        "one byte": (b"\x80", "not a zip file"),
        "two bytes": (b"\x80\x02", "not a zip file"),
        "an empty pickle": (b"\x80\x02.", "not a zip file"),
        "of torch before 1.6": (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02M\xe9\x03.", "since PyTorch 1.6"),
        "the start of a zip": (b"PK\x03\x04", "not a zip file"),
        "an empty zip": (b"PK\x05\x06" + bytes(18), "not an archive of torch.save|damaged"),
        "expanded": (state(torch.zeros(1).expand(1, 49, 10**12)), "pos_embed is expanded"),
        "transposed": (state(torch.zeros(3, 2).T), "pos_embed is expanded, transposed"),
        "of strides": (state(torch.zeros(9)[::3]), "pos_embed is expanded, transposed or cut"),
        "meta": (state(torch.empty(10**12, device="meta")), "torch._utils._rebuild_meta_tensor_no_storage"),
        "sparse": (state(torch.eye(3).to_sparse()), "torch._utils._rebuild_sparse_tensor"),
        "quantized": (state(torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8)), "QInt8Storage|_rebuild_q"),
        "float8": (state(torch.zeros(3, dtype=torch.float8_e4m3fn)), "pos_embed holds F8_E4M3 numbers, not one of F32"),
        "unsigned": (state(torch.zeros(3, dtype=torch.uint16)), "more than tensors .torch.uint16"),
        "integers": (state(torch.zeros(3, dtype=torch.int64)), "pos_embed holds I64 numbers"),
        "a deflated gigabyte": (
            stored(b"", b"\x80\x02." + bytes(1 << 26), compress_type=zipfile.ZIP_DEFLATED),
            "over 1 MiB|is compressed",
        ),
        "too many words": (stored(b"", b"\x80\x02" + b"}" * (2 << 20) + b"."), "over 1 MiB"),
        "many things": (stored(b"", b"\x80\x02" + b"}" * (1 << 19) + b"."), "not a Hiera"),
        "a table of 4 billion": (stored(b"", b"\x80\x02}r\xff\xff\xff\xff."), "not a Hiera"),
        "a string of 4 GB": (stored(b"", b"\x80\x02X\xff\xff\xff\xff."), "makes no sense"),
        "a name that takes for ever": (stored(b"", nested(100)), "entries without a name"),
        "an underflow": (stored(b"", b"\x80\x02R."), "makes no sense"),
        "no end": (stored(b"", b"\x80\x02}"), "makes no sense|cut off"),
        "a bytearray of a terabyte": (
            stored(b"", b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."),
            "builtins.bytearray",
        ),
        "a tensor class": (stored(b"", b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R."), "torch.FloatTensor"),
    }


@pytest.mark.parametrize("content", HOSTILE_PTH.values(), ids=HOSTILE_PTH)
def test_damaged_or_hostile_pth_files_are_refused_with_a_reason(tmp_path: Path, content: tuple[bytes, str]) -> None:
    file = tmp_path / "hiera.pth"
    file.write_bytes(content[0])
    with pytest.raises(CheckpointError, match=content[1]):
        resolve(str(file))


def test_no_flipped_bit_of_a_pth_raises_anything_else(tmp_path: Path) -> None:
    content = bytearray(saved({"model_state": {"pos_embed": torch.zeros(8, 4), "head.norm.weight": torch.ones(4)}}))
    file = tmp_path / "hiera.pth"
    for position in [*range(0, 700, 3), *range(len(content) - 700, len(content), 3)]:
        content[position] ^= 1 << position % 8
        file.write_bytes(content)
        with pytest.raises(CheckpointError):
            resolve(str(file))
        content[position] ^= 1 << position % 8


def test_tensors_that_share_their_numbers_do_not_add_up_to_more_than_the_file(tmp_path: Path) -> None:
    one = torch.zeros(1000, 100)
    (tmp_path / "x.pth").write_bytes(saved({f"{index}": one for index in range(50)}))
    with pytest.raises(CheckpointError, match="would take more than the file holds"):
        resolve(str(tmp_path / "x.pth"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float32])
def test_a_pth_of_any_floating_point_gives_the_same_tensors(small: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    shutil.copy(small / "config.json", tmp_path)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(small / "model.safetensors").items()}
    parameters = OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in tensors.items())
    parameters._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as Module.state_dict() has
    optimizer = {"step": torch.zeros(1, dtype=torch.int64), "view": torch.zeros(3, 2).T, "betas": (0.9, [0.999, None])}
    torch.save({"model_state": parameters, "optimizer": optimizer, "epoch": 299}, tmp_path / "hiera.pth")
    save_file(tensors, tmp_path / "model.safetensors")
    got = resolve(str(tmp_path / "hiera.pth")).state_dict()
    expected = resolve(str(tmp_path)).state_dict()
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited and measured as on Linux")
def test_no_hostile_file_takes_memory(folder: Path, tmp_path: Path) -> None:
    files = []
    for number, (content, _) in enumerate(HOSTILE_PTH.values()):
        files.append(tmp_path / f"{number}.pth")
        files[-1].write_bytes(content)
    for number, content in enumerate(HOSTILE_SAFETENSORS):
        files.append(tmp_path / f"{number}.safetensors")
        files[-1].write_bytes(content)
    code = (
        "import resource, sys; from hiera_cli.checkpoints import pth, resolve\n"
        "from hiera_cli.errors import CheckpointError\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + (200 << 20),) * 2)\n"
        "for file in sys.argv[1:]:\n"
        "    try: print('taken for a model:', resolve.resolve(file))\n"
        "    except CheckpointError: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
    with pytest.raises(CheckpointError, match="out of its folder") as raised:
        resolve(str(folder))
    assert remedies.hint(raised.value) == ("If that is meant, name the weights file itself: -m PATH/model.safetensors")


def test_a_folder_of_another_model_is_refused_with_what_makes_one(tmp_path: Path, call: Call) -> None:
    assert call("classify", SAMPLES / "cat.jpg", "-m", tmp_path).err == (
        f"hiera: error: {tmp_path} has no model.safetensors\n"
        "  A model folder holds config.json and model.safetensors: `hiera download --to DIR` makes one.\n"
    )


@pytest.mark.parametrize("name", ["tinny", "", "a/b/c", "../x", "org/..", "/no/such/file"])
def test_a_model_of_no_known_kind_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(CheckpointError, match="no model, folder or file is called") as raised:
        resolve(name)
    assert "tiny, small, base, base-plus, large, huge, demo" in raised.value.hint
