"""Cores of this machine for one process of several that share it."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress

_taken: list[int] = []  # locked files, one a core; the locks go with the process


def take_cores(count: int) -> None:
    """Have this process use so many cores, others than those that processes have which called this before.

    It is for before anything starts threads, most of which ask how many cores there are. Where that can't be limited,
    or as many are asked for as there are, nothing is done.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    if not 0 < count < len(allowed):
        return
    mine: list[int] = []
    for core in allowed:
        if len(mine) < count and _lock(core):
            mine.append(core)
    rest = [core for core in allowed if core not in mine]
    os.sched_setaffinity(0, mine + rest[: count - len(mine)])


def _lock(core: int) -> bool:
    """Whether a core is this process's now: others leave it alone until it ends."""
    if sys.platform == "win32":
        return True
    import fcntl

    descriptor = -1
    try:
        path = os.path.join(tempfile.gettempdir(), f"hiera-{os.getuid()}-core-{core}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with suppress(OSError):
            os.close(descriptor)
        return False
    _taken.append(descriptor)
    return True
