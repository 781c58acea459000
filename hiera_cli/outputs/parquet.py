"""Records as Parquet: the columns of the JSON record, by pyarrow (the extra `parquet`).

path_bytes is binary here, and not base64: the name's own bytes where it is no valid UTF-8, null for every other name.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hiera_cli.result import Records, Result
from hiera_cli.system.utf8 import valid
from hiera_cli.tasks.classify import Classified
from hiera_cli.tasks.embed import Embedded
from hiera_cli.tasks.evaluate import Evaluated

GROUP_BYTES = 32 << 20  # of features: what is held in memory before it is written
GROUP_ROWS = 8192

Columns = dict[str, Any]

_NAME: Columns = {"path": pa.string(), "path_bytes": pa.binary()}
_CLASS: Columns = {"index": pa.int32(), "wnid": pa.string(), "label": pa.string()}
_TRUTH: Columns = {"name": pa.string(), **_CLASS}
_PREDICTIONS = pa.list_(pa.struct([("rank", pa.int32()), *_CLASS.items(), ("score", pa.float64())]))
_FEATURES = pa.list_(pa.float32())

ANSWERS: dict[type[Result], Columns] = {
    Classified: {"predictions": _PREDICTIONS},
    Evaluated: {
        "predictions": _PREDICTIONS,
        "truth": pa.struct([*_TRUTH.items()]),
        "rank": pa.int32(),
        "correct": pa.bool_(),
    },
    Embedded: {"features": _FEATURES},
}
FOUND: Columns = {**_NAME, "score": pa.float64(), **_CLASS, "label_score": pa.float64()}

# Of the settings, of all tasks: a type each whatever the value, so that files of several runs have one schema.
SETTINGS: Columns = {
    **dict.fromkeys(("tokens", "normalize", "explain", "full_decode"), pa.bool_()),
    **dict.fromkeys(("rollup", "min_score"), pa.float64()),
    "top_k": pa.int64(),
    "among": pa.list_(pa.string()),
}


def parquet(results: Iterable[Result], records: Records) -> Iterator[bytes]:
    """The writer. A row an input, in order, in the columns of its record. Whenever the Results end, the file is whole.

    Of `embed`: features are float32, a list of C, or of 7 rows of 7 columns of C with its setting `tokens`.
    """
    answer = ANSWERS[records.kind]
    if records.settings.get("tokens"):
        answer = {"features": pa.list_(pa.list_(_FEATURES))}
    columns = {
        **_NAME,
        **dict.fromkeys(("status", "model", "precision"), pa.string()),
        **answer,
        "error": pa.struct([("type", pa.string()), ("message", pa.string())]),
        "remarks": pa.list_(pa.string()),
        "settings": pa.struct([(name, SETTINGS[name]) for name in records.settings]),
    }
    return rows(map(_row, results), columns)


def rows(records: Iterable[Mapping[str, Any]], columns: Columns) -> Iterator[bytes]:
    """A file of records as JSON has them, in row groups, each as soon as it is full. columns: their types."""
    schema = pa.schema([*columns.items()])
    buffer = io.BytesIO()
    written = _Counting(buffer)
    with pq.ParquetWriter(written, schema, compression="zstd") as writer:
        group: list[dict[str, Any]] = []
        size = 0
        for record in records:
            row = {key: _valid(value) for key, value in record.items()}
            if (name := row["path_bytes"]) is not None:
                row["path_bytes"] = base64.b64decode(name)
            group.append(row)
            size += getattr(row.get("features"), "nbytes", 0)
            if size >= GROUP_BYTES or len(group) == GROUP_ROWS:
                writer.write_batch(_batch(group, schema))
                group, size = [], 0
                yield written.taken()
        if group:
            writer.write_batch(_batch(group, schema))
    yield written.taken()


def _row(result: Result) -> dict[str, Any]:
    if not isinstance(result, Embedded):
        return result.to_dict()
    return {**replace(result, features=None).to_dict(), "features": result.features}  # as they are, and not as text


def _batch(group: list[dict[str, Any]], schema: Any) -> Any:
    for row in group:
        if getattr(row.get("features"), "ndim", 1) > 1:
            row["features"] = [list(line) for line in row["features"]]
    return pa.RecordBatch.from_pylist(group, schema=schema)


def _valid(value: Any) -> Any:
    """Texts without surrogates, which no UTF-8 has."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {key: _valid(each) for key, each in value.items()}
    return [*map(_valid, value)] if isinstance(value, list) else value


class _Counting(io.RawIOBase):
    """What is written to it, to be taken out; a file that says how far it is, and can't go back."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._buffer.write(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        data = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return data
