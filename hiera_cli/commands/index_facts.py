"""What `hiera index --status` tells, as a record."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hiera_cli.index.store import Index
from hiera_cli.system.utf8 import name_fields


@dataclass(frozen=True)
class IndexedModel:
    """What an index has of one model. sha256: of its weights."""

    model: str
    sha256: str
    photos: int
    errors: int


@dataclass(frozen=True)
class IndexedFolder:
    """What an index has of the files right in one folder."""

    path: str
    path_bytes: str | None
    photos: int
    errors: int


@dataclass(frozen=True)
class FailedFile:
    """A file that has no features, and why."""

    path: str
    path_bytes: str | None
    type: str
    message: str


@dataclass(frozen=True)
class IndexFacts:
    """What an index has. bytes: its size on the disk."""

    index: str
    bytes: int
    photos: int
    errors: int
    models: tuple[IndexedModel, ...]
    folders: tuple[IndexedFolder, ...]
    failed: tuple[FailedFile, ...]


def index_facts(path: str) -> IndexFacts:
    """Of the index at a path. Raises OutputError."""
    with Index(path) as opened:
        folders = opened.by_folder()
        return IndexFacts(
            path,
            opened.bytes(),
            sum(each.photos for each in folders),
            sum(each.errors for each in folders),
            tuple(IndexedModel(each.name, each.digest, each.photos, each.errors) for each in opened.models()),
            tuple(IndexedFolder(*name_fields(os.fsdecode(each.path)), each.photos, each.errors) for each in folders),
            tuple(FailedFile(*name_fields(os.fsdecode(path)), *why) for path, *why in opened.failed()),
        )
