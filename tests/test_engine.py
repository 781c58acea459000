"""Which device, which precision, and what happens when memory runs out: decided without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiera_cli import checkpoints
from hiera_cli.engine import Machine, Placement, TorchEngine, choose
from hiera_cli.errors import DeviceError

CPU = Machine()
H100 = Machine(cuda=("H100", "H100"), cuda_bf16=True)
T4 = Machine(cuda=("T4",), cuda_bf16=False)
MAC = Machine(mps=True)


@pytest.mark.parametrize(
    ("machine", "device", "precision", "expected"),
    [
        (CPU, "auto", "auto", ("cpu", "fp32")),
        (CPU, "cpu", "bf16", ("cpu", "bf16")),
        (H100, "auto", "auto", ("cuda:0", "bf16")),
        (H100, "cuda", "auto", ("cuda:0", "bf16")),
        (H100, "cuda:1", "fp32", ("cuda:1", "fp32")),
        (H100, "cpu", "auto", ("cpu", "fp32")),
        (T4, "auto", "auto", ("cuda:0", "fp16")),
        (MAC, "auto", "auto", ("mps", "fp32")),
        (MAC, "mps", "fp16", ("mps", "fp16")),
    ],
)
def test_auto_takes_the_best_and_wishes_are_kept(
    machine: Machine, device: str, precision: str, expected: tuple[str, str]
) -> None:
    placement = choose(device, precision, machine)
    assert (placement.device, placement.precision) == expected


@pytest.mark.parametrize(
    ("machine", "device", "message"),
    [
        (CPU, "cuda", "device cuda can't be had here; there is: cpu"),
        (CPU, "mps", "device mps can't be had here; there is: cpu"),
        (H100, "cuda:2", r"device cuda:2 can't be had here; there is: cpu, cuda:0 \(H100\), cuda:1 \(H100\)"),
        (CPU, "tpu", "no device is called 'tpu'"),
        (H100, "cuda:x", "no device is called 'cuda:x'"),
    ],
)
def test_an_explicit_device_that_is_not_there_is_an_error(machine: Machine, device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        choose(device, "auto", machine)


def test_fp16_on_the_cpu_is_refused_with_a_reason() -> None:
    with pytest.raises(DeviceError, match="slower"):
        choose("cpu", "fp16", H100)


@pytest.fixture
def engine() -> TorchEngine:
    return TorchEngine(checkpoints.resolve("demo"), Placement("cpu", "fp32"))


def test_out_of_memory_halves_the_batch_and_loses_nothing(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).standard_normal((7, 3, 224, 224), dtype=np.float32)
    expected = engine.logits(pixels)
    sizes = []
    forward = engine._model.forward

    def short_of_memory(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(engine._model, "forward", short_of_memory)
    np.testing.assert_allclose(engine.logits(pixels), expected, atol=1e-4)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert engine.batch_size == 1


def test_out_of_memory_for_a_single_image_says_what_to_do(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._model, "forward", no_memory)
    with pytest.raises(DeviceError, match="not enough free memory for a single image") as raised:
        engine.logits(np.zeros((2, 3, 224, 224), np.float32))
    assert "--device cpu" in raised.value.hint


def test_bf16_gives_the_same_label(engine: TorchEngine) -> None:
    half = TorchEngine(checkpoints.resolve("demo"), Placement("cpu", "bf16"))
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    assert half.logits(pixels).dtype == np.float32
    assert half.describe().endswith(", bf16")
    np.testing.assert_allclose(half.logits(pixels), engine.logits(pixels), atol=0.3)
    assert not np.array_equal(half.logits(pixels), engine.logits(pixels))
