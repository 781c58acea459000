"""`hiera` and its peers on the same weights and photos, in one run, interleaved: medians, ratios, peak memory.

    pip install -e ".[test,openvino]" onnx onnxscript onnxruntime
    python benchmarks/compare.py > benchmarks/results.md

Needs no network: the weights are random (seeded), which are as fast as any; the photos are made from the sample images.
What can't be imported is left out, and said.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_images"
HERE = [sys.executable, "-m", "hiera_cli", "classify"]

REPOSITORY = "facebook/hiera-tiny-224-in1k-hf"

MODEL_CARD = """
import sys
from PIL import Image
import torch
from transformers import AutoImageProcessor, HieraForImageClassification
image = Image.open(sys.argv[2])
image_processor = AutoImageProcessor.from_pretrained(sys.argv[1])
model = HieraForImageClassification.from_pretrained(sys.argv[1])
inputs = image_processor(images=image, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print(model.config.id2label[logits.argmax(-1).item()])
"""

Row = tuple[str, list[float], list[float]]  # name, values, peak MiB


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--make-model", metavar="CACHE", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make_model:
        make_model(arguments.make_model)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(XDG_CACHE_HOME=str(folder / "cache"), HF_HOME=str(folder / "hf"), HF_HUB_OFFLINE="1")
        # In a process of its own: this one stays small, or its size would count as its children's peak.
        subprocess.run([sys.executable, __file__, "--make-model", folder / "hf" / "hub"], check=True)
        photos = make_photos(folder / "photos", arguments.photos)
        print(f"# {platform.processor() or platform.machine()}, {os.cpu_count()} processors: {processor()}\n")
        packages = ("torch", "transformers", "openvino", "onnxruntime", "timm")
        print(f"Python {platform.python_version()}, " + ", ".join(f"{p} {installed(p)}" for p in packages) + "\n")
        one_photo(photos[0], arguments.runs)
        model_alone(folder, arguments.runs)
        folders(folder / "photos", photos, arguments.runs)
        matrix_products(arguments.runs)


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(package: str) -> str:
    """A package's version, or that there is none."""
    return version(package) if importlib.util.find_spec(package) else "not installed"


def make_model(cache: Path) -> None:
    """Hiera-Tiny in the published layout, with transformers' own random weights, as if the Hub had sent it."""
    import torch
    from transformers import HieraConfig, HieraForImageClassification
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    folder = cache / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / "0"
    torch.manual_seed(0)
    config = HieraConfig(depths=[1, 2, 7, 2], num_labels=1000, initializer_range=0.05)  # type: ignore[call-arg]
    HieraForImageClassification(config).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    repository = folder.parent.parent
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    (repository / "blobs").mkdir()
    weights = folder / "model.safetensors"
    blob = repository / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.rename(blob)
    weights.symlink_to(blob)


def make_photos(folder: Path, count: int) -> list[Path]:
    """500 × 375 JPEGs, as ImageNet's are: crops of the sample images."""
    from PIL import Image

    folder.mkdir()
    choice = Random(0)
    pictures = [Image.open(p).convert("RGB") for p in sorted(SAMPLES.iterdir()) if p.suffix != ".md"]
    paths = []
    for number in range(count):
        picture = choice.choice(pictures)
        width, height = picture.width * 3 // 4, picture.height * 3 // 4
        left, top = choice.randint(0, picture.width - width), choice.randint(0, picture.height - height)
        path = folder / f"{number:03}.jpg"
        picture.crop((left, top, left + width, top + height)).resize((500, 375)).save(path, quality=90)
        paths.append(path)
    return paths


def interleaved(contestants: dict[str, Callable[[], tuple[float, float]]], runs: int) -> list[Row]:
    """Each in turn, `runs` times after one warm-up. A contestant returns its value and its peak MiB."""
    rows: list[Row] = [(name, [], []) for name in contestants]
    for run in range(runs + 1):
        for (_, values, peaks), contestant in zip(rows, contestants.values(), strict=True):
            value, peak = contestant()
            if run:
                values.append(value)
                peaks.append(peak)
    return rows


def show(title: str, unit: str, rows: list[Row], base: str) -> None:
    """A table: medians, and the median of the ratios within each round."""
    bases = next(values for name, values, _ in rows if name == base)
    memory = any(any(peaks) for _, _, peaks in rows)
    print(f"## {title}\n\n| | {unit} | × {base} |{' peak MiB |' if memory else ''}")
    print(f"|---|---|---|{'---|' if memory else ''}")
    for name, values, peaks in rows:
        ratio = statistics.median(v / b for v, b in zip(values, bases, strict=True))
        tail = f" {statistics.median(peaks):.0f} |" if memory else ""
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} |{tail}")
    print(flush=True)


def process(*command: str | Path) -> Callable[[], tuple[float, float]]:
    """A whole process: wall seconds and peak resident MiB."""

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"failed: {command}")
        return time.perf_counter() - start, usage.ru_maxrss / 1024

    return run


def one_photo(photo: Path, runs: int) -> None:
    """From the shell's prompt to a label."""
    contestants = {"`import torch`": process(sys.executable, "-c", "import torch")}
    contestants["transformers, the model card's snippet"] = process(sys.executable, "-c", MODEL_CARD, REPOSITORY, photo)
    contestants["hiera, torch"] = process(*HERE, photo, "--engine", "torch")
    if importlib.util.find_spec("openvino"):
        contestants["hiera, openvino"] = process(*HERE, photo, "--engine", "openvino")
    show("One photo, whole process", "seconds", interleaved(contestants, runs), "`import torch`")


def engines(folder: Path) -> dict[str, Callable[[np.ndarray[Any, Any]], object]]:
    """Everything that turns pixels into logits here."""
    import torch
    from transformers import HieraForImageClassification

    from hiera_cli import load_classifier

    reference = HieraForImageClassification.from_pretrained(REPOSITORY).eval()  # type: ignore[no-untyped-call]

    def transformers(pixels: np.ndarray[Any, Any]) -> object:
        with torch.inference_mode():
            return reference(torch.from_numpy(pixels)).logits

    found: dict[str, Callable[[np.ndarray[Any, Any]], object]] = {"transformers, fp32": transformers}
    has_openvino = importlib.util.find_spec("openvino") is not None
    for engine in ("torch", "openvino") if has_openvino else ("torch",):
        for precision in ("fp32", "bf16"):
            opened = load_classifier("tiny", engine=engine, device="cpu", precision=precision).engine
            found[f"hiera {engine}, {precision}"] = opened.run
            found[f"hiera {engine}, {precision}, features"] = partial(opened.run, output="features")
    if has_openvino:
        import openvino as ov

        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # or importing the converter reports it
        from openvino.tools.ovc import convert_model

        converted = convert_model(reference, example_input=torch.zeros(1, 3, 224, 224))
        for hint, precision in (("f32", "fp32"), ("bf16", "bf16")):
            compiled = ov.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": hint})
            found[f"plain OpenVINO, {precision}"] = compiled
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        import onnxruntime

        file = str(folder / "model.onnx")
        with open(os.devnull, "w") as silence:
            before, sys.stdout = sys.stdout, silence
            torch.onnx.export(
                reference, (torch.zeros(2, 3, 224, 224),), file, input_names=["pixels"],
                dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}}, external_data=False,
            )  # fmt: skip
            sys.stdout = before
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        found["ONNX Runtime, fp32"] = lambda pixels: session.run(None, {"pixels": pixels})
    if importlib.util.find_spec("timm"):
        try:
            import timm

            other = timm.create_model("hiera_tiny_224", num_classes=1000).eval()
            found["timm, fp32"] = lambda pixels: other(torch.from_numpy(pixels))
        except Exception as error:
            print(f"timm is left out: {error}\n")
    return found


def model_alone(folder: Path, runs: int) -> None:
    """Pixels to logits, images a second."""
    contestants = engines(folder)
    for batch in (1, 8):
        pixels = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)

        def timed(call: Callable[[np.ndarray[Any, Any]], object], pixels: np.ndarray[Any, Any] = pixels) -> Any:
            def run() -> tuple[float, float]:
                start = time.perf_counter()
                for _ in range(16 // len(pixels)):
                    call(pixels)
                return 16 / (time.perf_counter() - start), 0

            return run

        rows = interleaved({name: timed(call) for name, call in contestants.items()}, runs)
        show(f"The model alone, batches of {batch}", "images/s", rows, "transformers, fp32")


def consume(results: Callable[[], Iterable[object]]) -> None:
    """Go through them all."""
    for _ in results():
        pass


def folders(folder: Path, photos: list[Path], runs: int) -> None:
    """JPEG files to labels or features, images a second, everything loaded."""
    from transformers import pipeline

    from hiera_cli import load_classifier

    labeller = pipeline("image-classification", model=REPOSITORY)
    contestants: dict[str, Callable[[], object]] = {
        "transformers' pipeline, fp32": lambda: list(labeller([str(photo) for photo in photos]))
    }
    for engine in ("torch", "openvino") if importlib.util.find_spec("openvino") else ("torch",):
        for precision in ("fp32", "bf16"):
            classifier = load_classifier("tiny", engine=engine, device="cpu", precision=precision)
            contestants[f"hiera {engine}, {precision}"] = partial(consume, partial(classifier.classify, [folder]))
            contestants[f"hiera {engine}, {precision}, features"] = partial(
                consume, partial(classifier.embed, [folder])
            )

    def timed(call: Callable[[], object]) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            start = time.perf_counter()
            call()
            return len(photos) / (time.perf_counter() - start), 0

        return run

    rows = interleaved({name: timed(call) for name, call in contestants.items()}, runs)
    show(f"{len(photos)} JPEG files of 500 × 375", "images/s", rows, "transformers' pipeline, fp32")


def matrix_products(runs: int) -> None:
    """What the processor reaches in large matrix products, and how many images a second that would be."""
    import torch

    gflop_per_image = 9.8
    print("## The limit\n\n| | GFLOP/s | images/s at 9.8 GFLOP |\n|---|---|---|")
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        packed = torch.ops.mkldnn._reorder_linear_weight(b, None)
        rates = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            for _ in range(4):
                torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "none")
            rates.append(4 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
        rate = statistics.median(rates[1:])
        print(f"| matrix products of 2048, packed, {name} | {rate:.0f} | {rate / gflop_per_image:.1f} |")


if __name__ == "__main__":
    main()
