"""`classify -f exiftool`: labels for the photos' own metadata, as text and as the real ExifTool writes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Call
from PIL import Image

from hiera_cli import Classified, Failure, Prediction
from hiera_cli.outputs.exiftool import exiftool, fits_iptc, source_file, tags
from hiera_cli.result import Stamp

CAT, ROCKET = SAMPLES / "cat.jpg", SAMPLES / "rocket.jpg"
needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")


def labelled(path: str, *labels: str, wnid: str | None = None, is_file: bool = True) -> Classified:
    predictions = tuple(Prediction(rank, None, wnid, label, 0.9) for rank, label in enumerate(labels, 1))
    return Classified(path, "demo", predictions=predictions, stamp=Stamp(1, 1) if is_file else None)


@pytest.fixture
def _demo(demo_on_the_cpu: None) -> None:
    """For what is run as a command."""


# ---- the text


def test_an_entry_has_flat_keywords_and_trees() -> None:
    (tabby,) = labelled("a.jpg", "tabby, tabby cat", wnid="n02123045").predictions
    assert tags([tabby]) == {
        "XMP:Subject": ["tabby"],
        "IPTC:Keywords": ["tabby"],
        "XMP-lr:HierarchicalSubject": ["tabby"],
    }
    found = tags([tabby], concepts=True)
    assert found["XMP:Subject"][:5] == ["tabby", "domestic cat", "cat", "feline", "domestic animal"]
    assert found["IPTC:Keywords"] == found["XMP:Subject"]
    assert "object" not in found["XMP:Subject"]  # which says nothing of a picture
    assert found["XMP-lr:HierarchicalSubject"] == [
        "living thing|organism|animal|chordate|vertebrate|mammal|placental|carnivore|feline|cat|domestic cat|tabby"
    ]
    (dog,) = labelled("a.jpg", "dog", wnid="n02084071").predictions  # of --rollup
    assert tags([dog], concepts=True)["XMP-lr:HierarchicalSubject"][0].endswith("|carnivore|canine|dog")


def test_labels_of_its_own_stay_whole_and_iptc_has_what_fits_it() -> None:
    predictions = labelled("a.jpg", "Paris, Texas", "écureuil", "a|b", "x" * 65).predictions
    assert tags(predictions) == {
        "XMP:Subject": ["Paris, Texas", "écureuil", "a|b", "x" * 65],
        "IPTC:Keywords": ["Paris, Texas", "a|b"],
        "XMP-lr:HierarchicalSubject": ["Paris, Texas", "écureuil", "a/b", "x" * 65],
    }
    assert tags(labelled("a.jpg", "écureuil").predictions).keys() == {"XMP:Subject", "XMP-lr:HierarchicalSubject"}
    assert fits_iptc("x" * 64)


def test_every_file_with_an_answer_has_an_entry_and_nothing_else_has() -> None:
    left_out: list[str] = []
    results = [
        labelled("a.jpg", "ham"),
        labelled("nothing sure.jpg"),
        Classified("gone.jpg", error=Failure("NotFoundError", "no such file"), stamp=Stamp(1, 1)),
        labelled("http://x/y.jpg", "ham", is_file=False),
    ]
    text = "".join(exiftool(results, left_out=left_out.append))
    assert json.loads(text) == [
        {
            "SourceFile": "a.jpg",
            "XMP:Subject": ["ham"],
            "IPTC:Keywords": ["ham"],
            "XMP-lr:HierarchicalSubject": ["ham"],
        },
        {"SourceFile": "nothing sure.jpg"},
    ]
    assert left_out == ["http://x/y.jpg"]
    assert "".join(exiftool([])) == "[]\n"


def test_a_name_is_given_so_that_exiftool_finds_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    names = {
        "./photos//a.jpg": "photos/a.jpg",
        "a..b/..c.jpg": "a..b/..c.jpg",
        "link/../a.jpg": f"{os.path.realpath(tmp_path)}/a.jpg",
        os.fsdecode(b"caf\xe9.jpg"): "base64:Y2Fm6S5qcGc=",
        "base64:QQ==": "base64:YmFzZTY0OlFRPT0=",
        "naïve\n.jpg": "naïve\n.jpg",
    }
    assert {name: source_file(Classified(name)) for name in names} == names


# ---- as a user runs it


@pytest.mark.usefixtures("_demo")
def test_the_least_score_is_a_half_unless_it_is_said(call: Call) -> None:
    def keywords(*options: str) -> list[int]:
        done = call("classify", CAT, "-f", "exiftool", "-q", *options)
        return [len(entry.get("XMP:Subject", ())) for entry in json.loads(done.out)]

    assert keywords() == [1]
    assert keywords("--min-score", "0") == [5]
    assert keywords("--min-score", "1") == [0]
    assert keywords("--rollup", "0.0001", "-k", "3", "--among", "animal") == [3]


@pytest.mark.usefixtures("_demo")
def test_what_is_no_file_is_told_and_counts(call: Call, tmp_path: Path) -> None:
    shutil.copy(CAT, tmp_path / "a.jpg")
    read, write = os.pipe()
    os.write(write, CAT.read_bytes())
    os.close(write)
    os.set_inheritable(read, True)
    done = call("classify", "a.jpg", f"/dev/fd/{read}", "-f", "exiftool", "-q")
    os.close(read)
    assert (done.status, [each["SourceFile"] for each in json.loads(done.out)]) == (1, ["a.jpg"])
    assert done.err == f"hiera: left out, for there is no file to write into: /dev/fd/{read}\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--keywords", "labels"), "--keywords is for exiftool, and this run writes plain"),
        (("-f", "exiftool", "--keywords", "all"), "--keywords: 'all' is not one of labels, concepts"),
        (("-f", "exiftool", "-0"), "--null ends the lines of plain output, and this run writes exiftool"),
        (("-f", "exiftool", "--explain"), "--explain is for JSON records and pages, and this run writes exiftool"),
        (("-f", "exiftool", "-o", "x.json", "--resume"), "--resume goes on with a jsonl file only"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(call: Call, options: tuple[str, ...], told: str) -> None:
    done = call("classify", CAT, *options)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hiera: error: {told}")


def test_labels_that_are_no_keywords_of_iptc_are_said(call: Call, tmp_path: Path, environment: dict[str, str]) -> None:
    from dataclasses import replace

    from checkpoint_maker import SMALL, reference_model, save

    save(reference_model(replace(SMALL, num_classes=2), {0: "écureuil", 1: "spam"}), tmp_path / "own")
    line = ("classify", CAT, "-m", tmp_path / "own", "-f", "exiftool", "--no-banner")
    done = call(*line)
    assert done.status == 0
    assert done.err == "hiera: écureuil: IPTC takes keywords of up to 64 ASCII letters alone; it stands in XMP\n"
    refused = call(*line, "--keywords", "concepts")
    assert (refused.status, refused.out) == (2, "")
    assert "the classes of" in refused.err


# ---- the real ExifTool


def run_exiftool(*arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["exiftool", *arguments], capture_output=True, text=True, encoding="utf-8", errors="surrogateescape"
    )


def metadata(*names: str | bytes) -> dict[str, dict[str, Any]]:
    """What ExifTool reads of the files in photos/, by name; lists of one as lists."""
    read = run_exiftool("-j", "-r", "-Subject", "-Keywords", "-HierarchicalSubject", *(names or ("photos",)))
    found = {}
    for entry in json.loads(read.stdout):
        path = entry.pop("SourceFile")
        found[path] = {tag: value if isinstance(value, list) else [value] for tag, value in entry.items()}
    return found


@pytest.fixture
def photos(tmp_path: Path) -> list[bytes]:
    """Photos of one cat, in many formats and under awkward names, in photos/."""
    names = [
        *(b"a.jpg", b"b.png", b"c.webp", b"d.tif", b"sub dir/e e.jpg", b'quo"te.jpg', b"apo'strophe.jpg", b"@at.jpg"),
        *(b"back\\slash.jpg", b"new\nline.jpg", b"-dash.jpg", b"caf\xe9.jpg", "naïve 猫.jpg".encode(), b" lead.jpg"),
        *(b"\x01control.jpg", "\u202eright to left.jpg".encode(), b"*.jpg", b"per%cent$x.jpg"),
    ]
    image = Image.open(CAT).convert("RGB")
    for name in names:
        path = os.path.join(b"photos", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        image.save(os.fsdecode(path))
    return names


@needs_exiftool
@pytest.mark.usefixtures("_demo")
@pytest.mark.parametrize(
    "given",
    [
        "photos",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("./photos/", "photos//", "photos/sub dir/..")),
    ],
)
def test_after_the_two_commands_each_photo_has_its_keywords_and_its_pixels(
    call: Call, photos: list[bytes], given: str
) -> None:
    paths = [os.fsdecode(os.path.join(b"photos", name)) for name in photos]
    before = [Image.open(path).tobytes() for path in paths]
    assert call("classify", given, "-f", "exiftool", "-o", "labels.json", "--keywords", "concepts", "-q").status == 0
    done = run_exiftool("-json+=labels.json", "-r", "photos")
    assert f"{len(photos)} image files updated" in done.stderr
    assert "No SourceFile" not in done.stderr
    assert [Image.open(path).tobytes() for path in paths] == before
    found = metadata()
    assert len(found) == len(photos)
    for path, tagged in found.items():
        assert tagged["Subject"][:3] == ["tabby", "domestic cat", "cat"]
        assert tagged["HierarchicalSubject"][0].endswith("|cat|domestic cat|tabby")
        if not path.endswith(".webp"):  # which has no place for IPTC
            assert tagged["Keywords"] == tagged["Subject"]


@needs_exiftool
@pytest.mark.usefixtures("_demo")
def test_keywords_that_were_there_stay_and_what_is_not_sure_changes_nothing(call: Call, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(CAT, tmp_path / "photos" / name)
    run_exiftool("-q", "-overwrite_original", "-Subject=mine", "-Keywords=mine", "photos")
    unsure = call("classify", "photos", "-f", "exiftool", "-o", "none.json", "--min-score", "1", "-q")
    assert unsure.status == 0
    for how in ("-json+=none.json", "-json=none.json"):
        assert "0 image files updated" in run_exiftool(how, "-r", "photos").stderr
    assert {tuple(tagged["Subject"]) for tagged in metadata().values()} == {("mine",)}
    call("classify", "photos/a.jpg", "-f", "exiftool", "-o", "labels.json", "-q")
    run_exiftool("-json+=labels.json", "photos/a.jpg")
    assert metadata("photos/a.jpg") == {
        "photos/a.jpg": {"Subject": ["mine", "tabby"], "Keywords": ["mine", "tabby"], "HierarchicalSubject": ["tabby"]}
    }
    run_exiftool("-json=labels.json", "photos/a.jpg")  # which replaces: why the other one is told of
    assert metadata("photos/a.jpg")["photos/a.jpg"]["Subject"] == ["tabby"]


@needs_exiftool
@pytest.mark.usefixtures("_demo")
def test_exiftool_reads_the_labels_from_a_pipe(call: Call, tmp_path: Path) -> None:
    shutil.copy(CAT, tmp_path / "a.jpg")
    text = call("classify", "a.jpg", "-f", "exiftool", "-q").out
    subprocess.run(["exiftool", "-q", "-json+=-", "a.jpg"], input=text.encode(), check=True)
    assert metadata("a.jpg")["a.jpg"]["Subject"] == ["tabby"]
