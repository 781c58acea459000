"""Archives as inputs: tar, zip, and Parquet with images as bytes."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, Call

from hiera_cli.errors import InputError
from hiera_cli.inputs import members
from hiera_cli.inputs.find import count, expand
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.pipeline import stream

CAT, ROCKET = SAMPLES / "cat.jpg", SAMPLES / "rocket.jpg"
PHOTO = b"\xff\xd8\xff of a kind"
WALK = Walk(lambda: frozenset({".jpg", ".png"}))

# Of `zip -P secret e.zip p.png && zip e.zip q.png`, both 8 × 8 pixels.
ENCRYPTED = base64.b64decode(
    "UEsDBBQACQAIAK0sel3QEpSPWAAAAFUAAAAFAAAAcC5wbmc3X/YfVK6kLGc/RqebxAOt7I4K6kB6fIxCByoDP474VHpLtwSXehDg"
    "6zN4AwO6PY/tcssgwLlfwTaLo/x/4b9GRVWbx9it6lEYZ0vwKjYl6xVqCU8Go3/dUEsHCNASlI9YAAAAVQAAAFBLAwQUAAAACACt"
    "LHpd0BKUj0wAAABVAAAABQAAAHEucG5n6wzwc+flkuJiYGDg9fRwCQLSHCDMyAwk/x3UOQGkmAN8QlyB9PIq21tgdS6OIRW3kn+c"
    "P9LAw8hfyMhX9rnjAlCCwdPVz2WdU0ITAFBLAQIeAxQACQAIAK0sel3QEpSPWAAAAFUAAAAFAAAAAAAAAAAAAACkgQAAAABwLnBu"
    "Z1BLAQIeAxQAAAAIAK0sel3QEpSPTAAAAFUAAAAFAAAAAAAAAAAAAACkgYsAAABxLnBuZ1BLBQYAAAAAAgACAGYAAAD6AAAAAAA="
)
TARS = {".tar": None, ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}

Files = Iterable[tuple[str, bytes]]


def tar(files: Files, kind: str = ".tar") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    pack = TARS[kind]
    return made.getvalue() if pack is None else pack(made.getvalue())


def zipped(files: Files, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return made.getvalue()


def archived(files: Files, kind: str) -> bytes:
    return zipped(files) if kind == ".zip" else tar(files, kind)


def parquet(path: str, columns: dict[str, list[Any]], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return path


def found(*paths: str, walk: Walk = WALK, skipped: Skipped | None = None) -> list[Source]:
    return list(expand(paths, walk, pytest.fail, skipped=skipped))


def paths(*names: str, walk: Walk = WALK, skipped: Skipped | None = None) -> list[str]:
    return [source.path for source in found(*names, walk=walk, skipped=skipped)]


def told(sources: Iterable[Source]) -> dict[str, str | None]:
    return {source.path: source.error.message if source.error else None for source in sources}


# ---- which members are taken, and what they are called

KINDS = [*TARS, ".zip"]
ODD = ["a b.jpg", "line\nbreak.jpg", "d/😀 日本.jpg", "d/e/" + 90 * "x" + "/" + 120 * "y" + ".jpg", "../../up.jpg"]


@pytest.mark.parametrize("kind", KINDS)
def test_members_come_in_the_archives_order_with_its_path_before_their_name(kind: str) -> None:
    names = [*ODD, "/etc/absolute.jpg", "./here.jpg", "A.JPG"]
    Path(f"p{kind}").write_bytes(archived([(name, PHOTO + name.encode()) for name in names], kind))
    shown = [name.removeprefix("./") for name in names]
    sources = found(f"p{kind}")
    assert [source.path for source in sources] == [f"p{kind}/{name}" for name in shown]
    assert [source.data for source in sources] == [PHOTO + name.encode() for name in names]
    again = found(*(source.path for source in sources))
    assert [(source.path, source.data) for source in again] == [(source.path, source.data) for source in sources]


def test_names_that_are_no_utf_8_are_given_back_byte_for_byte() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    Path("p.tar").write_bytes(made.getvalue())
    assert paths("p.tar") == [f"p.tar/{name}"] == paths(f"p.tar/{name}")


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_taken_as_a_folder_walk_takes_files(kind: str) -> None:
    files = [
        *[("a.jpg", PHOTO), (".hidden.jpg", PHOTO), (".d/a.jpg", PHOTO), ("a.cls", b"7"), ("a.json", b"{}")],
        *[("noext", PHOTO), ("text", b"none"), ("inner.zip", zipped([])), ("out/b.jpg", PHOTO), ("b.png", PHOTO)],
    ]
    Path(f"p{kind}").write_bytes(archived(files, kind))
    skipped = Skipped()
    walk = Walk(WALK.suffixes, exclude=("out", "*.png"))
    assert paths(f"p{kind}", walk=walk, skipped=skipped) == [f"p{kind}/a.jpg", f"p{kind}/noext"]
    assert (skipped.suffixes, skipped.hidden) == ({".cls": 1, ".json": 1, "": 1}, 2)
    assert (skipped.archives_in_archives, skipped.globs) == (1, {"out", "*.png"})
    walk = Walk(WALK.suffixes, hidden=True)
    assert {f"p{kind}/.hidden.jpg", f"p{kind}/.d/a.jpg"} < {*paths(f"p{kind}", walk=walk)}


def test_links_and_devices_are_passed_over_and_counted() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.FIFOTYPE), ("c.jpg", tarfile.CHRTYPE)):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, "/etc/passwd"
            archive.addfile(about)
        archive.addfile(tarfile.TarInfo("d.jpg"))
    Path("p.tar").write_bytes(made.getvalue())
    skipped = Skipped()
    assert paths("p.tar", skipped=skipped) == ["p.tar/d.jpg"]
    assert skipped.links_in_archives == 3
    assert told(found(*(f"p.tar/{name}.jpg" for name in "abc"))) == {
        "p.tar/a.jpg": "it is a link to /etc/passwd, and no file",
        "p.tar/b.jpg": "it is a pipe, and no file",
        "p.tar/c.jpg": "it is a device, and no file",
    }
    link = zipfile.ZipInfo("a.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile("p.zip", "w") as zip_archive:
        zip_archive.writestr(link, "/etc/passwd")
        zip_archive.writestr("b.jpg", PHOTO)
    assert paths("p.zip", skipped=skipped) == ["p.zip/b.jpg"]
    assert skipped.links_in_archives == 4
    assert told(found("p.zip/a.jpg")) == {"p.zip/a.jpg": "it is a link or a device, and no file"}


def test_a_hard_link_is_a_record_that_says_where_its_bytes_are() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
        for name in ("b.jpg", "b.txt"):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = tarfile.LNKTYPE, "./a.jpg"
            archive.addfile(about)
    Path("p.tar").write_bytes(made.getvalue())
    said = "it is a hard link to a.jpg: its bytes are under that name"
    assert told(found("p.tar")) == {"p.tar/a.jpg": None, "p.tar/b.jpg": said}


def test_an_archive_is_known_by_its_content_and_in_a_folder_by_its_name_where_that_is_asked_for() -> None:
    Path("shards").mkdir()
    Path("shards/b.tar").write_bytes(tar([("x.jpg", PHOTO)]))
    Path("shards/a.jpg").write_bytes(PHOTO)
    shutil.copy("shards/b.tar", "named-otherwise")
    assert paths("named-otherwise") == ["named-otherwise/x.jpg"]
    skipped = Skipped()
    assert paths("shards", skipped=skipped) == ["shards/a.jpg"]
    assert skipped.suffixes == {".tar": 1}
    assert paths("shards", walk=Walk(WALK.suffixes, archives=True)) == ["shards/a.jpg", "shards/b.tar/x.jpg"]


def test_tables_without_images_are_passed_over_in_folders_and_told_where_they_are_named() -> None:
    Path("d").mkdir()
    parquet("d/labels.parquet", {"path": ["a.jpg"], "path_bytes": [b""]})
    parquet("d/photos.parquet", {"image": [PHOTO]})
    skipped = Skipped()
    assert paths("d", walk=Walk(WALK.suffixes, archives=True), skipped=skipped) == ["d/photos.parquet/0"]
    assert skipped.suffixes == {".parquet": 1}
    assert told(found("d/labels.parquet")) == {
        "d/labels.parquet": "none of its columns has images as bytes: path, path_bytes"
    }


def test_a_file_is_looked_for_in_an_archive_only_where_it_is_nowhere_else() -> None:
    Path("p.tar").mkdir()
    Path("p.tar/x.jpg").write_bytes(PHOTO)
    assert found("p.tar/x.jpg") == [Source("p.tar/x.jpg")]
    Path("a.txt").write_text("no archive")
    assert found("a.txt/x.jpg", "gone/x.jpg", "a.txt/") == [
        Source("a.txt/x.jpg"),
        Source("gone/x.jpg"),
        Source("a.txt/"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_is_not_there_is_told_as_such(kind: str) -> None:
    Path(f"p{kind}").write_bytes(archived([("a.jpg", PHOTO)], kind))
    assert told(found(f"p{kind}/b.jpg")) == {f"p{kind}/b.jpg": f"there is no b.jpg in p{kind}"}


def test_members_named_in_the_archives_order_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.jpg" for number in range(50)]
    Path("p.tar").write_bytes(tar([(name, PHOTO) for name in names]))
    passes: list[str] = []
    of_tar = members.of_tar

    def one_pass(path: str, start: bytes) -> Iterator[members.Member]:
        passes.append(path)
        return of_tar(path, start)

    monkeypatch.setattr(members, "of_tar", one_pass)
    assert len(found(*(f"p.tar/{name}" for name in names))) == 50
    assert passes == ["p.tar"]
    assert paths("p.tar/9.jpg", "p.tar/3.jpg") == ["p.tar/9.jpg", "p.tar/3.jpg"]
    assert len(passes) == 3


def test_inputs_in_archives_are_counted_where_that_takes_no_unpacking() -> None:
    files = [("a.jpg", PHOTO), ("b.png", PHOTO), ("c.txt", b""), (".d.jpg", PHOTO)]
    for kind in KINDS:
        Path(f"p{kind}").write_bytes(archived(files, kind))
    parquet("p.parquet", {"image": [PHOTO] * 3})
    counts = [count([f"p{kind}"], WALK) for kind in (".tar", ".zip", ".parquet", ".tar.gz")]
    assert counts == [2, 2, 3, None]
    assert count(["p.tar", "p.tar/a.jpg", "x.jpg"], WALK) == 4


# ---- Parquet

NAMED = [{"bytes": b"0", "path": "d/cat.jpg"}, {"bytes": b"1", "path": None}, {"bytes": None, "path": "x.jpg"}, None]


def test_rows_of_parquet_are_called_by_their_number_and_by_the_name_that_they_have() -> None:
    parquet("p.parquet", {"image": NAMED, "label": [1, 2, 3, 4], "thumbnail": [b"", b"", b"", b""]})
    sources = found("p.parquet")
    assert [(source.path, source.data) for source in sources] == [
        ("p.parquet/0/d/cat.jpg", b"0"),
        ("p.parquet/1", b"1"),
        ("p.parquet/2/x.jpg", None),
        ("p.parquet/3", None),
    ]
    assert told(sources[2:]) == {
        "p.parquet/2/x.jpg": "its row has a path alone, and no bytes",
        "p.parquet/3": "there is no image in its row",
    }


def test_rows_of_parquet_are_given_back_whatever_the_row_group() -> None:
    parquet("p.parquet", {"b": [b"%d" % number for number in range(100)]}, row_group_size=7)
    every = found("p.parquet")
    assert [source.data for source in every] == [b"%d" % number for number in range(100)]
    for wanted in (every[55:60], [every[99]], [every[0], every[93], every[7], every[6]]):
        assert [source.data for source in found(*(source.path for source in wanted))] == [s.data for s in wanted]
    assert told(found("p.parquet/100", "p.parquet/0/a.jpg", "p.parquet/x")) == {
        "p.parquet/100": "there is no 100 in p.parquet",
        "p.parquet/0/a.jpg": "there is no 0/a.jpg in p.parquet",
        "p.parquet/x": "there is no x in p.parquet",
    }


def test_values_that_are_kept_in_a_dictionary_are_read_as_others_are() -> None:
    values = [b"1", b"2", b"1", None]
    packed = pa.array(values).dictionary_encode()
    parquet("p.parquet", {"image": packed}, row_group_size=3)
    parquet(
        "s.parquet", {"image": pa.StructArray.from_arrays([packed, pa.array(["a", "b", "c", None])], ["bytes", "path"])}
    )
    assert [source.data for source in found("p.parquet")] == values == [source.data for source in found("s.parquet")]
    assert paths("s.parquet")[1:] == ["s.parquet/1/b", "s.parquet/2/c", "s.parquet/3"]


def test_parquet_that_would_unpack_to_much_more_than_images_do_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MOST_UNPACKED", 1 << 20)
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "image2": pa.string()})
    with pq.ParquetWriter("p.parquet", schema, compression="zstd", use_dictionary=False) as writer:
        for data in (PHOTO, os.urandom(2 << 20), bytes(2 << 20)):
            writer.write_table(pa.table({"image": [{"bytes": data, "path": "a"}], "image2": ["x" * (2 << 20)]}, schema))
    some = told(found("p.parquet"))
    assert {name: some.pop(name) for name in list(some)[:2]} == {"p.parquet/0/a": None, "p.parquet/1/a": None}
    assert re.sub(r"[\d,]+ bytes", "N bytes", str(some)) == (
        "{'p.parquet': 'from row 2 on it is not read: N bytes would unpack to 2 MiB'}"
    )


def test_rows_over_the_limit_cost_no_more_memory_than_one_of_them() -> None:
    big = os.urandom(24 << 20)
    parquet("p.parquet", {"image": [big] * 8}, use_dictionary=False, compression="none")
    del big
    before = pa.total_allocated_bytes()
    most = 0
    for member in members.of_parquet("p.parquet"):
        with pytest.raises(InputError, match="it is over 1 MiB"):
            member.content(1 << 20)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < (8 + 3) * (24 << 20)  # the page, which has all of them, and the one


@pytest.mark.parametrize(
    ("columns", "column", "said"),
    [
        ({"a": [b"1"], "text": ["1"]}, "", None),
        ({"a": [{"bytes": b"1", "path": "x"}], "b": [b"2"]}, "", None),
        ({"path_bytes": [b"2"], "a": [b"1"]}, "", None),
        ({"b": [b"2"], "a": [b"1"]}, "a", None),
        ({"b": [b"2"], "a": [b"1"]}, "", "several of its columns may have the images: b, a"),
        ({"b": [b"2"], "a": [1]}, "c", "it has no column c; with bytes it has b"),
        ({"b": [b"2"], "a": [1]}, "a", "its column a has no bytes"),
        ({"b": ["2"], "a": [1]}, "", "none of its columns has images as bytes: b, a"),
    ],
)
def test_the_column_of_images_is_the_only_one_or_the_one_that_is_named(
    columns: dict[str, list[Any]], column: str, said: str | None
) -> None:
    parquet("p.parquet", columns)
    (source,) = found("p.parquet", walk=Walk(WALK.suffixes, column=column))
    assert (source.data, source.error and source.error.message) == (None if said else b"1", said)


def test_without_pyarrow_a_parquet_file_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet("p.parquet", {"a": [b""]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert told(found("p.parquet")) == {"p.parquet": "Parquet needs pyarrow: pip install 'hiera-cli[parquet]'"}


# ---- hostile, damaged, encrypted


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_over_the_limit_is_told_and_not_unpacked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(f"p{kind}").write_bytes(archived([("big.jpg", bytes(3 << 20)), ("a.jpg", PHOTO)], kind))
    walk = Walk(WALK.suffixes, member_bytes=1 << 20)
    assert told(found(f"p{kind}", walk=walk)) == {f"p{kind}/big.jpg": "it is over 1 MiB", f"p{kind}/a.jpg": None}


def test_a_member_that_says_less_than_it_has_is_bounded_all_the_same() -> None:
    made = bytearray(zipped([("big.jpg", bytes(8 << 20))]))
    for signature, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        place = made.index(signature) + at
        made[place : place + 4] = (100).to_bytes(4, "little")
    Path("p.zip").write_bytes(made)
    (source,) = found("p.zip")
    assert source.error is not None
    assert source.error.message.startswith("it can't be read from the archive: ")


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_without_end_takes_no_memory(packed: bool) -> None:
    about = tarfile.TarInfo("pax")
    about.type, about.size = tarfile.XHDTYPE, 7 << 30
    bomb = tar([("a.jpg", PHOTO)])[:1024] + about.tobuf() + bytes(4 << 20)
    Path("p.tar").write_bytes(gzip.compress(bomb) if packed else bomb)
    assert told(found("p.tar")) == {
        "p.tar/a.jpg": None,
        "p.tar": "the archive is damaged after 1 member: a header of more than 1 MiB",
    }


def test_a_chain_of_headers_and_a_size_below_zero_end_the_archive_and_not_the_run() -> None:
    link = tarfile.TarInfo("x")
    link.type, link.size = tarfile.GNUTYPE_LONGNAME, 1
    chain = (link.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 5000
    about = tarfile.TarInfo("minus.jpg")
    block = bytearray(about.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024, as GNU writes what is larger than eight octal digits
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    for rest in (chain, bytes(block)):
        Path("p.tar").write_bytes(tar([("a.jpg", PHOTO)])[:1024] + rest)
        first, second = found("p.tar")
        assert (first.path, second.path) == ("p.tar/a.jpg", "p.tar")
        assert str(second.error).startswith("the archive is damaged after 1 member: ")


@pytest.mark.parametrize("kind", TARS)
def test_of_a_damaged_tar_what_can_be_read_is_taken_and_the_damage_is_a_record_of_its_own(kind: str) -> None:
    noise = [(f"{number}.jpg", os.urandom(60_000)) for number in range(40)]
    whole = tar(noise, kind)
    Path("p.tar").write_bytes(whole[: len(whole) // 2])
    some = told(found("p.tar"))
    taken = [path for path, error in some.items() if error is None]
    assert taken == [f"p.tar/{number}.jpg" for number in range(len(taken))]
    assert len(taken) > 10
    assert "p.tar" in some
    assert "damaged after" in str(some["p.tar"])


@pytest.mark.parametrize("kind", [kind for kind in TARS if kind != ".tar"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_packed_tar_is_read_to_its_checksum(kind: str, damage: str) -> None:
    whole = bytearray(tar([("a.jpg", PHOTO), ("pad.txt", os.urandom(2 << 20))], kind))
    if damage == "cut":
        del whole[-3:]
    else:
        whole[-8:] = bytes(byte ^ 0xFF for byte in whole[-8:])
    Path("p.tar").write_bytes(whole)
    some = told(found("p.tar"))
    assert some.pop("p.tar/a.jpg") is None
    assert str(some.pop("p.tar")).startswith("the archive is damaged after 2 members: ")


def test_a_size_that_no_file_has_is_told_in_words() -> None:
    about = tarfile.TarInfo("b.jpg")
    about.size = 1 << 60
    Path("p.tar").write_bytes(tar([("a.jpg", PHOTO)])[:1024] + about.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    some = told(found("p.tar"))
    assert some["p.tar"] == "the archive is damaged after 2 members: the size of a member is beyond the archive's end"


def test_a_header_that_is_none_is_not_taken_for_the_end() -> None:
    made = bytearray(tar([("a.jpg", PHOTO), ("b.jpg", PHOTO), ("c.jpg", PHOTO)]))
    made[1024:1536] = os.urandom(512)
    Path("p.tar").write_bytes(made)
    said = "the archive is damaged after 1 member: no header of a member where one should be"
    assert told(found("p.tar")) == {"p.tar/a.jpg": None, "p.tar": said}


def test_a_damaged_member_of_a_zip_costs_no_other() -> None:
    made = bytearray(zipped([("a.jpg", PHOTO), ("b.jpg", PHOTO)], zipfile.ZIP_STORED))
    made[made.index(PHOTO) + 3] ^= 1
    Path("p.zip").write_bytes(made)
    said = "it can't be read from the archive: Bad CRC-32 for file 'a.jpg'"
    assert told(found("p.zip")) == {"p.zip/a.jpg": said, "p.zip/b.jpg": None}
    Path("p.zip").write_bytes(made[:-30])
    (only,) = told(found("p.zip")).items()
    assert only[0] == "p.zip"
    assert str(only[1]).startswith("the archive is damaged: ")


def test_damaged_parquet_is_told() -> None:
    parquet("p.parquet", {"b": [os.urandom(5000) for _ in range(100)]}, row_group_size=20, compression="none")
    whole = bytearray(Path("p.parquet").read_bytes())
    whole[300_000:300_400] = bytes(400)
    Path("p.parquet").write_bytes(whole[:-4])
    assert "p.parquet" in told(found("p.parquet"))


def test_encrypted_members_are_told_and_the_others_are_read() -> None:
    Path("e.zip").write_bytes(ENCRYPTED)
    assert told(found("e.zip")) == {"e.zip/p.png": "it is encrypted", "e.zip/q.png": None}


# ---- the commands


@pytest.fixture
def photos() -> Path:
    """A folder of photos, one of them none."""
    folder = Path("photos")
    (folder / "d").mkdir(parents=True)
    shutil.copy(CAT, folder / "a.jpg")
    shutil.copy(ROCKET, folder / "d" / "b.jpg")
    (folder / "d" / "bad.jpg").write_text("no photo")
    return folder


@pytest.fixture
def packed(photos: Path) -> list[str]:
    """The same in archives of every kind, in the order of the folder."""
    names = ["a.jpg", "d/b.jpg", "d/bad.jpg"]
    files = [(name, (photos / name).read_bytes()) for name in names]
    for kind in KINDS:
        Path(f"photos{kind}").write_bytes(archived(files, kind))
    rows = [{"bytes": data, "path": name} for name, data in files]
    return [*(f"photos{kind}" for kind in KINDS), parquet("photos.parquet", {"image": rows})]


@pytest.fixture
def _starts_sooner(demo_on_the_cpu: None, environment: dict[str, str]) -> None:
    environment["HIERA_ENGINE"] = "auto"


@pytest.mark.usefixtures("_starts_sooner")
class TestTheCommands:
    """Archives as their user gives them."""

    def test_records_are_those_of_the_unpacked_folder(self, call: Call, photos: Path, packed: list[str]) -> None:
        done = call("classify", "photos", *packed, "-f", "jsonl", "-q")
        assert done.status == 1
        records = done.records()
        names = [record.pop("path") for record in records]
        assert records == records[:3] * (1 + len(packed))
        wanted = ["a.jpg", "d/b.jpg", "d/bad.jpg"]
        assert names[:-3] == [f"{archive}/{name}" for archive in ("photos", *packed[:-1]) for name in wanted]
        assert names[-3:] == [f"photos.parquet/{row}/{name}" for row, name in enumerate(wanted)]

    def test_paths_of_records_may_be_given_back(self, call: Call, packed: list[str]) -> None:
        first = call("classify", *packed, "-f", "jsonl", "-q").records()
        Path("list").write_text("".join(f"{record['path']}\n" for record in first))
        assert call("classify", "--files-from", "list", "-f", "jsonl", "-q").records() == first
        assert len(first) == 3 * len(packed)

    def test_every_command_over_inputs_takes_them(self, call: Call, packed: list[str]) -> None:
        plain = call("embed", "photos.tar", "-f", "jsonl", "-q").records()
        assert [record["path"] for record in plain] == [
            f"photos.tar/{name}" for name in ("a.jpg", "d/b.jpg", "d/bad.jpg")
        ]
        assert call("explain", "photos.zip", "-o", "maps", "-q").status == 1
        assert sorted(os.listdir("maps")) == ["000001-a.png", "000002-b.png"]
        done = call("explain", "photos.zip", "-o", "map.png")
        assert (done.status, done.err) == (
            2,
            "hiera: error: map.png is one picture, and there may be several inputs\n"
            "  Name a folder for them: -o pictures\n",
        )
        assert call("explain", "photos.zip/a.jpg", "-o", "map.png", "-q").status == 0

    def test_a_run_is_gone_on_with_and_done_members_are_not_done_again(self, call: Call, packed: list[str]) -> None:
        arguments = ("classify", "photos.tar", "-o", "l.jsonl", "--resume")
        assert "2 labelled, 1 failed" in call(*arguments).err
        before = Path("l.jsonl").read_text()
        done = call(*arguments)
        assert "2 done before" in done.err
        assert Path("l.jsonl").read_text() == before
        os.utime("photos.tar", ns=(1, 1))
        assert "done before" not in call(*arguments).err

    def test_members_of_one_name_keep_their_own_labels_in_every_run(self, call: Call) -> None:
        files = [("a.jpg", CAT.read_bytes()), ("a.jpg", ROCKET.read_bytes())]
        Path("p.tar").write_bytes(tar(files))
        for _ in range(2):
            assert call("classify", "p.tar", "-o", "l.jsonl", "--resume", "-q", "-k1").status == 0
            records = [json.loads(line) for line in Path("l.jsonl").read_text().splitlines()]
            assert [record["predictions"][0]["label"] for record in records] == ["tabby, tabby cat", "missile"]

    def test_what_is_passed_over_in_archives_is_told_at_the_end(self, call: Call) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name, kind in (("a", tarfile.SYMTYPE), ("b.zip", tarfile.REGTYPE), ("c.cls", tarfile.REGTYPE)):
                about = tarfile.TarInfo(name)
                about.type = kind
                archive.addfile(about)
        Path("p.tar").write_bytes(made.getvalue())
        done = call("classify", "p.tar", "--verbose")
        assert (done.status, done.err) == (
            1,
            "hiera: p.tar/a: skipped, a link or a device\n"
            "hiera: p.tar/b.zip: skipped, an archive in an archive\n"
            "hiera: p.tar/c.cls: skipped, not known as an image\n"
            "hiera: p.tar: no images in this archive\n"
            "hiera: skipped 1 file that is not known as an image (1 .cls), 1 link or device in archives, "
            "1 archive in an archive (unpack the outer one first)\n",
        )

    def test_an_archive_in_an_archive_is_refused_with_what_to_do(self, call: Call) -> None:
        Path("p.tar").write_bytes(tar([("inner.zip", zipped([("a.jpg", PHOTO)]))]))
        said = "hiera: p.tar/inner.zip: it is an archive in an archive: unpack the outer one first\n"
        assert call("classify", "p.tar/inner.zip", "-q").err == said
        said = "hiera: p.tar/inner.zip/a.jpg: there is no inner.zip/a.jpg in p.tar\n"
        assert call("classify", "p.tar/inner.zip/a.jpg", "-q").err == said

    def test_labels_are_not_written_into_photos_that_are_in_archives(self, call: Call, packed: list[str]) -> None:
        done = call("classify", "photos.zip/a.jpg", "photos/a.jpg", "-f", "exiftool", "--no-banner")
        assert [entry["SourceFile"] for entry in json.loads(done.out)] == ["photos/a.jpg"]
        assert "left out, for there is no file to write into: photos.zip/a.jpg\n" in done.err

    def test_bytes_that_wait_to_be_decoded_are_bounded(
        self, call: Call, packed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "MAX_HELD", 1)  # less than any member has: one at a time
        most = 0
        held = stream._Held.take

        def take(self: stream._Held, size: int) -> None:
            nonlocal most
            held(self, size)
            most = max(most, self._used)

        monkeypatch.setattr(stream._Held, "take", take)
        assert call("classify", *packed, "-q").status == 1
        assert most == max(CAT.stat().st_size, ROCKET.stat().st_size)


def test_an_archive_on_stdin_is_told_what_to_do(hiera: Any) -> None:
    done = hiera("classify", "-", "-m", "demo", "-q", input=tar([("a.jpg", PHOTO)]))
    assert (done.returncode, done.stderr) == (
        1,
        "hiera: -: it is an archive, which is read from a file: save it first\n",
    )


@pytest.mark.slow
def test_memory_stays_flat_over_a_tar_of_thousands_of_photos(environment: dict[str, str], tmp_path: Path) -> None:
    environment["HIERA_ENGINE"] = "auto"

    def peak(photos: int) -> int:
        with tarfile.open("p.tar", "w") as archive:
            for number in range(photos):
                archive.add(CAT, f"{number:06}.jpg")
        script = (
            "import resource, subprocess, sys;"
            "command = 'classify p.tar -m demo -k1 -f csv -q'.split();"
            "subprocess.run([sys.executable, '-m', 'hiera_cli', *command], stdout=2);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.stderr.count("n02123045") == photos
        return int(done.stdout)

    assert peak(5000) < peak(500) + 30_000  # KiB
