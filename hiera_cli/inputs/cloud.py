"""Storage elsewhere (s3://, gs://, az://, hf://) as inputs, by fsspec: prefixes listed as folders are, objects read.

Credentials, regions and endpoints are those that the storage's own library finds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from hiera_cli.errors import FetchError, InputError, NotFoundError, ReadError, TooLargeError
from hiera_cli.inputs import archives
from hiera_cli.inputs.skipped import Skipped
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.limits import Limits

MAX_WORDS = 200  # characters of a library's own words in a message


class Taking(Protocol):
    """What is taken of a prefix: find.Walk has it."""

    @property
    def suffixes(self) -> Callable[[], frozenset[str]]: ...

    @property
    def hidden(self) -> bool: ...


def opened(url: str) -> tuple[Any, str]:
    """(fsspec's file system, what the URL names in it). Raises InputError."""
    try:
        import fsspec

        system, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise ReadError(f"{url.partition(':')[0]}:// needs a library: pip install 'hiera-cli[cloud]'") from error
    except Exception as error:  # whatever that library finds wrong with its settings
        raise ReadError(reason(error)) from error
    return system, str(path)


def reason(error: BaseException) -> str:
    """What went wrong, in a line, of the exceptions of any of the libraries."""
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such object"
    if isinstance(error, PermissionError):
        return "access is denied"
    if "Credential" in kind:
        return "no credentials were found for it"
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or kind
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}…"


def sources(
    url: str, taking: Taking, excluded: Callable[[str, str], bool], skipped: Skipped, warn: Callable[[str], None]
) -> Iterator[Source]:
    """The object that a URL names, or the images under a prefix, in order, found folder by folder.

    A URL that ends like a picture's name is an object; for any other the storage is asked. excluded: of a name, and of
    the folder below the prefix that it is in. skipped: counts what is passed over.
    """
    if os.path.splitext(url)[1].lower() in archives.PICTURES:
        yield Source(url, Kind.CLOUD)
        return
    try:
        system, path = opened(url)
        with _reading():
            is_folder = "/" not in path or system.isdir(path)
            if not is_folder:
                system.info(path)
    except InputError as error:
        yield Source(url, Kind.CLOUD, error)
        return
    if not is_folder:
        refused = ReadError("an archive is read from a file on this machine: copy it here first")
        yield Source(url, Kind.CLOUD, refused if archives.has_suffix(url) else None)
        return
    found = False
    for source in _walk(system, url, path, taking, excluded, skipped):
        found = True
        yield source
    if not found:
        warn(f"{url}: no images under this prefix")


def _walk(
    system: Any, url: str, path: str, taking: Taking, excluded: Callable[[str, str], bool], skipped: Skipped
) -> Iterator[Source]:
    """url, path: of the prefix. With a stack, for prefixes may be deep."""
    base = url.rstrip("/")
    suffixes = taking.suffixes()
    levels: list[tuple[str, Iterator[tuple[str, bool]]]] = []

    def enter(below: str) -> Source | None:
        try:
            with _reading():
                listed = system.ls(f"{path}/{below}" if below else path, detail=True)
        except InputError as error:
            missing = isinstance(error, NotFoundError)
            told = "there is no such bucket or prefix" if missing else f"cannot list it: {error.message}"
            return Source(f"{base}/{below}" if below else url, Kind.CLOUD, type(error)(told))
        entries = [(each["name"].rstrip("/").rpartition("/")[2], each["type"] == "directory") for each in listed]
        own = (below or path).rpartition("/")[2]
        marks = {own} if len(entries) and entries[0] == (own, False) else set()  # an empty object that marks a folder
        levels.append((below, iter(sorted(each for each in {*entries} if each[0] and each[0] not in marks))))
        return None

    if failed := enter(""):
        yield failed
    while levels:
        below, entries = levels[-1]
        name, is_folder = next(entries, ("", False))
        if not name:
            levels.pop()
            continue
        inner = f"{below}/{name}" if below else name
        suffix = os.path.splitext(name)[1].lower()
        if excluded(name, below):
            why = "excluded"
        elif not taking.hidden and name.startswith("."):
            skipped.hidden += 1
            why = "hidden"
        elif is_folder:
            if failed := enter(inner):
                yield failed
            continue
        elif suffix in suffixes:
            yield Source(f"{base}/{inner}", Kind.CLOUD)
            continue
        else:
            skipped.add(suffix)
            why = "not known as an image"
        if skipped.tell:
            skipped.tell(f"{base}/{inner}", why)


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
                done(failure(error))
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
