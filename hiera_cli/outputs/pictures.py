"""The pictures of `reconstruct` and `explain`, saved; the losses of the first."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hiera_cli.errors import OutputError
from hiera_cli.system import parts
from hiera_cli.system.utf8 import escaped, raw_name
from hiera_cli.tasks.explain import Explained
from hiera_cli.tasks.reconstruct import Reconstructed

Pictured = TypeVar("Pictured", Explained, Reconstructed)

OF_A_PICTURE = re.compile(r"\d{6,}(-.*)?\.png")
COMPRESSION = 1  # of 9: a fifth of the default's time, for an eighth more bytes
SLUG = 80  # characters of an input's name in that of its picture


class Pictures:
    """Where pictures are saved: one file, or a folder with a PNG for each input.

    overwrite: replace the picture, or all that an earlier run left in the folder. Raises OutputError, with the path,
    where one can't be written. Each appears under its name when it is whole.
    """

    def __init__(self, path: str, *, folder: bool, overwrite: bool = False) -> None:
        self._path = path
        self._folder = folder
        if not folder and os.path.isdir(path):
            raise OutputError(f"cannot write {path}: it is a folder")
        taken = os.path.lexists(path) if not folder else os.path.isdir(path) and bool(os.listdir(path))
        if folder and os.path.lexists(path) and not os.path.isdir(path):
            raise OutputError(f"{path} is not a folder", remedy="picture or folder")
        if taken and not overwrite:
            raise OutputError(f"{path} exists already{', with files in it' if folder else ''}", remedy="replace")
        self._begun = False

    def saved(self, results: Iterable[Pictured]) -> Iterator[Pictured]:
        """The Results, each with its picture saved, and the name of that. Raises OutputError."""
        for place, result in enumerate(results):
            if result.picture is not None:
                data = io.BytesIO()
                result.picture.save(data, "PNG", compress_level=COMPRESSION)
                file = os.path.join(self._path, _name(result.path, place)) if self._folder else self._path
                self._write(file, data.getvalue())
                result = replace(result, picture=None, file=file)
            yield result

    def _write(self, file: str, data: bytes) -> None:
        try:
            if self._folder and not self._begun:
                os.makedirs(self._path, exist_ok=True)
                for name in filter(OF_A_PICTURE.fullmatch, os.listdir(self._path)):  # of the run that is overwritten
                    os.unlink(os.path.join(self._path, name))
                self._begun = True
            parts.write(Path(file), [data])
        except OSError as error:
            raise OutputError(f"cannot write {file}: {error.strerror or error}") from error


def _name(path: str, place: int) -> str:
    """Of an input's picture: its place makes it one of its own, its name says whose it is."""
    stem = os.path.splitext(os.path.basename(path.rstrip("/")))[0]
    slug = re.sub(r"[^\w.-]+", "-", stem.encode("utf-8", "replace").decode()).strip("-.")[:SLUG]
    return f"{place + 1:06}{'-' if slug else ''}{slug}.png"


def losses(results: Iterable[Reconstructed]) -> Iterator[str]:
    """path, loss, and the picture if one was saved: a line an image, tabs between. A failed input has no line here."""
    for result in results:
        if result.error is None:
            row = [escaped(raw_name(result.path)), f"{result.loss:.4f}"]
            yield "\t".join([*row, *([escaped(raw_name(result.file))] if result.file else [])]) + "\n"
