"""A folder a class: its images, each with the class that it is said to show."""

from __future__ import annotations

from pathlib import Path

from hiera_cli.evaluation.intervals import Interval, wilson
from hiera_cli.inputs.labelled import ClassFolders
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.walk import Walk


def folders(folder: str, **taken: object) -> ClassFolders:
    walk = Walk(lambda: frozenset({".jpg"}), **taken)  # type: ignore[arg-type]
    return ClassFolders(folder, walk, lambda warning: None, Skipped())


def labelled(found: ClassFolders, left_out: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    return [(image.source.path, image.label) for image in found.images(left_out)]


def test_images_have_the_class_of_the_folder_right_below_the_one_that_is_named(tmp_path: Path) -> None:
    for name in ("dog/a.jpg", "cat/older/b.jpg", "cat/c.txt", "empty/", ".hidden/d.jpg", "loose.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).touch()
    for named in (f"{tmp_path}", f"{tmp_path}/"):
        found = folders(named)
        assert found.names == ["cat", "dog", "empty"]
        assert labelled(found) == [(f"{tmp_path}/cat/older/b.jpg", "cat"), (f"{tmp_path}/dog/a.jpg", "dog")]
        assert found.loose == 1
    assert labelled(folders(f"{tmp_path}"), frozenset({"cat"})) == [(f"{tmp_path}/dog/a.jpg", "dog")]
    assert folders(f"{tmp_path}", hidden=True).names == [".hidden", "cat", "dog", "empty"]
    assert folders(f"{tmp_path}", exclude=("do*",)).names == ["cat", "empty"]


def test_intervals_are_wilsons() -> None:
    # The published example: 95% of 0 of 10, 1 of 10 and 5 of 10 by the score method.
    assert wilson(0, 0) == Interval(0, 1)
    for right, of, low, high in ((0, 10, 0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634)):
        assert [round(bound, 4) for bound in wilson(right, of)] == [low, high]
    assert wilson(10, 10).high == 1
