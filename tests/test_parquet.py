"""Records as Parquet, as other programs read them."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, Call, in_a_terminal

from hiera_cli.outputs import parquet as module
from hiera_cli.outputs.formats import jsonl
from hiera_cli.outputs.parquet import parquet
from hiera_cli.result import Failure, Records
from hiera_cli.system.utf8 import name_bytes
from hiera_cli.tasks.classify import Classified, Classify, Prediction
from hiera_cli.tasks.embed import Embed
from hiera_cli.tasks.evaluate import Evaluate, Evaluated, Truth

NO_UTF8 = os.fsdecode(b"caf\xe9.jpg")
ODD = ["a.jpg", "line\nbreak\t.jpg", "😀 日本.jpg", NO_UTF8, 'quote".jpg', "a.jpg"]
SETTINGS = {**Classify().settings, "full_decode": False}
PREDICTIONS = (
    Prediction(1, 281, "n02123045", "tabby, tabby cat", 0.87312345),
    Prediction(2, None, "n02121620", "cat", 0.1),
    Prediction(3, 7, None, "mine", 0.025),
)
RECORDS = Records(Classified, "m", SETTINGS)


def results() -> list[Classified]:
    done = [Classified(name, "m", None, "fp32", None, ("odd",), SETTINGS, predictions=PREDICTIONS) for name in ODD]
    failed = Classified("broken.jpg", "m", Failure("DecodeError", "damaged \udcff"), settings=SETTINGS)
    return [failed, *done, Classified("unsure.jpg", "m", precision="fp32", settings=SETTINGS)]


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


def as_parquet_has_it(record: dict[str, Any], path: str) -> dict[str, Any]:
    return {**record, "path_bytes": None if record["path_bytes"] is None else name_bytes(path)}


@pytest.mark.parametrize("kind", [Classified, Evaluated])
def test_rows_are_the_json_records_with_the_bytes_of_names_as_they_are(tmp_path: Path, kind: type[Classified]) -> None:
    some = results()
    if kind is Evaluated:
        truth = Truth("cat", frozenset({281}), None, "n02121620")
        some = [
            Evaluated(
                r.path, r.model, r.error, r.precision, None, r.remarks, SETTINGS, None, r.predictions, "cats", truth
            )
            for r in some
        ]
    (tmp_path / "r.parquet").write_bytes(b"".join(parquet(some, Records(kind, "m", SETTINGS))))
    found = rows_of(tmp_path / "r.parquet")
    wanted = [orjson.loads(line) for line in "".join(jsonl(some)).splitlines()]
    assert [list(row) for row in found] == [list(record) for record in wanted]
    assert found == [as_parquet_has_it(record, result.path) for record, result in zip(wanted, some, strict=True)]
    assert [row["path"] for row in found if row["path_bytes"]] == ["caf\N{REPLACEMENT CHARACTER}.jpg"]


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_row_groups_are_written_as_they_fill_and_the_file_is_whole_wherever_the_results_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    asked: list[Classified] = []

    def some() -> Iterator[Classified]:
        for result in results()[:count]:
            asked.append(result)
            yield result

    with open(tmp_path / "r.parquet", "wb") as stream:
        for chunk in parquet(some(), RECORDS):
            stream.write(chunk)
            assert len(asked) in (2, 4, 6, 8, count)
    file = pq.ParquetFile(tmp_path / "r.parquet")
    assert file.num_row_groups == (count + 1) // 2
    assert [row["path"] for row in rows_of(tmp_path / "r.parquet")] == [r.to_dict()["path"] for r in results()[:count]]


def test_runs_with_other_settings_give_files_of_one_schema() -> None:
    schemas = set()
    for task in (Classify(), Classify(3, 0.1, 0.8, ("n02084071",))):
        first = next(parquet([], Records(Classified, "m", {**task.settings, "full_decode": True})))
        schemas.add(str(pq.read_schema(io.BytesIO(first))))
    assert len(schemas) == 1


@pytest.mark.parametrize("task", [Classify(), Embed(), Evaluate()])
def test_every_setting_of_a_record_has_a_type(task: Any) -> None:
    assert {*task.settings, "full_decode"} <= module.SETTINGS.keys()
    assert task.kind in module.ANSWERS


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos and a file that is none; the name of one is no UTF-8."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(SAMPLES / "cat.jpg", folder / NO_UTF8)
    shutil.copy(SAMPLES / "rocket.jpg", folder)
    (folder / "bad.jpg").write_text("no photo")
    return folder


LABELS = {"photos/bad.jpg": None, "photos/caf\ufffd.jpg": "tabby, tabby cat", "photos/rocket.jpg": "missile"}


@pytest.mark.usefixtures("demo_on_the_cpu")
class TestTheCommands:
    """What they write."""

    def test_duckdb_and_polars_read_the_labels(self, call: Call, photos: Path) -> None:
        import duckdb
        import polars

        done = call("classify", "photos", "-o", "labels.parquet")
        assert (done.status, done.out) == (1, "")
        found = duckdb.sql("SELECT path, predictions[1].label FROM 'labels.parquet'").fetchall()
        assert dict(found) == LABELS
        failed = duckdb.sql("SELECT path FROM 'labels.parquet' WHERE error.type = 'DecodeError'").fetchall()
        assert failed == [("photos/bad.jpg",)]
        frame = polars.read_parquet("labels.parquet")
        first = frame.select(polars.col("predictions").list.first().struct.field("label"))["label"]
        assert dict(zip(frame["path"], first, strict=True)) == LABELS

    def test_pandas_reads_the_labels(self, call: Call, photos: Path) -> None:
        pandas = pytest.importorskip("pandas")
        assert call("classify", "photos", "-o", "labels.parquet", "-q").status == 1
        table = pandas.read_parquet("labels.parquet")
        assert [each[0]["label"] if len(each) else None for each in table.predictions] == [*LABELS.values()]
        assert [os.fsdecode(name) for name in table.path_bytes if name] == [f"photos/{NO_UTF8}"]

    def test_a_pipe_takes_parquet_as_a_file_does(self, call: Call, photos: Path) -> None:
        assert call("classify", "photos", "-o", "labels.parquet").status == 1
        piped = call("classify", "photos", "-f", "parquet", "-q")
        Path("piped.parquet").write_bytes(os.fsencode(piped.out))
        assert rows_of("piped.parquet") == rows_of("labels.parquet")

    def test_evaluated_images_have_their_truth(self, call: Call, photos: Path) -> None:
        (photos / "tabby").mkdir()
        (photos / "rocket.jpg").rename(photos / "tabby" / "rocket.jpg")
        (photos / "bad.jpg").rename(photos / "tabby" / "bad.jpg")
        assert call("evaluate", "photos", "-o", "r.parquet", "-q").status == 1
        columns = ("path", "truth", "rank", "correct", "status")
        truth = {"name": "tabby", "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat"}
        assert [[row[name] for name in columns] for row in rows_of("r.parquet")] == [
            ["photos/tabby/bad.jpg", truth, None, None, "error"],
            ["photos/tabby/rocket.jpg", truth, 5, False, "ok"],
        ]

    def test_what_a_search_finds_is_the_same_as_in_json(self, call: Call, photos: Path) -> None:
        search = ("find", "-e", "cat", "-e", "missile", "photos", "--index", "i.sqlite", "-q")
        found = call(*search, "-f", "parquet")
        Path("found.parquet").write_bytes(os.fsencode(found.out))
        records = call(*search, "-f", "jsonl").records()
        names = [f"photos/{NO_UTF8}" if record["path_bytes"] else record["path"] for record in records]
        wanted = [as_parquet_has_it(record, name) for record, name in zip(records, names, strict=True)]
        assert len(wanted) == 2
        assert rows_of("found.parquet") == wanted

    @pytest.mark.parametrize(
        "arguments",
        [
            ["classify", "photos", "-o", "l.parquet"],
            ["embed", "photos", "-o", "l.parquet"],
            ["evaluate", "photos", "-o", "l.parquet"],
            ["find", "cat", "-f", "parquet"],
        ],
    )
    def test_without_pyarrow_the_way_on_is_told_at_once(
        self, call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
    ) -> None:
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name))
        done = call(*arguments)
        told = "hiera: error: Parquet needs pyarrow, which is not installed\n  pip install 'hiera-cli[parquet]'\n"
        assert (done.status, done.err) == (2, told)

    def test_a_terminal_gets_no_parquet(self, environment: dict[str, str], photos: Path) -> None:
        status, shown = in_a_terminal(environment, "classify", "photos", "-f", "parquet")
        told = "parquet is for files, and this run writes to a terminal\n  Name one: -o FILE.parquet\n"
        assert (status, shown) == (2, f"hiera: error: {told}")
