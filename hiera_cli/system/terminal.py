"""How text lies in a terminal: cells, lines that wrap, bars, the width there is."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator

from hiera_cli.system.streams import stderr_descriptor

OUTSIDE_BACKTICKS = r" (?=[^`]*(?:`[^`]*`[^`]*)*$)"  # a space, that is
EIGHTHS = " ▏▎▍▌▋▊▉█"


def columns(descriptor: int) -> int | None:
    """Cells in a line of the terminal behind a descriptor; None if there is no terminal. COLUMNS overrides it."""
    if not os.isatty(descriptor):
        return None
    stated = os.environ.get("COLUMNS", "")
    if stated.isascii() and stated.isdigit() and int(stated):
        return int(stated)
    try:
        return os.get_terminal_size(descriptor).columns or 80  # a serial line does not know
    except OSError:
        return 80


def is_utf8(encoding: str | None) -> bool:
    """Whether a stream of this encoding can show more than ASCII."""
    return (encoding or "").lower().replace("-", "") == "utf8"


def cells(text: str) -> int:
    """Cells that a text takes: two for a wide character (CJK, emoji), none for what combines with the one before."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf") or "\u1160" <= character <= "\u11ff":  # Hangul's vowels
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrapped(text: str, room: int | None, *, whole_words: bool = False) -> Iterator[str]:
    """The lines of a text in so many cells: broken at spaces, and within a word only where it alone is too long.

    room: None for one line, however long. whole_words: such a word, be it a path, is left to the terminal to break, and
    what stands between `backticks` is one word, so that a command can be copied.
    """
    if room is None or cells(text) <= room:
        yield text
        return
    line = ""
    for word in re.split(OUTSIDE_BACKTICKS if whole_words else " ", text):
        if line and cells(line) + 1 + cells(word) > room:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
        while cells(line) > room and not whole_words:
            end = _fitting(line, room)
            yield line[:end]
            line = line[end:]
    yield line


def _fitting(text: str, room: int) -> int:
    """How many characters fit, one at least; what combines stays with its character."""
    taken = 0
    for index, character in enumerate(text):
        taken += _cells(character)
        if taken > room and index:
            return index
    return len(text)


def message(text: str) -> str:
    """A line for stderr; on a terminal broken at spaces, with what follows a little to the right."""
    room = columns(stderr_descriptor())
    return "\n    ".join(wrapped(text, room and max(room - 4, 20), whole_words=True))


def bar(share: float, width: int, *, unicode: bool) -> str:
    """A bar of `width` cells, filled from the left by a share from 0 to 1."""
    if not unicode:
        return ("#" * round(share * width)).ljust(width)
    whole, part = divmod(round(share * width * 8), 8)
    return ("█" * whole + (EIGHTHS[part] if part else "")).ljust(width)
