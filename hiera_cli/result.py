"""The record that each input ends as."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label of an image. rank counts from 1; score is the softmax probability, 0 to 1."""

    rank: int
    index: int
    wnid: str | None
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer for an input.

    type: the error's class name, such as DecodeError. remedy: see errors.py; it is no part of the record.
    """

    type: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file, as far as its directory entry tells. size: bytes. mtime_ns: nanoseconds since 1970."""

    size: int
    mtime_ns: int


def stamp_of(path: str) -> Stamp | None:
    """Of a file as it is now; None if there is none."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return Stamp(state.st_size, state.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a record depends on beside its input. model: its name in the records."""

    model: str = ""
    top_k: int = 5
    min_score: float = 0.0
    full_decode: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The one record of one input: its predictions, best first, or its error.

    path: as the user gave it; of an image in memory the file that Pillow opened, or "". model: of the
    run. precision: at which it was labelled, "" for an error. stamp: of a file, before it was read. remarks: what its
    decoder said of it, beside the error if there is one. settings: of the run.
    """

    path: str
    model: str = ""
    predictions: tuple[Prediction, ...] = ()
    error: Failure | None = None
    precision: str = ""
    stamp: Stamp | None = None
    remarks: tuple[str, ...] = ()
    settings: Settings = Settings()

    def to_dict(self) -> dict[str, Any]:
        """The record that `--json` prints of it: strings, numbers, lists and dictionaries alone."""
        from hiera_cli.outputs.formats import record  # which imports this module

        return record(self)
