"""Results for storage elsewhere (s3://, gs://, az://, hf://): a file here until they are complete, then there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hiera_cli.errors import InputError, OutputError
from hiera_cli.inputs import cloud
from hiera_cli.outputs.destination import encoded
from hiera_cli.system.streams import write_whole


class CloudFile:
    """An object that appears when it is complete. Until then its results are in a temporary file on this machine.

    URL.part is there from the start, empty: what may not be written is told before anything is computed. Of a run that
    does not come to its end, it gets what was done. overwrite: replace what is there. Raises OutputError.
    """

    def __init__(self, url: str, *, overwrite: bool = False) -> None:
        self.url = url
        self.part = f"{url}.part"
        self.is_complete = False
        with self._writing():
            self._system, self._path = cloud.opened(url)
            self._part_path = f"{self._path}.part"
            if not overwrite and self._system.exists(self._path):
                raise OutputError(f"{url} exists already", remedy="replace")
            if not overwrite and self._system.exists(self._part_path) and self._system.size(self._part_path):
                raise OutputError(f"{self.part} exists: an earlier run did not finish", remedy="begin anew")
            self._system.pipe_file(self._part_path, b"")
        self._descriptor, self._local = tempfile.mkstemp(prefix="hiera-", suffix=os.path.splitext(url)[1])
        self._size = 0
        self._closed = False

    def write(self, data: str | bytes) -> None:
        """Write all of it, into the temporary file."""
        data = encoded(data)
        try:
            write_whole(self._descriptor, data)
        except OSError as error:
            raise OutputError(f"cannot write {self._local}, for {self.url}: {error.strerror or error}") from error
        self._size += len(data)

    def close(self, *, complete: bool) -> None:
        """Send what there is, once. Where that fails it stays in the temporary file, whose name is told."""
        if self._closed:
            return
        self._closed = True
        os.close(self._descriptor)
        with self._writing(f"The results are in {self._local}" if self._size else ""):
            if complete:
                self._system.put_file(self._local, self._path)
                self._system.rm_file(self._part_path)
            elif self._size:
                self._system.put_file(self._local, self._part_path)
            else:
                self._system.rm_file(self._part_path)
        os.unlink(self._local)
        self.is_complete = complete

    @contextmanager
    def _writing(self, hint: str = "") -> Iterator[None]:
        try:
            yield
        except OutputError:
            raise
        except InputError as error:
            raise OutputError(f"cannot write {self.url}: {error.message}", hint) from error
        except Exception as error:  # of whichever library it is
            raise OutputError(f"cannot write {self.url}: {cloud.reason(error)}", hint) from error
