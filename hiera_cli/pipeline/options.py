"""How a stream of inputs is worked through, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hiera_cli.errors import UsageError
from hiera_cli.images.decode import Decoding
from hiera_cli.limits import Limits
from hiera_cli.result import Records
from hiera_cli.tasks.task import Task


def check_count(name: str, value: int | None) -> None:
    """Raise UsageError if a value that is given is not a whole number, 1 or more."""
    if value is not None and (not isinstance(value, int) or value < 1):
        raise UsageError(f"{name} is a whole number, 1 or more, not {value!r}")


@dataclass(frozen=True)
class Options:
    """How inputs are read.

    workers: decode threads; None chooses by the machine's cores. decoding: how images are decoded, and how large they
    may be; its room is shared by the threads. offline: URLs are not fetched. model: its name in the records.
    thumbnails: each Result has one.
    """

    workers: int | None = None
    limits: Limits = Limits()
    decoding: Decoding = field(default_factory=Decoding)
    offline: bool = False
    model: str = ""
    thumbnails: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        check_count("workers", self.workers)

    def records(self, task: Task[Any, Any]) -> Records:
        """What the records of a task have in common."""
        return Records(task.kind, self.model, {**task.settings, "full_decode": self.decoding.full})
