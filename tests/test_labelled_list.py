"""Tables of paths and labels, as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_cli.errors import UsageError
from hiera_cli.inputs.labelled_list import LabelledList
from hiera_cli.inputs.source import Kind


def rows(name: str, folder: str = "") -> list[tuple[str, str]]:
    return [(image.source.path, image.label) for image in LabelledList(name, folder).images()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'a.jpg,cat\n"b, c.jpg","tabby, tabby cat"\n'),
        ("t.csv", 'path,label\r\na.jpg,cat\r\n\r\n"b, c.jpg","tabby, tabby cat"\r\n'),
        ("t.csv", '\ufefflabel,Path\ncat,a.jpg\n"tabby, tabby cat","b, c.jpg"\n'),
        ("t.csv", 'split,Class,score,File Name\nval,cat,1,a.jpg\nval,"tabby, tabby cat",,"b, c.jpg"\n'),
        ("t.csv", 'filename,species\na.jpg,cat\n"b, c.jpg","tabby, tabby cat"'),
        ("t.csv", 'a.jpg;cat\nb, c.jpg;"tabby, tabby cat"\n'),
        ("t.tsv", "path\tlabel\na.jpg\tcat\nb, c.jpg\ttabby, tabby cat\n"),
        ("truth", "a.jpg\tcat\nb, c.jpg\ttabby, tabby cat\n"),
    ],
)
def test_two_columns_are_found_however_they_are_written(tmp_path: Path, name: str, text: str) -> None:
    Path(name).write_bytes(text.encode())
    assert rows(name) == [("a.jpg", "cat"), ("b, c.jpg", "tabby, tabby cat")]


def test_imagenets_lists_have_a_space_before_the_class() -> None:
    Path("val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\nmy photo.JPEG 970\n")
    assert rows("val.txt", "val") == [("val/ILSVRC2012_val_00000001.JPEG", "65"), ("val/my photo.JPEG", "970")]
    assert LabelledList("val.txt").counts == {"65": 1, "970": 1}


def test_paths_keep_their_bytes_and_are_urls_where_they_look_like_it() -> None:
    Path("t.csv").write_bytes(b"h\xff.jpg,cat\n/abs.jpg,dog\nhttps://x.org/a.jpg,cat\nh\xff.jpg,cat\n")
    found = LabelledList("t.csv", "in")
    images = list(found.images())
    assert [image.source.path for image in images] == [
        "in/h\udcff.jpg",
        "/abs.jpg",
        "https://x.org/a.jpg",
        "in/h\udcff.jpg",
    ]
    assert [image.source.kind for image in images] == [Kind.FILE, Kind.FILE, Kind.URL, Kind.FILE]
    assert found.names == ["cat", "dog"]
    assert found.repeated == 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a.jpg,cat\nb.jpg,cat\na.jpg,dog\n", "t.csv, line 3: a.jpg is 'dog' here, and 'cat' in a line before"),
        (b"path,label,label\na.jpg,cat,dog\n", "t.csv, line 1: two columns are called label"),
        (b"a.jpg,cat\nb.jpg,\n", "t.csv, line 2: there is no label"),
        (b"a.jpg,cat\n\nb.jpg\n", "t.csv, line 3: there is no label"),
        (b"path,label\n,cat\n", "t.csv, line 2: there is no path"),
        (b"a.jpg,tabby, tabby cat\n", "t.csv, line 1: 3 fields, not 2"),
        (b'path,label\n"a\nb.jpg",cat\nc.jpg,tabby, cat\n', "t.csv, line 4: 3 fields, not 2"),
        (b'a.jpg,"cat\n', "t.csv, line 1: a field's quotes are not as RFC 4180 has them (unexpected end of data)"),
        (b"a.jpg\nb.jpg\n", "t.csv, line 1: there is no label, only 'a.jpg'"),
        (b"", "there is nothing in t.csv: it is to have a line an image, its path and its label"),
        (b"\xff\xfea\0,\0", "the table t.csv is in UTF-16"),
        (b"a\0b,c", "t.csv is not a table of paths and labels: it holds binary data"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "t.csv is an image, not a table of paths and labels"),
        (None, "cannot read the list t.csv: No such file or directory"),
    ],
)
def test_what_is_no_table_is_refused_by_its_line(data: bytes | None, told: str) -> None:
    if data is not None:
        Path("t.csv").write_bytes(data)
    with pytest.raises(UsageError) as raised:
        LabelledList("t.csv")
    assert raised.value.message == told
