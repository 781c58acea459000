"""Calls on a thread of their own, to be waited for no longer than wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

T = TypeVar("T")


def apart(call: Callable[[], T], seconds: float | None = None) -> T:
    """What a call returns or raises, made on a thread of its own.

    An interrupt ends the wait, and not the call in the middle of something that can't bear it, such as an import.
    seconds: how long to wait; then TimeoutError. In both cases the thread is left to itself.
    """
    outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # handed to the one who waits
            outcome.put((None, error))

    threading.Thread(target=run, name="apart", daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return cast(T, value)
