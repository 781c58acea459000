"""The signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Within it `handler` gets them, but for those that are ignored, as a script does for what it runs in the
    background and `nohup` does for SIGHUP.
    """
    numbers = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, was in zip(numbers, before, strict=True):
            signal.signal(number, was)
