"""A folder a class → its images, each with the class that it is said to show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from hiera_cli.inputs import find
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Source
from hiera_cli.inputs.walk import Walk


@dataclass(frozen=True)
class Labelled:
    """An input, and the name of what it is said to show."""

    source: Source
    label: str


@dataclass
class ClassFolders:
    """The folders in a folder: each has the images of one class, in folders of its own as well.

    folder: as the user gave it. walk: what is taken in it. warn: told what the walk meets. skipped: counts what the
    walk passes over. names: of the classes, in the order of their bytes. Raises InputError if it can't be listed.
    """

    folder: str
    walk: Walk
    warn: find.Warn
    skipped: Skipped

    def __post_init__(self) -> None:
        self.names = find.folders(self.folder, self.walk)
        self.loose = 0  # images that lie in none of them, so far

    def images(self, left_out: frozenset[str] = frozenset()) -> Iterator[Labelled]:
        """Their images in order, found as they are asked for. left_out: classes of which none is wanted."""
        before = len(os.path.join(self.folder, ""))
        for source in find.expand([self.folder], self.walk, self.warn, skipped=self.skipped):
            name, below, _ = source.path[before:].partition(os.sep)
            if not below and name not in self.names:
                self.loose += 1
            elif name not in left_out:
                yield Labelled(source, name)
