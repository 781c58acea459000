"""Features as Parquet: the columns of the JSON record, by pyarrow (the extra `parquet`)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hiera_cli.system.utf8 import valid
from hiera_cli.tasks.embed import Embedded

GROUP_BYTES = 32 << 20  # of features: what is held in memory before it is written
GROUP_ROWS = 8192
TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def parquet(results: Iterable[Embedded], settings: Mapping[str, Any], *, tokens: bool) -> Iterator[bytes]:
    """The writer. A row an input, in order; a failed one has no features, and its error.

    settings: of the records. tokens: features are 7 × 7 × C, and not C. Whenever the Results end, the file is whole.
    """
    schema = _schema(settings, tokens)
    buffer = io.BytesIO()
    written = _Counting(buffer)
    with pq.ParquetWriter(written, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for result in results:
            rows.append(_row(result))
            size += 0 if result.features is None else result.features.nbytes
            if size >= GROUP_BYTES or len(rows) == GROUP_ROWS:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
                rows, size = [], 0
                yield written.taken()
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    yield written.taken()


def _schema(settings: Mapping[str, Any], tokens: bool) -> pa.Schema:
    features = pa.list_(pa.float32())
    if tokens:
        features = pa.list_(pa.list_(features))
    return pa.schema(
        [
            ("path", pa.string()),
            ("path_bytes", pa.string()),
            ("status", pa.string()),
            ("model", pa.string()),
            ("precision", pa.string()),
            ("features", features),
            ("error", pa.struct([("type", pa.string()), ("message", pa.string())])),
            ("remarks", pa.list_(pa.string())),
            ("settings", pa.struct([(name, TYPES[type(value)]) for name, value in settings.items()])),
        ]
    )


def _row(result: Embedded) -> dict[str, Any]:
    row = {key: _valid(value) for key, value in replace(result, features=None).to_dict().items()}
    features = result.features
    if features is not None:
        row["features"] = features if features.ndim == 1 else [list(line) for line in features]
    return row


def _valid(value: Any) -> Any:
    """Texts without surrogates, which no UTF-8 has."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {key: _valid(each) for key, each in value.items()}
    return [valid(each) if isinstance(each, str) else each for each in value] if isinstance(value, list) else value


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
