"""URLs → bytes, several at once, each within limits of time and size whatever the server does."""

from __future__ import annotations

import asyncio
import email.utils
import re
import threading
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from hiera_cli import __version__
from hiera_cli.errors import FetchError, InputError, TooLargeError
from hiera_cli.limits import Limits

RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
MAX_REDIRECTS = 10
MAX_WORDS = 200  # characters of a server's own words in a message
PIECE = 1 << 16  # bytes that are unpacked in one go
ONE_LAYER = frozenset({"gzip", "x-gzip", "deflate"})  # what servers do to a body that nobody asked them to pack


class Fetcher:
    """Fetches URLs on one background thread. Close it when done."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.at_once)
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=limits.connect),
            limits=httpx2.Limits(max_connections=limits.at_once),
            headers={
                "User-Agent": f"hiera-cli/{__version__}",
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",  # pictures are packed already
            },
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is kept: a million would add up
        )
        self._under_way: set[asyncio.Future[bytes]] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        # Names are looked up on threads. One that no name server answers keeps its thread for longer than its URL.
        self._loop.set_default_executor(ThreadPoolExecutor(4 * limits.at_once, "look up"))
        try:
            threading.Thread(target=self._serve, name="fetch", daemon=True).start()
        except BaseException:
            self._loop.close()
            raise

    def submit(self, url: str, done: Callable[[bytes | InputError], None]) -> None:
        """Begin to fetch. `done` is called on the background thread with the body, or with why there is none.

        After `close` nothing is begun, and `done` is not called.
        """

        def finished(future: Future[bytes]) -> None:
            if future.cancelled():  # closed: nobody waits for it any more
                return
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                done(error if isinstance(error, InputError) else FetchError(_reason(error)))

        with self._closing:
            if not self._closed:
                asyncio.run_coroutine_threadsafe(self._bounded(url), self._loop).add_done_callback(finished)

    def close(self) -> None:
        """Break off what is under way, without waiting for it."""
        with self._closing:  # so that whatever was begun is there to be broken off
            if not self._closed:
                self._closed = True
                asyncio.run_coroutine_threadsafe(self._break_off(), self._loop)

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _break_off(self) -> None:
        for task in self._under_way:  # and not the transport's own tasks within them, which end with them
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._client.aclose()
        self._loop.stop()

    async def _bounded(self, url: str) -> bytes:
        if task := asyncio.current_task():
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        async with self._slots:
            # The bound is on the clock, not on reads: a server that drips a byte a second never times out on a read.
            try:
                return await asyncio.wait_for(self._with_retries(url), self._limits.total)
            except asyncio.TimeoutError:
                message = f"no complete answer within {self._limits.total:g} s"
                raise FetchError(message, remedy="url_timeout") from None

    async def _with_retries(self, url: str) -> bytes:
        deadline = self._loop.time() + self._limits.total
        for attempt in range(self._limits.retries + 1):
            last = attempt == self._limits.retries
            pause = 0.5 * 2**attempt
            try:
                async with self._answer(url) as response:
                    pause = retry_after(response.headers.get("Retry-After"), default=pause)
                    too_late = self._loop.time() + pause >= deadline
                    if response.status_code not in RETRY_STATUSES or last or too_late:
                        return await self._body(response)
            except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
                raise FetchError(_reason(error)) from error
            except httpx2.TransportError as error:
                if last or isinstance(error, httpx2.ConnectTimeout):
                    raise FetchError(_reason(error)) from error
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def _answer(self, url: str) -> AsyncIterator[httpx2.Response]:
        """What a URL leads to, through redirects. No body has been read: not this one, and none of a redirect."""
        request = self._client.build_request("GET", url)
        for _ in range(MAX_REDIRECTS + 1):
            if request.url.scheme not in ("http", "https"):
                scheme = request.url.scheme or url.partition(":")[0]  # without a host the client forgets it
                if scheme.lower() in ("http", "https"):
                    raise FetchError("the URL names no host")
                raise FetchError(f"only http and https URLs are fetched, not {_short(scheme)}")
            response = await self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    if response.has_redirect_location:
                        raise FetchError("the server redirects to something that is not a URL")
                    yield response
                    return
                request = response.next_request
            finally:
                await response.aclose()
        raise FetchError(f"too many redirects: more than {MAX_REDIRECTS}")

    async def _body(self, response: httpx2.Response) -> bytes:
        if response.status_code != 200:
            raise FetchError(f"the server answered {response.status_code} {_short(response.reason_phrase)}".rstrip())
        body = bytearray()
        async with aclosing(_unpacked(response)) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > self._limits.bytes:
                    limit = f"{self._limits.bytes / (1 << 20):g} MiB"
                    raise TooLargeError(f"the body is over {limit}", remedy="max_mib")
                await asyncio.sleep(0)  # the other URLs' turn, and the clock's
        return bytes(body)


async def _unpacked(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body in pieces of bounded size. One layer of packing is taken off it, more are refused."""
    codings = [coding.strip().lower() for coding in response.headers.get("Content-Encoding", "").split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        async for chunk in response.aiter_raw():
            yield chunk
        return
    if len(codings) > 1 or codings[0] not in ONE_LAYER:
        raise FetchError(f"the server packed the body, unasked, in a way not read here: {_short(', '.join(codings))}")
    unpacker = _unpacker()
    try:
        async for chunk in response.aiter_raw():
            rest, full = chunk, True  # full: the last piece was, so there may be more of it without more to read
            while rest or full:
                if unpacker.eof:  # gzip may be several streams, one after the other, and padding
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    unpacker = _unpacker()
                piece = unpacker.decompress(rest, PIECE)
                yield piece
                rest, full = unpacker.unused_data or unpacker.unconsumed_tail, len(piece) == PIECE
    except zlib.error as error:
        raise FetchError(f"the body can't be unpacked: {error}") from error
    if not unpacker.eof:
        raise FetchError("the body can't be unpacked: it ends too early")


def _unpacker() -> zlib._Decompress:
    return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # gzip or zlib, whichever it is


def retry_after(value: str | None, default: float) -> float:
    """Seconds that a Retry-After header asks to wait: a number, or a date. `default` where it says nothing sensible."""
    if value is None:
        return default
    try:
        if re.fullmatch(r"\s*[0-9]+\s*", value):
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return default


def _short(text: str) -> str:
    """A server's own words, of which it may send any number."""
    return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}…"


def _reason(error: BaseException) -> str:
    while nested := getattr(error, "exceptions", ()):  # an exception group of the transport's
        error = nested[0]
    text = _short(" ".join(str(error).split()))
    kind = {
        "ConnectTimeout": "cannot connect in time",
        "ConnectError": "cannot connect",
        "ReadTimeout": "the server went silent",
        "RemoteProtocolError": "the server broke off its answer",
        "ReadError": "the connection broke",
        "UnsupportedProtocol": "only http and https URLs are fetched",
        "InvalidURL": "not a valid URL",
    }.get(type(error).__name__, f"cannot fetch it ({type(error).__name__})")
    return f"{kind}: {text}" if text else kind
