"""`hiera find` on an index of made features: how long a query takes, with the walk over all files, and how much memory.

    pip install -e ".[test,openvino]"
    python benchmarks/search.py 100000 1000000

For each number so many empty files are made, in folders of 1000, and features of random numbers taken in for them, as
large as Hiera-Tiny's. Needs no network; a million takes 1.7 GB of disk and some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hiera_cli.checkpoints import resolve
from hiera_cli.checkpoints.labels import imagenet_labels
from hiera_cli.index.store import Index
from hiera_cli.tasks.index import logits, softmaxes

REPOSITORY = "facebook/hiera-tiny-224-in1k-hf"
PER_FOLDER = 1000
QUERIES = ("dog", "animal", "tabby")


def main() -> None:
    """Make the indexes, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=int, nargs="*", default=[100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make them, and to leave them")
    arguments = parser.parse_args()
    print("| photos | kB a photo | query | found | median s | least s | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for count in arguments.photos:
        with tempfile.TemporaryDirectory() as name:
            folder = arguments.folder or Path(name)
            os.environ.update(XDG_CACHE_HOME=str(folder / "cache"), HF_HOME=str(folder / "hf"), HF_HUB_OFFLINE="1")
            photos, index = folder / f"photos-{count}", folder / f"{count}.sqlite"
            if not index.exists():
                make(folder, photos, index, count)
            for query in QUERIES:
                measure(photos, index, query, count, arguments.runs)


def make(folder: Path, photos: Path, index: Path, count: int) -> None:
    """The files, and the index that has features of them."""
    compare = Path(__file__).with_name("compare.py")
    if not (folder / "hf").exists():
        subprocess.run([sys.executable, compare, "--make-model", folder / "hf" / "hub"], check=True)
    (config,) = (folder / "hf" / "hub").rglob("config.json")
    names = {str(label.index): label.text for label in imagenet_labels()}
    config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": names}))
    checkpoint = resolve.resolve(REPOSITORY, offline=True)
    layer = checkpoint.classifier()
    assert layer is not None
    random = np.random.default_rng(0)
    with Index(str(index), create=True) as opened:
        model = opened.add_model(checkpoint)
        for first in range(0, count, PER_FOLDER):
            here = photos / f"{first // PER_FOLDER:06}"
            here.mkdir(parents=True)
            features = (random.standard_normal((PER_FOLDER, checkpoint.architecture.features)) * 8).astype(np.float16)
            found = softmaxes(logits(features, layer))
            opened.begin()
            for row in range(min(PER_FOLDER, count - first)):
                path = here / f"IMG_{first + row:08}.jpg"
                path.touch()
                state = path.stat()
                stamp = state.st_size, state.st_mtime_ns
                opened.put(model, os.fsencode(path.resolve()), *stamp, features[row].tobytes(), found[row])
            opened.commit()


def measure(photos: Path, index: Path, query: str, count: int, runs: int) -> None:
    """A row of the table."""
    command = [sys.executable, "-m", "hiera_cli", "find", query, str(photos), "--index", str(index), "-q"]
    seconds, found = [], 0
    for _ in range(runs):
        begun = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE)
        seconds.append(time.perf_counter() - begun)
        assert done.returncode in (0, 1), done.returncode
        found = done.stdout.count(b"\n")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = index.stat().st_size / count / 1000
    print(
        f"| {count:,} | {size:.2f} | {query} | {found:,} | {statistics.median(seconds):.2f} | {min(seconds):.2f} "
        f"| {peak:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
