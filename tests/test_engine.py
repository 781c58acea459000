"""Which device, which precision, and what happens when memory runs out: decided without a GPU."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLES, needs_openvino
from safetensors.torch import load_file, save_file

from hiera_cli.checkpoints import published, resolve
from hiera_cli.classifier import Classifier
from hiera_cli.commands.remedies import hint
from hiera_cli.engines import compiled, packed
from hiera_cli.engines.open import open_engine
from hiera_cli.engines.placement import Accelerators, Machine, Placement, choose
from hiera_cli.engines.torch_engine import TorchEngine, described, normalised
from hiera_cli.errors import CheckpointError, DeviceError
from hiera_cli.images import recipe
from hiera_cli.images.decode import Decoding, load
from hiera_cli.inputs.source import Source
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.system.signal_stack import signal_stack
from hiera_cli.tasks.classify import Classified, Classify

CPU = Machine()
NEW_CPU = Machine(cpu_bf16=True)
WITH_OPENVINO = Machine(cpu_bf16=True, openvino=True)
H100 = Machine(Accelerators(cuda=("H100", "H100"), cuda_bf16=True), cpu_bf16=True, openvino=True)
T4 = Machine(Accelerators(cuda=("T4",), cuda_bf16=False))
MAC = Machine(Accelerators(mps=True))


@pytest.mark.parametrize(
    ("machine", "engine", "device", "precision", "expected"),
    [
        (CPU, "auto", "auto", "auto", ("torch", "cpu", "fp32")),
        (CPU, "auto", "cpu", "bf16", ("torch", "cpu", "bf16")),
        (NEW_CPU, "auto", "auto", "auto", ("torch", "cpu", "bf16")),
        (NEW_CPU, "auto", "auto", "fp32", ("torch", "cpu", "fp32")),
        (WITH_OPENVINO, "auto", "auto", "auto", ("openvino", "cpu", "bf16")),
        (WITH_OPENVINO, "torch", "auto", "fp32", ("torch", "cpu", "fp32")),
        (H100, "auto", "auto", "auto", ("torch", "cuda:0", "bf16")),
        (H100, "auto", "cuda", "auto", ("torch", "cuda:0", "bf16")),
        (H100, "auto", "cuda:1", "fp32", ("torch", "cuda:1", "fp32")),
        (H100, "auto", "cpu", "auto", ("openvino", "cpu", "bf16")),
        (H100, "openvino", "auto", "fp32", ("openvino", "cpu", "fp32")),
        (T4, "auto", "auto", "auto", ("torch", "cuda:0", "fp16")),
        (MAC, "auto", "auto", "auto", ("torch", "mps", "fp32")),
        (MAC, "auto", "mps", "fp16", ("torch", "mps", "fp16")),
    ],
)
def test_auto_takes_the_best_and_wishes_are_kept(
    machine: Machine, engine: str, device: str, precision: str, expected: tuple[str, str, str]
) -> None:
    placement = choose(engine, device, precision, machine)
    assert (placement.engine, placement.device, placement.precision) == expected


@pytest.mark.parametrize(
    ("machine", "engine", "device", "message"),
    [
        (CPU, "auto", "cuda", "device cuda is not available here; available: cpu"),
        (CPU, "auto", "mps", "device mps is not available here; available: cpu"),
        (
            H100,
            "auto",
            "cuda:2",
            r"device cuda:2 is not available here; available: cpu, cuda:0 \(H100\), cuda:1 \(H100\)",
        ),
        (CPU, "auto", "tpu", "no device is called 'tpu'"),
        (H100, "auto", "cuda:x", "no device is called 'cuda:x'"),
        (CPU, "openvino", "cpu", "the openvino engine is not installed"),
        (H100, "openvino", "cuda", "the openvino engine runs on the CPU, not on cuda"),
    ],
)
def test_an_explicit_wish_that_cannot_be_had_is_an_error(
    machine: Machine, engine: str, device: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        choose(engine, device, "auto", machine)


def test_fp16_on_the_cpu_is_refused_with_a_reason() -> None:
    with pytest.raises(DeviceError, match="slower"):
        choose("auto", "cpu", "fp16", H100)


@pytest.fixture
def engine() -> TorchEngine:
    return TorchEngine(resolve.resolve("demo"), Placement("cpu", "fp32"))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("Exception from src/node.cpp:823:\n[CPU] MVN node with name 'MVN_1000' can't alloc\n"),
    RuntimeError("Exception from src/infer_request.cpp:224:\nFailed to allocate 231211008 bytes of memory\n"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]


@pytest.fixture(params=["torch", pytest.param("openvino", marks=needs_openvino)])
def either(request: pytest.FixtureRequest) -> Any:
    """The demo on each engine."""
    return open_engine(resolve.resolve("demo"), Placement("cpu", "fp32", request.param), save=False)


def before_each_batch(engine: Any, monkeypatch: pytest.MonkeyPatch, call: Callable[[list[Any]], None]) -> None:
    """Have an engine call something that may raise before it computes."""
    name = "_run" if isinstance(engine, TorchEngine) else "_started"
    compute = getattr(engine, name)

    def computing(batch: list[Any], output: str) -> Any:
        call(batch)
        return compute(batch, output)

    monkeypatch.setattr(engine, name, computing)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[:20]}")
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    either: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pixels = np.random.default_rng(0).standard_normal((7, 3, 224, 224), dtype=np.float32)
    expected = either.run(pixels)
    sizes = []

    def short_of_memory(batch: list[Any]) -> None:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error

    before_each_batch(either, monkeypatch, short_of_memory)
    np.testing.assert_allclose(either.submit(list(pixels))(), expected, atol=1e-4)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert either.batch_size == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        *((error, "cpu has not enough free memory for a single image") for error in OUT_OF_MEMORY),
        (RuntimeError("mat1 and mat2 do not fit\nmore"), "cpu failed: mat1 and mat2 do not fit"),
        (RuntimeError("Exception from src/x.cpp:1:\n[CPU] no such kernel\n\n"), "cpu failed: [CPU] no such kernel"),
        (RuntimeError(), "cpu failed: RuntimeError"),
    ],
    ids=str,
)
def test_an_engine_that_fails_says_it_in_a_sentence(
    either: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(batch: object) -> None:
        raise error

    before_each_batch(either, monkeypatch, fail)
    with pytest.raises(DeviceError) as raised:
        either.run(np.zeros((2, 3, 224, 224), np.float32))
    assert raised.value.message == message
    assert hint(raised.value)
    assert "--device cpu" not in hint(raised.value)


@pytest.mark.parametrize(("precision", "inside"), [("fp32", False), ("bf16", True)])
def test_tf32_is_off_in_fp32_and_only_while_the_engine_computes(
    monkeypatch: pytest.MonkeyPatch, precision: str, inside: bool
) -> None:
    engine = TorchEngine(resolve.resolve("demo"), Placement("cpu", precision))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen: list[bool] = []

    def fails(batch: torch.Tensor, output: str) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "_copies", object())  # as on CUDA
    monkeypatch.setattr(engine, "_to_device", lambda pixels: torch.from_numpy(np.stack(pixels)))
    monkeypatch.setattr(engine._model, "forward", fails)
    with pytest.raises(ZeroDivisionError):
        engine.run(np.zeros((1, 3, 224, 224), np.float32))
    assert seen == [inside]
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("error", [MemoryError(), ImportError("failed to map segment from shared object")], ids=repr)
def test_an_engine_that_cannot_be_loaded_says_it_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("hiera_cli.engines.torch_engine.TorchEngine", fail)
    with pytest.raises(DeviceError, match=r"cpu (has not enough free memory for the weights|failed: failed to map)"):
        open_engine(resolve.resolve("demo"), Placement("cpu", "fp32"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited and measured as on Linux")
def test_a_machine_that_runs_out_of_memory_does_it_in_smaller_batches() -> None:
    """On PyTorch: OpenVINO under such a limit mostly raises, and sometimes crashes."""
    code = (
        "import numpy, resource; from hiera_cli.checkpoints import resolve\n"
        "from hiera_cli.engines.open import open_engine\n"
        "from hiera_cli.engines.placement import Placement\n"
        "engine = open_engine(resolve.resolve('demo'), Placement('cpu', 'fp32'), 256)\n"
        "batch = numpy.zeros((256, 3, 224, 224), numpy.float32)\n"
        "engine.run(batch[:1])\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + (150 << 20),) * 2)\n"
        "assert engine.run(batch).shape == (256, 1000)\n"
        "assert engine.batch_size < 256\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ---- an image's answer is its own

X86 = platform.machine().lower() in ("x86_64", "amd64")
engines_of_one_answer = pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            Placement("cpu", precision, name),
            id=f"{name} {precision}",
            marks=needs_openvino if name == "openvino" else pytest.mark.skipif(not X86, reason="it holds on x86"),
        )
        for name in ("torch", "openvino")
        for precision in ("fp32", "bf16")
    ],
)


@engines_of_one_answer
@pytest.mark.parametrize("name", ["demo", pytest.param("tiny", marks=pytest.mark.slow)])
def test_an_image_has_the_same_logits_in_whatever_batch_it_is(
    place: Placement, request: pytest.FixtureRequest, name: str
) -> None:
    checkpoint = resolve.resolve(str(request.getfixturevalue("tiny_folder")) if name == "tiny" else name)
    engine = open_engine(checkpoint, place, save=False)
    pixels = np.random.default_rng(0).standard_normal((9, 3, 224, 224), dtype=np.float32)
    alone = np.concatenate([engine.run(pixels[number : number + 1]) for number in range(9)])
    for first, last in [(0, 9), (0, 2), (1, 4), (2, 6), (3, 8), (3, 9), (1, 8), (1, 9)]:
        np.testing.assert_array_equal(engine.run(pixels[first:last]), alone[first:last])
    np.testing.assert_array_equal(engine.run(pixels[::-1]), alone[::-1])


@engines_of_one_answer
def test_the_same_images_get_the_same_scores_whatever_the_batches_and_whichever_is_decoded_first(
    place: Placement, samples: dict[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = resolve.resolve("demo")
    classifier = Classifier(checkpoint, open_engine(checkpoint, place, save=False))
    paths = [str(path) for path in samples]

    def results(batch_size: int) -> list[Classified]:
        classifier.engine.batch_size = batch_size
        return list(Stream(map(Source, paths), lambda: classifier, Classify(1000), Options(workers=len(paths))))

    expected = results(batch_size=1)
    assert [result.predictions[0].index for result in expected] == list(samples.values())
    assert results(batch_size=4) == expected
    decoded = {path: threading.Event() for path in paths}

    def last_first(path: str, *settings: Any) -> Any:
        if path != paths[-1]:
            assert decoded[paths[paths.index(path) + 1]].wait(10)
        pixels = load(path, *settings)
        decoded[path].set()
        return pixels

    monkeypatch.setattr("hiera_cli.images.decode.load", last_first)
    assert results(batch_size=8) == expected


def test_bf16_gives_the_same_label(engine: TorchEngine) -> None:
    half = TorchEngine(resolve.resolve("demo"), Placement("cpu", "bf16"))
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    assert half.run(pixels).dtype == np.float32
    assert half.describe().endswith(", bf16")
    np.testing.assert_allclose(half.run(pixels), engine.run(pixels), atol=0.3)
    assert not np.array_equal(half.run(pixels), engine.run(pixels))


class FakeCuda:
    """In place of torch.cuda: streams and events that write down what is asked of them, on tensors of the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.compute = self.Stream("compute", self.log)
        self.copies = self.Stream("copies", self.log)
        empty = torch.empty
        for name, value in {
            "cuda.stream": self.stream,
            "cuda.current_stream": lambda device: self.compute,
            "cuda.Event": lambda blocking: self.Event(self.log),
            "empty": lambda *shape, dtype, pin_memory: empty(*shape, dtype=dtype),
            "Tensor.record_stream": lambda tensor, stream: self.log.append(f"batch is kept for {stream.name}"),
        }.items():
            monkeypatch.setattr(f"torch.{name}", value)

    @dataclass
    class Stream:
        name: str
        log: list[str]

        def wait_stream(self, other: FakeCuda.Stream) -> None:
            self.log.append(f"{self.name} waits for {other.name}")

    @dataclass
    class Event:
        log: list[str]

        def record(self, stream: FakeCuda.Stream) -> None:
            self.log.append(f"{stream.name} has an end")

        def synchronize(self) -> None:
            self.log.append("waited for it")

    @contextmanager
    def stream(self, stream: FakeCuda.Stream) -> Iterator[None]:
        self.log.append(f"on {stream.name}:")
        yield
        self.log.append(".")


def test_a_gpu_is_waited_for_only_at_the_end_of_its_own_batch(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).standard_normal((3, 3, 224, 224), dtype=np.float32)
    expected = engine.run(pixels)
    cuda = FakeCuda(monkeypatch)
    monkeypatch.setattr(engine, "_copies", cuda.copies)
    forward, copy = engine._model.forward, torch.Tensor.to

    def logged_copy(tensor: torch.Tensor, *to: Any, non_blocking: bool = False) -> torch.Tensor:
        if non_blocking:
            cuda.log.append(f"copy {tuple(tensor.shape)}")
        return copy(tensor, *to, non_blocking=non_blocking)  # type: ignore[call-overload, no-any-return]

    def logged_forward(batch: torch.Tensor, output: str) -> torch.Tensor:
        cuda.log.append("model")
        return forward(batch, output)

    monkeypatch.setattr("torch.Tensor.to", logged_copy)
    monkeypatch.setattr(engine._model, "forward", logged_forward)
    answer = engine.submit(list(pixels))
    assert cuda.log == [
        "on copies:",
        "copy (3, 3, 224, 224)",
        ".",
        "compute waits for copies",
        "batch is kept for compute",
        "model",
        "copy (3, 1000)",
        "compute has an end",
    ]
    np.testing.assert_array_equal(answer(), expected)
    assert cuda.log[-1] == "waited for it"


def test_crops_are_normalised_on_the_device_to_the_same_values_and_travel_as_bytes(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    pixels = [recipe.normalised(crop) for crop in crops]
    np.testing.assert_array_equal(normalised(torch.from_numpy(crops)).numpy(), pixels)
    expected = engine.run(np.stack(pixels))
    cuda = FakeCuda(monkeypatch)
    monkeypatch.setattr(engine, "_copies", cuda.copies)
    copied = []
    stack = torch.stack

    def recorded(images: list[torch.Tensor], *arguments: Any, **options: Any) -> torch.Tensor:
        copied.append(images[0].dtype)
        return stack(images, *arguments, **options)

    monkeypatch.setattr(torch, "stack", recorded)
    np.testing.assert_array_equal(engine.submit(list(crops))(), expected)
    assert copied[0] == torch.uint8
    np.testing.assert_array_equal(engine.submit([pixels[0], crops[1], pixels[2]])(), expected)  # some came before


def test_an_engine_that_takes_crops_gets_them_once_it_is_there(tmp_path: Path) -> None:
    from test_classifier import Brightness, grey, outcome, stand_in

    class TakingCrops(Brightness):
        takes_crops = True
        taken: list[np.dtype[Any]]

        def submit(self, pixels: Any) -> Any:
            self.taken += [each.dtype for each in pixels]
            return super().submit([recipe.normalised(each) if each.dtype == np.uint8 else each for each in pixels])

    device = TakingCrops()
    device.taken = []
    paths = [grey(tmp_path, f"{number:03}.png", number % 10) for number in range(100)]
    results = Stream(map(Source, paths), lambda: stand_in(device), Classify(1), Options(workers=1))
    assert [outcome(result) for result in results] == [f"step {number % 10}" for number in range(100)]
    assert device.taken[0] == np.float32
    assert device.taken[-1] == np.uint8
    assert not open_engine(resolve.resolve("demo"), Placement("cpu", "fp32"), save=False).takes_crops


def test_a_gpu_that_fails_is_told_in_a_sentence(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: torch.Tensor, output: str) -> torch.Tensor:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(engine._model, "forward", fail)
    image = np.zeros((3, 224, 224), np.float32)
    monkeypatch.setattr(engine, "_to_device", lambda pixels: torch.zeros(1, 3, 224, 224))
    monkeypatch.setattr(engine, "_device", torch.device("cuda:0"))
    monkeypatch.setattr(engine, "placement", Placement("cuda:0", "fp32"))
    with pytest.raises(DeviceError) as raised:
        engine.submit([image])
    assert raised.value.message == "cuda:0 failed: CUDA error: unspecified launch failure"
    assert hint(raised.value) == "--device cpu does without it."


def test_crops_may_be_written_to_as_torch_demands() -> None:
    assert load(f"{SAMPLES}/cat.jpg", Decoding(crops=True)).flags.writeable


def test_a_gpu_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"H100 number {device.index}")
    assert described(torch.device("cuda:1"), "bf16") == "cuda:1 (H100 number 1), bf16"
    assert described(torch.device("mps"), "fp32") == "mps, fp32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.3)])
def test_cuda_gives_the_cpus_logits_with_two_batches_in_flight(
    engine: TorchEngine, precision: str, tolerance: float
) -> None:
    gpu = TorchEngine(resolve.resolve("demo"), Placement("cuda:0", precision))
    batches = np.random.default_rng(0).standard_normal((4, 5, 3, 224, 224), dtype=np.float32)
    answers = [gpu.submit(list(batch)) for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer(), engine.run(batch), atol=tolerance)


# ---- packed linear layers


def test_packed_layers_compute_what_plain_ones_do(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "works", lambda dtype: False)
    plain = TorchEngine(resolve.resolve("demo"), Placement("cpu", "fp32"))
    assert not any(isinstance(module, packed.PackedLinear) for module in plain._model.modules())
    pixels = np.random.default_rng(0).standard_normal((5, 3, 224, 224), dtype=np.float32)
    np.testing.assert_allclose(engine.run(pixels), plain.run(pixels), atol=1e-5 * float(np.ptp(plain.run(pixels))))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packed layers are for x86")
def test_packed_layers_are_used_where_they_work(engine: TorchEngine) -> None:
    assert packed.works(torch.float32)
    assert sum(isinstance(module, packed.PackedLinear) for module in engine._model.modules()) == 5 * 4 + 3


@pytest.mark.parametrize(
    "operator",
    [
        lambda *arguments: torch.zeros(2, 8, 32),
        lambda x, *arguments: (_ for _ in ()).throw(RuntimeError("another signature")),
    ],
    ids=["computes something else", "takes other arguments"],
)
def test_packed_layers_that_do_not_work_are_not_used(operator: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed.PackedLinear, "forward", lambda self, x: operator(x))  # type: ignore[operator]
    assert not packed.works(torch.float32)
    engine = TorchEngine(resolve.resolve("demo"), Placement("cpu", "fp32"))
    assert not any(isinstance(module, packed.PackedLinear) for module in engine._model.modules())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packed layers are for x86")
def test_packed_layers_whose_sums_depend_on_the_batch_run_on_one_image_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = packed.PackedLinear.forward

    def otherwise(self: packed.PackedLinear, x: torch.Tensor) -> torch.Tensor:
        y = real(self, x)
        return y * 1.0078125 if len(x) > 1 and self.in_features == 256 else y  # the next number in bf16, about

    monkeypatch.setattr(packed.PackedLinear, "forward", otherwise)
    monkeypatch.setattr(packed, "LONG", 256)
    monkeypatch.setattr(packed, "works", lambda dtype: True)
    engine = TorchEngine(resolve.resolve("demo"), Placement("cpu", "bf16"))
    wide = [module for module in engine._model.modules() if getattr(module, "in_features", 0) == 256]
    assert wide
    pixels = np.random.default_rng(0).standard_normal((5, 3, 224, 224), dtype=np.float32)
    alone = np.concatenate([engine.run(pixels[number : number + 1]) for number in range(5)])
    np.testing.assert_array_equal(engine.run(pixels), alone)


# ---- the compiled engine


@pytest.fixture
def openvino() -> ModuleType:
    """Its module."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from hiera_cli.engines import openvino_engine

    return openvino_engine


PLACE = Placement("cpu", "fp32", "openvino")


@pytest.mark.parametrize("name", ["demo", pytest.param("tiny", marks=pytest.mark.slow)])
def test_the_compiled_engine_gives_torchs_scores(
    openvino: ModuleType, samples: dict[Path, int], request: pytest.FixtureRequest, name: str
) -> None:
    pixels = np.stack([load(str(path)) for path in samples])
    checkpoint = resolve.resolve(str(request.getfixturevalue("tiny_folder")) if name == "tiny" else name)
    expected = softmax(TorchEngine(checkpoint, Placement("cpu", "fp32")).run(pixels))
    for _ in ("compiled", "loaded"):
        engine = openvino.OpenVinoEngine(checkpoint, PLACE)
        got = engine.run(pixels)
        assert got.dtype == np.float32
        np.testing.assert_allclose(softmax(got), expected, atol=1e-4)
        np.testing.assert_allclose(softmax(engine.run(pixels[:1])), expected[:1], atol=1e-4)
    half = softmax(openvino.OpenVinoEngine(checkpoint, Placement("cpu", "bf16", "openvino")).run(pixels))
    assert half.argmax(1).tolist() == list(samples.values())
    np.testing.assert_allclose(half, expected, atol=0.03)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def test_a_model_is_compiled_once(openvino: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve.resolve("demo")
    openvino.OpenVinoEngine(checkpoint, PLACE)
    (file,) = compiled.saved()
    assert file.name == "demo-fp32"
    monkeypatch.setattr(openvino, "build", lambda *arguments: pytest.fail("compiled again"))
    openvino.OpenVinoEngine(checkpoint, PLACE)


@pytest.mark.parametrize("damage", [b"", b"x", None], ids=["empty", "one byte", "a bit flipped"])
def test_a_damaged_compiled_model_is_made_anew(openvino: ModuleType, damage: bytes | None) -> None:
    checkpoint = resolve.resolve("demo")
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    expected = openvino.OpenVinoEngine(checkpoint, PLACE).run(pixels)
    (file,) = compiled.saved()
    whole = file.path.read_bytes()
    file.path.write_bytes(damage if damage is not None else whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:])
    np.testing.assert_array_equal(openvino.OpenVinoEngine(checkpoint, PLACE).run(pixels), expected)
    assert file.path.stat().st_size == len(whole)


def test_other_weights_are_another_compiled_model_in_place_of_the_old_one(openvino: ModuleType, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published.DEMO_FOLDER, tmp_path / "model"))
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    before = openvino.OpenVinoEngine(resolve.resolve(str(folder)), PLACE).run(pixels)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] += 1
    save_file(tensors, folder / "model.safetensors")
    after = openvino.OpenVinoEngine(resolve.resolve(str(folder)), PLACE).run(pixels)
    np.testing.assert_allclose(after, before + 1, atol=1e-3)
    assert len(compiled.saved()) == 1


def test_a_cache_folder_that_cannot_be_written_is_no_error(openvino: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    openvino.OpenVinoEngine(resolve.resolve("demo"), PLACE)
    assert compiled.saved() == []


def test_compiled_models_can_be_cleared(openvino: ModuleType) -> None:
    openvino.OpenVinoEngine(resolve.resolve("demo"), PLACE)
    (file,) = compiled.saved()
    assert compiled.clear() == file.bytes > 0
    assert compiled.saved() == []


def test_weights_that_are_no_numbers_are_refused_by_the_compiled_engine_too(
    openvino: ModuleType, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(published.DEMO_FOLDER, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.fc\.bias"):
        openvino.OpenVinoEngine(resolve.resolve(str(folder)), PLACE)
    assert compiled.saved() == []


def test_bf16_weights_are_read_by_the_compiled_engine(openvino: ModuleType, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published.DEMO_FOLDER, tmp_path / "model"))
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    checkpoint = resolve.resolve(str(folder))
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    expected = TorchEngine(checkpoint, Placement("cpu", "fp32")).run(pixels)
    got = openvino.OpenVinoEngine(checkpoint, PLACE).run(pixels)
    np.testing.assert_allclose(got, expected, atol=1e-4 * float(np.ptp(expected)))


def test_threads_may_share_the_compiled_engine(openvino: ModuleType) -> None:
    engine = openvino.OpenVinoEngine(resolve.resolve("demo"), PLACE, save=False)
    batches = np.random.default_rng(0).standard_normal((4, 3, 3, 224, 224), dtype=np.float32)
    expected = [engine.run(batch) for batch in batches]
    wrong: list[object] = []

    def run(number: int) -> None:
        try:
            for _ in range(8):
                np.testing.assert_allclose(engine.run(batches[number]), expected[number], atol=1e-4)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such stacks")
def test_an_engine_leaves_a_threads_signals_to_the_stack_that_they_had() -> None:
    before = signal_stack()
    device = open_engine(resolve.resolve("demo"), Placement("cpu", "fp32", "openvino"), save=False)
    device.run(np.zeros((2, 3, 224, 224), np.float32))
    after = signal_stack()
    assert before is not None
    assert after is not None
    assert (after.sp, after.flags) == (before.sp, before.flags)
