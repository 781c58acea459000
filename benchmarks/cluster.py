"""`hiera classify` in one process beside the same on Ray clusters on this machine: one node, and two of half its cores.

    pip install -e ".[test,openvino,ray]"
    python benchmarks/cluster.py

Each round runs all of them, one behind the other, each with all photos and with eight of them: the difference is what
the photos take, start-up apart. Ratios are taken within a round. The clusters are started before and ended behind each
run, in a network namespace of their own where that is allowed. Weights and photos are those of compare.py. Then the
driver alone: a list of files that are not there, of which each has its record, with its peak memory. It takes 15
minutes on two cores; --photos, --rounds and --records make it less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compare import make_photos

HIERA = [sys.executable, "-m", "hiera_cli", "classify", "-k", "1", "-qq"]
PORT = 6391
APART = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
FEW = 8


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, nargs="*", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    if "HIERA_APART" not in os.environ and subprocess.run([*APART, "true"], capture_output=True).returncode == 0:
        os.environ["HIERA_APART"] = "1"
        os.execvp(APART[0], [*APART, sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(XDG_CACHE_HOME=str(folder / "cache"), HF_HOME=str(folder / "hf"), HF_HUB_OFFLINE="1")
        compare = Path(__file__).with_name("compare.py")
        subprocess.run([sys.executable, compare, "--make-model", folder / "hf" / "hub"], check=True)
        make_photos(folder / "photos", arguments.photos)
        (folder / "few").mkdir()
        for photo in sorted((folder / "photos").iterdir())[:FEW]:
            (folder / "few" / photo.name).symlink_to(photo)
        throughput(folder, arguments.rounds, arguments.photos, arguments.model)
        driver(folder, arguments.records)


def throughput(folder: Path, rounds: int, photos: int, model: str) -> None:
    """One process and clusters, interleaved."""
    cores = os.cpu_count() or 1
    ways: dict[str, list[int]] = {
        f"one process, {cores} cores": [],
        f"one node of {cores} cores": [cores],
        f"two nodes of {cores // 2} cores each": [cores // 2, cores // 2],
        f"two nodes of {cores // 2} cores each, parts": [cores // 2, cores // 2],
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    starts: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, nodes in ways.items():
            output = folder / "parts/" if "parts" in way else folder / "labels.jsonl"
            with cluster(nodes):
                command = [*HIERA, "-m", model, "-o", f"{output}/" if "parts" in way else str(output), "--overwrite"]
                command += ["--ray", f"127.0.0.1:{PORT}"] if nodes else []
                few = seconds([*command, "--follow", str(folder / "few")])
                seconds_of_all = seconds([*command, str(folder / "photos")])
            starts[way].append(few)
            rates[way].append((photos - FEW) / (seconds_of_all - few))
    base = next(iter(ways))
    print("| | photos/s | of one process | eight photos, s |")
    print("|---|---|---|---|")
    for way in ways:
        ratios = [rate / alone for rate, alone in zip(rates[way], rates[base], strict=True)]
        print(
            f"| {way} | {statistics.median(rates[way]):.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {statistics.median(starts[way]):.1f} |",
            flush=True,
        )


def driver(folder: Path, records: list[int]) -> None:
    """What the driver takes: time and memory, of so many records of files that are not there."""
    print("\n| records | to | s | of the driver's processor, s | peak MiB |")
    print("|---|---|---|---|---|")
    with cluster([1, 1]):
        for count in records:
            with (folder / "list").open("w") as stream:
                stream.writelines(f"/not/there/{number:08}.jpg\n" for number in range(count))
            for output in ("labels.jsonl", "parts/"):
                where = f"{folder}/{output}"
                command = [*HIERA, "-m", "demo", "--files-from", str(folder / "list"), "-o", where, "--overwrite"]
                begun = time.perf_counter()
                process = subprocess.Popen([*command, "--ray", f"127.0.0.1:{PORT}"])
                _, _, usage = os.wait4(process.pid, 0)
                took = time.perf_counter() - begun
                busy = usage.ru_utime + usage.ru_stime
                print(f"| {count:,} | {output} | {took:.0f} | {busy:.0f} | {usage.ru_maxrss >> 10} |", flush=True)


def seconds(command: list[str]) -> float:
    """How long a command takes."""
    begun = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begun


@contextmanager
def cluster(nodes: list[int]) -> Iterator[None]:
    """A cluster of nodes of so many cores; none at all without any."""
    for number, cores in enumerate(nodes, 1):
        where = ["--address", f"127.0.0.1:{PORT}"] if number > 1 else ["--head", f"--port={PORT}"]
        options = ["--node-ip-address", f"127.0.0.{number}", "--num-cpus", str(cores)]
        if number == 1:
            options.append("--include-dashboard=false")
        ray = Path(sys.executable).with_name("ray")
        subprocess.run([ray, "start", *where, *options], check=True, capture_output=True)
    try:
        yield
    finally:
        if nodes:
            subprocess.run([ray, "stop", "--force"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
