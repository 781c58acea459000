"""Results → text.

A writer takes the Results as they come and yields text as soon as it is known. Whenever the Results end, be it early,
what was yielded is a valid document of its format. Those here know no task; labels.py has those of `classify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hiera_cli.result import Result
from hiera_cli.system.utf8 import as_json

Writer = Callable[[Iterable[Any]], Iterator[str]]  # of the Results of the task that it is for


def json_array(results: Iterable[Result]) -> Iterator[str]:
    """One array, a record a line."""
    separator = "[\n"
    for result in results:
        yield separator + as_json(result.to_dict())
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def jsonl(results: Iterable[Result]) -> Iterator[str]:
    """One record a line."""
    for result in results:
        yield as_json(result.to_dict()) + "\n"
