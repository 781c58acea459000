"""What a signal to end (Ctrl-C, SIGTERM, SIGHUP) does to a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from hiera_cli.system.signals import handled
from hiera_cli.system.streams import interject

if TYPE_CHECKING:
    from hiera_cli.commands.report import Report


@contextmanager
def interruptible(outcome: str = "") -> Iterator[None]:
    """Within it a signal ends the command in good order: what waits in `threads.apart` cleans up behind itself.

    outcome: what has come of it, to be told.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        interject(f"hiera: interrupted{': ' * bool(outcome)}{outcome}\n")
        raise SystemExit(128 + number)

    with handled(interrupted):
        yield


class Stoppable(Protocol):
    """What a run iterates over. loading: whether it waits for the model."""

    loading: bool

    def stop(self) -> None:
        """End the iteration soon, with what is known."""
        ...


class Interrupts:
    """The signals of a run: the first ends its stream in good order, a second one the program at once.

    signal: the number of the first; 0 before.
    """

    def __init__(self, stream: Stoppable, report: Report) -> None:
        self.signal = 0
        self._stream = stream
        self._report = report

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle one. Raises KeyboardInterrupt while the model is loaded: a download may take long."""
        if self.signal:
            self._report.interject("stopped")
            os._exit(128 + number)
        self.signal = number
        self._stream.stop()
        if self._stream.loading:
            raise KeyboardInterrupt
        self._report.interject("finishing what is running; again to stop now")
