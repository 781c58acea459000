"""Queries on the index: which photos, with which scores. Everything over photos is done in numpy, in lists of many."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiera_cli.engines.machine import cpu_count
from hiera_cli.index.store import Index, Stored, damaged
from hiera_cli.tasks.index import Layer

SCORE_DIGITS = 6  # that hold: more depend on which photos are computed together
ROWS = 512  # photos that are looked at together: as fp32 1.5 MB, of Hiera-Tiny, which a processor's cache holds
SHOWN = 0.5  # the score from which a photo shows what classes stand for
AHEAD = 4  # such lists that wait to be computed


@dataclass(frozen=True)
class Query:
    """What is asked.

    classes: whose scores are summed; none for a query by picture alone. excluded: classes that a photo is not to show.
    like: features (C,) to be similar to, or None. min_score: the least sum, or cosine where there are no classes.
    """

    classes: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()
    like: NDArray[np.float32] | None = None
    min_score: float = SHOWN


@dataclass
class Names:
    """How photos are printed. folders: what stands before the names in a folder, by its number. files: where single
    files of a folder were named, how these are printed, by their names.
    """

    folders: dict[int, bytes] = field(default_factory=dict)
    files: dict[int, dict[bytes, bytes]] = field(default_factory=dict)


class Hit(NamedTuple):
    """A photo that answers a query. vector: the number of its features. score: the sum over the query's classes, or
    the cosine where the query has a picture.
    """

    path: bytes
    vector: int
    score: float


class Search:
    """One query of an index.

    model: its number; None, which may be set later, while the index knows nothing of it. layer: the model's classifier;
    a query by picture alone does without. Raises OutputError.
    """

    def __init__(self, index: Index, model: int | None, query: Query, layer: Layer | None) -> None:
        self.model = model
        self._index = index
        self._chosen = _Chosen(query, layer)
        self._newest = 0
        self._scores: dict[int, float] = {}
        self._folders: set[int] = set()

    def look(self) -> None:
        """Look through all features that have come in since the last time."""
        if self.model is None:
            return
        try:
            with self._index.snapshot():
                newest = self._index.newest()
                looked = self._look()
                if not self._newest and looked != self._index.count(self.model):
                    raise damaged(self._index.path, "it has lost features")
        except (ValueError, IndexError, TypeError) as error:  # features of another length, classes that there are not
            raise damaged(self._index.path, "features that are none") from error
        self._newest = newest

    def _look(self) -> int:
        """Returns at how many photos."""
        assert self.model is not None
        looked = 0
        with ThreadPoolExecutor(cpu_count()) as others:  # reads the file here, computes there
            waiting: deque[Future[Found]] = deque()
            for rows in self._index.vectors(self.model, self._newest, ROWS):
                looked += len(rows)
                waiting.append(others.submit(self._chosen.of, rows))
                if len(waiting) > AHEAD:
                    self._take(waiting.popleft().result())
            for each in waiting:
                self._take(each.result())
        return looked

    def _take(self, found: Found) -> None:
        numbers, folders, scores = found
        self._scores.update(zip(numbers.tolist(), scores.round(SCORE_DIGITS).tolist(), strict=True))
        self._folders.update(folders.tolist())

    def ordered(self, names: Names, passed: AbstractSet[int]) -> list[Hit]:
        """What was found, best first, and by path where scores are the same; what has no name is left out.

        passed: numbers of features that are left out too.
        """
        if self.model is None:
            return []
        rows: list[tuple[float, bytes, int]] = []
        for folder in self._folders:
            prefix, files = names.folders.get(folder), names.files.get(folder, {})
            if prefix is None and not files:
                continue
            for name, vector in self._index.names(self.model, folder):
                score = self._scores.get(vector)
                if score is None or vector in passed:
                    continue
                path = files.get(name) if prefix is None else prefix + name
                if path is not None:
                    # One that begins with a dash would be an option to the command that gets it.
                    rows.append((-score, b"./" + path if path[:1] == b"-" else path, vector))
        rows.sort()
        return [Hit(path, vector, -score) for score, path, vector in rows]

    def count(self, names: Names) -> int:
        """How many photos with features there are where the search is."""
        if self.model is None:
            return 0
        named = sum(
            name in files for folder, files in names.files.items() for name, _ in self._index.names(self.model, folder)
        )
        return named + sum(1 for folder in names.folders for _ in self._index.names(self.model, folder))


Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # numbers of features and folders, scores


class _Chosen:
    def __init__(self, query: Query, layer: Layer | None) -> None:
        self._query = query
        self._wanted = self._part(layer, query.classes)
        self._unwanted = self._part(layer, query.excluded)
        if layer is not None:
            self._is_wanted = np.zeros(len(layer[1]), bool)
            self._is_wanted[list(query.classes)] = True
        self._like = None
        if query.like is not None:
            like = query.like.astype(np.float32)
            self._like = like / max(float(np.linalg.norm(like)), 1e-12)

    @staticmethod
    def _part(layer: Layer | None, classes: Sequence[int]) -> Layer | None:
        if not classes or layer is None:
            return None
        rows = list(classes)
        return np.ascontiguousarray(layer[0][rows]), layer[1][rows]

    def of(self, stored: list[Stored]) -> Found:
        """Those of a list of photos that answer the query."""
        columns = tuple(zip(*stored, strict=True))
        take = self._possible(columns)
        if not take.all():
            columns = tuple(zip(*(stored[row] for row in np.flatnonzero(take).tolist()), strict=True))
        if not columns:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        numbers, folders, denominators, labels, label_scores, features = columns
        rows = np.frombuffer(b"".join(features), np.float16).reshape(len(numbers), -1).astype(np.float32)
        scores = np.ones(len(numbers), np.float32)
        take = np.ones(len(numbers), bool)
        with np.errstate(over="ignore", invalid="ignore"):
            if self._wanted is not None:
                scores = _sums(rows, self._wanted, denominators)
                best = np.where(self._is_wanted[np.array(labels, np.int64)], np.array(label_scores, np.float32), 0)
                scores = np.maximum(scores, best)  # which differ in their last digits
                take &= scores >= self._query.min_score
            if self._unwanted is not None:
                take &= ~(_sums(rows, self._unwanted, denominators) >= SHOWN)
            if self._like is not None:
                scores = rows @ self._like / np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows)), 1e-12)
                if self._wanted is None:
                    take &= scores >= self._query.min_score
        where = np.flatnonzero(take)
        return np.array(numbers, np.int64)[where], np.array(folders, np.int64)[where], scores[where]

    def _possible(self, columns: Sequence[Sequence[Any]]) -> NDArray[np.bool_]:
        """False where the best class is another, with a score that leaves too little to those that are wanted."""
        if self._wanted is None:
            return np.ones(len(columns[0]), bool)
        _, _, _, labels, scores, _ = columns
        left = np.where(self._is_wanted[np.array(labels, np.int64)], 1, 1 - np.array(scores, np.float64))
        return left > self._query.min_score - 1e-4


def _sums(rows: NDArray[np.float32], part: Layer, denominators: Sequence[float | None]) -> NDArray[np.float32]:
    """The sum of the scores of some classes, (B,)."""
    weight, bias = part
    found = rows @ weight.T
    found += bias
    found -= np.array(denominators, np.float32)[:, None]
    np.exp(found, out=found)
    return np.minimum(found.sum(axis=1), 1)  # type: ignore[no-any-return]


class Labelled(NamedTuple):
    """A photo that answers a query. label: index of its best class, None where it was not asked for, with its score."""

    path: bytes
    score: float
    label: int | None = None
    label_score: float | None = None


def labelled(index: Index, found: Iterable[Hit], *, best: bool = True) -> Iterator[Labelled]:
    """The hits with their best labels. best: False leaves these out."""
    for path, vector, score in found:
        label, label_score = index.label(vector) if best else (None, None)
        yield Labelled(path, score, label, label_score)
