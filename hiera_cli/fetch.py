"""URLs → bytes, several at once, each within limits of time and size whatever the server does."""

from __future__ import annotations

import asyncio
import email.utils
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import httpx2

from hiera_cli import __version__
from hiera_cli.errors import FetchError, InputError, TooLargeError
from hiera_cli.limits import Limits

RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
MAX_REDIRECTS = 10


class Fetcher:
    """Fetches URLs on one background thread. Close it when done."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.at_once)
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=limits.connect),
            limits=httpx2.Limits(max_connections=limits.at_once),
            headers={"User-Agent": f"hiera-cli/{__version__}", "Accept": "image/*,*/*;q=0.5"},
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
        )
        self._under_way: set[asyncio.Future[bytes]] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, name="fetch", daemon=True).start()

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
                done(error if isinstance(error, InputError) else FetchError(_said(error)))

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
                raise FetchError(
                    f"no complete answer within {self._limits.total:g} s (--url-timeout raises it)"
                ) from None

    async def _with_retries(self, url: str) -> bytes:
        deadline = self._loop.time() + self._limits.total
        for attempt in range(self._limits.retries + 1):
            last = attempt == self._limits.retries
            pause = 0.5 * 2**attempt
            try:
                async with self._client.stream("GET", url) as response:
                    pause = retry_after(response.headers.get("Retry-After"), default=pause)
                    too_late = self._loop.time() + pause >= deadline
                    if response.status_code not in RETRY_STATUSES or last or too_late:
                        return await self._body(response)
            except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.TooManyRedirects) as error:
                raise FetchError(_said(error)) from error
            except httpx2.TransportError as error:
                if last or isinstance(error, httpx2.ConnectTimeout):
                    raise FetchError(_said(error)) from error
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _body(self, response: httpx2.Response) -> bytes:
        if response.status_code != 200:
            raise FetchError(f"the server answered {response.status_code} {response.reason_phrase}".rstrip())
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._limits.bytes:
                raise TooLargeError(f"the body is over {self._limits.bytes / (1 << 20):g} MiB (--max-mib raises it)")
        return bytes(body)


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


def _said(error: BaseException) -> str:
    while nested := getattr(error, "exceptions", ()):  # an exception group of the transport's
        error = nested[0]
    text = " ".join(str(error).split())
    kind = {
        "ConnectTimeout": "cannot connect in time",
        "ConnectError": "cannot connect",
        "ReadTimeout": "the server went silent",
        "RemoteProtocolError": "the server broke off its answer",
        "ReadError": "the connection broke",
        "UnsupportedProtocol": "only http and https URLs are fetched",
        "TooManyRedirects": "too many redirects",
        "InvalidURL": "not a valid URL",
    }.get(type(error).__name__, f"cannot fetch it ({type(error).__name__})")
    return f"{kind}: {text}" if text else kind
