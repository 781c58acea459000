"""Text from outside → text that can do nothing to a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str, *, keep_bytes: bool = False, keep: str = "") -> str:
    """Text from outside, made safe for a terminal and for a line: control characters are written as escapes.

    keep_bytes: leave the surrogates that stand for bytes that are no UTF-8, which the stream turns back into them.
    keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or not _is_control(character) or (keep_bytes and "\udc80" <= character <= "\udcff")
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def _is_control(character: str) -> bool:
    joiner = "\u200d"  # holds emoji together
    return character != joiner and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
