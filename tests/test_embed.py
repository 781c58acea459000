"""`hiera embed`, as its user runs it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from checkpoint_maker import SMALL, reference_model
from conftest import SAMPLES, Bash, Call

from hiera_cli import load_classifier

CAT = SAMPLES / "cat.jpg"
pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, and one that is broken between them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(CAT, folder / "a.jpg")
    (folder / "b.jpg").write_text("no picture")
    shutil.copy(SAMPLES / "rocket.jpg", folder / "c.jpg")
    return folder


def test_features_are_written_in_input_order_and_what_failed_is_named(call: Call, photos: Path) -> None:
    done = call("embed", photos, "-o", "f.npz", "--no-banner")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(
        f"hiera: {photos}/b.jpg: not an image of a format that is read here\nhiera: 2 embedded, 1"
    )
    expected = [result.features for result in load_classifier("demo", device="cpu", precision="fp32").embed(photos)]
    with np.load("f.npz") as loaded:
        assert loaded["paths"].tolist() == [f"{photos}/a.jpg", f"{photos}/c.jpg"]
        assert loaded["failed_paths"].tolist() == [f"{photos}/b.jpg"]
        for row, features in zip(loaded["features"], (expected[0], expected[2]), strict=True):
            assert features is not None
            np.testing.assert_allclose(row, features, atol=1e-4)


@pytest.mark.parametrize("name", ["f.npz", "f.safetensors", "f.parquet", "f.jsonl", "f.json"])
def test_every_format_is_one_of_a_file_and_is_not_overwritten_unasked(call: Call, name: str) -> None:
    assert call("embed", CAT, "-o", name, "-qq").status == 0
    first = Path(name).read_bytes()
    again = call("embed", CAT, "-o", name, "-qq")
    assert (again.status, f"{name} exists already" in again.err) == (2, True)
    assert call("embed", CAT, "-o", name, "-qq", "--overwrite").status == 0
    assert Path(name).read_bytes() == first
    assert sorted(path.name for path in Path().glob(f"{name}*")) == [name]


def test_printed_features_are_records_of_one_shape(call: Call, photos: Path) -> None:
    done = call("embed", photos, "-f", "jsonl", "-qq", "--tokens", "--normalize")
    records = [orjson.loads(line) for line in done.out.splitlines()]
    keys = ["path", "path_bytes", "status", "model", "precision", "features", "error", "remarks", "settings"]
    assert [list(record) for record in records] == [keys] * 3
    assert [record["status"] for record in records] == ["ok", "error", "ok"]
    assert records[1]["features"] is None
    tokens = np.array(records[0]["features"])
    assert tokens.shape == (7, 7, 64)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)
    assert records[0]["settings"] == {"tokens": True, "normalize": True, "full_decode": False}
    assert json.loads(call("embed", photos, "--json", "-qq", "--tokens", "--normalize").out) == records


def test_jsonl_is_resumed_and_refuses_other_settings_and_other_records(call: Call, photos: Path) -> None:
    assert call("embed", CAT, "-o", "f.jsonl", "-q").status == 0
    done = call("embed", CAT, photos, "-o", "f.jsonl", "--resume")
    assert "2 embedded, 1 failed, 1 done before" in done.err
    whole = Path("f.jsonl").read_bytes()
    for options, told in (
        (["--tokens"], "it was made without tokens, this run is with it"),
        (["--normalize"], "it was made without normalize, this run is with it"),
    ):
        refused = call("embed", CAT, "-o", "f.jsonl", "--resume", *options)
        assert (refused.status, told in refused.err) == (2, True)
    refused = call("classify", CAT, "-o", "f.jsonl", "--resume", "-k", "1")
    assert (refused.status, "line 1 of it is a record of another command" in refused.err) == (2, True)
    assert call("classify", CAT, "-o", "l.jsonl").status == 0
    refused = call("embed", CAT, "-o", "l.jsonl", "--resume")
    assert (refused.status, "cannot go on with l.jsonl" in refused.err) == (2, True)
    assert Path("f.jsonl").read_bytes() == whole


def test_a_backbone_gives_features_from_the_command_line(call: Call, tmp_path: Path) -> None:
    reference_model(SMALL).hiera.save_pretrained(tmp_path / "backbone")
    done = call("embed", CAT, "-m", tmp_path / "backbone", "-f", "jsonl", "-qq")
    assert (done.status, len(done.records()[0]["features"])) == (0, SMALL.features)
    refused = call("classify", CAT, "-m", tmp_path / "backbone")
    assert (refused.status, f"hiera embed -m {tmp_path}/backbone" in refused.err) == (2, True)


def test_arrays_that_do_not_fit_on_the_disk_leave_nothing_and_say_so(bash: Bash, photos: Path) -> None:
    done = bash(f"ulimit -f 1; hiera embed {photos} -o f.npz -q --tokens; ls -A f.npz*")
    assert "cannot write f.npz: File too large" in done.stderr
    assert "No such file" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to embed: name files, folders or URLs"),
        ([CAT], "features need a file, or a format to print them in"),
        ([CAT, "-f", "npz"], "npz is for files, and this run writes to standard output"),
        ([CAT, "-o", "f.csv"], "no format has the suffix '.csv' of f.csv"),
        ([CAT, "-o", "f.npz", "--resume"], "--resume goes on with a jsonl file only"),
        ([CAT, "-o", "f.npz", "--json"], "--json and the suffix of f.npz contradict each other"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence(call: Call, arguments: list[str | Path], told: str) -> None:
    done = call("embed", *arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")


def test_an_interrupted_run_leaves_a_whole_file_of_what_was_done(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(CAT, folder / "0000.jpg")
    for number in range(1, 3000):
        (folder / f"{number:04}.jpg").hardlink_to(folder / "0000.jpg")
    command = [sys.executable, "-m", "hiera_cli", "embed", str(folder), "-o", "f.npz", "-q"]
    part = tmp_path / "f.npz.part"
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not part.exists() or part.stat().st_size < 10_000:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "what was done is in f.npz.part" in err) == (130, True)
    with np.load(part) as loaded:
        paths, features = loaded["paths"].tolist(), loaded["features"]
    assert paths == sorted(set(paths))  # with gaps, maybe: what is known behind an input that is not done is kept
    assert (len(features), len(features) > 10, float(np.ptp(features, axis=0).max())) == (len(paths), True, 0.0)
