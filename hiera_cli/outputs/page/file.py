"""The page as a file that is written while its run goes on, and the folder of its thumbnails.

Up to 500 thumbnails stand in the page itself, which then is one file. With one more they all move into a folder beside
it: `page_files/1/000001.thumbnail` for page.html. They are JPEGs; a walk that comes by, be it this run's own, is not to
take them for photos, and browsers go by their content. The number is one that no folder there has: a page that is
replaced keeps its own thumbnails until the new one has its name.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Any
from urllib.parse import quote, unquote

from hiera_cli.errors import OutputError
from hiera_cli.outputs.destination import OutputFile
from hiera_cli.outputs.page import template
from hiera_cli.outputs.page.lines import Line, Lines, text_of
from hiera_cli.result import Result
from hiera_cli.system.printable import printable

MOST_WITHIN = 500  # thumbnails: 6 MB of them

_THUMBNAIL = re.compile(r"\d{6,}\.thumbnail")
_HEAD_BYTES = 1 << 12  # of a page: within them it says where its thumbnails are


class PageFile:
    """An output file that is a page. title: what stands above it; None: its name.

    While it is written it has a name that a browser knows, too: page.part.html. Raises OutputError if it can't be
    written.
    """

    def __init__(self, path: str, *, title: str | None = None, overwrite: bool = False) -> None:
        stem, suffix = os.path.splitext(path)
        self._file = OutputFile(path, overwrite=overwrite, part=f"{os.path.basename(stem)}.part{suffix or '.html'}")
        self._path = path
        self._title = printable(title if title is not None else os.path.basename(stem))
        self._lines = Lines(os.path.dirname(os.path.abspath(path)))
        self._files = f"{path.removesuffix('.html')}_files"
        if os.path.lexists(self._files) and not os.path.isdir(self._files):
            self._file.discard()
            raise OutputError(f"cannot write {self._files}, the folder of thumbnails: a file is there")
        self._folder: str | None = None  # of the thumbnails, from the first that has no place within
        self._count = 0  # thumbnails
        self._head_bytes = 0
        self._of_target, self._of_part = map(self._thumbnails_of, self._file.names)

    @property
    def is_complete(self) -> bool:
        """Whether the file has its name: after `close`."""
        return self._file.is_complete

    @property
    def part(self) -> str:
        """The name that an unfinished page has, for messages."""
        return self._file.part

    def of_results(self, results: Iterable[Result]) -> Iterator[str]:
        """The writer: what a page shows of Results, with the thumbnails that they have."""
        return self.of_records((result.to_dict(), result.thumbnail, "") for result in results)

    def of_records(self, records: Iterable[tuple[Mapping[str, Any], bytes | None, str]]) -> Iterator[str]:
        """The same of records: (record, thumbnail, why there is none). Raises OutputError for a thumbnail's file."""
        for record, thumbnail, missing in records:
            *new, photo = self._lines.of(record)
            if missing:
                photo["missing"] = missing
            begun = self._file.size > 0
            if thumbnail is not None:
                self._count += 1
                if self._count == MOST_WITHIN + 1:
                    self._move_out()
                photo["thumbnail"] = self._kept(thumbnail)
            text = "".join(map(text_of, (*new, photo)))
            if not begun:
                head = self._head()
                self._head_bytes = len(head.encode())
                text = head + text
            yield text

    def write(self, data: str | bytes) -> None:
        """Append what the writer gave."""
        if not self._file.size and self._of_part != self._of_target:
            self._remove(self._of_part)  # its page is overwritten
        self._file.write(data)

    def close(self, *, complete: bool) -> None:
        """Complete the document, be it of what was done, and the file if it is complete. Raises OutputError."""
        if self._file.size:
            try:
                self._file.write(template.tail(complete=complete))
            except OutputError:
                if complete:
                    raise
        self._file.close(complete=complete)
        if complete:
            self._remove(self._of_target)

    def _head(self) -> str:
        folder = "" if self._folder is None else os.path.relpath(self._folder, os.path.dirname(self._path) or ".")
        return template.head(self._title, quote(os.fsencode(folder.replace(os.sep, "/"))))

    def _kept(self, thumbnail: bytes) -> str | int:
        if self._folder is None:
            return base64.b64encode(thumbnail).decode()
        self._save(self._count, thumbnail)
        return self._count

    def _move_out(self) -> None:
        """Move the thumbnails that are within the page into files."""
        try:
            self._folder = self._new_folder()
        except OSError as error:
            raise self._cannot_write(self._files, error) from error
        with self._file.reading() as page:
            page.seek(self._head_bytes)
            self._file.rewrite(self._moved(page))

    def _moved(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The page with its thumbnails in files. lines: of the page as it was, behind its head."""
        yield self._head().encode()
        numbers = count(1)
        for text in lines:
            line: Line = json.loads(text)
            if "thumbnail" in line:
                number = next(numbers)
                self._save(number, base64.b64decode(line["thumbnail"]))
                line["thumbnail"] = number
            yield text_of(line).encode()

    def _new_folder(self) -> str:
        os.makedirs(self._files, exist_ok=True)
        for number in count(1):
            with suppress(FileExistsError):
                folder = os.path.join(self._files, str(number))
                os.mkdir(folder)
                return folder
        raise AssertionError

    def _save(self, number: int, thumbnail: bytes) -> None:
        assert self._folder is not None
        path = os.path.join(self._folder, f"{number:06}.thumbnail")
        try:
            with open(path, "wb") as stream:
                stream.write(thumbnail)
        except OSError as error:
            with suppress(OSError):
                os.unlink(path)
            raise self._cannot_write(path, error) from error

    def _cannot_write(self, path: str, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {path}: {error.strerror or error}", f"What was written before is in {self.part}"
        )

    def _thumbnails_of(self, page: str) -> str | None:
        """The folder of the thumbnails that a page of ours has under this name, if there is one."""
        try:
            with open(page, "rb") as stream:
                head = stream.read(_HEAD_BYTES).decode("utf-8", "replace")
        except OSError:
            return None
        named = unquote(template.thumbnails_of(head))
        number = named.removeprefix(f"{os.path.basename(self._files)}/")
        return os.path.join(self._files, number) if number.isdecimal() else None

    def _remove(self, folder: str | None) -> None:
        """Remove the thumbnails of a page that is no more, and nothing that is not ours."""
        if folder is None or folder == self._folder:
            return
        with suppress(OSError):
            for name in filter(_THUMBNAIL.fullmatch, os.listdir(folder)):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)
            os.rmdir(self._files)  # if it was the last
