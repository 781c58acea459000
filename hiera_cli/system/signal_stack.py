"""The stack on which a thread's signals are handled, where that is not its own (Linux)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """The system's stack_t."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack | None:
    """The one of the current thread; None where it is not known."""
    if sys.platform != "linux":
        return None
    stack = SignalStack()
    return None if ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) else stack


@contextmanager
def kept() -> Iterator[None]:
    """What a library gives this thread within it as a stack for signals is not to stay.

    OpenVINO's is just large enough for the processor's registers. Python's handlers would run on it, and overflow it:
    an interrupt would end the process.
    """
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
