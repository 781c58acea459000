"""Pillow, confined to the file that a thread decodes.

Pillow warns through `warnings` and `logging`, and holds sizes against `Image.MAX_IMAGE_PIXELS`: a process has one set
of filters, one log and one limit. None of them is changed here. Instead, while a file is decoded, Pillow's own modules
find functions of this module under the names `warnings` and `_decompression_bomb_check`. On a thread that decodes,
these report to its file; on every other thread they do what Pillow's do. (Before Python 3.14
`warnings.catch_warnings` would change the filters of all threads.)
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from PIL import Image

_heard: ContextVar[Callable[[str], None] | None] = ContextVar("heard", default=None)
_max_pixels: ContextVar[int | None] = ContextVar("max_pixels", default=None)
_lock = threading.Lock()
_users = 0  # files that are being decoded now, on all threads
_replaced: list[tuple[ModuleType, str, Any, Any]] = []  # module, name, Pillow's object, ours


@contextmanager
def heard(hear: Callable[[str], None]) -> Iterator[None]:
    """Within the block `hear` gets what Pillow says of a file on this thread, and nobody else does."""
    with _installed():
        token = _heard.set(hear)
        try:
            yield
        finally:
            _heard.reset(token)


@contextmanager
def limited(max_pixels: int) -> Iterator[None]:
    """Within the block, on this thread, Pillow refuses images of more than twice `max_pixels`, whatever its own limit.

    Twice, because an icon's bitmap holds colours and mask, one below the other. Pillow raises DecompressionBombError.
    """
    with _installed():
        token = _max_pixels.set(max_pixels)
        try:
            yield
        finally:
            _max_pixels.reset(token)


def speaking_modules() -> list[ModuleType]:
    """Pillow's modules that warn of a file, or log, in the formats that are read here; of an icon's once it is met."""
    from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin  # TIFF's reads the EXIF data of all formats

    icons = sys.modules.get("PIL.IcoImagePlugin")
    return [Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, *([icons] if icons else [])]


def listen_to(module: ModuleType) -> None:
    """Have a module of Pillow's that was imported while a file is decoded report as the others do."""
    with _lock:
        _replace(module, "warnings", _WARNINGS)


@contextmanager
def _installed() -> Iterator[None]:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _install()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _uninstall()


def _install() -> None:
    _replace(Image, "_decompression_bomb_check", _BombCheck(vars(Image).get("_decompression_bomb_check")))
    for module in speaking_modules():
        _replace(module, "warnings", _WARNINGS)
        if isinstance(logger := vars(module).get("logger"), logging.Logger):
            logger.addFilter(_LOG_FILTER)


def _replace(module: ModuleType, name: str, ours: Any) -> None:
    if vars(module).get(name, ours) is not ours:  # another version of Pillow may do without it
        _replaced.append((module, name, vars(module)[name], ours))
        setattr(module, name, ours)


def _uninstall() -> None:
    for module, name, pillows, ours in _replaced:
        if vars(module).get(name) is ours:
            setattr(module, name, pillows)
    _replaced.clear()
    for module in speaking_modules():
        if isinstance(logger := vars(module).get("logger"), logging.Logger):
            logger.removeFilter(_LOG_FILTER)


class _Warnings:
    """Stands for the module `warnings` in Pillow's."""

    def warn(
        self, message: str | Warning, category: type[Warning] | None = None, stacklevel: int = 1, **options: Any
    ) -> None:
        hear = _heard.get()
        if hear is None:
            warnings.warn(message, category, stacklevel + 1, **options)
        elif issubclass(type(message) if isinstance(message, Warning) else category or UserWarning, UserWarning):
            hear(str(message))  # the rest is not of the file: a deprecation, a size near a limit

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


class _BombCheck:
    """Stands for `_decompression_bomb_check` in PIL.Image. pillows: that function."""

    def __init__(self, pillows: Any) -> None:
        self._pillows = pillows

    def __call__(self, size: tuple[int, int], **options: Any) -> None:
        limit = _max_pixels.get()
        if limit is None:
            self._pillows(size, **options)
        elif (pixels := size[0] * size[1]) > 2 * limit:
            raise Image.DecompressionBombError(f"{pixels} pixels")


class _LogFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        hear = _heard.get()
        if hear is None or record.levelno < logging.WARNING:
            return True
        hear(record.getMessage())
        return False


_WARNINGS = _Warnings()
_LOG_FILTER = _LogFilter()
