"""The record that each input ends as. What a task answers of an image stands in the task's own kind of Result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hiera_cli.system.utf8 import name_fields


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
class Result:
    """The one record of one input: the answer of the run's task, which a subclass holds, or its error.

    path: as the user gave it; of an image in memory the file that Pillow opened, or "". model: of the run. precision:
    in which the model computed, "" for an error. stamp: of a file, before it was read. remarks: what its decoder said
    of it, beside the error if there is one. settings: the options that the record depends on. thumbnail: a small JPEG
    of the image, where one was asked for; it is no part of the record.
    """

    path: str
    model: str = ""
    error: Failure | None = None
    precision: str = ""
    stamp: Stamp | None = None
    remarks: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: bytes | None = None

    done: ClassVar[str] = "done"  # what is said of an input that has its answer

    def to_dict(self) -> dict[str, Any]:
        """The record that JSON shows of it: strings, numbers, lists and dictionaries alone.

        The same keys in the same order whether it is an answer or an error. data/ has its JSON Schema.
        """
        path, path_bytes = name_fields(self.path)
        failed = self.error
        return {
            "path": path,
            "path_bytes": path_bytes,
            "status": "ok" if failed is None else "error",
            "model": self.model,
            "precision": self.precision or None,
            **self.answer(),
            "error": None if failed is None else {"type": failed.type, "message": failed.message},
            "remarks": list(self.remarks),
            "settings": dict(self.settings),
        }

    def answer(self) -> dict[str, Any]:
        """What the task answers, as it stands in the record; the same keys for an error."""
        return {}

    @classmethod
    def is_answer(cls, record: Mapping[str, Any]) -> bool:
        """Whether a parsed record has an answer of this kind."""
        return True


@dataclass(frozen=True)
class Records:
    """What the records of one run have in common. kind: of Results. model: its name. settings: as in each of them."""

    kind: type[Result]
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
