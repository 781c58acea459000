"""Arguments, folders and lists → the inputs: the right ones, in order, one by one, whatever is in the way."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from test_fuzz import FORMATS

import hiera_cli.inputs.find
from hiera_cli.commands import remedies
from hiera_cli.commands.skipped_lines import skipped_lines
from hiera_cli.errors import InputError, NotFoundError, ReadError, UsageError
from hiera_cli.inputs.find import count, expand
from hiera_cli.inputs.lists import read_list
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source, descriptor
from hiera_cli.inputs.walk import Walk

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
WALK = Walk(lambda: SUFFIXES)


def walk(exclude: tuple[str, ...] = (), *, hidden: bool = False, follow: bool = False) -> Walk:
    return Walk(lambda: SUFFIXES, exclude, hidden, follow)


class Found(list[str]):
    """The paths that arguments expand to. errors: those that came with a Source, by path. warnings: what was said."""

    def __init__(self, *arguments: str, walk: Walk = WALK) -> None:
        self.warnings: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.skipped = Skipped(tell=lambda path, why: self.told.append((path, why)))
        found = expand(arguments, walk, self.warnings.append, skipped=self.skipped)
        sources = list(islice(found, 1000))  # a walk in circles ends, too
        super().__init__(source.path for source in sources)
        self.errors = {source.path: source.error for source in sources if source.error}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make empty files, and the folders that they are in, below the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(*files: str) -> None:
        for file in files:
            os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
            with open(file, "wb"):
                pass

    return make


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that have been listed so far."""
    folders: list[str] = []
    scandir = os.scandir

    def recording(folder: str) -> object:
        folders.append(os.path.normpath(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", recording)
    return folders


def in_format(format: str) -> bytes:
    """A picture."""
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), "red").save(stream, format)
    return stream.getvalue()


# Arguments


def test_what_is_no_folder_is_taken_as_it_stands_and_no_folder_walk_is_prepared(tree: Callable[..., None]) -> None:
    tree("cat.jpg", "notes.txt", ".hidden", "none", "x.png")
    os.mkfifo("pipe")
    arguments = ["cat.jpg", "notes.txt", "./.hidden", "none", "x.png", "missing.jpg", "pipe", "", "a\0b", "cat.jpg"]

    def suffixes() -> frozenset[str]:
        raise AssertionError("asked for without need: Pillow has to be loaded for it")

    found = list(expand(arguments, Walk(suffixes, exclude=("*.png",)), pytest.fail))
    assert found == [Source(argument, Kind.FILE, None) for argument in arguments]


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("http://example.com/cat.jpg", Kind.URL),
        ("https://example.com/cat.jpg?size=1#top", Kind.URL),
        ("HTTP://EXAMPLE.COM/CAT.JPG", Kind.URL),
        ("ftp://example.com/cat.jpg", Kind.URL),
        ("file:///etc/passwd", Kind.URL),
        ("s3://bucket/cat.jpg", Kind.CLOUD),
        ("http://", Kind.URL),
        ("http:/example.com/cat.jpg", Kind.FILE),
        ("./http://example.com/cat.jpg", Kind.FILE),
        ("data:image/png;base64,AAAA", Kind.FILE),
        ("C:\\cat.jpg", Kind.FILE),
        ("://cat.jpg", Kind.FILE),
        ("--", Kind.FILE),
        ("./-", Kind.FILE),
        ("-", Kind.STDIN),
    ],
)
def test_urls_and_stdin_are_told_from_files(argument: str, kind: Kind) -> None:
    assert list(expand([argument], WALK, pytest.fail)) == [Source(argument, kind)]


def test_stdin_named_twice_is_an_error_the_second_time() -> None:
    first, between, second = expand(["-", "cat.jpg", "-"], WALK, pytest.fail)
    assert (first, between) == (Source("-", Kind.STDIN), Source("cat.jpg"))
    assert (second.path, second.kind, type(second.error)) == ("-", Kind.STDIN, ReadError)
    assert str(second.error) == "stdin was read already"


def test_stdin_that_the_list_came_from_is_no_image_as_well() -> None:
    (source,) = expand(["-"], WALK, pytest.fail, stdin_taken=True)
    assert (source.path, source.kind, type(source.error)) == ("-", Kind.STDIN, ReadError)


def test_a_pipe_that_the_user_opened_is_an_input_under_the_name_of_its_descriptor(tmp_path: Path, stdin: int) -> None:
    reader, writer = os.pipe()
    own = f"/dev/fd/{reader}"
    assert (descriptor("-"), descriptor("/dev/stdin"), descriptor("/dev/fd/0")) == (0, 0, 0)
    assert descriptor(own) is None  # opened here: not what a shell hands on
    os.set_inheritable(reader, True)
    assert (descriptor(own), descriptor(f"/proc/self/fd/{reader}")) == (reader, reader)
    (tmp_path / "a.jpg").touch()
    with open(tmp_path / "a.jpg", "rb") as file:
        os.set_inheritable(file.fileno(), True)
        assert descriptor(f"/dev/fd/{file.fileno()}") is None  # it is read as a file, as often as it is named
    found = list(expand([own, "/dev/fd/0", own, "-"], WALK, pytest.fail))
    assert [(source.kind, str(source.error)) for source in found] == [
        (Kind.DESCRIPTOR, "None"),
        (Kind.STDIN, "None"),
        (Kind.DESCRIPTOR, "it was read already"),
        (Kind.STDIN, "stdin was read already"),
    ]
    os.close(reader)
    os.close(writer)
    for name in (own, "/dev/fd/", "/dev/fd/x", "/dev/fd/999999999", "/dev/fd/9999999999", "/dev/null", "dev/fd/0", ""):
        assert descriptor(name) is None


def test_arguments_are_taken_one_by_one_as_they_are_needed(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg", "photos/b.jpg")
    taken: list[str] = []

    def arguments() -> Iterator[str]:
        for argument in ("cat.jpg", "photos", "dog.jpg"):
            taken.append(argument)
            yield argument

    sources = expand(arguments(), WALK, pytest.fail)
    assert taken == []
    assert [next(sources).path, next(sources).path] == ["cat.jpg", "photos/a.jpg"]
    assert taken == ["cat.jpg", "photos"]


# Folders


def test_a_folder_is_walked_depth_first_by_name(tree: Callable[..., None]) -> None:
    tree("photos/b/z.jpg", "photos/b/a/x.jpg", "photos/c.jpg", "photos/a.jpg", "photos/B.jpg", "photos/b.jpg")
    tree("photos/10.jpg", "photos/9.jpg", "photos/é.jpg", "photos/b-1.jpg")
    assert Found("photos") == [
        "photos/10.jpg",
        "photos/9.jpg",
        "photos/B.jpg",
        "photos/a.jpg",
        "photos/b/a/x.jpg",
        "photos/b/z.jpg",
        "photos/b-1.jpg",
        "photos/b.jpg",
        "photos/c.jpg",
        "photos/é.jpg",
    ]


@pytest.mark.parametrize(
    ("folder", "start"),
    [
        ("photos", "photos/"),
        ("photos/", "photos/"),
        ("./photos", "./photos/"),
        ("photos/.", "photos/./"),
        ("photos//", "photos//"),
        ("../here/photos", "../here/photos/"),
        (".", "./photos/"),
        ("./", "./photos/"),
    ],
)
def test_a_path_is_the_folder_as_it_was_typed_joined_with_the_rest(
    tree: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, start: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tree("photos/a.jpg", "photos/b/c.jpg")
    assert Found(folder) == [f"{start}a.jpg", f"{start}b/c.jpg"]


def test_an_absolute_folder_gives_absolute_paths(tree: Callable[..., None], tmp_path: Path) -> None:
    tree("photos/a.jpg")
    assert Found(str(tmp_path)) == [f"{tmp_path}/photos/a.jpg"]


def test_a_folder_named_twice_is_walked_twice(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg")
    assert Found("photos", "photos/a.jpg", "photos") == ["photos/a.jpg"] * 3


def test_suffixes_are_matched_without_case_and_other_files_are_passed_over(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg", "photos/b.JPG", "photos/c.Jpeg", "photos/d.tar.png")
    tree("photos/e.txt", "photos/f", "photos/jpg", "photos/g.jpg.bak", "photos/h.jpg~", "photos/i.", "photos/j.jpg ")
    assert Found("photos") == ["photos/a.jpg", "photos/b.JPG", "photos/c.Jpeg", "photos/d.tar.png"]


def test_a_folder_with_the_suffix_of_an_image_is_walked_and_not_read(tree: Callable[..., None]) -> None:
    tree("photos/album.jpg/a.jpg")
    assert Found("photos") == ["photos/album.jpg/a.jpg"]


HIDDEN = ("photos/.a.jpg", "photos/._b.jpg", "photos/.thumbs/c.jpg", "photos/d/.e/f/g.jpg")


def test_hidden_files_and_folders_are_passed_over(tree: Callable[..., None]) -> None:
    tree(*HIDDEN, "photos/b.jpg", "photos/d/h.jpg")
    assert Found("photos") == ["photos/b.jpg", "photos/d/h.jpg"]


def test_hidden_files_and_folders_are_taken_where_that_is_asked_for(tree: Callable[..., None]) -> None:
    tree(*HIDDEN, "photos/b.jpg", "photos/.notes")
    assert Found("photos", walk=walk(hidden=True)) == [
        "photos/._b.jpg",
        "photos/.a.jpg",
        "photos/.thumbs/c.jpg",
        "photos/b.jpg",
        "photos/d/.e/f/g.jpg",
    ]


def test_a_hidden_folder_that_is_named_outright_is_walked(tree: Callable[..., None]) -> None:
    tree(".photos/a.jpg", ".photos/.b.jpg")
    assert Found(".photos", "./.photos/") == [".photos/a.jpg", "./.photos/a.jpg"]


@pytest.mark.parametrize(
    "name", ["two  words.jpg", "new\nline.jpg", "🐈‍⬛.jpg", " .jpg", "[a]*?.jpg", "-k.jpg", "\x1b[31m.jpg"]
)
def test_odd_names_lead_back_to_their_files(tree: Callable[..., None], name: str) -> None:
    tree(f"photos/{name}", f"photos/{name}.d/{name}")
    found = Found("photos")
    assert found == [f"photos/{name}", f"photos/{name}.d/{name}"]
    assert all(os.path.isfile(path) for path in found)


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system refuses such names")
def test_names_that_are_no_utf8_lead_back_to_their_files(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg")
    os.mkdir(b"photos/caf\xe9")
    for name in (b"photos/caf\xe9/\xff\xfe.JPG", b"photos/\x80.png"):
        with open(name, "wb"):
            pass
    found = Found("photos")
    assert [os.fsencode(path) for path in found] == [
        b"photos/a.jpg",
        b"photos/caf\xe9/\xff\xfe.JPG",
        b"photos/\x80.png",
    ]
    assert all(os.path.isfile(os.fsencode(path)) and os.path.isfile(path) for path in found)


def in_order(folder: str) -> Iterator[str]:
    """What a walk is to find, in plain words."""
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            yield from in_order(path)
        else:
            yield path


@pytest.mark.parametrize("run", [1, 2, 3, 5, 1 << 13])
def test_the_order_is_that_of_the_bytes_of_the_names_whatever_the_size_of_the_folder(
    tree: Callable[..., None], monkeypatch: pytest.MonkeyPatch, run: int
) -> None:
    monkeypatch.setattr(hiera_cli.inputs.find, "RUN", run)
    names = [
        "b",
        "a",
        "A",
        "ab",
        "a b",
        "a.b",
        "a-b",
        "\x01",
        "é",
        "e\u0301",
        "🐈",
        "\uffff",
        "\udcff",
        "\udc80",
        "a\n",
    ]
    tree(*(f"photos/{name}.jpg" for name in names), *(f"photos/{name}/{other}.jpg" for name in names for other in "ba"))
    assert Found("photos") == list(in_order("photos"))


class FakeEntry:
    def __init__(self, name: str) -> None:
        self.name = name

    def is_symlink(self) -> bool:
        return self.name.endswith("k.jpg")

    def is_dir(self) -> bool:
        return False


@pytest.mark.parametrize(
    "made", ["{}.jpg", "notes about nothing {}.txt", ".hidden {}.jpg", "out {}.jpg", "{}k.jpg"],
    ids=["images", "other files", "hidden", "excluded", "links"],
)  # fmt: skip
def test_a_huge_folder_takes_little_more_memory_than_the_names_that_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: str
) -> None:
    def scandir(folder: str) -> object:
        return contextlib.nullcontext(FakeEntry(made.format(number)) for number in reversed(range(20_000)))

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(hiera_cli.inputs.find, "RUN", 1000)
    tracemalloc.start()
    try:
        found = sum(1 for _ in expand([str(tmp_path)], walk(("out *",)), lambda warning: None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == (20_000 if made == "{}.jpg" else 0)
    assert peak < 1 << 19  # three times as much where names are kept as they are


# What is passed over


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_without_a_suffix_is_taken_if_it_begins_as_a_picture(tree: Callable[..., None], format: str) -> None:
    tree("photos/empty", "photos/b.txt")
    Path("photos/a").write_bytes(in_format(format))
    Path("photos/b.txt").write_bytes(in_format(format))
    Path("photos/notes").write_bytes(b"GIF89a is a format of 1989, and PNG one of 1996")
    os.mkfifo("photos/pipe")
    found = Found("photos")
    assert (found, found.skipped.suffixes) == (["photos/a"], {"": 3, ".txt": 1})
    assert count(["photos"], WALK) == 1


def test_nothing_but_files_without_a_suffix_is_opened_by_a_walk(
    tree: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("photos/empty")
    for name in ("a.jpg", "b.txt", "c", ".d", "out"):
        Path("photos", name).write_bytes(b"content")
    os.mkfifo("photos/pipe")
    os.symlink("c", "photos/link")
    opened = []

    def open_another(path: str, flags: int) -> int:
        opened.append(path)
        return os.dup(0)

    monkeypatch.setattr(os, "open", open_another)
    monkeypatch.setattr(os, "read", lambda handle, size: b"")
    assert Found("photos", walk=walk(("out",))) == ["photos/a.jpg"]
    assert opened == ["photos/c"]


def test_what_a_walk_passes_over_is_counted_and_named(tree: Callable[..., None]) -> None:
    tree(
        "photos/a.jpg", "photos/b.NEF", "photos/c.nef", "photos/d.txt", "photos/e", "photos/.thumbs/f.jpg", "more/g.nef"
    )
    os.symlink("a.jpg", "photos/link.jpg")
    os.symlink("../more", "photos/more")
    found = Found("photos", "more", walk=walk())
    assert skipped_lines(found.skipped) == [
        "skipped 5 files that are not known as images (3 .nef, 1 without suffix, 1 .txt), 2 links (--follow), "
        "1 hidden (--hidden)",
        "RAW photos are not read; convert them first, or take the previews in them: `exiftool -b -PreviewImage`",
    ]
    assert sorted(found.told) == [
        ("more/g.nef", "not known as an image"),
        ("photos/.thumbs", "hidden"),
        ("photos/b.NEF", "not known as an image"),
        ("photos/c.nef", "not known as an image"),
        ("photos/d.txt", "not known as an image"),
        ("photos/e", "not known as an image"),
        ("photos/link.jpg", "a link"),
        ("photos/more", "a link"),
    ]


def test_the_most_frequent_suffixes_are_told_and_the_others_together() -> None:
    assert skipped_lines(Skipped()) == []
    assert skipped_lines(Skipped(hidden=1234)) == ["skipped 1,234 hidden (--hidden)"]
    skipped = Skipped(links=1)
    skipped.add(".md")
    assert skipped_lines(skipped) == ["skipped 1 file that is not known as an image (1 .md), 1 link (--follow)"]
    for number in range(5000):
        skipped.add(f".{number}")
    skipped.add(".7")
    (line,) = skipped_lines(skipped)
    assert line == (
        "skipped 5,002 files that are not known as images (2 .7, 1 .0, 1 .1, 1 .10, 1 .100, 4,996 other), "
        "1 link (--follow)"
    )
    assert len(skipped.suffixes) == 1000  # however many there are, they take no more memory


# Counting


@pytest.mark.parametrize(
    "taken", [WALK, walk(hidden=True), walk(follow=True), walk(("b", "trip/*")), walk(hidden=True, follow=True)],
    ids=["plain", "hidden", "follow", "exclude", "hidden and follow"],
)  # fmt: skip
def test_as_many_inputs_are_counted_as_are_found(
    tree: Callable[..., None], monkeypatch: pytest.MonkeyPatch, taken: Walk
) -> None:
    tree(
        "photos/a.jpg", "photos/.b.jpg", "photos/notes.txt", "photos/trip/c.jpg", "photos/b/.d/e.jpg", "photos/b/f.png"
    )
    tree("photos/locked/g.jpg", "empty/notes.txt", ".hidden/h.jpg", "cat.jpg")
    os.symlink("..", "photos/b/up")
    os.symlink("../.hidden", "photos/link")
    os.symlink("nowhere", "photos/broken.jpg")
    os.symlink("../cat.jpg", "photos/b/link without suffix")
    Path("photos/picture").write_bytes(in_format("PNG"))
    deny(monkeypatch, "photos/locked", PermissionError(13, "Permission denied"))
    arguments = ["photos", "-", "http://example.com/", "cat.jpg", "-", "missing", "empty", ".hidden", "", "photos/b"]
    assert count(iter(arguments), taken) == len(list(expand(arguments, taken, lambda warning: None)))


def test_counting_takes_no_more_memory_with_more_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entries = (FakeEntry(f"{number}.jpg") for number in range(20_000))
    monkeypatch.setattr(os, "scandir", lambda folder: contextlib.nullcontext(entries))
    tracemalloc.start()
    try:
        assert count([str(tmp_path)], WALK) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16


# Links


def test_links_in_a_folder_are_not_followed(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg", "elsewhere/b.jpg")
    os.symlink("../elsewhere", "photos/folder")
    os.symlink("../elsewhere/b.jpg", "photos/file.jpg")
    os.symlink("nowhere", "photos/broken.jpg")
    os.symlink(".", "photos/loop")
    found = Found("photos")
    assert (found, found.warnings) == (["photos/a.jpg"], [])


def test_links_in_a_folder_are_followed_where_that_is_asked_for(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg", "elsewhere/b.jpg")
    os.symlink("../elsewhere", "photos/folder")
    os.symlink("../elsewhere/b.jpg", "photos/file.jpg")
    found = Found("photos", walk=walk(follow=True))
    assert (found, found.warnings) == (["photos/a.jpg", "photos/file.jpg", "photos/folder/b.jpg"], [])


def test_a_link_that_is_named_outright_is_followed_without_asking(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg")
    os.symlink("photos", "link")
    os.symlink("photos/a.jpg", "link.jpg")
    assert Found("link", "link/", "link.jpg") == ["link/a.jpg", "link/a.jpg", "link.jpg"]


def test_links_that_lead_back_to_a_folder_above_end_with_a_warning_and_give_each_file_once(
    tree: Callable[..., None],
) -> None:
    tree("photos/a.jpg", "photos/b/c.jpg", "photos/z.jpg")
    os.symlink(".", "photos/b/itself")
    os.symlink("..", "photos/b/up")
    os.symlink(os.path.abspath("photos"), "photos/y")
    found = Found("photos", walk=walk(follow=True))
    assert found == ["photos/a.jpg", "photos/b/c.jpg", "photos/z.jpg"]
    assert found.warnings == [
        "photos/b/itself: skipped, the link leads back to a folder above it",
        "photos/b/up: skipped, the link leads back to a folder above it",
        "photos/y: skipped, the link leads back to a folder above it",
    ]


def test_two_links_to_one_folder_are_no_loop(tree: Callable[..., None]) -> None:
    tree("elsewhere/a.jpg")
    os.mkdir("photos")
    os.symlink("../elsewhere", "photos/one")
    os.symlink("../elsewhere", "photos/two")
    found = Found("photos", walk=walk(follow=True))
    assert (found, found.warnings) == (["photos/one/a.jpg", "photos/two/a.jpg"], [])


def test_a_broken_link_is_an_input_if_its_name_is_that_of_an_image(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg")
    os.symlink("nowhere", "photos/broken.jpg")
    os.symlink("nowhere", "photos/folder")
    os.symlink("itself.png", "photos/itself.png")
    os.symlink("itself", "photos/itself")
    found = Found("photos", walk=walk(follow=True))
    assert (found, found.errors) == (["photos/a.jpg", "photos/broken.jpg", "photos/itself.png"], {})


# --exclude

EXCLUDABLE = ["a.jpg", "a.png", "raw/a.jpg", "raw/b.jpg", "trip/a.jpg", "trip/raw/a.jpg", "trip/raw/deep/b.jpg"]


@pytest.mark.parametrize(
    ("globs", "left"),
    [
        ((), EXCLUDABLE),
        (("*.png",), ["a.jpg", "raw/a.jpg", "raw/b.jpg", "trip/a.jpg", "trip/raw/a.jpg", "trip/raw/deep/b.jpg"]),
        (("*.PNG", "A.*"), EXCLUDABLE),
        (("a.*",), ["raw/b.jpg", "trip/raw/deep/b.jpg"]),
        (("a.jp[gG]", "?.png"), ["raw/b.jpg", "trip/raw/deep/b.jpg"]),
        (("raw",), ["a.jpg", "a.png", "trip/a.jpg"]),
        (("r*",), ["a.jpg", "a.png", "trip/a.jpg"]),
        (("trip/raw",), ["a.jpg", "a.png", "raw/a.jpg", "raw/b.jpg", "trip/a.jpg"]),
        (("trip/*",), ["a.jpg", "a.png", "raw/a.jpg", "raw/b.jpg"]),
        (("trip/*.jpg",), ["a.jpg", "a.png", "raw/a.jpg", "raw/b.jpg"]),
        (("raw/a.jpg",), ["a.jpg", "a.png", "raw/b.jpg", "trip/a.jpg", "trip/raw/a.jpg", "trip/raw/deep/b.jpg"]),
        (("*/raw",), ["a.jpg", "a.png", "trip/a.jpg"]),
        (("/a.jpg",), ["a.png", "raw/a.jpg", "raw/b.jpg", "trip/a.jpg", "trip/raw/a.jpg", "trip/raw/deep/b.jpg"]),
        (("photos/a.jpg",), ["a.png", *EXCLUDABLE[2:]]),
        (("./photos/r*",), ["a.jpg", "a.png", "trip/a.jpg", "trip/raw/a.jpg", "trip/raw/deep/b.jpg"]),
        (("photos/trip/",), ["a.jpg", "a.png", "raw/a.jpg", "raw/b.jpg"]),
        (("**/raw",), ["a.jpg", "a.png", "trip/a.jpg"]),
        (("trip/**/b.jpg", "raw/**"), ["a.jpg", "a.png", "trip/a.jpg", "trip/raw/a.jpg"]),
        (("photos", "hotos/a.jpg", "x/photos/a.jpg"), EXCLUDABLE),
        (("trip", "raw", "a.png"), ["a.jpg"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
@pytest.mark.parametrize("folder", ["photos/", "./photos/"])
def test_exclude_holds_a_glob_against_names_and_one_with_a_slash_against_paths_below_the_folder_and_as_printed(
    tree: Callable[..., None], folder: str, globs: tuple[str, ...], left: list[str]
) -> None:
    tree(*(f"photos/{path}" for path in EXCLUDABLE))
    assert Found(folder, walk=walk(globs)) == [folder + path for path in left]


def test_exclude_takes_absolute_paths_and_those_of_the_working_folder(
    tree: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("photos/a.jpg", "photos/b/a.jpg", "photos/b/c.jpg")
    absolute = f"{tmp_path}/photos"
    assert Found(absolute, walk=walk((f"{absolute}/a*",))) == [f"{absolute}/b/a.jpg", f"{absolute}/b/c.jpg"]
    assert Found(".", walk=walk(("photos/b/a*",))) == ["./photos/a.jpg", "./photos/b/c.jpg"]
    named_outright = f"{absolute}/b"
    assert len(Found(named_outright, walk=walk(("*/photos/*", "photos/*")))) == 2
    monkeypatch.chdir("photos")
    assert Found("../photos", walk=walk(("../photos/b",))) == ["../photos/a.jpg"]


def test_the_globs_that_excluded_something_are_known_each(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg", "photos/.b.jpg", "photos/c.nef", "photos/trip/d.jpg")
    globs = ("a.*", "*.jpg", "photos/a.jpg", ".b*", "*.nef", "trip/*", "x", "photos/x*")
    skipped = Found("photos", walk=walk(globs)).skipped
    assert [glob for glob in globs if glob not in skipped.globs] == ["x", "photos/x*"]
    assert (skipped.hidden, skipped.suffixes) == (0, {})  # what is excluded is asked for, and not told


def test_an_excluded_folder_is_not_even_listed(tree: Callable[..., None], listed: list[str]) -> None:
    tree("photos/a.jpg", "photos/cache/deep/b.jpg", "photos/trip/cache/c.jpg")
    assert Found("photos", walk=walk(("cache",))) == ["photos/a.jpg"]
    assert listed == ["photos", "photos/trip"]


# What goes wrong on the way


def deny(monkeypatch: pytest.MonkeyPatch, denied: str, error: OSError) -> None:
    """Have the listing of one folder fail."""
    scandir = os.scandir

    def failing(folder: str) -> object:
        if os.path.normpath(folder) == denied:
            raise error
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)


def test_a_folder_that_can_not_be_listed_is_an_error_in_its_place_and_the_rest_go_on(
    tree: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("photos/a.jpg", "photos/locked/b.jpg", "photos/z.jpg")
    deny(monkeypatch, "photos/locked", PermissionError(13, "Permission denied"))
    found = Found("photos", "dog.jpg")
    assert (found, found.warnings) == (["photos/a.jpg", "photos/locked", "photos/z.jpg", "dog.jpg"], [])
    assert described(found.errors) == {"photos/locked": (ReadError, "cannot list the folder: Permission denied")}


@pytest.mark.parametrize("folder", ["photos", "photos/", "./photos"])
def test_a_folder_named_outright_that_can_not_be_listed_keeps_the_path_that_was_typed(
    tree: Callable[..., None], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    tree("photos/a.jpg")
    deny(monkeypatch, "photos", PermissionError(13, "Permission denied"))
    found = Found(folder)
    assert (found, found.warnings) == ([folder], [])
    assert described(found.errors) == {folder: (ReadError, "cannot list the folder: Permission denied")}


def described(errors: dict[str, InputError]) -> dict[str, tuple[type[InputError], str]]:
    return {path: (type(error), str(error)) for path, error in errors.items()}


def test_a_folder_that_vanishes_during_the_walk_is_an_error_and_the_rest_go_on(tree: Callable[..., None]) -> None:
    tree("photos/a.jpg", "photos/b/c.jpg", "photos/d/e.jpg", "photos/z.jpg")
    sources = expand(["photos"], WALK, pytest.fail)
    first = next(sources)
    shutil.rmtree("photos/b")
    rest = list(sources)
    assert first == Source("photos/a.jpg")
    assert [source.path for source in rest] == ["photos/b", "photos/d/e.jpg", "photos/z.jpg"]
    assert [type(source.error) for source in rest] == [NotFoundError, type(None), type(None)]
    assert str(rest[0].error) == "cannot list the folder: No such file or directory"


@pytest.mark.parametrize("folder", ["photos", "photos/", "./photos"])
def test_a_folder_without_images_is_warned_of_once_by_its_name(tree: Callable[..., None], folder: str) -> None:
    tree("photos/notes.txt", "photos/.hidden.jpg", "photos/b/out.jpg", "photos/c/d/e.txt")
    found = Found("cat.jpg", folder, "dog.jpg", walk=walk(("out.jpg",)))
    assert (found, found.warnings) == (["cat.jpg", "dog.jpg"], [f"{folder}: no images in this folder"])


def test_the_first_image_of_a_huge_tree_is_there_before_later_folders_are_listed(
    tree: Callable[..., None], listed: list[str]
) -> None:
    tree("photos/a/1.jpg", "photos/a/2.jpg", "photos/b/3.jpg", "photos/c/4.jpg", "more/5.jpg")
    sources = expand(["photos", "more"], WALK, pytest.fail)
    assert listed == []
    assert (next(sources).path, listed) == ("photos/a/1.jpg", ["photos", "photos/a"])
    assert [next(sources).path, next(sources).path] == ["photos/a/2.jpg", "photos/b/3.jpg"]
    assert listed == ["photos", "photos/a", "photos/b"]
    assert [source.path for source in sources] == ["photos/c/4.jpg", "more/5.jpg"]


def test_a_folder_deeper_than_python_recurses_is_walked_to_its_end(tree: Callable[..., None]) -> None:
    tree("d/" * 200 + "a.jpg", "d/z.jpg")
    limit, depth, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1
    sys.setrecursionlimit(depth + 100)  # as 1100 folders are to the usual limit
    try:
        found = Found("d")
    finally:
        sys.setrecursionlimit(limit)
    assert found == ["d/" * 200 + "a.jpg", "d/z.jpg"]


# Lists


@pytest.mark.parametrize(
    ("content", "separator", "paths"),
    [
        (b"a.jpg\nb c.jpg\n", b"\n", ["a.jpg", "b c.jpg"]),
        (b"a.jpg\nb.jpg", b"\n", ["a.jpg", "b.jpg"]),
        (b"a.jpg\r\nb.jpg\r\n", b"\n", ["a.jpg", "b.jpg"]),
        (b"a.jpg\r\nb.jpg\r", b"\n", ["a.jpg", "b.jpg"]),
        (b"\n\r\na.jpg\n\n\r\n\nb.jpg\n\n", b"\n", ["a.jpg", "b.jpg"]),
        (b" a.jpg \n#b.jpg\n-\n\"c.jpg\"\n", b"\n", [" a.jpg ", "#b.jpg", "-", '"c.jpg"']),
        (b"a\rb.jpg\n", b"\n", ["a\rb.jpg"]),
        (b"", b"\n", []),
        (b"\n", b"\n", []),
        (b"caf\xe9.jpg\n\xff\n", b"\n", ["caf\udce9.jpg", "\udcff"]),
        ("🐈.jpg\n".encode(), b"\n", ["🐈.jpg"]),
        (b"a.jpg\0b.jpg\0", b"\0", ["a.jpg", "b.jpg"]),
        (b"a.jpg\0b.jpg", b"\0", ["a.jpg", "b.jpg"]),
        (b"a\nb.jpg\0c.jpg\n\0\n\0", b"\0", ["a\nb.jpg", "c.jpg\n", "\n"]),
        (b"a.jpg\r\0", b"\0", ["a.jpg\r"]),
        (b"a.jpg\0\0\0b.jpg", b"\0", ["a.jpg", "b.jpg"]),
        (b"caf\xe9.jpg\0", b"\0", ["caf\udce9.jpg"]),
        (b"", b"\0", []),
    ],
)  # fmt: skip
def test_a_list_is_split_at_its_separator_and_nothing_else_is_changed(
    tmp_path: Path, content: bytes, separator: bytes, paths: list[str]
) -> None:
    (tmp_path / "list").write_bytes(content)
    assert list(read_list(str(tmp_path / "list"), separator)) == paths


@pytest.mark.parametrize("separator", [b"\n", b"\0"], ids=["newline", "NUL"])
def test_a_long_list_comes_whole_whatever_the_sizes_of_the_pieces_it_is_read_in(
    tmp_path: Path, separator: bytes
) -> None:
    paths = [f"{number}-{'x' * (number * 37 % 3001)}-é.jpg" for number in range(500)]
    (tmp_path / "list").write_bytes(separator.join(map(os.fsencode, paths)))
    assert list(read_list(str(tmp_path / "list"), separator)) == paths


@pytest.mark.parametrize("name", ["missing", "photos"])
def test_a_list_that_can_not_be_read_is_a_usage_error_that_names_it(tree: Callable[..., None], name: str) -> None:
    tree("photos/a.jpg")
    with pytest.raises(UsageError) as caught:
        list(read_list(name, b"\n"))
    assert (str(caught.value), remedies.hint(caught.value)) == {
        "missing": ("cannot read the list missing: No such file or directory", ""),
        "photos": ("photos is a folder, not a list of paths", "Name it as an input: `hiera classify photos`."),
    }[name]


@pytest.mark.parametrize(
    ("content", "separator", "said"),
    [
        (
            b"a.jpg\0b.jpg\0",
            b"\n",
            "list is not a list of one path a line: there are NULs in it\n"
            "Did you mean --files0-from list? It reads a list as `find -print0` writes it.",
        ),
        (
            b"a.jpg\nb.jpg\n",
            b"\0",
            "there is no NUL in the list list\nDid you mean --files-from list? It reads a list of one path a line.",
        ),
        (
            "a.jpg\nb.jpg\n".encode("utf-16"),
            b"\n",
            "the list list is in UTF-16\nSave it as UTF-8: `iconv -f UTF-16 -t UTF-8`.",
        ),
        (b"PK\x03\x04\x14\0\0\0", b"\n", "list is not a list of paths: it is a ZIP archive\n"),
        (b"a.jpg".ljust(257, b"\0") + b"ustar\0", b"\0", "list is not a list of paths: it is a tar archive\n"),
        (b"%PDF-1.7\n", b"\n", "list is not a list of paths: it is a PDF\n"),
        (b"\x01\x02\0\0", b"\n", "list is not a list of paths: it holds binary data\n"),
        (b"a" * (2 << 20), b"\n", "list is not a list of paths: there is no path in a mebibyte of it\n"),
    ],
    ids=["NULs", "lines", "UTF-16", "ZIP", "tar", "PDF", "binary", "one endless line"],
)
def test_what_is_no_list_of_this_kind_is_a_usage_error_and_names_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, separator: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list").write_bytes(content)
    paths = []
    with pytest.raises(UsageError) as caught:
        for path in read_list("list", separator):
            paths.append(path)
    assert (f"{caught.value}\n{remedies.hint(caught.value)}", paths) == (said, [])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("separator", [b"\n", b"\0"], ids=["newline", "NUL"])
def test_an_image_as_a_list_is_said_to_be_one(tmp_path: Path, format: str, separator: bytes) -> None:
    (tmp_path / "a b").write_bytes(in_format(format))
    with pytest.raises(UsageError) as caught:
        list(read_list(f"{tmp_path}/a b", separator))
    assert str(caught.value) == f"{tmp_path}/a b is an image, not a list of paths"
    assert remedies.hint(caught.value) == f"Name it as an input: `hiera classify '{tmp_path}/a b'`."


def test_a_list_of_lines_without_a_last_line_end_is_told_from_one_name_with_a_line_end_in_it(
    tree: Callable[..., None],
) -> None:
    tree("a\nb.jpg")
    Path("one name").write_bytes(b"a\nb.jpg")
    Path("two lines").write_bytes(b"c.jpg\nd.jpg")
    assert list(read_list("one name", b"\0")) == ["a\nb.jpg"]
    with pytest.raises(UsageError, match="there is no NUL in the list two lines"):
        list(read_list("two lines", b"\0"))


@pytest.mark.parametrize(
    "first",
    ["GIF89a/cat.jpg", "icns/1.png", "qoif.jpg", "BMW/1.jpg", "P6 640 x.jpg", "RIFFabcdWEBP", "RAW_wide.mov", "8BPS"],
)
def test_a_path_that_begins_as_some_image_does_is_a_path(tmp_path: Path, first: str) -> None:
    for separator, name in ((b"\n", "lines"), (b"\0", "nuls")):
        (tmp_path / name).write_bytes(separator.join([first.encode(), b"b.jpg", b""]))
        assert list(read_list(str(tmp_path / name), separator)) == [first, "b.jpg"]


def test_the_mark_of_utf8_is_no_part_of_the_first_path(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes("\ufeffa.jpg\r\nb.jpg\r\n".encode())
    assert list(read_list(str(tmp_path / "list"), b"\n")) == ["a.jpg", "b.jpg"]


def test_a_nul_far_into_a_list_of_lines_costs_its_own_line_alone(tmp_path: Path) -> None:
    paths = [*(f"{number:0100}.jpg" for number in range(1000)), "a\0b", "c.jpg"]
    (tmp_path / "list").write_bytes("\n".join(paths).encode())
    assert list(read_list(str(tmp_path / "list"), b"\n")) == paths


def test_a_stdin_that_was_closed_from_the_start_is_not_taken_for_what_has_its_number_now(
    stdin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python leaves it then
    os.write(stdin, b"a.jpg\n")
    os.close(stdin)
    with pytest.raises(UsageError, match=r"^cannot read the list -: Bad file descriptor$"):
        list(read_list("-", b"\n"))


def test_a_closed_stdin_as_a_list_is_a_usage_error() -> None:
    saved = os.dup(0)
    os.close(0)
    try:
        with pytest.raises(UsageError, match=r"^cannot read the list -: "):
            list(read_list("-", b"\n"))
    finally:
        os.dup2(saved, 0)
        os.close(saved)


ENDLESS = """
import resource
from hiera_cli.errors import UsageError
from hiera_cli.inputs.lists import read_list
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    print(list(read_list("/dev/zero", {separator!r})))
except UsageError as error:
    print(error)
"""


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device here")
@pytest.mark.parametrize("separator", [b"\n", b"\0"], ids=["newline", "NUL"])
def test_a_list_that_never_ends_and_names_nothing_is_a_usage_error(separator: bytes) -> None:
    script = ENDLESS.format(separator=separator)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=5)
    assert (done.stdout.startswith("/dev/zero is not a list of "), done.stderr) == (True, "")


END = None


class Reading:
    """A list that is read on a thread."""

    def __init__(self, name: str, separator: bytes) -> None:
        self._items: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._read, args=(name, separator), daemon=True)
        self.thread.start()

    def _read(self, name: str, separator: bytes) -> None:
        try:
            for path in read_list(name, separator):
                self._items.put(path)
            self._items.put(END)
        except UsageError:
            self._items.put(UsageError)

    def next(self) -> object:
        """The next path, END or UsageError. Waits for it."""
        return self._items.get(timeout=10)

    def rest(self) -> list[object]:
        """All that comes until END or UsageError, and that."""
        items = [self.next()]
        while isinstance(items[-1], str):
            items.append(self.next())
        return items


@pytest.fixture
def stdin() -> Iterator[int]:
    """A pipe into stdin. Its other end."""
    saved = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    yield writer
    os.dup2(saved, 0)
    os.close(saved)


@pytest.mark.parametrize("separator", [b"\n", b"\0"], ids=["newline", "NUL"])
def test_a_list_on_stdin_gives_each_path_as_soon_as_its_separator_arrives(stdin: int, separator: bytes) -> None:
    reading = Reading("-", separator)
    os.write(stdin, b"a.jpg" + separator)
    assert reading.next() == "a.jpg"
    os.write(stdin, b"b.jpg" + separator + b"c")
    assert reading.next() == "b.jpg"
    os.write(stdin, b".jpg" + separator)
    assert reading.next() == "c.jpg"
    os.write(stdin, b"d.jpg")
    os.close(stdin)
    assert reading.rest() == ["d.jpg", END]
    os.fstat(0)  # still open: it is not the list's to close


def test_a_list_in_a_named_pipe_gives_each_path_as_soon_as_its_separator_arrives(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list")
    reading = Reading(str(tmp_path / "list"), b"\n")
    with open(tmp_path / "list", "wb", buffering=0) as writer:
        writer.write(b"a.jpg\n")
        assert reading.next() == "a.jpg"
        writer.write(b"b.jpg\n")
        assert reading.next() == "b.jpg"
    assert reading.rest() == [END]


def test_a_list_on_a_stdin_that_does_not_block_is_not_cut_short_in_silence(stdin: int) -> None:
    os.set_blocking(0, False)  # as a parent that shares the pipe, such as node, leaves it
    os.write(stdin, b"a.jpg\n")
    reading = Reading("-", b"\n")
    assert reading.next() == "a.jpg"
    reading.thread.join(0.3)  # now it finds the pipe empty, and either waits for more or says so
    os.write(stdin, b"b.jpg\n")
    os.close(stdin)
    assert reading.rest() in (["b.jpg", END], [UsageError])
