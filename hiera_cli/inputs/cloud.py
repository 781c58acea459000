"""Storage elsewhere (s3://, gs://, az://, hf://) as inputs, by fsspec: prefixes listed as folders are, objects read.

Credentials, regions and endpoints are those that the storage's own library finds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

from hiera_cli.errors import FetchError, InputError, NotFoundError, ReadError, TooLargeError
from hiera_cli.inputs import archives, signatures
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.inputs.walk import Walk
from hiera_cli.limits import Limits
from hiera_cli.result import Stamp

MAX_WORDS = 200  # characters of a library's own words in a message
NO_CREDENTIALS = "no credentials were found for it"


def opened(url: str) -> tuple[Any, str]:
    """(fsspec's file system, what the URL names in it). Raises InputError."""
    try:
        import fsspec

        scheme, _, rest = url.partition("://")
        system, path = fsspec.url_to_fs(f"{scheme.lower()}://{rest}", use_listings_cache=False)
    except ImportError as error:
        raise ReadError(f"{url.partition(':')[0]}:// needs a library: pip install 'hiera-cli[cloud]'") from error
    except Exception as error:  # whatever that library finds wrong with its settings
        raise ReadError(reason(error)) from error
    return system, str(path)


def unseen(url: str) -> str:
    """Why what a URL names is not for this machine: it lacks credentials or the library, or there is no such thing.

    "" if it is, and also of other trouble, which may pass.
    """
    try:
        system, path = opened(url)
        system.info(path)
    except InputError as error:
        return error.message
    except Exception as error:  # of whichever library it is
        told = reason(error)
        return told if isinstance(error, (FileNotFoundError, PermissionError)) or told == NO_CREDENTIALS else ""
    return ""


def reason(error: BaseException) -> str:
    """What went wrong, in a line, of the exceptions of any of the libraries."""
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such bucket or object"
    if isinstance(error, PermissionError):
        return "access is denied"
    if "Credential" in kind:
        return NO_CREDENTIALS
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or kind
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}…"


def sources(
    url: str, walk: Walk, excluded: Callable[[str, str], bool], skipped: Skipped, warn: Callable[[str], None]
) -> Iterator[Source]:
    """The object that a URL names, or the images under a prefix, in order, found folder by folder.

    A URL that ends like a picture's name is an object; for any other the storage is asked. Where both an object and a
    prefix have the name, they come one after the other. Only what the storage was asked for has a stamp. excluded: of a
    name, and of the folder below the prefix that it is in. skipped: counts what is passed over.
    """
    if not url.partition("://")[2].partition("/")[0]:
        yield Source(url, Kind.CLOUD, NotFoundError("it names no bucket"))
        return
    if archives.is_called_a_picture(url):
        yield Source(url, Kind.CLOUD)
        return
    try:
        system, path = opened(url)
        with _reading():
            is_folder = "/" not in path or system.isdir(path)
            about = {} if is_folder and ("/" not in path or url.endswith("/")) else system.info(path)
    except InputError as error:
        yield Source(url, Kind.CLOUD, error)
        return
    is_object = about.get("type", "directory") != "directory"
    if is_object and (about.get("size") or not is_folder):  # some programs mark a folder by an empty object
        yield _object(url, about)
    if not is_folder:
        return
    found = is_object
    for source in _walk(system, url, path, walk, excluded, skipped):
        found = True
        yield source
    if not found:
        warn(f"{url}: no images under this prefix")


def _object(url: str, about: Mapping[str, Any]) -> Source:
    """about: what the storage says of it."""
    if archives.has_suffix(url):
        return Source(url, Kind.CLOUD, ReadError("an archive is read from a file on this machine: copy it here first"))
    return Source(url, Kind.CLOUD, stamp=_stamp(about))


def _stamp(about: Mapping[str, Any]) -> Stamp | None:
    """In whole seconds: some storages tell more of them in listings than of an object alone."""
    size = about.get("size")
    changed = next(
        (about[key] for key in ("LastModified", "last_modified", "updated", "mtime") if about.get(key)), None
    )
    if isinstance(changed, str):
        with suppress(ValueError):
            changed = datetime.fromisoformat(changed.replace("Z", "+00:00"))  # which Python 3.10 does not take
    if not isinstance(size, int) or not isinstance(changed, datetime):
        return None
    return Stamp(size, int(changed.timestamp()) * 10**9)


class _Entry(NamedTuple):
    """One that a listing has. name: below the folder that was listed; it has slashes where a key has some in a row."""

    name: str
    is_folder: bool
    about: Mapping[str, Any]


def _entries(system: Any, folder: str) -> list[_Entry]:
    """What is in a folder, sorted: of two of a name the object first."""
    found: dict[tuple[str, bool], _Entry] = {}
    for about in system.ls(folder, detail=True):
        path, is_folder = about["name"], about["type"] == "directory"
        name = path.rstrip("/").rpartition("/")[2]  # of paths, for some libraries list others than were asked for
        if path.rstrip("/") != folder.rstrip("/"):
            found[name, is_folder] = _Entry(name, is_folder, about)
        elif is_folder and path.endswith("/"):  # keys such as a//b.jpg, which `ls` has no way to ask for
            for below, inner in system.find(folder, prefix="/", detail=True).items():
                name = below[len(folder) + 1 :]
                if name.startswith("/") and not name.endswith("/"):
                    found[name, False] = _Entry(name, False, inner)
        # and what is neither is an empty object that marks the folder
    return [found[key] for key in sorted(found)]


def _parts(name: str, below: str) -> Iterator[tuple[str, str]]:
    """The parts of an entry's name, of which most have one, each with the folder that it is in."""
    for part in filter(None, name.split("/")):
        yield part, below
        below = f"{below}/{part}" if below else part


def _walk(
    system: Any, url: str, path: str, walk: Walk, excluded: Callable[[str, str], bool], skipped: Skipped
) -> Iterator[Source]:
    """url, path: of the prefix. With a stack, for prefixes may be deep."""
    base = url.rstrip("/")
    suffixes = walk.suffixes()
    levels: list[tuple[str, Iterator[_Entry]]] = []

    def enter(below: str) -> Source | None:
        try:
            with _reading():
                levels.append((below, iter(_entries(system, f"{path}/{below}" if below else path))))
        except InputError as error:
            missing = isinstance(error, NotFoundError)
            told = "there is no such bucket or prefix" if missing else f"cannot list it: {error.message}"
            return Source(f"{base}/{below}" if below else url, Kind.CLOUD, type(error)(told))
        return None

    if failed := enter(""):
        yield failed
    while levels:
        below, entries = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name = entry.name
        inner = f"{below}/{name}" if below else name
        suffix = os.path.splitext(name)[1].lower()
        parts = list(_parts(name, below))
        if any(excluded(part, folder) for part, folder in parts):
            why = "excluded"
        elif not walk.hidden and any(part.startswith(".") and part not in (".", "..") for part, _ in parts):
            skipped.hidden += 1
            why = "hidden"
        elif entry.is_folder:
            if failed := enter(inner):
                yield failed
            continue
        elif (
            suffix in suffixes
            or (walk.archives and archives.has_suffix(name))
            or (suffix in ("", ".") and _is_picture(system, entry.about))
        ):
            yield _object(f"{base}/{inner}", entry.about)
            continue
        else:
            skipped.add(suffix)
            why = "not known as an image"
        if skipped.tell:
            skipped.tell(f"{base}/{inner}", why)


def _is_picture(system: Any, about: Mapping[str, Any]) -> bool:
    """By its first bytes. What can't be read is none, as in folders here."""
    try:
        return bool(about.get("size")) and signatures.is_picture(system.cat_file(about["name"], start=0, end=64))
    except Exception:  # of whichever library it is
        return False


@contextmanager
def _reading() -> Iterator[None]:
    """In the block, whatever a library raises is an InputError."""
    try:
        yield
    except Exception as error:
        raise failure(error) from error


def failure(error: BaseException) -> InputError:
    """Why an object gave no image."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, FileNotFoundError):
        return NotFoundError(reason(error))
    return FetchError(reason(error))


class Reader:
    """Reads objects: as many at once as are asked for; by a library that is not asynchronous, `limits.at_once`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.at_once, "object")
        self._under_way: set[Future[bytes]] = set()
        self._closed = False

    def submit(self, url: str, done: Callable[[bytes | InputError], None]) -> None:
        """Begin to read. `done` is called on another thread with the content, or with why there is none.

        After `close` nothing is begun, and `done` is not called.
        """

        def finished(future: Future[bytes]) -> None:
            self._under_way.discard(future)
            if future.cancelled() or self._closed:
                return
            error = future.exception()
            if isinstance(error, asyncio.TimeoutError):
                message = f"no complete answer within {self._limits.total:g} s"
                done(FetchError(message, remedy="url_timeout"))
            elif error is not None:
                done(b"" if "not satisfiable" in str(error) else failure(error))  # an empty one has no range of bytes
            elif len(data := future.result()) > self._limits.bytes:
                done(TooLargeError(f"it is over {self._limits.bytes >> 20} MiB", remedy="max_mib"))
            else:
                done(data)

        if self._closed:
            return
        try:
            system, path = opened(url)
        except InputError as error:
            done(error)
            return
        if system.async_impl:
            future = asyncio.run_coroutine_threadsafe(self._bounded(system, path), system.loop)
        else:
            future = self._pool.submit(system.cat_file, path, end=self._limits.bytes + 1)
        self._under_way.add(future)
        future.add_done_callback(finished)

    async def _bounded(self, system: Any, path: str) -> bytes:
        content = await asyncio.wait_for(system._cat_file(path, end=self._limits.bytes + 1), self._limits.total)
        return bytes(content)

    def close(self) -> None:
        """Break off what is under way, without waiting for it."""
        self._closed = True
        for future in list(self._under_way):
            future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
