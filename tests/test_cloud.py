"""Inputs and outputs in buckets, against a real S3 server on the loopback address."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, Call

from hiera_cli.errors import InputError
from hiera_cli.inputs import cloud
from hiera_cli.inputs.find import count, expand
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.limits import Limits
from hiera_cli.outputs.cloud import CloudFile
from hiera_cli.result import Stamp

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

CAT, ROCKET = SAMPLES / "cat.jpg", SAMPLES / "rocket.jpg"
WALK = Walk(lambda: frozenset({".jpg", ".png"}))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an S3 server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A file system with an empty bucket `box`, and the environment that leads to it, and to nothing of the user's."""
    import fsspec

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    system, _ = fsspec.url_to_fs("s3://box", use_listings_cache=False)
    if not system.exists("box"):
        system.mkdir("box")
    for name in system.find("box"):  # `rm` of the bucket fails where a key begins with a slash
        system.rm_file(name)
    yield system
    s3fs.S3FileSystem.clear_instance_cache()


def found(*urls: str, walk: Walk = WALK, skipped: Skipped | None = None) -> list[Source]:
    return list(expand(urls, walk, pytest.fail, skipped=skipped))


def told(sources: list[Source]) -> dict[str, str | None]:
    return {source.path: source.error.message if source.error else None for source in sources}


# ---- inputs

ODD = ["a b.jpg", "d/e/f.png", "d/😀 日本.jpg", "d/50%+#?.jpg", "z.JPG"]


def test_a_prefix_is_listed_as_a_folder_is(bucket: Any) -> None:
    for name in [*ODD, "d/.hidden.jpg", ".h/x.jpg", "d/x.txt", "noext", "out/x.jpg"]:
        bucket.pipe_file(f"box/p/{name}", b"x")
    bucket.pipe_file("box/p/empty/", b"")  # as consoles mark a folder
    bucket.pipe_file("box/other.jpg", b"x")
    skipped = Skipped()
    walk = Walk(WALK.suffixes, exclude=("out",))
    for prefix in ("s3://box/p", "s3://box/p/"):
        assert told(found(prefix, walk=walk, skipped=skipped)) == {
            f"s3://box/p/{name}": None for name in sorted(ODD, key=os.fsencode)
        }
    assert (skipped.suffixes, skipped.hidden, skipped.globs) == ({".txt": 2, "": 2}, 4, {"out"})
    assert "s3://box/p/d/.hidden.jpg" in told(found("s3://box", walk=Walk(WALK.suffixes, hidden=True)))
    assert count(["s3://box/p"], WALK) is None


def test_what_can_not_be_listed_or_is_not_there_is_told(bucket: Any) -> None:
    bucket.pipe_file("box/a.tar", b"x")
    refused = "an archive is read from a file on this machine: copy it here first"
    assert told(found("s3://box/gone", "s3://box/a.tar", "s3://box/a.jpg")) == {
        "s3://box/gone": "no such bucket or object",
        "s3://box/a.tar": refused,
        "s3://box/a.jpg": None,  # asked for when it is read
    }
    assert told(found("s3://nobucket/")) == {"s3://nobucket/": "there is no such bucket or prefix"}


def test_every_object_is_found_whatever_slashes_its_key_has(bucket: Any) -> None:
    for key in ("p/", "p/a.jpg", "p//dbl.jpg", "p//d/in.jpg", "p/q//x.jpg", "p//.hidden.jpg", "p//out/y.jpg"):
        bucket.pipe_file(f"box/{key}", b"x" if key[-1] != "/" else b"")
    for key in ("/lead.jpg", "../up.jpg", "./here.jpg"):
        bucket.pipe_file(f"box/{key}", b"x")
    below = ["p//d/in.jpg", "p//dbl.jpg", "p/a.jpg", "p/q//x.jpg"]
    walk = Walk(WALK.suffixes, exclude=("out",))
    skipped = Skipped()
    assert list(told(found("s3://box/p", walk=walk, skipped=skipped)).items()) == [
        (f"s3://box/{k}", None) for k in below
    ]
    assert skipped.hidden == 1
    every = ["./here.jpg", "../up.jpg", "/lead.jpg", *below]
    assert list(told(found("s3://box", walk=walk)).items()) == [(f"s3://box/{key}", None) for key in every]
    assert {key: read(f"s3://box/{key}") for key in ("/lead.jpg", "p//dbl.jpg")} == {
        "/lead.jpg": b"x",
        "p//dbl.jpg": b"x",
    }


def test_an_object_and_a_prefix_of_one_name_are_both_taken(bucket: Any) -> None:
    bucket.pipe_file("box/same/x.jpg", b"x")
    bucket.pipe_file("box/same", b"")  # as some programs mark a folder
    assert list(told(found("s3://box/same"))) == ["s3://box/same/x.jpg"]
    bucket.pipe_file("box/same", b"x")
    assert list(told(found("s3://box/same"))) == ["s3://box/same", "s3://box/same/x.jpg"]
    assert list(told(found("s3://box/same/"))) == ["s3://box/same/x.jpg"]


def test_objects_without_a_suffix_are_known_by_their_first_bytes(bucket: Any) -> None:
    bucket.pipe_file("box/photo", CAT.read_bytes())
    bucket.pipe_file("box/text", b"text")
    bucket.pipe_file("box/empty", b"")
    skipped = Skipped()
    assert list(told(found("s3://box", skipped=skipped))) == ["s3://box/photo"]
    assert skipped.suffixes == {"": 2}


def test_archives_under_a_prefix_are_refused_where_they_are_asked_for(bucket: Any) -> None:
    bucket.pipe_file("box/d/a.tar", b"x")
    bucket.pipe_file("box/d/b.jpg", b"x")
    assert told(found("s3://box/d", walk=Walk(WALK.suffixes, archives=True))) == {
        "s3://box/d/a.tar": "an archive is read from a file on this machine: copy it here first",
        "s3://box/d/b.jpg": None,
    }


def test_a_url_without_a_bucket_lists_nothing() -> None:
    said = "it names no bucket"
    assert told(found("s3://", "s3:///", "s3:///x.jpg")) == {"s3://": said, "s3:///": said, "s3:///x.jpg": said}


def test_the_case_of_a_scheme_tells_nothing(bucket: Any) -> None:
    bucket.pipe_file("box/d/b.jpg", b"x")
    assert told(found("S3://box/d")) == {"S3://box/d/b.jpg": None}
    assert read("S3://box/d/b.jpg") == b"x"


def read(url: str, limits: Limits | None = None) -> bytes | InputError:
    reader = cloud.Reader(limits or Limits())
    answers: list[bytes | InputError] = []
    reader.submit(url, answers.append)
    for _ in range(2000):
        if answers:
            break
        time.sleep(0.01)
    reader.close()
    return answers[0]


def test_objects_are_read_within_the_limits(bucket: Any) -> None:
    bucket.pipe_file("box/a.jpg", bytes(1000))
    assert read("s3://box/a.jpg") == bytes(1000)
    assert str(read("s3://box/a.jpg", Limits(bytes=1000 - 1))) == "it is over 0 MiB"
    bucket.pipe_file("box/empty.jpg", b"")
    assert read("s3://box/empty.jpg") == b""
    assert str(read("s3://box/gone.jpg")) == "no such bucket or object"


def test_one_that_does_not_answer_is_given_up(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def stuck(*args: Any, **options: Any) -> bytes:
        await asyncio.sleep(600)
        return b""

    monkeypatch.setattr(type(bucket), "_cat_file", stuck)
    assert str(read("s3://box/a.jpg", Limits(total=0.2))) == "no complete answer within 0.2 s"


def test_without_the_library_the_way_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*arguments: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    assert told(found("s3://box/p/")) == {"s3://box/p/": "s3:// needs a library: pip install 'hiera-cli[cloud]'"}


@pytest.mark.usefixtures("demo_on_the_cpu")
class TestTheCommands:
    """Buckets as their user names them."""

    @pytest.fixture(autouse=True)
    def photos(self, bucket: Any, environment: dict[str, str]) -> Any:
        """Two photos and an object that is none."""
        environment["HIERA_ENGINE"] = "auto"
        bucket.pipe_file("box/photos/a.jpg", CAT.read_bytes())
        bucket.pipe_file("box/photos/d/b.jpg", ROCKET.read_bytes())
        bucket.pipe_file("box/photos/d/bad.jpg", b"no photo")
        return bucket

    def test_records_are_those_of_the_same_files_here(self, call: Call) -> None:
        Path("photos/d").mkdir(parents=True)
        Path("photos/a.jpg").write_bytes(CAT.read_bytes())
        Path("photos/d/b.jpg").write_bytes(ROCKET.read_bytes())
        Path("photos/d/bad.jpg").write_text("no photo")
        done = call("classify", "photos", "s3://box/photos/", "s3://box/photos/d/b.jpg", "-f", "jsonl", "-q")
        assert done.status == 1
        records = done.records()
        names = [record.pop("path") for record in records]
        assert records == [*records[:3] * 2, records[1]]
        assert names[3:] == [f"s3://box/photos/{name}" for name in ("a.jpg", "d/b.jpg", "d/bad.jpg", "d/b.jpg")]

    @pytest.mark.parametrize("name", ["labels.parquet", "labels.jsonl", "labels.csv"])
    def test_results_appear_in_a_bucket_when_they_are_complete(self, call: Call, photos: Any, name: str) -> None:
        url = f"s3://box/out/{name}"
        done = call("classify", "s3://box/photos", "-o", url)
        assert done.status == 1
        assert "2 labelled, 1 failed" in done.err
        assert done.err.endswith(f"→ {url}\n")
        assert photos.ls("box/out") == [f"box/out/{name}"]
        assert call("classify", "s3://box/photos", "-o", name, "-q").status == 1
        there, here = photos.cat_file(f"box/out/{name}"), Path(name).read_bytes()
        if name.endswith("jsonl"):
            assert there.count(b"\n") == here.count(b"\n") == 3
        else:
            assert there == here
        again = call("classify", "s3://box/photos", "-o", url)
        assert (again.status, again.err) == (2, f"hiera: error: {url} exists already\n  --overwrite replaces it.\n")
        assert call("classify", "s3://box/photos/a.jpg", "-o", url, "-q", "--overwrite").status == 0
        assert len(photos.cat_file(f"box/out/{name}")) < len(there)

    def test_a_run_that_comes_to_nothing_leaves_nothing_there(self, call: Call, photos: Any) -> None:
        assert call("classify", "s3://box/photos", "--exclude", "*.jpg", "-o", "s3://box/out/l.csv", "-q").status == 1
        assert not photos.exists("box/out")

    def test_what_an_interrupted_run_has_done_is_there_beside_the_name(self, photos: Any) -> None:
        file = CloudFile("s3://box/out/l.csv")
        assert photos.ls("box/out") == ["box/out/l.csv.part"]
        file.write("done\n")
        file.close(complete=False)
        assert photos.cat_file("box/out/l.csv.part") == b"done\n"
        with pytest.raises(Exception, match="an earlier run did not finish"):
            CloudFile("s3://box/out/l.csv")
        CloudFile("s3://box/out/l.csv", overwrite=True).close(complete=True)
        assert photos.ls("box/out") == ["box/out/l.csv"]

    def test_results_that_can_not_be_sent_stay_here_and_the_file_is_named(
        self, call: Call, photos: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fails(*arguments: Any, **options: Any) -> None:
            raise PermissionError("denied")

        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(photos, "put_file", fails)
        done = call("classify", "s3://box/photos/a.jpg", "-o", "s3://box/l.parquet", "-q")
        (kept,) = tmp_path.glob("hiera-*")
        said = "hiera: error: cannot write s3://box/l.parquet: access is denied\n"
        assert done.err.startswith("hiera: stopped early: 1 labelled, ")
        assert (done.status, done.err.partition("\n")[2]) == (2, f"{said}  The results are in {kept}\n")
        assert pq.read_table(kept).column("path").to_pylist() == ["s3://box/photos/a.jpg"]

    def test_a_bucket_that_can_not_be_written_is_told_before_anything_is_computed(self, call: Call) -> None:
        done = call("classify", "s3://box/photos", "-o", "s3://nobucket/l.csv")
        said = "hiera: error: cannot write s3://nobucket/l.csv: no such bucket or object\n"
        assert (done.status, done.err) == (2, said)

    def test_a_page_of_what_is_found_is_refused_as_any_page_is(self, call: Call) -> None:
        Path("photos").mkdir()
        Path("photos/a.jpg").write_bytes(CAT.read_bytes())
        done = call("find", "cat", "photos", "--index", "i.sqlite", "-q", "-o", "s3://box/f.html")
        said = (
            "hiera: error: a page is written on this machine alone, not to s3://box/f.html\n  Copy it when complete.\n"
        )
        assert (done.status, done.err) == (2, said)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                ["classify", "a.jpg", "-o", "s3://box/l.jsonl", "--resume"],
                "--resume goes on with a file on this machine",
            ),
            (
                ["classify", "a.jpg", "-o", "s3://box/l.csv", "--offline"],
                "--offline contradicts an --output on the net",
            ),
            (
                ["classify", "a.jpg", "-o", "s3://box/p.html"],
                "a page is written on this machine alone, not to s3://box/p.html\n",
            ),
            (
                ["evaluate", "d", "--confusion", "s3://box/m.csv", "--offline"],
                "--offline contradicts a --confusion on the network",
            ),
            (["embed", "a.jpg", "-o", "s3://box/f.npz"], "npz is written on this machine alone, not to s3://box/f.npz"),
            (["explain", "a.jpg", "-o", "s3://box/maps"], "pictures are saved on this machine alone"),
            (
                ["explain", "s3://box/photos", "-o", "map.png"],
                "map.png is one picture, and there may be several inputs",
            ),
            (["reconstruct", "a.jpg", "-o", "s3://box/x.png"], "pictures are saved on this machine alone"),
        ],
    )
    def test_what_a_bucket_can_not_be_used_for_is_told_at_once(
        self, call: Call, arguments: list[str], said: str
    ) -> None:
        done = call(*arguments)
        assert done.status == 2
        assert done.err.startswith(f"hiera: error: {said}")

    def test_offline_asks_nobody(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cloud, "opened", lambda url: pytest.fail("asked"))
        done = call("classify", "s3://box/photos/", "--offline", "-q")
        assert (done.status, done.err) == (
            1,
            "hiera: s3://box/photos/: URLs are not fetched offline (leave out --offline)\n",
        )

    def test_done_objects_are_not_read_again_as_long_as_they_are_the_same(self, call: Call, photos: Any) -> None:
        arguments = ("classify", "s3://box/photos", "-o", "l.jsonl", "--resume")
        assert "2 labelled, 1 failed" in call(*arguments).err
        assert "2 done before" in call(*arguments).err
        photos.pipe_file("box/photos/a.jpg", ROCKET.read_bytes())
        done = call(*arguments)
        assert "1 labelled, 1 failed, 1 done before" in done.err
        first = json.loads(Path("l.jsonl").read_text().partition("\n")[0])
        assert (first["predictions"][0]["label"], first["resume"]["size"]) == ("missile", ROCKET.stat().st_size)

    def test_objects_that_were_not_listed_are_read_again(self, call: Call) -> None:
        arguments = ("classify", "s3://box/photos/a.jpg", "-o", "l.jsonl", "--resume")
        for _ in range(2):
            done = call(*arguments)
            assert "1 labelled" in done.err
            assert "done before" not in done.err

    def test_labels_are_not_written_into_objects(self, call: Call) -> None:
        done = call("classify", "s3://box/photos/d/b.jpg", "s3://box/photos", "-f", "exiftool", "--no-banner")
        assert json.loads(done.out) == []

    def test_the_matrix_and_what_is_found_appear_in_a_bucket_too(self, call: Call, photos: Any) -> None:
        Path("photos/tabby").mkdir(parents=True)
        Path("photos/tabby/a.jpg").write_bytes(CAT.read_bytes())
        assert call("evaluate", "photos", "--confusion", "s3://box/out/m.csv", "-q").status == 0
        assert photos.cat_file("box/out/m.csv").count(b"\n") > 1
        search = ("find", "cat", "photos", "--index", "i.sqlite", "-q")
        assert call(*search, "-o", "s3://box/out/f.csv").status == 0
        assert b"photos/tabby/a.jpg" in photos.cat_file("box/out/f.csv")


def test_kinds_of_storage_are_known_by_their_scheme() -> None:
    offline = Walk(WALK.suffixes, offline=True)
    urls = ["s3://box/x", "gs://b/x", "gcs://b/x", "az://c/x", "abfs://c/x", "hf://datasets/o/n/x", "https://x/y"]
    assert [source.kind for source in found(*urls, walk=offline)] == [*[Kind.CLOUD] * 6, Kind.URL]


@pytest.mark.parametrize(
    ("about", "stamp"),
    [
        ({"size": 5, "LastModified": datetime(1970, 1, 1, 0, 0, 2, 700_000, timezone.utc)}, Stamp(5, 2 * 10**9)),  # s3
        ({"size": 5, "updated": "1970-01-01T00:00:02.700Z"}, Stamp(5, 2 * 10**9)),  # gs
        ({"size": 5, "last_modified": datetime(1970, 1, 1, 0, 0, 2, 0, timezone.utc)}, Stamp(5, 2 * 10**9)),  # az
        ({"size": 5, "last_commit": None}, None),  # hf
        ({"size": None, "updated": "yesterday"}, None),
    ],
)
def test_the_time_of_an_object_is_what_any_of_the_libraries_calls_it(
    about: dict[str, Any], stamp: Stamp | None
) -> None:
    assert cloud._stamp(about) == stamp
