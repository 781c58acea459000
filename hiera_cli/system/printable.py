"""Text from outside → text that can do nothing to a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str, *, keep: str = "") -> str:
    """Text from outside, made safe for a terminal and for a line: control characters are written as escapes.

    keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or not is_control(character) else _escape(character) for character in text
    )


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def is_control(character: str) -> bool:
    """Whether a character is none that is seen: one that controls a terminal or the direction, or half of a pair."""
    joiner = "\u200d"  # holds emoji together
    return character != joiner and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def shortened(text: str) -> str:
    """A text that a file may make as long as it likes, cut."""
    return text if len(text) <= 200 else f"{text[:200]}…"
