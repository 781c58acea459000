"""What has changed in folders since the index saw them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hiera_cli.index.store import Index, Row
from hiera_cli.inputs import find
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Source
from hiera_cli.inputs.walk import Walk

# Errors that an unchanged file keeps. The others may be gone without a change: permissions, limits, memory.
LASTING = frozenset({"DecodeError"})


@dataclass(frozen=True)
class Root:
    """A folder or file that was named. given: as it is printed, "" for the current folder. real: where it is."""

    given: str
    real: str

    @staticmethod
    def of(given: str) -> Root:
        """A name, "" for the current folder. Of a file only the folder is resolved: a link to one is itself a photo."""
        folder, name = os.path.split(given)
        if os.path.isdir(given or os.curdir) or not name:
            return Root(given, os.path.realpath(given or os.curdir))
        return Root(given, os.path.join(os.path.realpath(folder or os.curdir), name))

    @property
    def is_folder(self) -> bool:
        """Whether it is one, now."""
        return os.path.isdir(self.real)

    def printed(self, folder: bytes) -> bytes:
        """What stands before the names in a folder at or below it, whose real path is given."""
        below = os.path.relpath(folder, os.fsencode(self.real)) if folder != os.fsencode(self.real) else b""
        path = os.path.join(os.fsencode(self.given), below) if below else os.fsencode(self.given)
        return os.path.join(path, b"") if path else b""


@dataclass
class Seen:
    """What a walk came to. Of it, all but `changed` can be handed from process to process.

    changed: how many files are new, or others than the index has. gone: files that are no more, by folder.
    gone_folders: those with all that was in them. apart: folders of which nothing can be told, or which the walk passes
    over; what the index has of them stays. lost: those among them that can't be reached. passed: numbers of the
    features of files that the walk passes over. mounted: folders where another file system begins. unlisted: folders,
    and why they can't be listed.
    """

    changed: int = 0
    gone: dict[bytes, list[bytes]] = field(default_factory=dict)
    gone_folders: list[bytes] = field(default_factory=list)
    apart: list[bytes] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    mounted: list[bytes] = field(default_factory=list)
    unlisted: list[tuple[str, str]] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def is_nothing(self) -> bool:
        """Whether the index is up to date."""
        return not (self.changed or self.gone or self.gone_folders or self.mounted)


class Comparison:
    """Folders and files held against what the index has of them.

    seen: what the walk came to, complete when `sources` is at its end. real: the path of each source that was yielded,
    for the one who takes it in to pop. model: None if the index has nothing of it. Raises OutputError.
    """

    def __init__(self, index: Index, model: int | None, roots: Sequence[Root], walk: Walk) -> None:
        self.seen = Seen()
        self.real: dict[str, str] = {}
        self._index = index
        self._model = model
        self._roots = roots
        self._walk = walk
        self._visited: set[bytes] = set()

    def sources(self) -> Iterator[Source]:
        """The files that are new or changed, as they are found, in order."""
        for root in self._roots:
            files = self._in_folder(root) if root.is_folder else self._file(root)
            for given, real in files:
                if given not in self.real:
                    self.seen.changed += 1
                    self.real[given] = real
                    yield Source(given)

    def _file(self, root: Root) -> Iterator[tuple[str, str]]:
        folder, name = map(os.fsencode, os.path.split(root.real))
        row = self._index.photos(self._model, folder).get(name) if self._model is not None else None
        if not _is_same(root.real, row):
            yield root.given, root.real

    def _in_folder(self, root: Root) -> Iterator[tuple[str, str]]:
        seen = self.seen
        start = len(os.path.join(root.real, ""))

        def select(here: str, names: list[str]) -> list[str]:
            return self._selected(here, names)

        for source in find.some(root.real, self._walk, lambda warning: None, seen.skipped, select):
            given = os.path.join(root.given, source.path[start:]) if source.path != root.real else root.given
            if source.error is None:
                yield given, source.path
            else:
                seen.unlisted.append((given, source.error.message))
                seen.apart.append(os.fsencode(source.path))
                seen.lost.append(os.fsencode(source.path))
        self._look_for_the_rest(os.fsencode(root.real))

    def _selected(self, here: str, names: list[str]) -> list[str]:
        """The names of the files in one folder that are new or changed."""
        folder = os.fsencode(here)
        self._visited.add(folder)
        self._compare_mount(here, folder)
        if self._model is None:
            return names
        rows = self._index.photos(self._model, folder)
        changed = [name for name in names if not _is_same(f"{here}/{name}", rows.pop(os.fsencode(name), None))]
        if rows:
            self._not_taken(folder, rows)
        return changed

    def _not_taken(self, folder: bytes, rows: dict[bytes, Row]) -> None:
        """Files that the index has and the walk has not: some are gone, some are there."""
        for name, row in rows.items():
            if os.path.lexists(os.path.join(folder, name)):
                if row[3] is not None:
                    self.seen.passed.add(row[3])
            elif folder not in self.seen.lost:
                self.seen.gone.setdefault(folder, []).append(name)

    def _compare_mount(self, here: str, folder: bytes) -> None:
        was, now = self._index.is_mounted(folder), os.path.ismount(here)
        if was and not now:  # what was mounted here is not, and is not gone
            self.seen.apart.append(folder)
            self.seen.lost.append(folder)
        elif now and not was:
            self.seen.mounted.append(folder)

    def _look_for_the_rest(self, root: bytes) -> None:
        """Folders that the index has and that the walk did not come to."""
        for folder in sorted(self._index.folders(root).values()):
            if folder in self._visited or is_within_any(folder, self.seen.apart):
                continue
            if os.path.isdir(folder):  # hidden, excluded, a link
                self.seen.apart.append(folder)
            elif self._index.is_mounted(folder):
                self.seen.apart.append(folder)
                self.seen.lost.append(folder)
            else:
                self.seen.gone_folders.append(folder)


def _is_same(path: str, row: Row | None) -> bool:
    if row is None:
        return False
    _, size, mtime_ns, _, error = row
    if error is not None and error not in LASTING:
        return False
    try:
        state = os.stat(path)
    except OSError:
        return False
    return state.st_mtime_ns == mtime_ns and state.st_size == size


def features_in(index: Index, model: int, path: str) -> bytes | None:
    """The features, fp16, that the index has of a file that has not changed since; None if it has none."""
    real = Root.of(path).real
    folder, name = map(os.fsencode, os.path.split(real))
    row = index.photos(model, folder).get(name)
    if row is None or row[3] is None or not _is_same(real, row):
        return None
    return index.features(row[3])


def is_within_any(path: bytes, folders: Sequence[bytes]) -> bool:
    """Whether a path is one of the folders, or below one."""
    return any(path == folder or path.startswith(folder.rstrip(b"/") + b"/") for folder in folders)
