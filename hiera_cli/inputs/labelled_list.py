"""A table of paths and labels → images, each with the class that it is said to show."""

from __future__ import annotations

import codecs
import csv
import os
from collections import Counter
from collections.abc import Iterator
from io import StringIO

from hiera_cli.errors import UsageError
from hiera_cli.inputs import signatures
from hiera_cli.inputs.labelled import Labelled
from hiera_cli.inputs.read import open_descriptor, read_raw
from hiera_cli.inputs.source import STDIN, Kind, Source, is_cloud, is_url

# What columns are called: of paths, and of labels.
PATHS = frozenset({"path", "file", "filename", "file_name", "filepath", "image", "image_path", "imageid", "image_id"})
LABELS = frozenset({"label", "class", "truth", "target", "category", "wnid", "class_id", "label_id"})


class LabelledList:
    """A csv or tsv of paths and labels, its fields quoted as RFC 4180 says.

    name: of the file, - for stdin. folder: that relative paths are in; "" for the current one. names: of the classes,
    in the order in which they come. counts: of the images of each. A header may name the two columns, among others;
    without one there are two, the path first. Between them is what the suffix says, else what the first line has: a
    tab, a comma, a semicolon; or a space, before the last word of each line.
    Raises UsageError if the file can't be read or is no such table, with the line.
    """

    def __init__(self, name: str, folder: str = "") -> None:
        self._name = "stdin" if name == STDIN else name
        self._folder = folder
        self._text = _text(name)
        self._delimiter = _delimiter(self._text, self._name)
        self.counts: Counter[str] = Counter()
        self.repeated = 0  # rows of paths that stand in a row before
        labels: dict[int, str] = {}  # by the paths' hashes: there may be millions
        for number, path, label in self._rows():
            before = labels.setdefault(hash(path), label)
            if before != label:
                raise self._wrong(number, f"{path} is {label!r} here, and {before!r} in a line before")
            self.counts[label] += 1
        self.names = list(self.counts)
        self.repeated = self.counts.total() - len(labels)

    def images(self) -> Iterator[Labelled]:
        """In the order of the list; one that is named twice comes twice."""
        for _, path, label in self._rows():
            if is_url(path):
                yield Labelled(Source(path, Kind.CLOUD if is_cloud(path) else Kind.URL), label)
            else:
                yield Labelled(Source(os.path.join(self._folder, path)), label)

    def _rows(self) -> Iterator[tuple[int, str, str]]:
        """(line, path, label)."""
        columns: tuple[int, int, int] | None = None
        for number, row in self._fields():
            if columns is None:
                columns = _columns(row)
                for name in PATHS | LABELS:
                    if columns is not None and [field.strip().casefold() for field in row].count(name) > 1:
                        raise self._wrong(number, f"two columns are called {name}")
                if columns is not None:
                    continue
                columns = (0, 1, 2)
            at_path, at_label, count = columns
            if len(row) != count and len(row) > at_label:
                hint = "A field that has the separator in it is to be quoted." if len(row) > count else ""
                raise self._wrong(number, f"{len(row)} fields, not {count}", hint)
            path = row[at_path] if at_path < len(row) else ""
            label = row[at_label].strip() if at_label < len(row) else ""
            for what, value in (("label", label), ("path", path)):
                if not value:
                    raise self._wrong(number, f"there is no {what}")
            yield number, path, label

    def _fields(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not empty, each with the number of its first line."""
        if self._delimiter == " ":
            for number, line in enumerate(StringIO(self._text), 1):
                if line.strip():
                    yield number, line.rsplit(None, 1)
            return
        reader = csv.reader(StringIO(self._text, newline=""), delimiter=self._delimiter, strict=True)
        number = 1
        try:
            for row in reader:
                if any(row):
                    yield number, row
                number = reader.line_num + 1
        except csv.Error as error:
            if "field larger" in str(error):
                raise self._wrong(number, f"a field of more than {csv.field_size_limit():,} characters") from error
            raise self._wrong(number, f"a field's quotes are not as RFC 4180 has them ({error})") from error

    def _wrong(self, line: int, what: str, hint: str = "") -> UsageError:
        return UsageError(f"{self._name}, line {line}: {what}", hint)


def _text(name: str) -> str:
    """The text of the file; bytes that are no UTF-8 as names have them."""
    try:
        with open_descriptor(0) if name == STDIN else open(name, "rb", buffering=0) as stream:
            data = b"".join(iter(lambda: read_raw(stream), b""))
    except OSError as error:
        raise UsageError(f"cannot read the list {name}: {error.strerror or error}") from error
    if signatures.is_picture(data[: 1 << 16]):
        raise UsageError(f"{name} is an image, not a table of paths and labels")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"the table {name} is in UTF-16", "Save it as UTF-8: `iconv -f UTF-16 -t UTF-8`.")
    if b"\0" in data:
        raise UsageError(f"{name} is not a table of paths and labels: it holds binary data")
    if not data.strip():
        raise UsageError(f"there is nothing in {name}: it is to have a line an image, its path and its label")
    return os.fsdecode(data.removeprefix(codecs.BOM_UTF8))


def _delimiter(text: str, name: str) -> str:
    """What stands between the fields."""
    first = next(line for line in text.splitlines() if line.strip())
    of_suffix = {".tsv": "\t", ".csv": ","}.get(os.path.splitext(name)[1].lower(), "")
    found = next((each for each in (of_suffix, "\t", ",", ";", " ") if each and each in first.strip()), None)
    if found is None:
        hint = "Write a line an image: its path, a comma or tab, its label."
        raise UsageError(f"{name}, line 1: there is no label, only {first.strip()!r}", hint)
    return found


def _columns(row: list[str]) -> tuple[int, int, int] | None:
    """(of paths, of labels, how many) as a header names them; None if the row is no header."""
    names = [field.strip().casefold().replace(" ", "_") for field in row]
    path = next((place for place, name in enumerate(names) if name in PATHS), None)
    label = next((place for place, name in enumerate(names) if name in LABELS), None)
    if len(names) == 2 and (path is None) != (label is None):  # the other one may be called anything
        path, label = (1 - label, label) if label is not None else (path, 1 - (path or 0))
    return None if path is None or label is None else (path, label, len(names))
