"""Features in files: .npz, .safetensors, .parquet and jsonl, as other programs read them."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from hiera_cli.outputs.arrays import ArrayFile, entries
from hiera_cli.outputs.formats import jsonl
from hiera_cli.outputs.parquet import parquet
from hiera_cli.result import Failure, Records
from hiera_cli.tasks.embed import Embedded, unit_length

ODD = ["a.jpg", "line\nbreak\t.jpg", "😀 日本.jpg", os.fsdecode(b"caf\xe9.jpg"), 'quote".jpg', "a.jpg"]
SETTINGS = {"tokens": False, "normalize": False, "full_decode": False}


def features(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(shape or (6,), dtype=np.float32)


def results(tokens: bool = False) -> list[Embedded]:
    """Those that failed stand among the others."""
    shape = (7, 7, 6) if tokens else (6,)
    done = [
        Embedded(name, "m", precision="fp32", settings=SETTINGS, features=features(number, *shape))
        for number, name in enumerate(ODD)
    ]
    failed = [
        Embedded(f"bad{number}.jpg", "m", Failure("DecodeError", "broken – \udcff"), settings=SETTINGS)
        for number in (1, 2)
    ]
    return [failed[0], *done[:3], failed[1], *done[3:]]


def arrays(path: Path, results: Iterable[Embedded], *, tokens: bool = False, complete: bool = True) -> Path:
    file = ArrayFile(str(path), path.suffix, tokens=tokens)
    for entry in entries(results):
        file.write(entry)
    file.close(complete=complete)
    return path if complete else Path(f"{path}.part")


def names(tensor: np.ndarray) -> list[bytes]:
    return tensor.tobytes().split(b"\0")[:-1]


@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
def test_npz_has_a_row_for_each_path_and_names_what_failed(tmp_path: Path, tokens: bool) -> None:
    shape = (7, 7, 6) if tokens else (6,)
    with np.load(arrays(tmp_path / "f.npz", results(tokens), tokens=tokens)) as loaded:
        assert sorted(loaded) == ["failed_messages", "failed_paths", "features", "paths"]
        assert loaded["paths"].tolist() == ODD
        np.testing.assert_array_equal(loaded["features"], [features(number, *shape) for number in range(len(ODD))])
        assert loaded["features"].dtype == np.float32
        assert loaded["failed_paths"].tolist() == ["bad1.jpg", "bad2.jpg"]
        assert loaded["failed_messages"].tolist() == ["broken – \ufffd"] * 2


@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
def test_safetensors_has_a_row_for_each_path_and_names_what_failed(tmp_path: Path, tokens: bool) -> None:
    shape = (7, 7, 6) if tokens else (6,)
    with safe_open(arrays(tmp_path / "f.safetensors", results(tokens), tokens=tokens), "numpy") as loaded:
        found = loaded.get_tensor("features")
        np.testing.assert_array_equal(found, [features(number, *shape) for number in range(len(ODD))])
        assert names(loaded.get_tensor("paths")) == [os.fsencode(name) for name in ODD]
        assert names(loaded.get_tensor("failed_paths")) == [b"bad1.jpg", b"bad2.jpg"]
        assert names(loaded.get_tensor("failed_messages")) == ["broken – \ufffd".encode()] * 2


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("kind", ["done", "failed"])
def test_where_all_or_none_failed_the_arrays_are_there_and_empty(tmp_path: Path, suffix: str, kind: str) -> None:
    some = [result for result in results() if (result.error is None) == (kind == "done")]
    path = arrays(tmp_path / f"f{suffix}", some)
    if suffix == ".npz":
        with np.load(path) as loaded:
            sizes = {name: len(loaded[name]) for name in loaded}
    else:
        sizes = {name: len(names(t) if t.dtype == np.uint8 else t) for name, t in load_file(path).items()}
    done, failed = (len(ODD), 0) if kind == "done" else (0, 2)
    assert sizes == {"features": done, "paths": done, "failed_paths": failed, "failed_messages": failed}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_an_interrupted_run_has_done_is_a_whole_file_beside_the_name(tmp_path: Path, suffix: str) -> None:
    part = arrays(tmp_path / f"f{suffix}", results()[:3], complete=False)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [part.name]
    if suffix == ".npz":
        with np.load(part) as loaded:
            assert loaded["paths"].tolist() == ODD[:2]
    else:
        with safe_open(part, "numpy") as loaded:
            assert names(loaded.get_tensor("paths")) == [os.fsencode(name) for name in ODD[:2]]


def test_one_long_name_makes_no_large_archive(tmp_path: Path) -> None:
    some = [Embedded(name, features=features(0)) for name in ("d/" * 1500 + "x.jpg", *("a.jpg",) * 500)]
    path = arrays(tmp_path / "f.npz", some)
    assert path.stat().st_size < 100_000
    with np.load(path) as loaded:
        assert loaded["paths"].tolist() == [result.path for result in some]


def test_safetensors_say_what_made_them(tmp_path: Path) -> None:
    file = ArrayFile(
        str(tmp_path / "f.safetensors"), ".safetensors", tokens=False, about={"model": "m", "tokens": "false"}
    )
    for entry in entries(results()):
        file.write(entry)
    file.close(complete=True)
    with safe_open(tmp_path / "f.safetensors", "numpy") as loaded:
        assert loaded.metadata() == {"model": "m", "tokens": "false"}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, suffix: str) -> None:
    def many(count: int) -> Iterator[Embedded]:
        row = features(0, 768)
        return (Embedded(f"{number}.jpg", features=row) for number in range(count))

    def peak(count: int) -> int:
        tracemalloc.start()
        arrays(tmp_path / f"{count}{suffix}", many(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(4000) < peak(400) + 500_000
    assert (tmp_path / f"4000{suffix}").stat().st_size > 4000 * 768 * 4


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_same_results_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = (arrays(tmp_path / f"{name}{suffix}", results()).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
def test_parquet_has_the_columns_of_the_record(tmp_path: Path, tokens: bool) -> None:
    import pyarrow.parquet as pq

    file = tmp_path / "f.parquet"
    file.write_bytes(b"".join(parquet(results(tokens), Records(Embedded, settings={**SETTINGS, "tokens": tokens}))))
    rows = pq.read_table(file).to_pylist()
    records = [orjson.loads(line) for line in "".join(jsonl(results(tokens))).splitlines()]
    assert [list(row) for row in rows] == [list(record) for record in records]
    for row, record in zip(rows, records, strict=True):
        wanted = record.pop("features")
        found = row.pop("features")
        name = record["path_bytes"]
        assert row == {**record, "path_bytes": name and base64.b64decode(name)}
        assert found is wanted is None or np.array_equal(np.float32(found), np.float32(wanted))


def test_parquet_is_whole_wherever_the_results_end(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for count in (0, 1, 5):
        file = tmp_path / f"{count}.parquet"
        file.write_bytes(b"".join(parquet(results()[:count], Records(Embedded, settings=SETTINGS))))
        assert pq.read_table(file).column("path").to_pylist() == [r.to_dict()["path"] for r in results()[:count]]


def test_numbers_in_jsonl_are_short_and_give_back_the_very_float32() -> None:
    values = np.array([0.1, -1e-12, 3.4e38, 16777217.0, 0.0], np.float32)
    line = "".join(jsonl([Embedded("a.jpg", features=values)]))
    assert '"features": [0.1, -1e-12, 3.4e+38, 16777216.0, 0.0]' in line
    assert np.array_equal(np.float32(json.loads(line)["features"]), values)


def test_unit_length_is_that_of_each_vector() -> None:
    vectors = features(0, 7, 7, 6)
    vectors[3, 4] = 0
    lengths = np.linalg.norm(unit_length(vectors), axis=-1)
    expected = np.ones((7, 7), np.float32)
    expected[3, 4] = 0
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)
