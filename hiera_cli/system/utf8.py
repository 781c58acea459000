"""Names and text from outside → valid UTF-8, for programs that read it: JSON, one field of a line.

A name is bytes. Python shows those of them that are not UTF-8 as surrogates, which no encoding has and no strict reader
takes: here a name is given as text and, where that is not all of it, in base64 beside it.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any

from hiera_cli.system.printable import is_control

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_SURROGATES = re.compile("[\ud800-\udfff]")


def name_bytes(path: str) -> bytes:
    """The bytes of a name as Python gives it."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:  # from a Python program: no file has such a name
        return path.encode("utf-8", "surrogatepass")


def name_fields(path: str) -> tuple[str, str | None]:
    """The name as text, with replacement characters for what is not UTF-8, and its bytes in base64 if there are any."""
    if path.isascii():
        return path, None
    name = name_bytes(path)
    try:
        return name.decode(), None
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace"), base64.b64encode(name).decode()


def from_fields(path: str, path_bytes: str | None) -> bytes:
    """The bytes of the name that `name_fields` gave as this. Raises ValueError.

    path may also have surrogates for its bytes, as records of earlier versions do.
    """
    if path_bytes is not None:
        return base64.b64decode(path_bytes, validate=True)
    return path.encode("utf-8", "surrogateescape")


def valid(text: str) -> str:
    """Text with a replacement character for each surrogate."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def raw_name(path: str) -> str:
    """A name's own bytes, as a stream encodes them with `surrogateescape`."""
    return path if path.isascii() else name_bytes(path).decode("utf-8", "surrogateescape")


def escaped(text: str) -> str:
    r"""Text, or a `raw_name`, as one field of a line. No two look alike; `printf %b` of bash gives back what it was.

    A backslash becomes \\, a control character \t, \n, \r, \xHH or, beyond ASCII, \uHHHH; a byte that is no UTF-8 \xHH.
    """
    if text.isascii() and text.isprintable():
        return text.replace("\\", "\\\\")
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte
        return f"\\x{code - 0xDC00:02x}"
    if not is_control(character):
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: valid UTF-8, whatever surrogates its strings have, with control characters as escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    return "".join(
        json.dumps(character)[1:-1] if character >= "\x7f" and is_control(character) else character
        for character in valid(text)
    )
