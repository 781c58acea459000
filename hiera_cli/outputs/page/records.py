"""The records of an earlier run, read again: jsonl, or a JSON array."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hiera_cli.errors import UsageError
from hiera_cli.system.printable import shortened
from hiera_cli.system.utf8 import from_fields

Record = Mapping[str, Any]

LARGEST = 1000  # of a score: cosines and shares are far below
LARGEST_LOGIT = 1e9  # a model of one's own may have what logits it likes
SIDE = 7  # of an explanation: rows and columns


def records(data: bytes, name: str) -> list[Record]:
    """The records in a file. name: of the file, for errors.

    Raises UsageError, with the line, for what is no record of labels.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}: line {line} is not UTF-8", remedy="records of labels") from error
    found = []
    for where, value in _values(text, name):
        if (fault := _fault(value)) is not None:
            raise UsageError(f"{name}: {where} {fault}", remedy="records of labels")
        found.append(value)
    return found


def _values(text: str, name: str) -> Iterator[tuple[str, Any]]:
    """(where, value)."""
    if text.lstrip()[:1] == "[":
        try:
            values = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise _not_json(f"{name}: {_line(error)}", error) from error
        yield from ((f"record {number}", value) for number, value in enumerate(values, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, parse_constant=_no_number)
            except (ValueError, RecursionError) as error:
                raise _not_json(f"{name}: line {number}", error) from error


def _no_number(text: str) -> None:
    raise ValueError(f"it has {text}")


def _line(error: Exception) -> str:
    return f"line {getattr(error, 'lineno', 1)}"


def _not_json(where: str, error: Exception) -> UsageError:
    deep = isinstance(error, RecursionError)
    reason = "nested too deep" if deep else getattr(error, "msg", str(error))
    return UsageError(f"{where} is not JSON: {shortened(reason)}", remedy="records of labels")


def _fault(value: Any) -> str | None:
    """What is wrong with a record, to stand behind its number; None if it is one of labels."""
    if isinstance(value, dict) and "SourceFile" in value:
        return "is for ExifTool: it is not a record of labels with their scores"
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return "is not a record of a photo: it has no path"
    if not {"predictions", "label_score", "explanations"} & value.keys():
        if "features" in value or "loss" in value:
            what = "features" if "features" in value else "a reconstruction"
            return f"is a record of {what}: there is no page of those"
        return "is not a record of labels: it has no predictions"
    if "label_score" in value and "predictions" not in value and not _is_number(value.get("score")):
        return "is not a record of labels: its score is no number of such a size"
    wrong = [name for name, is_right in _FIELDS.items() if name in value and not is_right(value[name])]
    if wrong:
        return f"is not a record of labels: it has {wrong[0]} of another kind"
    try:
        from_fields(value["path"], value.get("path_bytes"))
    except ValueError:
        return "is not a record of labels: its path_bytes is not base64"
    return None


def _is_number(value: Any, largest: float = LARGEST) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest


def _is_label(value: Any, name: str) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get(name), str)
        and (value.get("index") is None or isinstance(value["index"], int))
        and (value.get("wnid") is None or isinstance(value["wnid"], str))
    )


def _is_explanation(value: Any) -> bool:
    if not (_is_label(value, "label") and _is_number(value.get("score"))):
        return False
    terms = value.get("terms")
    if not (isinstance(terms, list) and len(terms) == SIDE and all(isinstance(row, list) for row in terms)):
        return False
    numbers = [value.get("logit"), value.get("constant"), *(term for row in terms for term in row)]
    return {*map(len, terms)} == {SIDE} and all(_is_number(number, LARGEST_LOGIT) for number in numbers)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "predictions": lambda value: (
        isinstance(value, list) and all(_is_label(each, "label") and _is_number(each.get("score")) for each in value)
    ),
    "explanations": lambda value: isinstance(value, list) and all(map(_is_explanation, value)),
    "error": lambda value: (
        value is None
        or (isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("type", "message")))
    ),
    "path_bytes": lambda value: value is None or isinstance(value, str),
    "model": lambda value: value is None or isinstance(value, str),
    "remarks": _are_texts,
    "truth": lambda value: (
        value is None or (_is_label(value, "name") and isinstance(value.get("label"), (str, type(None))))
    ),
    "label": lambda value: value is None or isinstance(value, str),
    "label_score": lambda value: value is None or _is_number(value),
    "score": _is_number,
}
