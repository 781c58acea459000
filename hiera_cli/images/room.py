"""Memory that is shared by the pictures which are decoded side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Memory that pictures share while they are decoded, in bytes. One that needs more than all of it is decoded alone.

    One object for all threads that decode side by side.
    """

    def __init__(self, size: int = 2 << 30) -> None:
        self.size = size
        self._used = 0
        self._changed = threading.Condition()
        # Whoever waits for room has the turn: smaller pictures do not pass a large one for ever.
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[type[Room], tuple[int]]:
        """In another process it is as much memory of its own."""
        return Room, (self.size,)

    @contextmanager
    def hold(self, need: int) -> Iterator[None]:
        """Wait until there is room for `need` bytes, and keep it for the block."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + need <= self.size)
            self._used += need
        try:
            yield
        finally:
            with self._changed:
                self._used -= need
                self._changed.notify_all()
