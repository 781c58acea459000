"""`hiera teach` beside scikit-learn's LogisticRegressionCV on transformers' features of the same photos.

    pip install -e ".[test,openvino,teach]"
    python benchmarks/teach.py

The photos are made: digits (scikit-learn's, 8 × 8 pixels enlarged), and noisy crops of the sample images under four
rotations, each a class. The weights are those of the demo model, and random ones of Hiera-Tiny's shape. It prints the
accuracy on photos that neither has learnt from, then what learning costs on made features. Needs no network, and takes
ten minutes on two cores; --demo leaves out the random weights, and eight of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hiera_cli.evaluation.intervals import wilson
from hiera_cli.teaching.copies import copies
from hiera_cli.teaching.fit import fit

SAMPLES = Path(__file__).parent.parent / "sample_images"
HIERA = [sys.executable, "-m", "hiera_cli"]
OURS = ["--precision", "fp32", "--device", "cpu", "-qq"]


def main() -> None:
    """Make the photos and the features, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="with the demo model alone")
    parser.add_argument("--sizes", nargs="*", default=["2000x20", "100000x20", "100000x100"])
    parser.add_argument("--size", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.size:
        cost(*map(int, arguments.size.split("x")))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        bases = {"demo": "demo"}
        if not arguments.demo:
            os.environ.update(HF_HOME=str(folder / "hf"), HF_HUB_OFFLINE="1")
            compare = Path(__file__).with_name("compare.py")
            subprocess.run([sys.executable, compare, "--make-model", folder / "hf" / "hub"], check=True)
            bases["tiny, random"] = "tiny"
        print("| base | photos | learnt from | asked | hiera teach | its cross-validation | LogisticRegressionCV |")
        print("|---|---|---|---|---|---|---|")
        for base, model in bases.items():
            for photos in ("digits", "rotations"):
                accuracy(folder, base, model, photos)
    print()
    print("| photos | classes | copies s | fit s | of one processor s | peak MiB | of which features |")
    print("|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        subprocess.run([sys.executable, __file__, "--size", size], check=True)


def make(folder: Path) -> None:
    """digits and rotations, each with a folder to learn from and one to ask about."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images[:900], digits.target[:900], strict=True)):
        image = Image.fromarray((pixels * 15).astype(np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
        _save(image, folder / "digits" / ("test" if index % 3 == 0 else "train") / str(label), index)
    random.seed(0)
    noise = np.random.default_rng(0)
    for path in sorted(SAMPLES.glob("*.[jp][pn]g")):
        whole = Image.open(path).convert("RGB")
        for turn in (0, 90, 180, 270):
            for index in range(30):
                size = int(random.uniform(0.4, 0.8) * min(whole.size))
                left, top = random.randint(0, whole.width - size), random.randint(0, whole.height - size)
                crop = whole.crop((left, top, left + size, top + size)).rotate(turn)
                pixels = np.asarray(crop.resize((256, 256)), np.float64) + noise.normal(0, 25, (256, 256, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                half = "test" if index % 3 == 0 else "train"
                _save(image, folder / "rotations" / half / f"{path.stem}-{turn}", index)


def _save(image: Image.Image, folder: Path, index: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{index:04d}.png")


def accuracy(folder: Path, base: str, model: str, photos: str) -> None:
    """One line: what each is right of."""
    train, test = folder / photos / "train", folder / photos / "test"
    taught = folder / f"{model}-{photos}"
    done = subprocess.run(
        [*HIERA, "teach", train, "-o", taught, "-m", model, "--json", *OURS], check=True, capture_output=True
    )
    told = json.loads(done.stdout)
    done = subprocess.run(
        [*HIERA, "classify", test, "-m", taught, "-k1", "-f", "jsonl", *OURS], check=True, capture_output=True
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    right = sum(each["predictions"][0]["label"] == Path(each["path"]).parent.name for each in records)
    theirs = _theirs(_transformers(model), train, test)
    validated = told["cross_validation"]["accuracy"]
    print(
        f"| {base} | {photos}, {len(told['classes'])} classes | {told['photos']:,} | {len(records):,} |"
        f" {_share(right, len(records))} | {validated:.1%} | {_share(theirs, len(records))} |",
        flush=True,
    )


def _share(right: int, of: int) -> str:
    low, high = wilson(right, of)
    return f"{right / of:.1%} ({low:.1%} to {high:.1%})"


def _transformers(model: str) -> Any:
    from transformers import HieraForImageClassification

    from hiera_cli.checkpoints import resolve

    where = resolve.resolve(model, offline=True).weights.parent
    return HieraForImageClassification.from_pretrained(where, dtype="float32").train(False)


def _theirs(network: Any, train: Path, test: Path) -> int:
    """How many of the photos LogisticRegressionCV is right of, learning from photos and their mirror images.

    Its folds are of rows in order, so that a photo and its mirror image, which stand side by side, are in one.
    """
    learnt, asked = _features(network, train, mirror=True), _features(network, test)
    scaler = StandardScaler().fit(learnt[0])
    with threadpool_limits(1), warnings.catch_warnings():  # several threads wait for each other
        warnings.simplefilter("ignore")
        classifier = LogisticRegressionCV(Cs=10, cv=5, max_iter=200)
        classifier.fit(scaler.transform(learnt[0]), learnt[1])
    return int((classifier.predict(scaler.transform(asked[0])) == np.array(asked[1])).sum())


def _features(network: Any, folder: Path, *, mirror: bool = False) -> tuple[NDArray[np.float32], list[str]]:
    import torch
    from transformers import BitImageProcessorPil

    processor = BitImageProcessorPil(
        do_resize=True,
        size={"shortest_edge": 256},
        resample=3,
        do_center_crop=True,
        crop_size=224,
        do_rescale=True,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    rows, labels = [], []
    for batch in _batches(sorted(folder.glob("*/*.png"))):
        images = [Image.open(path).convert("RGB") for path in batch]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            found = [network.hiera(each).pooler_output for each in ([pixels, pixels.flip(-1)] if mirror else [pixels])]
        rows.append(torch.stack(found, 1).flatten(0, 1).numpy())
        labels += [path.parent.name for path in batch for _ in found]
    return np.concatenate(rows), labels


def _batches(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), 8):
        yield paths[start : start + 8]


def cost(photos: int, classes: int) -> None:
    """One line: what learning takes beside the features, which are made: of classes that can't all be told apart."""
    channels = 768
    rng = np.random.default_rng(0)
    targets = np.arange(photos) % classes
    mix = (rng.normal(size=(channels, channels)) * np.geomspace(3, 0.03, channels) / channels**0.5).astype(np.float32)
    centres = (rng.normal(size=(classes, channels)) * 0.15).astype(np.float32)
    features = np.empty((photos, 2, channels), np.float32)
    for start in range(0, photos, 4096):
        part = targets[start : start + 4096]
        of_photo = (centres[part] + rng.normal(size=(len(part), channels)).astype(np.float32)) @ mix
        features[start : start + 4096] = of_photo[:, None] + rng.normal(size=(len(part), 2, channels)) * 0.1
    begun = time.perf_counter()
    originals = copies(features).originals
    compared = time.perf_counter()
    busy = time.process_time()
    fit(features, targets, originals, 0)
    fitted = time.perf_counter()
    busy = time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"| {photos:,} | {classes} | {compared - begun:.1f} | {fitted - compared:.1f} | {busy:.1f} | {peak:,} |"
        f" {features.nbytes >> 20:,} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
