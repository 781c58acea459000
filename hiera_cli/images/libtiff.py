"""The C library that Pillow reads TIFFs with, kept from writing to standard error by itself."""

from __future__ import annotations

import ctypes
import ctypes.util
from contextlib import suppress
from functools import cache
from pathlib import Path

import PIL


@cache
def silence() -> None:
    """Let it say nothing about broken files. What it finds wrong Pillow raises all the same."""
    package = Path(PIL.__file__).parent
    bundled = [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]  # Linux, macOS
    name = str(bundled[0]) if bundled else ctypes.util.find_library("tiff")
    if name is None:
        return
    with suppress(OSError, AttributeError):  # another build of Pillow: then its remarks are to be lived with
        library = ctypes.CDLL(name)  # the one that Pillow has loaded
        for handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
