"""`hiera index` and `hiera find`, as their user runs them."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from checkpoint_maker import SMALL, reference_model
from conftest import SAMPLES, TOOK, Bash, Call, Hiera

from hiera_cli import load_classifier
from hiera_cli.commands import indexing
from hiera_cli.errors import OutputError
from hiera_cli.index.store import Index

CAT, ROCKET, COFFEE = SAMPLES / "cat.jpg", SAMPLES / "rocket.jpg", SAMPLES / "espresso.jpg"
pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")


@pytest.fixture(autouse=True)
def index(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the index is to be. In-process runs walk in this process: it has threads, and is not to be forked."""
    environment["HIERA_INDEX"] = str(tmp_path / "index.sqlite")
    monkeypatch.setattr(indexing, "beside", lambda call: call)
    return tmp_path / "index.sqlite"


@pytest.fixture
def starts_sooner(environment: dict[str, str]) -> None:
    """For processes of their own, where the engine does not matter: the one that starts sooner, if it is there."""
    environment["HIERA_ENGINE"] = "auto"


starting_sooner = pytest.mark.usefixtures("starts_sooner")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A cat, a rocket and, in a folder below, an espresso."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    shutil.copy(CAT, folder / "a.jpg")
    shutil.copy(ROCKET, folder / "b.jpg")
    shutil.copy(COFFEE, folder / "below" / "c.jpg")
    return folder


# ---- what is found


def test_paths_come_best_first_and_nothing_else(call: Call, photos: Path) -> None:
    done = call("find", "cat", photos, "--no-banner")
    assert (done.status, done.out) == (0, f"{photos}/a.jpg\n")
    assert re.fullmatch(
        r"hiera: cat: cat, true cat, a kind of feline \(n02121620, 7 classes\); "
        r"also big cat, a kind of feline \(n02127808, 6 classes\)\n"
        rf"hiera: 3 indexed, {TOOK}\n",
        done.err,
    )
    done = call("find", "entity", photos, "-q", "-0")
    assert done.status == 0
    scores = {record["path"]: record["score"] for record in call("find", "entity", photos, "-qf", "jsonl").records()}
    assert done.out.split("\0")[:-1] == sorted(scores, key=lambda path: (-scores[path], path))
    assert set(scores) == {f"{photos}/a.jpg", f"{photos}/b.jpg", f"{photos}/below/c.jpg"}


def test_names_stand_as_the_user_gave_the_folder(call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    shutil.copy(CAT, "-a.jpg")
    assert call("find", "cat", "-q").out == "./-a.jpg\na.jpg\n"
    assert call("find", "cat", ".", "-q").out == "./-a.jpg\n./a.jpg\n"
    assert call("find", "cat", "../photos/", "-q").out == "../photos/-a.jpg\n../photos/a.jpg\n"
    assert call("find", "cat", "a.jpg", "-q").out == "a.jpg\n"
    assert call("find", "espresso", "below", "a.jpg", "-q").out == "below/c.jpg\n"
    assert call("find", "cat", "below", "-q").status == 1


def test_records_have_scores_and_the_best_label(call: Call, photos: Path) -> None:
    done = call("find", "cat", photos, "-q", "--json")
    (record,) = orjson.loads(done.out)
    score, label_score = record.pop("score"), record.pop("label_score")
    assert record == {
        "path": f"{photos}/a.jpg",
        "path_bytes": None,
        "index": 281,
        "wnid": "n02123045",
        "label": "tabby, tabby cat",
    }
    assert 0.99 < label_score <= score <= 1
    assert call("find", "cat", photos, "-qf", "jsonl").records() == json.loads(done.out)
    for name, dialect in (("csv", "excel"), ("tsv", "excel-tab")):
        (row,) = csv.DictReader(io.StringIO(call("find", "cat", photos, "-qf", name).out), dialect=dialect)
        assert row["path"] == f"{photos}/a.jpg"
        assert row["label"] == "tabby, tabby cat"
        assert float(row["score"]) == score
    assert call("find", "cat", photos, "-qf", "table").out == f"{score:6.1%}  {photos}/a.jpg  tabby, tabby cat\n"
    assert call("find", "ostrich", photos, "-q", "--json").out == "[]\n"


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_scores_are_those_of_classify(call: Call, environment: dict[str, str], engine: str) -> None:
    pytest.importorskip(engine)
    environment["HIERA_ENGINE"] = engine
    labelled = {
        record["path"]: {p["index"]: p["score"] for p in record["predictions"]}
        for record in call("classify", SAMPLES, "-k", "1000", "-qf", "jsonl").records()
    }
    assert len(labelled) == 6
    from hiera_cli import wordnet
    from hiera_cli.checkpoints.labels import imagenet_labels

    for query in ("cat", "vehicle", "person", "musical instrument", "tabby"):
        wanted = wordnet.indices(wordnet.concept(query).wnid, imagenet_labels())
        found = call("find", query, SAMPLES, "-qf", "jsonl", "--min-score", "0").records()
        assert [record["path"] for record in found] == sorted(
            labelled, key=lambda path: (-next(r["score"] for r in found if r["path"] == path), path)
        )
        for record in found:
            scores = labelled[record["path"]]
            assert record["score"] == pytest.approx(sum(scores[index] for index in wanted), abs=0.002)
            assert record["index"] == max(scores, key=lambda index: scores[index])
            assert record["label_score"] == pytest.approx(max(scores.values()), abs=0.002)


def test_queries_are_joined_and_taken_away(call: Call, photos: Path) -> None:
    a, b, c = f"{photos}/a.jpg\n", f"{photos}/b.jpg\n", f"{photos}/below/c.jpg\n"
    assert sorted(call("find", "-e", "cat", "-e", "missile", photos, "-q").out.splitlines(True)) == [a, b]
    assert call("find", "-e", "entity", "--not", "animal", "--not", "coffee", photos, "-q").out == b
    assert sorted(call("find", "entity", photos, "--not", "tabby", "-q").out.splitlines(True)) == [b, c]
    assert call("find", "entity", photos, "-n", "2", "-q").out.count("\n") == 2
    # What --not would find is left out, although more of it shows something else.
    assert call("find", "-e", "entity", "-e", "tabby", photos, "--min-score", "0", "--not", "tabby", "-q").out in (
        b + c,
        c + b,
    )
    assert call("find", "--like", CAT, "--not", "tabby", "--not", "missile", photos, "-q").out == c
    done = call("find", "tabby", "--not", "animal", photos)
    assert (done.status, done.err) == (2, "hiera: error: nothing is left to find: --not takes all of it away\n")


def test_the_most_similar_come_first(call: Call, photos: Path, tmp_path: Path) -> None:
    features = {result.path: result.features for result in load_classifier("demo", precision="fp32").embed([photos])}
    like = features[f"{photos}/a.jpg"]
    assert like is not None

    def cosine(path: str) -> float:
        other = features[path]
        assert other is not None
        return float(like @ other / np.linalg.norm(like) / np.linalg.norm(other))

    expected = sorted(features, key=lambda path: -cosine(path))
    records = call("find", "--like", CAT, photos, "-qf", "jsonl").records()
    assert [record["path"] for record in records] == expected
    assert [record["score"] for record in records] == pytest.approx([*map(cosine, expected)], abs=0.002)
    assert call("find", "--like", CAT, photos, "-q", "-n", "1").out == f"{photos}/a.jpg\n"
    assert call("find", "--like", CAT, "-e", "missile", photos, "-q").out == f"{photos}/b.jpg\n"
    assert call("find", "--like", CAT, photos, "-q", "--min-score", "0.99").out == f"{photos}/a.jpg\n"
    assert (
        call("find", "--like", photos, photos, "-q").err
        == f"hiera: error: {photos} is a folder: --like takes a photo\n"
    )
    done = call("find", "--like", tmp_path / "none.jpg", photos, "-q")
    assert (done.status, done.out) == (2, "")
    assert done.err == f"hiera: error: {tmp_path}/none.jpg: no such file\n"


def test_a_query_by_a_photo_of_the_index_loads_no_model(
    call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("index", photos, "-q").status == 0
    monkeypatch.setattr("hiera_cli.classifier.load_classifier", None)
    assert call("find", "--like", photos / "b.jpg", photos, "-q", "-n", "1").out == f"{photos}/b.jpg\n"
    assert call("find", "cat", photos, "-q").out == f"{photos}/a.jpg\n"


def test_a_word_of_a_label_is_found_and_a_wrong_one_told(call: Call, photos: Path) -> None:
    assert call("find", "espresso", photos, "-q").out == f"{photos}/below/c.jpg\n"
    assert call("find", "n02123045", photos, "-q").out == f"{photos}/a.jpg\n"
    assert call("find", "281", photos, "-q").out == f"{photos}/a.jpg\n"
    done = call("find", "tabbi", photos)
    assert (done.status, done.err.splitlines()[0]) == (2, "hiera: error: 'tabbi' is not a concept or a word of a label")
    assert done.err.splitlines()[1].startswith("  The nearest words: ")
    assert call("find", photos, "cat").err.endswith(f"  What to find comes first: hiera find QUERY {photos}\n")
    assert call("find", CAT).err.endswith(f"  To find what is like it: hiera find --like {CAT}\n")
    done = call("find", "musical", "instrument", photos)
    assert done.err.endswith(f"  Did you mean hiera find 'musical instrument' {photos}?\n")
    done = call("find", "cat", "missile", photos)
    assert (done.status, done.out) == (2, f"{photos}/a.jpg\n")
    assert done.err.endswith("hiera: missile: no such file or folder (to find it too: -e missile)\n")
    assert call("find", "coffees", photos, "-q").out == f"{photos}/below/c.jpg\n"  # plurals
    assert call("find", "shuttles", photos, "-q", "--min-score", "0").status == 0
    assert call("find", "shuttle", photos).err == (
        "hiera: shuttle: not a concept; taken as the labels with the word: space shuttle\n"
        "hiera: nothing found among 3 photos (--min-score 0.5)\n"
    )
    assert call("find", "cat", photos / "b.jpg").err.endswith("nothing found among 1 photo (--min-score 0.5)\n")
    done = call("find")
    assert (done.status, done.err) == (
        2,
        "hiera: error: nothing to find: name what\n  For example: hiera find dog photos/\n",
    )
    assert call("find", "https://example.com/a.jpg").status == 2
    assert call("find", "cat", "https://example.com/a.jpg").err == (
        "hiera: error: https://example.com/a.jpg is not a file or folder: the index holds no others\n"
    )


def test_what_is_missing_is_trouble_and_the_rest_is_found(call: Call, photos: Path) -> None:
    done = call("find", "cat", photos / "none", photos, "-q")
    assert (done.status, done.out) == (2, f"{photos}/a.jpg\n")
    assert done.err == f"hiera: {photos}/none: no such file or folder\n"


def test_a_backbone_finds_by_pictures_and_not_by_words(call: Call, photos: Path, tmp_path: Path) -> None:
    from checkpoint_maker import backbones

    backbone = next(iter(backbones(reference_model(SMALL), tmp_path / "backbones").values()))
    assert call("find", "--like", CAT, photos, "-m", backbone, "-qn", "1").out == f"{photos}/a.jpg\n"
    done = call("find", "cat", photos, "-m", backbone, "-q")
    assert done.status == 2
    assert "labels" in done.err


# ---- the index follows the files


def indexed(done: Any) -> int:
    """How many files a run has read, as it says."""
    lines = [line for line in done.err.splitlines() if " indexed, " in line]
    return int(lines[0].split()[1]) if lines else 0


def test_only_what_is_new_or_changed_is_read(call: Call, photos: Path) -> None:
    assert indexed(call("index", photos)) == 3
    done = call("index", photos)
    assert (done.status, done.err) == (0, "hiera: the index is up to date\n")
    shutil.copy(ROCKET, photos / "new.jpg")
    shutil.copy(COFFEE, photos / "new2.jpg")
    os.utime(photos / "b.jpg", ns=(1, 1))
    assert indexed(call("find", "missile", photos)) == 3
    shutil.copy(CAT, photos / "new.jpg")
    assert call("find", "cat", photos, "-q").out == f"{photos}/a.jpg\n{photos}/new.jpg\n"
    assert call("find", "missile", photos, "-q").out == f"{photos}/b.jpg\n"
    with Index(os.environ["HIERA_INDEX"]) as opened:
        assert opened.faults() == []
        assert [(each.photos, each.errors) for each in opened.models()] == [(5, 0)]


def test_what_is_gone_leaves(call: Call, photos: Path, index: Path) -> None:
    assert call("index", photos, "-q").status == 0
    (photos / "a.jpg").unlink()
    shutil.rmtree(photos / "below")
    assert call("find", "entity", photos, "-q").out == f"{photos}/b.jpg\n"
    done = call("index", "--status", "--json")
    facts = json.loads(done.out)
    assert (facts["index"], facts["photos"], facts["errors"]) == (str(index), 1, 0)
    assert facts["folders"] == [{"path": str(photos), "path_bytes": None, "photos": 1, "errors": 0}]
    assert call("index", "--check").out == f"{index}: no fault was found\n"


def test_without_an_update_the_index_is_taken_as_it_is(call: Call, photos: Path, index: Path) -> None:
    done = call("find", "cat", photos, "--no-update", "-q")
    assert (done.status, done.err) == (
        2,
        f"hiera: error: there is no index at {index}\n  `hiera index PATH...` makes one.\n",
    )
    assert not index.exists()
    assert call("index", photos, "-q").status == 0
    (photos / "a.jpg").rename(photos / "z.jpg")
    before = index.read_bytes()
    assert call("find", "cat", photos, "--no-update", "-q").out == f"{photos}/a.jpg\n"
    assert index.read_bytes() == before


def test_a_disk_that_is_not_there_loses_nothing(call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ismount = os.path.ismount
    mounted = {str(photos / "below")}
    monkeypatch.setattr(os.path, "ismount", lambda path: os.fspath(path) in mounted or ismount(path))
    assert call("index", photos, "-q").status == 0
    (photos / "below").rename(photos.parent / "unplugged")
    mounted.clear()
    for has_folder in (False, True):
        if has_folder:
            (photos / "below").mkdir()
        assert call("find", "espresso", photos, "-q").status == 1
        assert call("index", photos).err == (
            f"hiera: {photos}/below: can't be reached; what the index has of it stays\nhiera: the index is up to date\n"
        )
        assert call("find", "espresso", photos, "--no-update", "-q").out == f"{photos}/below/c.jpg\n"
    (photos / "below").rmdir()
    (photos.parent / "unplugged").rename(photos / "below")
    mounted.add(str(photos / "below"))
    done = call("find", "espresso", photos)
    assert (done.out, indexed(done)) == (f"{photos}/below/c.jpg\n", 0)


def test_a_folder_that_is_not_there_is_told_and_stays(call: Call, photos: Path) -> None:
    assert call("index", photos, "-q").status == 0
    photos.rename(photos.parent / "elsewhere")
    assert call("find", "cat", photos, "-q").status == 2
    (photos.parent / "elsewhere").rename(photos)
    assert indexed(call("find", "cat", photos)) == 0


def test_what_a_walk_passes_over_is_not_found_and_stays(call: Call, photos: Path) -> None:
    (photos / "below").rename(photos / ".below")
    assert call("index", photos, "--hidden", "-q").status == 0
    assert call("find", "espresso", photos, "-q").status == 1
    assert call("find", "cat", photos, "--exclude", "a*", "-q").status == 1
    done = call("find", "espresso", photos, "--hidden")
    assert (done.out, indexed(done)) == (f"{photos}/.below/c.jpg\n", 0)


def test_an_error_is_told_once_and_kept_until_the_file_changes(call: Call, photos: Path) -> None:
    (photos / "b.jpg").write_text("no picture")
    done = call("find", "cat", photos, "-q")
    assert (done.status, done.out) == (0, f"{photos}/a.jpg\n")
    assert done.err == f"hiera: {photos}/b.jpg: not an image of a format that is read here\n"
    assert call("find", "cat", photos, "-q").err == ""
    assert json.loads(call("index", "--status", "--json").out)["errors"] == 1
    shutil.copy(CAT, photos / "b.jpg")
    assert call("find", "cat", photos, "-q").out == f"{photos}/a.jpg\n{photos}/b.jpg\n"
    assert json.loads(call("index", "--status", "--json").out)["errors"] == 0


def test_an_error_that_may_pass_is_tried_again(call: Call, photos: Path) -> None:
    done = call("find", "cat", photos, "-q", "--max-pixels", "100")
    assert (done.status, done.err.count("--max-pixels raises it")) == (1, 3)
    assert call("find", "cat", photos, "-q").out == f"{photos}/a.jpg\n"


def test_names_that_are_not_utf8_are_found(call: Call, photos: Path) -> None:
    name = os.fsencode(photos) + b"/\xff\n\t.jpg"
    shutil.copy(CAT, os.fsdecode(name))
    done = call("find", "cat", photos, "-0", "-q")
    assert done.out.encode("utf-8", "surrogateescape") == os.fsencode(photos) + b"/a.jpg\0" + name + b"\0"
    records = [orjson.loads(line) for line in call("find", "cat", photos, "-qf", "jsonl").out.splitlines()]
    assert [base64.b64decode(record["path_bytes"]) for record in records if record["path_bytes"]] == [name]
    assert call("index", "--forget", os.fsdecode(name), "-q").status == 0
    assert call("find", "cat", photos, "-q", "--no-update").out == f"{photos}/a.jpg\n"


def test_a_file_that_was_named_is_told_each_time_it_fails(call: Call, photos: Path) -> None:
    (photos / "b.jpg").write_text("no picture")
    for _ in range(2):
        done = call("find", "cat", photos / "b.jpg", photos / "a.jpg", "-q")
        assert (done.status, done.out) == (2, f"{photos}/a.jpg\n")
        assert done.err == f"hiera: {photos}/b.jpg: not an image of a format that is read here\n"
        done = call("index", photos / "b.jpg", "-q")
        assert (done.status, done.err) == (1, f"hiera: {photos}/b.jpg: not an image of a format that is read here\n")
    shutil.copy(CAT, photos / "new.jpg")
    done = call("find", "cat", photos / "new.jpg", "--no-update", "-q")
    assert (done.status, done.err) == (2, f"hiera: {photos}/new.jpg: it is not in the index\n")
    assert call("find", "cat", photos, "-q").status == 0
    assert "--exclude none matched nothing" in call("find", "cat", photos, "--exclude", "none").err


def test_what_the_walk_skips_is_told_by_an_update(call: Call, photos: Path) -> None:
    (photos / "a.nef").touch()
    (photos / "link.jpg").symlink_to("a.jpg")
    done = call("find", "missile", photos, "--exclude", "below", "--exclude", "none")
    assert done.out == f"{photos}/b.jpg\n"
    assert "hiera: skipped 1 file that is not known as an image (1 .nef), 1 link (--follow)\n" in done.err
    assert [line for line in done.err.splitlines() if "--exclude" in line] == ["hiera: --exclude none matched nothing"]
    done = call("index", photos, "--exclude", "below")
    assert done.err.count("skipped") == 1
    assert "matched nothing" not in done.err


def test_an_empty_name_is_no_folder(call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert call("index", ".", "-q").status == 0
    for arguments in (
        ["index", "--forget", ""],
        ["index", ""],
        ["index", "--status", "--index", ""],
        *(["find", "cat", ""], ["find", ""], ["find", "--like", ""], ["find", "cat", "--not", " "]),
    ):
        done = call(*arguments)
        assert (done.status, done.out, "  Is a variable of the script not set?\n" in done.err) == (2, "", True)
    assert call("find", "cat", "--no-update", "-q").out == "a.jpg\n"


@starting_sooner
def test_a_removed_folder_is_told_in_a_sentence(bash: Bash) -> None:
    for command in ("find cat", "index .", "index --forget x"):
        done = bash(f"mkdir gone; cd gone; rmdir ../gone; hiera {command}")
        assert done.returncode == 2
        told = "hiera: error: the current folder has been removed\n  cd to another one, and try again.\n"
        assert done.stderr.endswith(told)


def test_what_was_found_by_a_link_is_forgotten_by_it(call: Call, photos: Path) -> None:
    (photos / "link").symlink_to("below")
    assert call("find", "espresso", photos, "--follow", "-q").out == f"{photos}/below/c.jpg\n{photos}/link/c.jpg\n"
    assert call("index", "--forget", photos / "link", "-q").status == 0
    assert call("find", "espresso", photos, "--no-update", "-q").out == f"{photos}/below/c.jpg\n"


def test_links_lead_to_one_place(call: Call, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    assert call("find", "cat", tmp_path / "link", "-q").out == f"{tmp_path}/link/a.jpg\n"
    assert indexed(call("find", "cat", photos)) == 0


def test_models_do_not_mix(call: Call, photos: Path, tmp_path: Path) -> None:
    from checkpoint_maker import save

    assert call("index", photos, "-q").status == 0
    save(reference_model(SMALL), tmp_path / "other")
    assert indexed(call("find", "--like", CAT, photos, "-m", tmp_path / "other")) == 3
    assert indexed(call("find", "cat", photos)) == 0
    (photos / "a.jpg").unlink()
    assert call("find", "cat", photos, "-q").status == 1
    assert [each["photos"] for each in json.loads(call("index", "--status", "--json").out)["models"]] == [2, 2]


# ---- the commands of the index


def test_the_status_is_told(call: Call, photos: Path, index: Path) -> None:
    (photos / "below" / "d.jpg").write_text("no picture")
    assert call("index", photos, "-q").status == 1
    lines = call("index", "--status").out.splitlines()
    assert lines[0].startswith(f"index            {index} (0.")
    assert lines[1:3] == ["photos           3", "errors           1"]
    assert lines[3].startswith("model            demo (3 photos, weights ")
    assert lines[5:] == [
        f"2                {photos}",
        f"1                {photos}/below (1 error)",
        "",
        f"failed           {photos}/below/d.jpg: not an image of a format that is read here",
    ]


def test_what_is_forgotten_is_gone_with_its_room(call: Call, photos: Path, index: Path) -> None:
    assert call("index", photos, "-q").status == 0
    assert call("index", "--forget", photos / "below").err == f"hiera: {photos}/below: 1 entry removed\n"
    assert call("find", "espresso", photos, "--no-update", "-q").status == 1
    assert call("index", "--forget", photos, "--forget", photos).err == (
        f"hiera: {photos}: 2 entries removed\nhiera: {photos}: nothing of it is in the index\n"
    )
    assert call("index", "--check").status == 0


@pytest.mark.parametrize("arguments", [[], ["--status", "--check"], ["--json", "photos"]])
def test_the_index_is_asked_one_thing(call: Call, arguments: list[str]) -> None:
    assert call("index", *arguments).status == 2


def _another_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()


def _a_later_version(path: Path) -> None:
    Index(str(path), create=True).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def _damaged(path: Path) -> None:
    Index(str(path), create=True).close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def test_features_that_are_lost_are_told(call: Call, photos: Path, index: Path) -> None:
    assert call("index", photos, "-q").status == 0
    with sqlite3.connect(index) as connection:
        connection.execute("DELETE FROM vectors WHERE id = 1")
    connection.close()
    done = call("find", "missile", photos, "-q")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: the index {index} is damaged: it has lost features\n")
    assert call("index", "--check").out == "photos whose features are missing: 1\n"


def test_an_index_that_is_removed_meanwhile_is_told(
    call: Call, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Index.put

    def removed(self: Index, *arguments: Any) -> None:
        put(self, *arguments)
        index.unlink(missing_ok=True)

    monkeypatch.setattr(Index, "put", removed)
    done = call("index", photos, "-q")
    assert done.status == 2
    told = (
        f"hiera: error: the index {index} was removed or replaced while it was written; of what was indexed the last 3"
    )
    assert told in done.err


def test_what_a_kill_left_of_the_making_is_removed(call: Call, photos: Path, index: Path) -> None:
    index.with_name("index.sqlite.1.abcd.part").write_bytes(b"half of it")
    assert call("index", photos, "-q").status == 0
    assert [path.name for path in index.parent.glob("index*")] == ["index.sqlite"]


def test_features_that_are_none_are_told(call: Call, photos: Path, index: Path) -> None:
    assert call("index", photos, "-q").status == 0
    with sqlite3.connect(index) as connection:
        connection.execute("UPDATE vectors SET features = x'00' WHERE id = 1")
    connection.close()
    done = call("find", "--like", CAT, photos, "-q")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: the index {index} is damaged: features that are none\n")
    done = call("index", "--check")
    assert (done.status, done.out) == (1, "features of another length than their model's: 1\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("a letter"), "is not an index of hiera: it is left as it is"),
        (_another_database, "is not an index of hiera: it is left as it is"),
        (_a_later_version, "was made by a later version of hiera"),
        (_damaged, "is damaged"),
        (lambda path: path.mkdir(), "is not a file, and so no index"),
        (os.mkfifo, "is not a file, and so no index"),
        (lambda path: path.symlink_to("/dev/null"), "is not a file, and so no index"),
        (Path.touch, "is empty, and so no index: it is left as it is"),
    ],
    ids=["a text", "another database", "a later version", "damaged", "a folder", "a pipe", "a device", "empty"],
)
def test_what_is_not_a_sound_index_is_told_and_left(
    call: Call, photos: Path, index: Path, make: Callable[[Path], object], message: str
) -> None:
    make(index)
    before = index.read_bytes() if index.is_file() else b""
    for arguments in (["find", "cat", photos], ["index", photos], ["index", "--status"], ["index", "--forget", photos]):
        done = call(*arguments, "-q") if arguments[1] != "--status" else call(*arguments)
        assert (done.status, done.out) == (2, "")
        assert message in done.err
        assert (index.read_bytes() if index.is_file() else b"") == before


def test_an_index_that_cannot_be_written_is_searched(
    call: Call, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("index", photos, "-q").status == 0
    shutil.copy(CAT, photos / "new.jpg")
    before = index.read_bytes()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    done = call("find", "tabby", photos, "-q")
    assert (done.status, done.out) == (2, f"{photos}/a.jpg\n")
    assert done.err == f"hiera: the index {index} can't be written: 1 file is new or changed, and not searched\n"
    (photos / "new.jpg").unlink()
    done = call("find", "tabby", photos)
    assert (done.status, done.out, done.err) == (0, f"{photos}/a.jpg\n", "")
    assert call("index", photos).err == (
        f"hiera: error: the index {index} can't be written\n  Name another one: --index FILE, or HIERA_INDEX.\n"
    )
    assert sorted(path.name for path in index.parent.glob("index.sqlite*")) == ["index.sqlite"]
    assert index.read_bytes() == before


# ---- kills, other processes, full disks


def many(folder: Path, count: int) -> None:
    """Copies of a photo."""
    folder.mkdir()
    for number in range(count):
        shutil.copy(CAT, folder / f"{number:04}.jpg")


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_kill_loses_a_second_at_most_and_the_next_run_goes_on(
    environment: dict[str, str], call: Call, tmp_path: Path, index: Path, kills: int
) -> None:
    many(tmp_path / "many", 800 * kills)
    command = [sys.executable, "-m", "hiera_cli", "index", "many", "-q", "--batch-size", "1"]
    done = 0
    for _ in range(kills):
        with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
            while process.poll() is None and _count(index) <= done:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert _count(index) > done
        done = _count(index)
    assert call("index", "--check").status == 0
    for path in sorted((tmp_path / "many").iterdir())[done + 20 :]:  # the rest would take long
        path.unlink()
    found = call("find", "cat", tmp_path / "many")
    assert (found.out.count("\n"), indexed(found)) == (done + 20, 20)
    assert call("index", "--check").status == 0


def _count(index: Path) -> int:
    try:
        with Index(str(index)) as opened:
            return sum(each.photos for each in opened.models())
    except OutputError:
        return 0


@starting_sooner
def test_an_interrupt_commits_what_was_done(environment: dict[str, str], tmp_path: Path, index: Path) -> None:
    many(tmp_path / "many", 800)
    command = [sys.executable, "-m", "hiera_cli", "index", "many", "--batch-size", "1", "--no-banner"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not _count(index):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    told = err.splitlines()[-1]
    assert told.startswith("hiera: interrupted: ")
    assert _count(index) == int(told.split()[2])


@starting_sooner
def test_two_that_update_and_one_that_searches_at_once_agree(
    hiera: Hiera, environment: dict[str, str], tmp_path: Path
) -> None:
    many(tmp_path / "many", 30)
    command = [sys.executable, "-m", "hiera_cli", "find", "cat", "many", "-q"]
    runs = [subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = {process.communicate(timeout=60)[0] for process in runs}
    assert [process.returncode for process in runs] == [0, 0, 0]
    assert len(outputs) == 1
    assert outputs.pop().count(b"\n") == 30
    assert hiera("index", "--check").returncode == 0


@starting_sooner
def test_while_another_writes_the_index_is_searched(hiera: Hiera, photos: Path, index: Path) -> None:
    assert hiera("index", photos, "-q").returncode == 0
    with Index(str(index)) as other:
        other.begin()
        other.put_error(1, b"/x/y.jpg", 1, 1, "DecodeError", "none")
        assert hiera("find", "cat", photos, "-q").stdout == f"{photos}/a.jpg\n"


@starting_sooner
def test_a_full_disk_is_told_and_what_was_indexed_stays(bash: Bash, tmp_path: Path, index: Path) -> None:
    many(tmp_path / "many", 40)
    shutil.copy(CAT, tmp_path / "first.jpg")
    assert bash("hiera index first.jpg -q").returncode == 0
    done = bash("ulimit -f 100; hiera index many -q")
    assert done.returncode == 2
    assert f"hiera: error: cannot use the index {index}: " in done.stderr
    assert re.search(r"; of what was indexed the last \d+ are lost\n", done.stderr)
    assert bash("hiera index --check").returncode == 0
    done = bash("hiera find cat many -q")
    assert (done.returncode, done.stdout.count("\n")) == (0, 40)


def test_the_walk_is_in_a_process_of_its_own_and_its_errors_are_told() -> None:
    from importlib import reload

    beside = reload(indexing).beside
    assert beside(lambda: 41 + 1)() == 42
    with pytest.raises(OutputError, match="no room"):
        beside(lambda: _raise(OutputError("no room")))()


def _raise(error: Exception) -> None:
    raise error
