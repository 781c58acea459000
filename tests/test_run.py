"""A run knows no command: what is done with the Results, and what that is called, is handed in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from conftest import SAMPLES

from hiera_cli.classifier import load_classifier
from hiera_cli.commands.output import Output
from hiera_cli.commands.report import ExitStatus
from hiera_cli.commands.request import InputRequest, ModelRequest, OutputRequest, ReportRequest, Request
from hiera_cli.commands.run import Run
from hiera_cli.pipeline.options import Options
from hiera_cli.result import Result
from hiera_cli.tasks.classify import Classify


class Kept:
    """A sink that keeps what it is given, which need not be text."""

    def __init__(self) -> None:
        self.chunks: list[str | bytes] = []
        self.is_complete = False

    def write(self, data: str | bytes) -> None:
        self.chunks.append(data)

    def close(self, *, complete: bool) -> None:
        self.is_complete = complete


def names(results: Iterable[Result]) -> Iterator[bytes]:
    return (f"{result.path} {result.error is None}".encode() for result in results)


@dataclass(frozen=True, slots=True)
class Seen(Result):
    done: ClassVar[str] = "seen"


class See(Classify):
    """A task whose answer is nothing."""

    kind: ClassVar[Any] = Seen

    def answer(self, row: Any, model: Any) -> dict[str, Any]:
        return {}


@pytest.mark.usefixtures("compiled_demo")
def test_a_command_hands_in_what_becomes_of_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    cat = str(SAMPLES / "cat.jpg")
    request = Request(
        InputRequest((cat, "gone.jpg")),
        ModelRequest("demo", "torch", "cpu", "fp32"),
        OutputRequest("names", "out.names"),
        ReportRequest(no_banner=True),
    )
    sink = Kept()
    status = Run(request, Output(names, sink, "out.names"), See(), Options(), load_classifier).run()
    assert (status, sink.chunks, sink.is_complete) == (
        ExitStatus.SOME_FAILED,
        [f"{cat} True".encode(), b"gone.jpg False"],
        True,
    )
    failure, summary = capfd.readouterr().err.splitlines()
    assert failure == "hiera: gone.jpg: no such file"
    assert summary.startswith("hiera: 1 seen, 1 failed, ")
