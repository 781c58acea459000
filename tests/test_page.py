"""A page of results: what it holds, that it is one document whatever it is made of, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, TOOK, Bash, Call
from PIL import Image

from hiera_cli.commands import indexing
from hiera_cli.errors import OutputError, UsageError
from hiera_cli.images import decode
from hiera_cli.images.thumbnail import SIDE
from hiera_cli.inputs.source import Source
from hiera_cli.outputs.page import file
from hiera_cli.outputs.page.file import MOST_WITHIN, PageFile
from hiera_cli.outputs.page.lines import Lines, text_of
from hiera_cli.outputs.page.records import records
from hiera_cli.pipeline.prepare import prepare
from hiera_cli.pipeline.thumbnails import Thumbnails

pytestmark = pytest.mark.usefixtures("demo_on_the_cpu")


@pytest.fixture
def starts_sooner(environment: dict[str, str]) -> None:
    """For processes of their own, where the engine does not matter: the one that starts sooner, if it is there."""
    environment["HIERA_ENGINE"] = "auto"


starting_sooner = pytest.mark.usefixtures("starts_sooner")

THUMBNAIL = b"\xff\xd8\xff" + bytes(9_000)  # as large as those of photos are
TABBY = {"rank": 1, "index": 281, "wnid": "n02123045", "label": "tabby, tabby cat", "score": 0.87314}
EGYPTIAN = {"rank": 2, "index": 285, "wnid": "n02124075", "label": "Egyptian cat", "score": 0.05}
HOSTILE = "</script><script>alert(1)</script><!--\"'&\u2028\u202e\n.jpg"


def record(path: str = "photos/cat.jpg", *predictions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """As classify writes it."""
    made = {"path": path, "path_bytes": None, "status": "ok", "model": "demo", "precision": "fp32"}
    return {**made, "predictions": list(predictions), "error": None, "remarks": [], "settings": {}, **fields}


FAILED = record(
    "broken.jpg", status="error", precision=None, error={"type": "DecodeError", "message": "the file is empty"}
)


def written(path: Path, *of: dict[str, Any], thumbnail: bytes | None = THUMBNAIL, complete: bool = True) -> str:
    page = PageFile(str(path), overwrite=True)
    for chunk in page.of_records((each, None if each["error"] else thumbnail, "") for each in of):
        page.write(chunk)
    page.close(complete=complete)
    return (path if complete else path.with_name(path.stem + ".part.html")).read_text(encoding="utf-8")


class Scripts(HTMLParser):
    """The script elements of a document, as a browser finds them: (attributes, text)."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self._within = False
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag == "script"
        if self._within:
            self.found.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._within = False

    def handle_data(self, data: str) -> None:
        if self._within:
            attributes, text = self.found[-1]
            self.found[-1] = attributes, text + data


def lines_in(document: str) -> list[dict[str, Any]]:
    (text,) = (text for attributes, text in Scripts(document).found if attributes.get("id") == "photos")
    return [json.loads(line) for line in text.strip().split("\n")]


def photos_in(document: str) -> list[dict[str, Any]]:
    return [line for line in lines_in(document) if "path" in line]


def end_of(document: str) -> Any:
    attributes, text = Scripts(document).found[-1]
    assert attributes == {"type": "application/json", "class": "end"}
    return json.loads(text)


# ---- what stands in it


def test_a_record_comes_to_these_lines() -> None:
    lines = Lines("/home/me")
    made = [*lines.of(record("/home/me/a b.jpg", TABBY, EGYPTIAN)), *lines.of(record("/home/me/c.jpg", EGYPTIAN))]
    concepts = [line for line in made if "concept" in line]
    assert [line["name"] for line in concepts][-1] == "domestic cat"
    assert [line for line in made if line not in concepts] == [
        {"model": "demo"},
        {"label": "tabby, tabby cat", "wnid": "n02123045", "above": ["n02121808"]},
        {"label": "Egyptian cat", "wnid": "n02124075", "above": ["n02121808"]},
        {"path": "/home/me/a b.jpg", "href": "a%20b.jpg", "labels": [[0, 0.8731], [1, 0.05]]},
        {"path": "/home/me/c.jpg", "href": "c.jpg", "labels": [[1, 0.05]]},
    ]
    assert {parent for line in concepts for parent in line["above"]} <= {line["concept"] for line in concepts}


def test_what_failed_says_why_and_what_evaluate_knows_stands_beside() -> None:
    lines = Lines("/")
    truth = {"name": "tabby", "index": 281, "wnid": "n02123045"}
    (*_, failed) = lines.of({**FAILED, "remarks": ["odd"], "truth": truth, "rank": None, "correct": False})
    (*new, photo) = lines.of(record("x.jpg", EGYPTIAN, TABBY, truth=truth, rank=2, correct=False))
    assert failed["error"] == ["DecodeError", "the file is empty"]
    assert failed["remarks"] == ["odd"]
    assert failed["truth"] == 0
    assert new == [{"label": "Egyptian cat", "wnid": "n02124075", "above": ["n02121808"]}]
    assert (photo["labels"], photo["truth"], photo["rank"], photo["correct"]) == ([[1, 0.05], [0, 0.8731]], 0, 2, False)


def test_a_truth_is_the_label_that_it_means_whatever_its_folder_is_called() -> None:
    ham = {"rank": 1, "index": 1, "wnid": None, "label": "ham, smoked", "score": 0.5}
    truth = {"name": "my ham", "index": 1, "wnid": None, "label": "ham, smoked"}
    lines = Lines("/")
    _, label, failed = lines.of({**FAILED, "truth": truth, "rank": None, "correct": None})
    (photo,) = lines.of(record("x.jpg", ham, truth=truth, rank=1, correct=True))
    assert label == {"label": "ham, smoked"}
    assert (failed["truth"], photo["truth"], photo["labels"]) == (0, 0, [[0, 0.5]])
    cats = {"name": "cats", "index": None, "wnid": "n02121620", "label": "cat"}
    (*new, photo) = lines.of(record("y.jpg", EGYPTIAN, truth=cats, rank=1, correct=True))
    assert new[-1] == {"label": "cat", "wnid": "n02121620", "above": ["n02120997"]}
    assert (photo["labels"], photo["truth"], photo["correct"]) == ([[1, 0.05]], 2, True)


def explanation(of: dict[str, Any], terms: list[list[float]]) -> dict[str, Any]:
    """As classify --explain and explain write it."""
    logit = 24.2248
    label = {name: of[name] for name in ("index", "wnid", "label", "score")}
    return {**label, "logit": logit, "terms": terms, "constant": round(logit - sum(map(sum, terms)), 6)}


TERMS = [[0.15 if (row, column) == (2, 5) else -0.05 for column in range(7)] for row in range(7)]


def test_a_label_that_is_explained_has_its_map() -> None:
    lines = Lines("/")
    level = [[0.25] * 7] * 7
    explanations = [explanation(TABBY, TERMS), explanation(EGYPTIAN, level)]
    (*new, photo) = lines.of(record("a.jpg", TABBY, EGYPTIAN, explanations=explanations))
    (*again, other) = lines.of(record("b.jpg", EGYPTIAN, explanations=explanations[1:]))
    (colours,) = [base64.b64decode(line["colours"]) for line in new if "colours" in line]
    assert (len(colours), again) == (3 * 256, [])
    (_, _, first), (_, _, second) = photo["labels"]
    assert first[:-1] == [24.2248, 26.4748, -0.05, 0.15]
    assert base64.b64decode(first[-1]) == bytes(255 if place == 2 * 7 + 5 else 0 for place in range(49))
    assert second == [24.2248, 11.9748, 0.25, 0.25, base64.b64encode(bytes(49)).decode()]
    assert other["labels"] == [[1, 0.05, second]]
    assert len(json.dumps(first)) < 110
    (*_, explained) = Lines("/").of({**record("a.jpg"), "predictions": None, "explanations": explanations})
    assert explained["labels"] == [[0, 0.8731, first], [1, 0.05, second]]  # of hiera explain


def test_classes_of_one_s_own_are_told_apart_by_their_index() -> None:
    mine = [{"rank": 1, "index": index, "wnid": None, "label": "thing", "score": 0.5} for index in (0, 1)]
    (*_, photo) = Lines("/").of(record("x.jpg", *mine))
    assert photo["labels"] == [[0, 0.5], [1, 0.5]]


def test_a_record_of_find_has_the_score_of_the_search() -> None:
    found = {"path": "x.jpg", "path_bytes": None, "score": 0.9, **TABBY, "label_score": 0.6}
    (*_, photo) = Lines("/").of({**found, "score": 0.9})
    assert (photo["match"], photo["labels"]) == (0.9, [[0, 0.6]])


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/home/me/photos/a.jpg", {"href": "photos/a.jpg"}),
        ("/home/other/a.jpg", {"href": "file:///home/other/a.jpg"}),
        ("/home/me/javascript:alert(1)", {"href": "javascript%3Aalert%281%29"}),
        ("/home/me/a?b#c%d", {"href": "a%3Fb%23c%25d"}),
        (os.fsdecode(b"/home/me/caf\xe9'.jpg"), {"href": "caf%E9%27.jpg", "shell": "$'/home/me/caf\\xe9\\'.jpg'"}),
        ("https://example.org/a.jpg", {"url": "https://example.org/a.jpg"}),
        ("javascript://example.org/%0aalert(1)", {}),
        ("-", {}),
        ("/dev/fd/63", {}),
    ],
)
def test_a_photo_is_linked_where_it_is(path: str, where: dict[str, str]) -> None:
    from hiera_cli.system.utf8 import name_fields

    text, path_bytes = name_fields(path)
    (*_, photo) = Lines("/home/me").of(record(text, path_bytes=path_bytes))
    assert photo == {"path": text, **where}


def test_names_and_labels_end_no_element(tmp_path: Path) -> None:
    hostile = record(HOSTILE, {**TABBY, "label": HOSTILE}, remarks=[HOSTILE], model=HOSTILE)
    failed = {**FAILED, "path": HOSTILE, "error": {"type": HOSTILE, "message": HOSTILE}}
    path = tmp_path / f"{HOSTILE.replace('/', '').replace('.jpg', '')}.html"
    document = written(path, hostile, failed)
    assert [attributes.get("type") for attributes, _ in Scripts(document).found] == [None, *["application/json"] * 2]
    first, second = photos_in(document)
    assert first["path"] == first["remarks"][0] == second["error"][0] == HOSTILE
    assert "<" not in text_of({"path": HOSTILE})


def test_the_page_names_nothing_from_elsewhere_and_runs_its_own_script_alone(tmp_path: Path) -> None:
    document = written(tmp_path / "page.html", record())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', document)
    hashes = []
    for name in ("script", "style"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", document, re.DOTALL)
        hashes.append(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
    assert policy.replace("&#39;", "'") == (
        "default-src 'none'; img-src 'self' file: data:; "
        f"script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?:|@import|url\(", document)


# ---- its size


def test_up_to_500_thumbnails_are_within_the_page_and_with_one_more_all_lie_beside(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    some = [record(f"{number}.jpg", TABBY, EGYPTIAN) for number in range(MOST_WITHIN + 1)]
    one_file = photos_in(written(path, *some[:-1]))
    assert {photo["thumbnail"] for photo in one_file} == {base64.b64encode(THUMBNAIL).decode()}
    assert os.listdir(tmp_path) == ["page.html"]

    beside = photos_in(written(path, FAILED, *some))
    assert [photo["path"] for photo in beside] == ["broken.jpg", *(each["path"] for each in some)]
    assert [photo["thumbnail"] for photo in beside[1:]] == list(range(1, MOST_WITHIN + 2))
    folder = tmp_path / "page_files" / "1"
    assert sorted(os.listdir(folder)) == [f"{number:06}.thumbnail" for number in range(1, MOST_WITHIN + 2)]
    assert {(folder / name).read_bytes() for name in os.listdir(folder)} == {THUMBNAIL}
    assert '<meta name="hiera-thumbnails" content="page_files/1">' in path.read_text()


@pytest.mark.parametrize("top_k", [5, 60])
def test_a_thousand_photos_take_less_than_2_mib(tmp_path: Path, top_k: int) -> None:
    def predictions(first: int) -> list[dict[str, Any]]:
        return [
            {"rank": 1, "index": index % 1000, "wnid": None, "label": f"label {index % 1000}" * 5, "score": 0.123456}
            for index in range(first, first + top_k)
        ]

    some = (record(f"photos/of/a/long/way/{number:040}.jpg", *predictions(number)) for number in range(1000))
    assert len(written(tmp_path / "page.html", *some).encode()) < 2 << 20


# ---- thumbnails


def thumbnail_of(path: Path) -> Image.Image:
    made = prepare(Source(str(path)), thumbnails=True).thumbnail
    assert made is not None
    return Image.open(io.BytesIO(made))


@pytest.mark.parametrize(
    ("size", "thumbnail"),
    [((1200, 800), (240, 160)), ((800, 1200), (160, 240)), ((300, 200), (256, 171)), ((90, 60), (90, 60))],
)
def test_a_thumbnail_is_of_the_whole_picture(tmp_path: Path, size: tuple[int, int], thumbnail: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "red.png")
    assert thumbnail_of(tmp_path / "red.png").size == thumbnail
    assert max(thumbnail) <= SIDE


def test_a_picture_as_thin_as_pictures_can_be_has_a_thumbnail(tmp_path: Path) -> None:
    Image.new("L", (1, 3000)).save(tmp_path / "line.png")
    assert thumbnail_of(tmp_path / "line.png").size == (1, 250)


def test_a_thumbnail_stands_upright_and_has_nothing_of_the_file_but_its_pixels(tmp_path: Path) -> None:
    image = Image.new("RGB", (640, 480), "red")
    image.paste("blue", (0, 0, 320, 480))
    exif = image.getexif()
    exif[274] = 6  # turn right
    exif[315] = "the author"
    image.save(tmp_path / "turned.jpg", exif=exif, comment=b"a comment", icc_profile=b"profile")
    made = thumbnail_of(tmp_path / "turned.jpg")
    assert made.size == (160, 214)
    assert (made.getpixel((80, 20)), made.getpixel((80, 190))) == ((0, 0, 254), (254, 0, 0))
    assert sorted(made.info) == ["jfif", "jfif_density", "jfif_unit", "jfif_version"]


def test_a_thumbnail_has_no_comment_of_a_file_that_pillow_decodes(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.gif", comment=b"the author")
    made = prepare(Source(str(tmp_path / "red.gif")), thumbnails=True).thumbnail
    assert made is not None
    assert b"author" not in made


def test_a_photo_is_decoded_once_for_its_labels_and_its_thumbnail(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decoded = []
    loaded = decode._loaded

    def counted(*arguments: Any) -> Any:
        decoded.append(1)
        return loaded(*arguments)

    monkeypatch.setattr(decode, "_loaded", counted)
    assert call("classify", SAMPLES, "-m", "demo", "-o", "page.html", "-q").status == 0
    photos = photos_in((tmp_path / "page.html").read_text())
    assert len(decoded) == len(photos) == 6
    assert all(photo["thumbnail"].startswith("/9j/") for photo in photos)


def test_thumbnails_come_in_order_whatever_takes_longest(tmp_path: Path) -> None:
    sizes = [(2000, 2000), (10, 10), (1500, 1500), (20, 20), (30, 30)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    paths = [f"{number}.png" for number in range(5)]
    made = list(Thumbnails([*paths, None, "gone.png"], workers=3))
    widths = [Image.open(io.BytesIO(each.thumbnail)).width for each in made[:5] if each and each.thumbnail]
    assert widths == [250, 10, 250, 20, 30]
    assert made[5] is None
    assert str(made[6] and made[6].outcome) == "no such file"


def test_thumbnails_that_are_stopped_begin_no_further_files() -> None:
    made = Thumbnails(("gone.jpg" for _ in iter(int, 1)), workers=1)  # without end
    count = 0
    for _ in made:
        count += 1
        made.stop()
    assert count < 10


# ---- how it is written


def test_each_photo_is_in_the_page_before_the_next_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "page.part.html"
    seen = []

    def some() -> Iterable[tuple[dict[str, Any], bytes, str]]:
        for number in range(3):
            seen.append(len(photos_in(path.read_text() + "</script>")) if number else 0)
            yield record(f"{number}.jpg", TABBY), THUMBNAIL, ""

    page = PageFile(str(tmp_path / "page.html"))
    for chunk in page.of_records(some()):
        page.write(chunk)
    assert seen == [0, 1, 2]
    page.close(complete=True)
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_page_says_whether_its_run_came_to_its_end(tmp_path: Path) -> None:
    assert end_of(written(tmp_path / "page.html", record(), complete=False)) == {"complete": False}
    assert end_of(written(tmp_path / "page.html", record())) == {"complete": True}


def test_a_page_of_nothing_is_none(tmp_path: Path) -> None:
    page = PageFile(str(tmp_path / "page.html"))
    assert list(page.of_records([])) == []
    page.close(complete=False)
    assert os.listdir(tmp_path) == []


def test_a_page_that_replaces_another_takes_its_thumbnails_away_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    many = [record(f"{number}.jpg") for number in range(MOST_WITHIN + 1)]
    written(path, *many)
    (tmp_path / "page_files" / "1" / "mine.txt").touch()
    written(path, *many, complete=False)  # the page that is there keeps its own
    assert len(os.listdir(tmp_path / "page_files" / "1")) == MOST_WITHIN + 2
    assert len(os.listdir(tmp_path / "page_files" / "2")) == MOST_WITHIN + 1
    written(path, *many)
    assert '"hiera-thumbnails" content="page_files/2"' in path.read_text()
    assert sorted(os.listdir(tmp_path / "page_files")) == ["1", "2"]
    assert os.listdir(tmp_path / "page_files" / "1") == ["mine.txt"]
    (tmp_path / "page_files" / "1" / "mine.txt").unlink()
    (tmp_path / "page_files" / "1").rmdir()
    written(path, record())
    assert os.listdir(tmp_path) == ["page.html"]


def test_no_page_of_somebody_else_names_what_is_removed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "000001.thumbnail").touch()
    (tmp_path / "page.html").write_text('<meta name="hiera-thumbnails" content="page_files/../other">')
    written(tmp_path / "page.html", record())
    assert os.listdir(tmp_path / "other") == ["000001.thumbnail"]


def test_a_folder_for_thumbnails_that_can_t_be_made_is_told_and_the_page_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, exist_ok: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.makedirs", full)
    with pytest.raises(OutputError, match=r"cannot write .*page_files: No space left on device"):
        written(tmp_path / "page.html", *(record(f"{number}.jpg") for number in range(MOST_WITHIN + 1)))
    assert len(photos_in((tmp_path / "page.part.html").read_text() + "</script>")) == MOST_WITHIN


@starting_sooner
def test_an_interrupted_run_leaves_a_page_of_what_was_done(environment: dict[str, str], tmp_path: Path) -> None:
    arguments = ["classify", "--files-from", "-", "-m", "demo", "-o", "page.html", "--no-banner"]
    with subprocess.Popen(
        [sys.executable, "-m", "hiera_cli", *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"{SAMPLES / 'cat.jpg'}\nnothing.jpg\n")
        process.stdin.flush()
        assert process.stderr.readline() == "hiera: nothing.jpg: no such file\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("; what was done is in page.part.html\n")
    document = (tmp_path / "page.part.html").read_text()
    assert [photo.get("error") for photo in photos_in(document)] == [None, ["NotFoundError", "no such file"]]
    assert end_of(document) == {"complete": False}


# ---- the commands


def test_classify_writes_a_page_and_keeps_one_that_is_there(call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").touch()
    done = call("classify", SAMPLES / "cat.jpg", "broken.jpg", "-m", "demo", "-o", "page.html", "-k", "1")
    assert (done.status, done.out) == (1, "")
    assert re.search(rf"hiera: 1 labelled, 1 failed, {TOOK} → page\.html\n$", done.err)
    cat, broken = photos_in((tmp_path / "page.html").read_text())
    assert (cat["path"], len(cat["labels"]), cat["href"]) == (
        str(SAMPLES / "cat.jpg"),
        1,
        (SAMPLES / "cat.jpg").as_uri(),
    )
    assert broken == {"path": "broken.jpg", "href": "broken.jpg", "error": ["DecodeError", "the file is empty"]}
    again = call("classify", SAMPLES / "cat.jpg", "-m", "demo", "-o", "page.html")
    assert (again.status, again.err) == (2, "hiera: error: page.html exists already\n  --overwrite replaces it.\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-f", "html"], "a page is a file, and this run writes to standard output\n  Name it: -o page.html"),
        (["-f", "html", "-o", "/dev/full"], "cannot write /dev/full: a page needs a file\n  Name one: -o page.html"),
        (["-o", "gone/page.html"], "cannot write gone/page.html: No such file or directory"),
    ],
)
def test_where_a_page_can_t_be_written_is_told(call: Call, arguments: list[str], told: str) -> None:
    done = call("classify", SAMPLES / "cat.jpg", "-m", "demo", *arguments)
    assert (done.status, done.out, done.err) == (2, "", f"hiera: error: {told}\n")


def test_a_run_that_can_t_start_leaves_the_page_as_it_was(call: Call, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("before")
    assert call("classify", SAMPLES / "cat.jpg", "-m", "gone/", "-o", "page.html", "--overwrite").status == 2
    assert (tmp_path / "page.html").read_text() == "before"


def test_a_run_over_the_folder_that_it_writes_into_takes_no_thumbnail_for_a_photo(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(file, "MOST_WITHIN", 2)
    for name in ("a.jpg", "b.jpg", "c.jpg", "q.jpg"):  # the thumbnails lie between the last two
        shutil.copy(SAMPLES / "cat.jpg", name)
    for expected in ("1", "2"):
        assert call("classify", ".", "-m", "demo", "-o", "page.html", "--overwrite", "-q").status == 0
        photos = photos_in((tmp_path / "page.html").read_text())
        assert [photo["path"] for photo in photos] == ["./a.jpg", "./b.jpg", "./c.jpg", "./q.jpg"]
        assert [photo["thumbnail"] for photo in photos] == [1, 2, 3, 4]
        assert os.listdir(tmp_path / "page_files") == [expected]


def test_a_report_of_records_is_the_page_that_the_run_would_have_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").touch()
    inputs = [SAMPLES, "broken.jpg", "-m", "demo", "-q"]
    call("classify", *inputs, "-o", "page.html")
    call("classify", *inputs, "-o", "labels.jsonl")
    call("classify", *inputs, "-o", "labels.json")
    done = call("report", "labels.jsonl", "-o", "report.html", "--no-progress")
    assert done.status == 0
    assert re.fullmatch(rf"hiera: 7 shown, {TOOK} → report\.html\n", done.err)
    page = lines_in((tmp_path / "page.html").read_text())
    assert lines_in((tmp_path / "report.html").read_text()) == page
    call("report", "labels.json", "-o", "array.html", "-q")
    assert lines_in((tmp_path / "array.html").read_text()) == page


def test_evaluate_writes_a_page_beside_its_figures_and_report_the_same_of_its_records(
    call: Call, tmp_path: Path
) -> None:
    for name, sample in (("cats/1.jpg", "cat"), ("tabby/2.jpg", "officer"), ("espresso/3.jpg", "espresso")):
        (tmp_path / name).parent.mkdir()
        shutil.copy(SAMPLES / f"{sample}.jpg", name)
    (tmp_path / "cats" / "broken.jpg").touch()
    done = call("evaluate", ".", "-m", "demo", "-o", "page.html", "--json", "-qq")
    assert (done.status, json.loads(done.out)["top1"]) == (1, 0.666667)
    lines = lines_in((tmp_path / "page.html").read_text())
    labels = [line["label"] for line in lines if "label" in line]
    assert [
        (photo["path"], labels[photo["truth"]], photo["correct"], photo["rank"], "thumbnail" in photo)
        for photo in lines
        if "path" in photo
    ] == [
        ("./cats/1.jpg", "cat", True, 1, True),
        ("./cats/broken.jpg", "cat", None, None, False),
        ("./espresso/3.jpg", "espresso", True, 1, True),
        ("./tabby/2.jpg", "tabby, tabby cat", False, 3, True),
    ]
    call("evaluate", ".", "-m", "demo", "-o", "records.jsonl", "-qq")
    assert call("report", "records.jsonl", "-o", "report.html", "-q").status == 0
    assert lines_in((tmp_path / "report.html").read_text()) == lines
    again = call("evaluate", ".", "-m", "demo", "-o", "page.html")
    assert again.status == 2
    assert again.err.endswith("hiera: error: page.html exists already\n  --overwrite replaces it.\n")


def test_explanations_come_into_the_page_of_a_run_and_into_a_report_of_its_records(call: Call, tmp_path: Path) -> None:
    inputs = [SAMPLES / "cat.jpg", SAMPLES / "README.md", "-m", "demo", "-qq"]
    assert call("classify", *inputs, "-k", "2", "--explain", "-o", "page.html").status == 1
    lines = lines_in((tmp_path / "page.html").read_text())
    photo, failed = photos_in((tmp_path / "page.html").read_text())
    assert [(len(each), len(base64.b64decode(each[2][4]))) for each in photo["labels"]] == [(3, 49), (3, 49)]
    assert "labels" not in failed
    call("classify", *inputs, "-k", "2", "--explain", "-o", "labels.jsonl")
    assert call("report", "labels.jsonl", "-o", "report.html", "-q").status == 0
    assert lines_in((tmp_path / "report.html").read_text()) == lines
    (tmp_path / "places.jsonl").write_text(call("explain", *inputs, "-k", "2", "-f", "jsonl").out)
    assert call("report", "places.jsonl", "-o", "places.html", "-q").status == 0
    assert lines_in((tmp_path / "places.html").read_text()) == lines


def test_a_report_says_which_photos_are_gone(call: Call, tmp_path: Path) -> None:
    gone = [record("gone.jpg", TABBY), record("https://example.org/a.jpg", TABBY), record("-", TABBY), FAILED]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, gone)))
    done = call("report", "labels.jsonl", "-o", "page.html", "-q")
    assert (done.status, done.err) == (1, "hiera: gone.jpg: no such file\n")
    photos = photos_in((tmp_path / "page.html").read_text())
    missing = ["no such file", "it is on the web, and is not fetched again", "it was read from a pipe", None]
    assert [photo.get("missing") for photo in photos] == missing
    done = call("report", "labels.jsonl", "-o", "page.html", "-q", "--no-thumbnails", "--overwrite")
    assert (done.status, done.err) == (0, "")
    assert not any("missing" in photo for photo in photos_in((tmp_path / "page.html").read_text()))


@starting_sooner
def test_a_report_reads_a_pipe(bash: Bash, tmp_path: Path) -> None:
    done = bash(f"hiera classify {SAMPLES}/cat.jpg -m demo -qf jsonl | hiera report - -qo page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(photos_in((tmp_path / "page.html").read_text())) == 1


LABELS = "  `hiera classify`, `hiera find` and `hiera evaluate` write such records: -o FILE.jsonl.\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"path,score\n", f"labels: line 1 is not JSON: Expecting value\n{LABELS}"),
        (b'{"path": "a.jpg", "predictions": []}\n{"pa', "labels: line 2 is not JSON: Unterminated string"),
        (b"[\n{},\n", "labels: line 3 is not JSON: Expecting value"),
        (b"[" * 100_000, "labels: line 1 is not JSON: nested too deep"),
        (b"\xff\n", "labels: line 1 is not UTF-8"),
        (b'{"path": "a", "predictions": [], "x": NaN}', "labels: line 1 is not JSON: it has NaN"),
        (
            b'{"path": "a", "label_score": 1}',
            "labels: line 1 is not a record of labels: its score is no number of such a size",
        ),
        (b"3\n", "labels: line 1 is not a record of a photo: it has no path"),
        (b'[{"path": "a.jpg"}]', "labels: record 1 is not a record of labels: it has no predictions"),
        (b'{"path": "a", "features": [1]}', "labels: line 1 is a record of features: there is no page of those"),
        (b'{"path": "a", "loss": 1}', "labels: line 1 is a record of a reconstruction: there is no page of those"),
        (
            b'{"path": "a", "predictions": [{}]}',
            "labels: line 1 is not a record of labels: it has predictions of another kind",
        ),
        (
            json.dumps(record("a", explanations=[{**explanation(TABBY, TERMS), "terms": []}])).encode(),
            "labels: line 1 is not a record of labels: it has explanations of another kind",
        ),
        (
            json.dumps(record("a", explanations=[{**explanation(TABBY, TERMS), "logit": 10**400}])).encode(),
            "labels: line 1 is not a record of labels: it has explanations of another kind",
        ),
        (
            b'{"path": "a", "predictions": [], "truth": {"name": "b", "label": 3}}',
            "labels: line 1 is not a record of labels: it has truth of another kind",
        ),
        (
            b'{"path": "a", "predictions": [], "error": 3}',
            "labels: line 1 is not a record of labels: it has error of another kind",
        ),
        (
            b'{"path": "a", "predictions": [], "path_bytes": "%"}',
            "labels: line 1 is not a record of labels: its path_b",
        ),
    ],
)
def test_what_is_no_record_is_told_with_its_line(call: Call, tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "labels").write_bytes(content)
    done = call("report", "labels", "-o", "page.html")
    assert done.status == 2
    assert done.err.startswith(f"hiera: error: {told}")
    assert os.listdir(tmp_path) == ["labels"]


def test_a_report_without_records_or_without_a_page_is_told(call: Call, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    assert call("report", "none.jsonl", "-o", "page.html").err == "hiera: nothing to do: there are no records\n"
    assert call("report", "-o", "page.html").err.startswith("hiera: error: nothing to report: name a file of records\n")
    assert call("report", "none.jsonl").err.startswith(
        "hiera: error: a page is a file, and this run writes to standard"
    )
    assert call("report", "gone", "-o", "a.html").err == "hiera: error: cannot read gone: No such file or directory\n"
    assert os.listdir(tmp_path) == ["none.jsonl"]


def test_numbers_that_another_program_has_written_as_whole_ones_are_read() -> None:
    text = json.dumps(record("a.jpg", {**TABBY, "score": 1}))
    assert records(text.encode(), "labels")[0]["predictions"][0]["score"] == 1
    with pytest.raises(UsageError):
        records(text.replace('"score": 1', '"score": true').encode(), "labels")


@pytest.fixture
def walks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In-process searches walk in this process: it has threads, and is not to be forked."""
    monkeypatch.setattr(indexing, "beside", lambda call: call)


@pytest.mark.usefixtures("walks_here")
def test_find_writes_a_page_and_the_other_formats_into_a_file(call: Call, tmp_path: Path) -> None:
    arguments = ["find", "cat", SAMPLES, "-m", "demo", "-q"]
    assert call(*arguments, "-o", "cats.html").status == 0
    document = (tmp_path / "cats.html").read_text()
    (photo,) = photos_in(document)
    assert photo["path"] == str(SAMPLES / "cat.jpg")
    assert photo["match"] > 0.9
    assert photo["thumbnail"].startswith("/9j/")
    assert "<title>cat</title>" in document
    assert call(*arguments, "-o", "cats.jsonl").out == ""
    assert json.loads((tmp_path / "cats.jsonl").read_text())["path"] == str(SAMPLES / "cat.jpg")
    assert call(*arguments, "-o", "cats.html").err.startswith("hiera: error: cats.html exists already\n")


@pytest.mark.usefixtures("walks_here")
@pytest.mark.parametrize("name", ["dogs.html", "dogs.json", "dogs.txt"])
def test_a_search_that_finds_nothing_leaves_no_file(call: Call, tmp_path: Path, name: str) -> None:
    done = call("find", "dog", SAMPLES, "-m", "demo", "-o", name)
    assert (done.status, done.out) == (1, "")
    assert done.err.endswith("hiera: nothing found among 6 photos (--min-score 0.5)\n")
    assert not list(tmp_path.glob("dogs*"))


def test_what_writes_no_page_imports_no_templates(environment: dict[str, str]) -> None:
    code = (
        "import sys; from hiera_cli.commands import app, classify, output, run;"
        "print({'jinja2', 'hiera_cli.outputs.page'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_no_output_takes_the_place_of_an_input(call: Call) -> None:
    shutil.copy(SAMPLES / "cat.jpg", "cat.png")
    Path("list.txt").write_text("cat.png\n")
    assert call("classify", "cat.png", "-o", "labels.jsonl", "-q").status == 0
    Path("labels.html").write_bytes(Path("labels.jsonl").read_bytes())
    for arguments in (
        ["classify", "cat.png", "-f", "jsonl", "-o", "./cat.png"],
        ["classify", "--files-from", "list.txt", "-f", "jsonl", "-o", "list.txt"],
        ["explain", "cat.png", "-o", "cat.png"],
        ["report", "labels.html", "-o", "labels.html"],
    ):
        before = {path.name: path.read_bytes() for path in Path().glob("*.*")}
        done = call(*arguments, "--overwrite", "-q")
        assert (done.status, done.err.splitlines()[0]) == (
            2,
            f"hiera: error: --output and an input name one file: {arguments[-1]}",
        )
        assert {path.name: path.read_bytes() for path in Path().glob("*.*")} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["labels.jsonl", "-o", "x.json"], "x.json is not called like a page\n  Name one: -o x.html"),
        (["x.part.html", "-o", "x.html"], "x.part.html is what the unfinished page is called"),
        ([".", "-o", "x.html"], ". is a folder, not records\n"),
        (
            ["parts", "-o", "x.html"],
            "parts is a folder of parts\n  cat parts/part-*.jsonl | hiera report - -o page.html",
        ),
        (["/dev/zero", "-o", "x.html"], "/dev/zero is a device, not a file of records"),
        (["tags.json", "-o", "x.html"], "tags.json: record 1 is for ExifTool"),
    ],
)
def test_what_no_report_can_be_made_of_is_refused(call: Call, arguments: list[str], told: str) -> None:
    shutil.copy(SAMPLES / "cat.jpg", "cat.jpg")
    assert call("classify", "cat.jpg", "-f", "exiftool", "-o", "tags.json", "-q").status == 0
    assert call("classify", "cat.jpg", "-o", "labels.jsonl", "-q").status == 0
    shutil.copy("labels.jsonl", "x.part.html")
    Path("parts").mkdir()
    shutil.copy("labels.jsonl", "parts/part-001-00000000-000000000.jsonl")
    done = call("report", *arguments)
    assert done.status == 2
    assert done.err.startswith(f"hiera: error: {told}")


def test_a_file_in_the_place_of_the_thumbnails_is_told_before_anything_is_done(call: Call) -> None:
    Path("page_files").write_text("mine")
    done = call("classify", SAMPLES, "-o", "page.html")
    assert (done.status, done.err) == (
        2,
        "hiera: error: cannot write page_files, the folder of thumbnails: a file is there\n",
    )
    assert sorted(path.name for path in Path().iterdir()) == ["page_files"]
