"""What a person is told who waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def told_if_slow(seconds: float, say: Callable[[str], None], line: str) -> Iterator[None]:
    """Say a line, from another thread, if the block takes longer."""
    timer = threading.Timer(seconds, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
