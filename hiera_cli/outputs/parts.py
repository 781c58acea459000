"""A folder of parts, here or in a bucket, each written by the worker that answered its inputs.

A part appears when it is whole, under a name that tells whose inputs it has: who does these again, as their worker was
lost before it could say that they are done, writes the same one. A later run that goes on leaves out what the parts
there have an answer for. The folder is complete when it has a manifest.

    part-RUN-UNIT-START.parquet     _run.json, while a run is unfinished     _manifest.json
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hiera_cli import __version__
from hiera_cli.errors import InputError, OutputError
from hiera_cli.inputs import cloud
from hiera_cli.inputs.source import Source, is_cloud
from hiera_cli.outputs.formats import jsonl
from hiera_cli.result import Records, Result
from hiera_cli.system import parts
from hiera_cli.system.utf8 import as_json, from_fields, name_bytes, valid

MANIFEST = "_manifest.json"
RUN = "_run.json"  # of a run that is unfinished: what it was asked
_EMPTY = "Name a folder that is empty or not there yet."
TRIAL = ".trial"  # whether something can be written
_LEFT = re.compile(r"(?:_run|_manifest)\.json\.\d+\.[0-9a-f]{8}\.part")  # by a run that was killed
_PART = re.compile(r"part-(\d{3,})-\d{8,}-\d{9,}\.(?:parquet|jsonl)")


class Done:
    """Names of inputs, and how often each is done: one that is named twice has two records.

    As 64 bits each of a digest: of ten million, one more is in it by chance once in 10^12.
    """

    def __init__(self, names: Iterable[bytes] = ()) -> None:
        keys = np.fromiter(map(_key, names), np.uint64)
        self._keys: NDArray[np.uint64]
        self._counts: NDArray[np.uint32]
        self._keys, counts = np.unique(keys, return_counts=True)
        self._counts = counts.astype(np.uint32)

    def count(self, path: str) -> int:
        """How often an input is done that has not been taken."""
        place = self._place(path)
        return 0 if place is None else int(self._counts[place])

    def take(self, path: str) -> bool:
        """Whether an input is done; the next one of its name is only if it is done once more."""
        place = self._place(path)
        if place is None or not self._counts[place]:
            return False
        self._counts[place] -= np.uint32(1)
        return True

    def _place(self, path: str) -> int | None:
        if not len(self._keys):
            return None
        key = np.uint64(_key(name_bytes(path)))
        place = int(np.searchsorted(self._keys, key))
        return place if place < len(self._keys) and self._keys[place] == key else None


def _key(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


# ---- where parts lie


class _Store(Protocol):
    """A folder: names below it, whole contents. Every method raises OutputError."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        ...

    def remove(self, name: str) -> None: ...

    def size(self, name: str) -> int: ...

    def tidy(self) -> None:
        """Remove what was left by workers that were killed as they wrote."""
        ...


class _Folder:
    """On a file system."""

    def __init__(self, path: str) -> None:
        self._path = path

    def names(self) -> list[str]:
        with _writing(self._path):
            os.makedirs(self._path, exist_ok=True)
            return sorted(os.listdir(self._path))

    def read(self, name: str) -> bytes:
        with _writing(self._path), open(os.path.join(self._path, name), "rb") as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        with _writing(self._path):
            parts.write(Path(self._path, name), [data])

    def remove(self, name: str) -> None:
        with _writing(self._path), suppress(FileNotFoundError):
            os.unlink(os.path.join(self._path, name))

    def size(self, name: str) -> int:
        with _writing(self._path):
            return os.path.getsize(os.path.join(self._path, name))

    def tidy(self) -> None:
        for pattern in ("part-*", "_*.json*"):
            parts.left_over(Path(self._path), pattern, discard=True)


class _Bucket:
    """In storage elsewhere, by fsspec."""

    def __init__(self, url: str) -> None:
        self._url = url
        with _writing(url):
            self._system, path = cloud.opened(url)
            self._path = path.rstrip("/")

    def names(self) -> list[str]:
        with _writing(self._url):
            try:
                listed = self._system.ls(self._path, detail=False)
            except FileNotFoundError:  # a prefix is there when something is under it
                return []
            return sorted(filter(None, (each.rstrip("/").removeprefix(f"{self._path}/") for each in listed)))

    def read(self, name: str) -> bytes:
        with _writing(self._url):
            return bytes(self._system.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        with _writing(self._url):
            self._system.pipe_file(f"{self._path}/{name}", data)

    def remove(self, name: str) -> None:
        with _writing(self._url), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def size(self, name: str) -> int:
        with _writing(self._url):
            return int(self._system.size(f"{self._path}/{name}"))

    def tidy(self) -> None:
        """There an object is whole or is not."""


@contextmanager
def _writing(where: str) -> Iterator[None]:
    """Within it what goes wrong is an OutputError that names the folder."""
    try:
        yield
    except OutputError:
        raise
    except InputError as error:
        raise OutputError(f"cannot write {where}: {error.message}") from error
    except Exception as error:  # of whichever library it is
        reason = error.strerror if isinstance(error, OSError) and not is_cloud(where) else None
        raise OutputError(f"cannot write {where}: {reason or cloud.reason(error)}") from error


def _store(where: str) -> _Store:
    return _Bucket(where) if is_cloud(where) else _Folder(where)


# ---- a worker's part


@dataclass(frozen=True)
class Parts:
    """Where and how workers write. folder: absolute, or a URL. run: the number of the run. done: what is left out."""

    folder: str
    format: str
    records: Records
    run: int
    done: Done = field(default_factory=Done)

    def unseen(self) -> str | None:
        """Why the run's folder, and no other of its name, is not here, as the end of a sentence; None if it is."""
        if not is_cloud(self.folder):
            return None if os.path.exists(os.path.join(self.folder, _Lock.NAME)) else ""
        try:
            store, trial = _store(self.folder), f"{TRIAL}-{os.urandom(4).hex()}"
            store.write(trial, b"")
            store.remove(trial)
        except OutputError as error:
            return f" ({error.message.removeprefix(f'cannot write {self.folder}: ')})"
        return None

    def write(self, unit: int, start: int, results: Sequence[Result]) -> None:
        """Write the part of these. Of none there is none. Raises OutputError."""
        if results:
            name = f"part-{self.run:03}-{unit:08}-{start:09}.{self.format}"
            try:
                _store(self.folder).write(name, _content(results, self.format, self.records))
            except OutputError as error:
                error.remedy = "go on"
                raise


def _content(results: Iterable[Result], format: str, records: Records) -> bytes:
    if format == "jsonl":
        return "".join(jsonl(results)).encode()
    from hiera_cli.outputs.parquet import parquet

    return b"".join(parquet(results, records))


# ---- the run's folder


class PartsFolder:
    """The output of a run whose workers write it. path: a folder, or a prefix in a bucket.

    resume: go on with what is there. overwrite: replace it. Raises OutputError where it can't be written, holds what is
    none of a run's, or was made with other settings.
    """

    def __init__(
        self, path: str, format: str, records: Records, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        self.is_complete = False
        self.part = path  # for messages: what is done lies there
        self.done = 0
        self.met: Callable[[dict[str, Any]], None] = lambda entry: None
        self._path = path
        self._format = format
        self._records = records
        self._answered = self._failed = 0
        self._kept = 0  # records of earlier runs
        if not is_cloud(path) and os.path.exists(path.rstrip("/")) and not os.path.isdir(path):
            raise OutputError(f"cannot write parts into {path}: it is a file", _EMPTY)
        self._store = _store(path if is_cloud(path) else os.path.abspath(path))
        self._made = [] if is_cloud(path) else _missing(path)  # folders
        self._lock = None if is_cloud(path) else _Lock(path)
        try:
            names = self._store.names()
        except BaseException:
            self._unlock()
            raise
        self._before = [name for name in names if _PART.fullmatch(name)]  # parts
        self._about: dict[str, Any] = {}  # of the run to go on with
        self._is_new = not resume
        self._had_run = RUN in names
        self._begun = False
        try:
            self._check_names(names, resume=resume, overwrite=overwrite)
            self._done = Done()
            self._failures: dict[str, int] = {}  # records of errors in the parts that are there
            if resume:
                self._done = Done(self._names_done())
            self._run = 1 + max((int(_PART.fullmatch(name)[1]) for name in self._before), default=0)  # type: ignore[index]
            # What is there stands for itself until the run begins: its parts with what they were made with.
            self._store.write(TRIAL, _json(self._asked()))
            self._store.remove(TRIAL)
        except BaseException:
            self._unlock()
            raise

    @property
    def parts(self) -> Parts:
        """What workers need to know."""
        folder = self._path if is_cloud(self._path) else os.path.abspath(self._path)
        return Parts(folder, self._format, self._records, self._run, self._done)

    def _check_names(self, names: list[str], *, resume: bool, overwrite: bool) -> None:
        ours = {*self._before, MANIFEST, RUN, _Lock.NAME}
        others = [name for name in names if name not in ours and not name.startswith(".") and not _LEFT.fullmatch(name)]
        if others and not (MANIFEST in names or RUN in names):
            raise OutputError(
                f"cannot write parts into {self._path}: there is something else in it, such as {others[0]}",
                _EMPTY,
            )
        if not resume and not overwrite:
            if MANIFEST in names:
                raise OutputError(f"{self._path} exists already", remedy="resume or replace")
            if RUN in names:
                raise OutputError(f"{self._path}: an earlier run did not finish", remedy="resume or begin anew")
            if self._before:
                raise OutputError(f"{self._path} has parts of an earlier run", remedy="another folder")
        if not resume:
            return
        found = RUN if RUN in names else MANIFEST
        if found not in names:
            if self._before:
                raise OutputError(
                    f"cannot go on with {self._path}: {RUN} is missing, which tells what made its parts",
                    remedy="another folder",
                )
            return
        try:
            self._about = dict(json.loads(self._store.read(found)))
            if not {*self._asked()} <= {*self._about}:
                raise ValueError("it lacks something")
        except (TypeError, ValueError) as error:
            raise OutputError(f"cannot go on with {self._path}: {found} is damaged", remedy="another folder") from error
        for name, now in self._asked().items():
            if self._about.get(name) != now:
                raise self._made_otherwise(name, self._about.get(name), now)

    def _made_otherwise(self, name: str, then: object, now: object) -> OutputError:
        if isinstance(then, dict) and isinstance(now, dict):  # settings: the first that differs, or that only one has
            name = next(key for key in {**now, **then} if then.get(key, ...) != now.get(key, ...))
            then, now = then.get(name), now.get(name)
        return OutputError(
            f"cannot go on with {self._path}: its {name.replace('_', '-')} is {_in_words(then)}, "
            f"that of this run {_in_words(now)}",
            remedy="another output",
        )

    def _asked(self) -> dict[str, Any]:
        return {
            "format": self._format,
            "answers": list(self._records.kind("").answer()),
            "model": valid(self._records.model),
            "settings": json.loads(as_json(dict(self._records.settings))),
        }

    def _names_done(self) -> Iterator[bytes]:
        """The inputs that the parts there have an answer for."""
        for name in self._before:
            content = self._store.read(name)
            try:
                for entry, ok in _entries(content, self._format):
                    if ok:
                        self._kept += 1
                        yield entry
                    else:
                        self._failures[name] = self._failures.get(name, 0) + 1
            except Exception as error:  # of pyarrow, or of JSON
                raise OutputError(
                    f"cannot go on with {self._path}: {name} is damaged ({cloud.reason(error)})",
                    "Move it away: its inputs are done again.",
                ) from error

    # ---- while the run goes on: as outputs/journal.py has it

    @property
    def has_records(self) -> bool:
        """Whether there is something to go on with."""
        return bool(self._before) and not self._is_new

    def remaining(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The sources that have no answer yet. Of archives the workers leave out what has one."""
        for source in sources:
            if self._done.take(source.path):
                self.done += 1
            else:
                yield source

    def check_precision(self, precision: str) -> None:
        """Raise OutputError if the parts there were made at another one."""
        self._check("precision", precision)

    def check(self, precision: str, digest: str) -> None:
        """The same, or by other weights. Else begin."""
        self._check("precision", precision)
        self._check("weights_sha256", digest)
        self._about.update(precision=precision, weights_sha256=digest)
        self._begin()

    def _check(self, name: str, now: str) -> None:
        if self._about.get(name) not in (None, now):
            raise self._made_otherwise(name, self._about[name], now)

    def _begin(self) -> None:
        if self._is_new:
            for name in (*self._before, MANIFEST):
                self._store.remove(name)
            self._before = []
        for name in self._failures:  # their inputs are tried again
            self._store.write(name, _without_failures(self._store.read(name), self._format))
        self._failures = {}
        self._store.write(RUN, _json({**self._asked(), **self._about_model()}))
        self._store.remove(MANIFEST)
        self._begun = True

    def _about_model(self) -> dict[str, Any]:
        return {name: self._about.get(name) for name in ("precision", "weights_sha256")}

    def count(self, results: Iterable[Result]) -> Iterator[str]:
        """The writer: the workers have written the Results."""
        for result in results:
            if result.error is None:
                self._answered += 1
            else:
                self._failed += 1
            yield ""

    def write(self, data: str | bytes) -> None:
        """Nothing is left to write."""

    def close(self, *, complete: bool) -> None:
        """Write the manifest of a complete run; remove what an unfinished one that came to nothing has left."""
        try:
            if complete:
                self._complete()
            elif self._begun and not self._had_run:
                with suppress(OutputError):  # what is wrong with the folder has been told
                    if not any(map(_PART.fullmatch, self._store.names())):
                        self._store.remove(RUN)
            self.is_complete = complete
        finally:
            self._unlock()

    def _complete(self) -> None:
        before = {*self._before}
        parts = []
        for name in self._store.names():
            match = _PART.fullmatch(name)
            if match is None:
                continue
            if int(match[1]) < self._run and name not in before:  # of a worker of an earlier run, that ended only now
                self._store.remove(name)
            else:
                parts.append({"name": name, "bytes": self._store.size(name)})
        failed = self._failed + sum(self._failures.values())  # of a run that had nothing left to do
        manifest = {
            "hiera": __version__,
            **self._asked(),
            **self._about_model(),
            "records": self._kept + self._answered + failed,
            "answered": self._kept + self._answered,
            "failed": failed,
            "parts": parts,
        }
        self._store.write(MANIFEST, _json(manifest))
        self._store.remove(RUN)
        self._store.tidy()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            with suppress(OSError):  # where something is in one
                for folder in self._made:
                    os.rmdir(folder)


def _missing(path: str) -> list[str]:
    """The folders that have to be made for one, itself first."""
    missing = []
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _in_words(value: object) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(map(str, value)) if isinstance(value, list) else as_json(value)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _entries(content: bytes, format: str) -> Iterator[tuple[bytes, bool]]:
    """The name of each record of a part, and whether it is an answer."""
    if format == "jsonl":
        for line in content.splitlines():
            entry = json.loads(line)
            yield from_fields(entry["path"], entry["path_bytes"]), entry["status"] == "ok"
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content), columns=["path", "path_bytes", "status"])
    for path, raw, status in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield path.encode() if raw is None else raw, status == "ok"


def _without_failures(content: bytes, format: str) -> bytes:
    if format == "jsonl":
        return b"".join(line for line in content.splitlines(keepends=True) if json.loads(line)["status"] == "ok")
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content))
    sink = pa.BufferOutputStream()
    pq.write_table(table.filter(pc.equal(table["status"], "ok")), sink, compression="zstd")
    return bytes(sink.getvalue())


class _Lock:
    """One run at a time has a folder. Raises OutputError if another has it."""

    NAME = "_lock"

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, self.NAME)
        with _writing(folder):
            os.makedirs(folder, exist_ok=True)
            while not self._is_taken(folder):  # where a run has just ended, which removes the file
                pass

    def _is_taken(self, folder: str) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(ImportError):
            import fcntl

            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._descriptor)
                raise OutputError(f"another run is writing {folder} right now") from error
            except OSError:  # a file system without locks
                pass
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                return True
        os.close(self._descriptor)
        return False

    def close(self) -> None:
        with suppress(OSError):
            os.unlink(self._path)
            os.close(self._descriptor)
