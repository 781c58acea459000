"""The C library that Pillow reads TIFFs with, kept from writing to standard error by itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import PIL

_lock = threading.Lock()
_users = 0  # TIFFs that are being decoded now, on all threads
_handlers: list[tuple[Any, Any]] = []  # what sets a handler, and the one it had before


@contextmanager
def silenced() -> Iterator[None]:
    """Within the block libtiff says nothing about broken files. What it finds wrong Pillow raises all the same.

    A process has one handler for its errors and one for its warnings. (Handlers of one file alone exist since libtiff
    4.5, but only for who opens it, which is Pillow.) So they are taken away while at least one TIFF is decoded here,
    and put back after the last one.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _handlers.extend((set_handler, set_handler(None)) for set_handler in _setters())
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                for set_handler, before in _handlers:
                    set_handler(before)
                _handlers.clear()


@cache
def _setters() -> tuple[Any, ...]:
    """libtiff's functions that take a new handler and return the one before. () if the library is not found."""
    package = Path(PIL.__file__).parent
    bundled = [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]  # Linux, macOS
    name = str(bundled[0]) if bundled else ctypes.util.find_library("tiff")
    if name is None:
        return ()
    try:
        library = ctypes.CDLL(name)  # the one that Pillow has loaded
        setters = (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler)
    except (OSError, AttributeError):  # another build of Pillow: its messages stay on stderr
        return ()
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setters
