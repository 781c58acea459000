"""A folder of parts, as the workers of a cluster write it: what is refused, replaced, gone on with, and found in it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.dataset as ds
import pytest

from hiera_cli import __version__
from hiera_cli.errors import OutputError
from hiera_cli.inputs.source import Source
from hiera_cli.outputs.parts import Done, PartsFolder
from hiera_cli.result import Failure, Records
from hiera_cli.tasks.classify import Classified, Prediction

OUT = Path("out")
BROKEN = Failure("DecodeError", "not an image")
DIGEST = "d" * 64


def records(top_k: int = 5, model: str = "demo") -> Records:
    return Records(Classified, model, {"top_k": top_k})


def opened(format: str = "jsonl", *, resume: bool = False, overwrite: bool = False, **about: Any) -> PartsFolder:
    return PartsFolder(str(OUT), format, records(**about), resume=resume, overwrite=overwrite)


def result(path: str, *, ok: bool = True, top_k: int = 5) -> Classified:
    settings = {"top_k": top_k}
    if not ok:
        return Classified(path, "demo", BROKEN, settings=settings)
    tabby = Prediction(1, 281, "n02123045", "tabby, tabby cat", 0.875)
    return Classified(path, "demo", precision="fp32", settings=settings, predictions=(tabby,))


def write(folder: PartsFolder, unit: int, results: Sequence[Classified]) -> None:
    """As a worker does, and the run that counts what it says."""
    folder.parts.write(unit, 0, results)
    list(folder.count(results))


def run(*parts: Sequence[Classified], complete: bool = True, **how: Any) -> PartsFolder:
    """A whole run."""
    folder = opened(**how)
    folder.check("fp32", DIGEST)
    for unit, results in enumerate(parts):
        write(folder, unit, results)
    folder.close(complete=complete)
    return folder


def remaining(folder: PartsFolder, paths: Iterable[str]) -> list[str]:
    return [source.path for source in folder.remaining(map(Source, paths))]


def names() -> list[str]:
    return sorted(os.listdir(OUT))


def paths_in(*parts: str) -> Iterator[str]:
    for part in parts:
        for line in (OUT / part).read_text().splitlines():
            yield json.loads(line)["path"]


def refusal(**how: Any) -> OutputError:
    before = {name: (OUT / name).read_bytes() for name in names()} if OUT.is_dir() else {}
    with pytest.raises(OutputError) as refused:
        opened(**how)
    assert {name: (OUT / name).read_bytes() for name in names()} == before
    return refused.value


def test_a_folder_that_is_complete_has_its_parts_and_a_manifest_alone() -> None:
    run([result("a"), result("b", ok=False)], [], [result("c")])
    assert names() == ["_manifest.json", "part-001-00000000-000000000.jsonl", "part-001-00000002-000000000.jsonl"]
    assert json.loads((OUT / "_manifest.json").read_text()) == {
        "hiera": __version__,
        "format": "jsonl",
        "answers": ["predictions"],
        "model": "demo",
        "settings": {"top_k": 5},
        "precision": "fp32",
        "weights_sha256": DIGEST,
        "records": 3,
        "answered": 2,
        "failed": 1,
        "parts": [{"name": name, "bytes": (OUT / name).stat().st_size} for name in names()[1:]],
    }


def test_a_run_that_cannot_start_leaves_nothing_behind() -> None:
    opened().close(complete=False)
    assert not OUT.exists()


def test_folders_that_were_made_for_it_go_with_it() -> None:
    os.mkdir("mine")
    PartsFolder("mine/a/b/out", "jsonl", records()).close(complete=False)
    assert os.listdir("mine") == []


def test_a_lock_that_its_run_removes_meanwhile_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had opened the file before would lock one that nobody else sees."""
    first = opened()
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        assert first._lock is not None
        first._lock.close()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = opened()
    assert "_lock" in names()
    with pytest.raises(OutputError, match=r"^another run is writing out right now$"):
        opened()
    second.close(complete=False)


def test_a_folder_that_was_there_is_left_there() -> None:
    OUT.mkdir()
    opened().close(complete=False)
    assert names() == []


def test_a_run_that_began_and_has_written_nothing_leaves_nothing_behind() -> None:
    run(complete=False)
    assert not OUT.exists()


def test_what_an_unfinished_run_wrote_is_kept() -> None:
    run([result("a")], complete=False)
    assert names() == ["_run.json", "part-001-00000000-000000000.jsonl"]


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_run_that_cannot_start_leaves_what_is_there_as_it_was(complete: bool, how: dict[str, Any]) -> None:
    run([result("a")], complete=complete)
    before = {name: (OUT / name).read_bytes() for name in names()}
    if how:
        opened(**how, top_k=3 if how.get("overwrite") else 5).close(complete=False)
    else:
        refusal()
    assert {name: (OUT / name).read_bytes() for name in names()} == before


def test_a_run_that_was_to_replace_parts_and_was_killed_is_not_taken_for_theirs() -> None:
    run([result("a")])
    killed = opened(overwrite=True, top_k=3)
    assert killed._lock is not None
    killed._lock.close()
    assert "its top-k is 5" in refusal(resume=True, top_k=3).message


def test_what_is_there_is_refused_and_the_ways_on_are_named() -> None:
    run([result("a")], complete=False)
    refused = refusal()
    assert (refused.message, refused.remedy) == ("out: an earlier run did not finish", "resume or begin anew")
    run([result("b")], resume=True)
    refused = refusal()
    assert (refused.message, refused.remedy) == ("out exists already", "resume or replace")


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_something_else_is_left_alone(how: dict[str, Any]) -> None:
    OUT.mkdir()
    (OUT / "thesis.tex").touch()
    refused = refusal(**how)
    assert refused.message == "cannot write parts into out: there is something else in it, such as thesis.tex"


def test_what_hidden_files_there_are_is_nobodys_affair() -> None:
    OUT.mkdir()
    (OUT / ".DS_Store").touch()
    run([result("a")])
    assert names() == [".DS_Store", "_manifest.json", "part-001-00000000-000000000.jsonl"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"top_k": 3}, "top-k is 5, that of this run 3"),
        ({"model": "tiny"}, "model is demo, that of this run tiny"),
        ({"format": "parquet"}, "format is jsonl, that of this run parquet"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_what_was_made_otherwise_is_not_gone_on_with(how: dict[str, Any], told: str, complete: bool) -> None:
    run([result("a")], complete=complete)
    assert refusal(resume=True, **how).message == f"cannot go on with out: its {told}"


@pytest.mark.parametrize(
    ("precision", "digest", "told"),
    [
        ("bf16", DIGEST, "precision is fp32, that of this run bf16"),
        ("fp32", "e" * 64, f"weights-sha256 is {DIGEST}, that of this run {'e' * 64}"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_parts_of_another_precision_or_other_weights_are_not_gone_on_with(
    precision: str, digest: str, told: str, complete: bool
) -> None:
    run([result("a")], complete=complete)
    before = names()
    folder = opened(resume=True)
    with pytest.raises(OutputError) as refused:
        folder.check(precision, digest)
    folder.close(complete=False)
    assert refused.value.message == f"cannot go on with out: its {told}"
    assert names() == before


def test_old_parts_are_there_until_the_run_that_replaces_them_begins() -> None:
    run([result("a")], [result("b")])
    old = names()
    folder = opened(overwrite=True, top_k=3)
    assert [name for name in names() if name != "_lock"] == old
    folder.check("bf16", DIGEST)
    assert names() == ["_lock", "_run.json"]
    write(folder, 0, [result("c", top_k=3)])
    folder.close(complete=True)
    assert names() == ["_manifest.json", "part-002-00000000-000000000.jsonl"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_run_that_goes_on_leaves_out_what_has_an_answer_and_tries_failures_again(format: str) -> None:
    run([result("a"), result("b", ok=False)], [result("c", ok=False)], complete=False, format=format)
    folder = opened(format, resume=True)
    assert folder.has_records
    assert remaining(folder, "abcd") == ["b", "c", "d"]
    assert folder.done == 1
    folder.check("fp32", DIGEST)
    write(folder, 0, [result("b"), result("c", ok=False), result("d")])
    folder.close(complete=True)
    manifest = json.loads((OUT / "_manifest.json").read_text())
    assert [manifest[name] for name in ("records", "answered", "failed")] == [4, 3, 1]
    table = duckdb.sql(f"SELECT path, status FROM 'out/*.{format}' ORDER BY path")
    assert table.fetchall() == [("a", "ok"), ("b", "ok"), ("c", "error"), ("d", "ok")]


def test_a_run_that_had_nothing_left_to_do_counts_what_is_there() -> None:
    """A failure among it is not named any more, so that nothing is computed."""
    run([result("a"), result("gone", ok=False)], complete=False)
    folder = opened(resume=True)
    assert remaining(folder, "a") == []
    folder.close(complete=True)
    manifest = json.loads((OUT / "_manifest.json").read_text())
    assert [manifest[name] for name in ("records", "answered", "failed", "precision")] == [2, 1, 1, "fp32"]


def test_a_complete_folder_is_gone_on_with_too() -> None:
    run([result("a")])
    folder = opened(resume=True)
    assert remaining(folder, "ab") == ["b"]
    folder.check("fp32", DIGEST)
    assert names() == ["_lock", "_run.json", "part-001-00000000-000000000.jsonl"]
    write(folder, 0, [result("b")])
    folder.close(complete=True)
    assert list(paths_in(*names()[1:])) == ["a", "b"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_damaged_part_is_told_of_by_its_name(format: str) -> None:
    run([result("a")], [result("b")], complete=False, format=format)
    part = OUT / f"part-001-00000001-000000000.{format}"
    part.write_bytes(part.read_bytes()[:-20])
    refused = refusal(format=format, resume=True)
    assert refused.message.startswith(f"cannot go on with out: {part.name} is damaged (")
    assert refused.hint == "Move it away: its inputs are done again."
    part.unlink()
    folder = opened(format, resume=True)
    assert remaining(folder, "ab") == ["b"]
    folder.close(complete=False)


@pytest.mark.parametrize("content", ["", "{", "5", "[1]", "[]", "{}"])
def test_a_damaged_description_of_a_run_is_told_of(content: str) -> None:
    run([result("a")], complete=False)
    (OUT / "_run.json").write_text(content)
    refused = refusal(resume=True)
    assert (refused.message, refused.remedy) == ("cannot go on with out: _run.json is damaged", "another folder")


def test_parts_without_what_tells_how_they_were_made_are_not_gone_on_with() -> None:
    run([result("a")], complete=False)
    (OUT / "_run.json").unlink()
    refused = refusal()
    assert (refused.message, refused.remedy) == ("out has parts of an earlier run", "another folder")
    told = "cannot go on with out: _run.json is missing, which tells what made its parts"
    assert refusal(resume=True).message in (told, told.replace("cannot go on with", "cannot write parts into"))


def test_going_on_with_nothing_begins() -> None:
    run([result("a")], resume=True)
    assert names() == ["_manifest.json", "part-001-00000000-000000000.jsonl"]


def test_the_same_part_written_twice_is_one() -> None:
    """By who does the inputs again of a worker that was lost before it could say that they are done."""
    folder = opened()
    folder.check("fp32", DIGEST)
    folder.parts.write(4, 32, [result("a")])
    write(folder, 4, [])
    folder.parts.write(4, 32, [result("a")])
    assert [name for name in names() if name.startswith("part")] == ["part-001-00000004-000000032.jsonl"]
    folder.close(complete=True)


def test_late_parts_of_an_earlier_run_are_none_of_this_ones() -> None:
    run([result("a")], complete=False)
    folder = opened(resume=True)
    folder.check("fp32", DIGEST)
    (OUT / "part-001-00000007-000000000.jsonl").write_text("of a worker that ended only now\n")
    write(folder, 0, [result("b")])
    folder.close(complete=True)
    assert names() == ["_manifest.json", "part-001-00000000-000000000.jsonl", "part-002-00000000-000000000.jsonl"]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_names_that_are_no_utf8_are_known_again(format: str) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    run([result(odd), result("é.jpg")], complete=False, format=format)
    folder = opened(format, resume=True)
    assert remaining(folder, [odd, "é.jpg", os.fsdecode(b"caf\xea.jpg")]) == [os.fsdecode(b"caf\xea.jpg")]
    folder.close(complete=False)


def test_parquet_parts_are_one_data_set() -> None:
    run([result("a"), result("b", ok=False)], [result("c", ok=False)], [result("d")], format="parquet")
    rows = [("a", "ok"), ("b", "error"), ("c", "error"), ("d", "ok")]
    assert duckdb.sql("SELECT path, status FROM 'out/part-*.parquet' ORDER BY path").fetchall() == rows
    assert polars.read_parquet("out/part-*.parquet").sort("path").select("path", "status").rows() == rows
    table = ds.dataset("out", format="parquet").to_table(["path", "status", "predictions"])
    assert sorted(zip(*table.select(["path", "status"]).to_pydict().values(), strict=True)) == rows
    assert table["predictions"].to_pylist()[0][0]["label"] == "tabby, tabby cat"


def test_one_run_at_a_time_has_a_folder() -> None:
    first = opened()
    with pytest.raises(OutputError, match=r"^another run is writing out right now$"):
        opened(overwrite=True)
    first.check("fp32", DIGEST)
    write(first, 0, [result("a")])
    first.close(complete=True)
    opened(overwrite=True).close(complete=False)


@pytest.mark.parametrize(
    ("place", "told"), [("/proc/out", "No such file or directory"), ("file/out", "Not a directory")]
)
def test_a_folder_that_cannot_be_written_is_told_of_before_anything_is_computed(place: str, told: str) -> None:
    Path("file").touch()
    with pytest.raises(OutputError) as refused:
        PartsFolder(place, "jsonl", records())
    assert refused.value.message == f"cannot write {place}: {told}"


def test_a_disk_that_is_full_is_told_of_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"^cannot write .*out: No space left on device$"):
        opened()
    assert not OUT.exists()


def test_a_folder_that_goes_away_meanwhile_is_told_of() -> None:
    folder = opened()
    folder.check("fp32", DIGEST)
    for name in names():
        (OUT / name).unlink()
    OUT.rmdir()
    with pytest.raises(OutputError, match=r"^cannot write .*out: No such file or directory$"):
        folder.parts.write(0, 0, [result("a")])
    folder.close(complete=False)


def test_what_is_done_is_known_by_its_bytes_as_often_as_it_is() -> None:
    done = Done([b"a", b"b", b"a"])
    assert [done.count(name) for name in "abc"] == [2, 1, 0]
    assert [done.take(name) for name in "abcaba"] == [True, True, False, True, False, False]
    assert [done.count(name) for name in "abc"] == [0, 0, 0]
    assert not Done().take("a")


def test_an_input_that_is_named_twice_and_done_once_is_done_once_more() -> None:
    run([result("a"), result("b"), result("b")], complete=False)
    folder = opened(resume=True)
    assert remaining(folder, "abab") == ["a"]
    assert folder.done == 3
    folder.close(complete=False)


def test_a_file_is_no_folder() -> None:
    OUT.write_text("text")
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"^cannot write parts into out/: it is a file$"):
            PartsFolder("out/", "jsonl", records(), **how)
    assert OUT.read_text() == "text"


def test_what_killed_processes_have_left_is_nothing_else_and_goes() -> None:
    OUT.mkdir()
    left = ["_run.json.12.0123abcd.part", "part-001-00000000-000000000.jsonl.12.0123abcd.part"]
    (OUT / left[0]).touch()
    with_run = opened()
    with_run.check("fp32", DIGEST)
    write(with_run, 0, [result("a.jpg")])
    with_run.close(complete=False)
    (OUT / left[1]).touch()
    run([result("b.jpg")], resume=True)
    assert names() == [
        "_manifest.json",
        "part-001-00000000-000000000.jsonl",
        "part-002-00000000-000000000.jsonl",
    ]


def test_precision_is_held_against_that_of_the_parts() -> None:
    run([result("a.jpg")])
    folder = opened(resume=True)
    folder.check_precision("fp32")
    with pytest.raises(OutputError, match=r"^cannot go on with out: its precision is fp32, that of this run bf16$"):
        folder.check_precision("bf16")
    folder.close(complete=False)
