"""What decoders say of a file that they decode all the same: Pillow's warnings, and libjpeg's (jpeg.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hiera_cli.images import pillow

MOST = 10  # of one file: one that is made to has a remark on each of thousands of tags
LENGTH = 200  # characters of one

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the remarks of one file, each once, in the order they come in; within another such block, in that one."""
    if (outer := _collected.get()) is not None:
        yield outer
        return
    remarks: list[str] = []
    token = _collected.set(remarks)
    try:
        with pillow.heard(remark):
            yield remarks
    finally:
        _collected.reset(token)


def remark(text: str) -> None:
    """Say something of the file that is being decoded on this thread, if one is."""
    text = " ".join(text.split())[:LENGTH]
    remarks = _collected.get()
    if remarks is not None and text not in remarks and len(remarks) < MOST:
        remarks.append(text)
