"""What decoders say of a file that they decode all the same.

Pillow says it through `warnings` and `logging`; what libjpeg says is passed on in jpeg.py.

A process has one set of warning filters and one place where warnings are shown. So Pillow's go to the file that is
being decoded on their thread, and otherwise nowhere; all others go where they went.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MOST = 10  # of one file: one that is made to has a remark on each of thousands of tags
LENGTH = 200  # characters of one

_DECODERS = ("PIL", "pillow_heif")
_MODULES = rf"({'|'.join(_DECODERS)})\b"
_SAID = ("always", None, UserWarning, re.compile(_MODULES), 0)  # each of them: Python's default is one a process

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
_installing = threading.Lock()
_shown_before: Any = None  # warnings.showwarning, until ours took its place


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the remarks of one file, each once, in the order they come in; within another such block, in that one."""
    _install()
    if (outer := _collected.get()) is not None:
        yield outer
        return
    remarks: list[str] = []
    token = _collected.set(remarks)
    try:
        yield remarks
    finally:
        _collected.reset(token)


def remark(text: str) -> None:
    """Say something of the file that is being decoded on this thread, if one is."""
    text = " ".join(text.split())[:LENGTH]
    remarks = _collected.get()
    if remarks is not None and text not in remarks and len(remarks) < MOST:
        remarks.append(text)


def _install() -> None:
    """Set up what a process has once; again where a program has put other filters before, or its `showwarning` back."""
    global _shown_before
    with _installing:
        if list(warnings.filters[:1]) != [_SAID]:
            warnings.filterwarnings("ignore", module=_MODULES)  # the rest: it is near a limit, is deprecated
            warnings.filterwarnings("always", category=UserWarning, module=_MODULES)
            logging.getLogger("PIL").addHandler(_log)  # once: logging sees to that
        # Not where another one stands before ours and may call it.
        if warnings.showwarning is not _show and _shown_before in (None, warnings.showwarning):
            _shown_before, warnings.showwarning = warnings.showwarning, _show


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    if os.path.basename(os.path.dirname(filename)) in _DECODERS:
        remark(str(message))
    else:
        _shown_before(message, category, filename, lineno, file, line)


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


_log = _Log(logging.WARNING)
