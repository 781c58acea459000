"""URLs → bytes: whatever the server does, each URL ends, in bounded time, as a body or as an error that says why."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gzip
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import numpy as np
import pytest
from image_server import (
    Answer,
    ImageServer,
    Request,
    broken_off,
    dripping_body,
    dripping_headers,
    endless,
    flood,
    in_turn,
    reply,
    stuck,
)

from hiera_cli import __version__
from hiera_cli.checkpoints.labels import Label
from hiera_cli.classifier import Classifier
from hiera_cli.errors import FetchError, InputError, TooLargeError
from hiera_cli.images import decode, recipe
from hiera_cli.inputs.fetch import Fetcher, retry_after
from hiera_cli.inputs.source import Kind, Source
from hiera_cli.limits import Limits
from hiera_cli.pipeline.options import Options
from hiera_cli.pipeline.stream import Stream
from hiera_cli.tasks.classify import Classified, Classify

MIB = 1 << 20
PATIENCE = 10.0  # seconds after which a test gives up on what should have happened long ago
OUT_OF_TIME = "no complete answer within {:g} s"
TOO_LARGE = "the body is over 1 MiB"

Body = bytes | InputError  # what `done` is called with


@pytest.fixture
def server() -> Iterator[ImageServer]:
    server = ImageServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no name is known."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    getaddrinfo = socket.getaddrinfo

    def numbers_alone(host: Any, *rest: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", b"127.0.0.1"):
            return getaddrinfo(host, *rest, **options)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", numbers_alone)


class Fetching:
    """A Fetcher, and what came of the URLs that it was given."""

    def __init__(self, **limits: float) -> None:
        self.fetcher = Fetcher(Limits(**limits))  # type: ignore[arg-type]
        self.done: queue.SimpleQueue[tuple[str, Body]] = queue.SimpleQueue()

    def submit(self, *urls: str) -> None:
        for url in urls:
            self.fetcher.submit(url, lambda body, url=url: self.done.put((url, body)))  # type: ignore[misc]

    def next(self) -> tuple[str, Body]:
        """The next URL to be done, and its body or error."""
        return self.done.get(timeout=PATIENCE)


@pytest.fixture
def fetching() -> Iterator[Callable[..., Fetching]]:
    made: list[Fetching] = []

    def make(**limits: float) -> Fetching:
        made.append(Fetching(**limits))
        return made[-1]

    yield make
    for one in made:
        one.fetcher.close()


@pytest.fixture
def fetch(fetching: Callable[..., Fetching]) -> Callable[..., Body]:
    """Fetch one URL, within limits. What `done` was called with."""

    def run(url: str, **limits: float) -> Body:
        one = fetching(**limits)
        one.submit(url)
        _, body = one.next()
        return body

    return run


def described(body: Body) -> tuple[type, str]:
    return type(body), str(body)


# Bodies


def test_the_body_arrives(server: ImageServer, fetch: Callable[..., Body]) -> None:
    body = bytes(range(256)) * 4096
    assert fetch(server.at(reply(200, body))) == body


def test_an_empty_body_arrives(server: ImageServer, fetch: Callable[..., Body]) -> None:
    assert fetch(server.at(reply(200))) == b""


BODY = bytes(range(256)) * 4096


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(BODY)),
        ("GZip", gzip.compress(bytes(MIB))),
        ("x-gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
        ("identity, gzip", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:1000]) + gzip.compress(b"") + gzip.compress(BODY[1000:]) + bytes(1 << 17)),
    ],
    ids=["gzip", "zeros", "x-gzip", "deflate", "identity", "none", "identity and gzip", "gzip in parts, padded"],
)
def test_a_body_that_was_packed_once_arrives_unpacked(
    server: ImageServer, fetch: Callable[..., Body], coding: str, packed: bytes
) -> None:
    expected = bytes(MIB) if coding == "GZip" else BODY
    assert fetch(server.at(reply(200, packed, Content_Encoding=coding)), bytes=MIB) == expected


def test_the_request_says_who_asks_and_for_what(server: ImageServer, fetch: Callable[..., Body]) -> None:
    fetch(server.at(reply(200)))
    (request,) = server.requests
    assert request.headers["User-Agent"] == f"hiera-cli/{__version__}"
    assert request.headers["Accept"] == "image/*,*/*;q=0.5"
    assert request.headers["Accept-Encoding"] == "identity"


def test_cookies_are_neither_kept_nor_sent(server: ImageServer, fetching: Callable[..., Fetching]) -> None:
    end = server.at(reply(200, b"an image"))
    url = server.at(reply(302, Location=end, Set_Cookie="name=value; Path=/"))
    one = fetching()
    one.submit(url)
    assert one.next() == (url, b"an image")
    assert [request.headers["Cookie"] for request in server.requests] == [None, None]
    assert not one.fetcher._client.cookies


def test_several_are_fetched_at_once(server: ImageServer, fetching: Callable[..., Fetching]) -> None:
    together = threading.Barrier(16)

    def answer(request: Request) -> None:
        together.wait(PATIENCE)  # nobody is answered before all are in
        request.reply(200, request.path.encode())

    urls = [server.at(answer) for _ in range(16)]
    one = fetching(at_once=16, total=PATIENCE)
    one.submit(*urls)
    assert dict(one.next() for _ in urls) == {url: url.removeprefix(server.url).encode() for url in urls}


def test_no_more_are_fetched_at_once_than_the_limit_says(
    server: ImageServer, fetching: Callable[..., Fetching]
) -> None:
    lock, together = threading.Lock(), threading.Barrier(2)
    under_way, most = 0, 0

    def answer(request: Request) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(PATIENCE)
        with lock:
            under_way -= 1
        request.reply(200)

    urls = [server.at(answer) for _ in range(10)]
    one = fetching(at_once=2)
    one.submit(*urls)
    assert dict(one.next() for _ in urls) == dict.fromkeys(urls, b"")
    assert most == 2


def test_a_stuck_url_does_not_hold_up_the_others(server: ImageServer, fetching: Callable[..., Fetching]) -> None:
    one = fetching(at_once=2, total=PATIENCE)
    urls = [server.at(reply(200, b"an image")) for _ in range(5)]
    one.submit(server.at(stuck), *urls)
    assert dict(one.next() for _ in urls) == dict.fromkeys(urls, b"an image")
    assert one.done.empty()


def test_names_that_no_server_knows_of_do_not_hold_up_the_others(
    server: ImageServer, fetching: Callable[..., Fetching], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        if host == b"stuck.example":
            answered.wait()
        return getaddrinfo("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = server.at(reply(200, b"an image")).replace("127.0.0.1", "well.example")
    one = fetching(at_once=40)
    try:
        one.submit(*["http://stuck.example/"] * 39, url)
        assert one.next() == (url, b"an image")
    finally:
        answered.set()  # a program does not end before its threads


# Statuses


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (204, "the server answered 204 No Content"),
        (304, "the server answered 304 Not Modified"),
        (401, "the server answered 401 Unauthorized"),
        (403, "the server answered 403 Forbidden"),
        (404, "the server answered 404 Not Found"),
        (410, "the server answered 410 Gone"),
        (501, "the server answered 501 Not Implemented"),
    ],
)
def test_any_other_status_than_200_is_an_error_that_names_it_and_is_asked_for_once(
    server: ImageServer, fetch: Callable[..., Body], status: int, said: str
) -> None:
    url = server.at(reply(status))
    assert described(fetch(url)) == (FetchError, said)
    assert len(server.asked(url)) == 1


def test_a_body_that_comes_with_an_error_status_is_not_taken_for_the_image(
    server: ImageServer, fetch: Callable[..., Body]
) -> None:
    assert described(fetch(server.at(reply(404, b"an image")))) == (FetchError, "the server answered 404 Not Found")


# Attempts


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: ImageServer, fetch: Callable[..., Body], status: int) -> None:
    url = server.at(in_turn(*[reply(status, Retry_After="0")] * 3, reply(200, b"an image")))
    assert fetch(url) == b"an image"
    assert len(server.asked(url)) == 4


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (broken_off, "the server broke off its answer"),
        (lambda request: None, "the server broke off its answer"),
        (lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-"), "the server broke off its answer"),
        (lambda request: request.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n"), "the server broke off its answer"),
        (reply(503, Retry_After="0"), "the server answered 503 Service Unavailable"),
    ],
    ids=["in the body", "before the headers", "in the headers", "no HTTP at all", "503"],
)
def test_a_broken_answer_is_tried_again_and_is_an_error_in_the_end(
    server: ImageServer, fetching: Callable[..., Fetching], broken: Answer, said: str
) -> None:
    mended, hopeless = server.at(in_turn(broken, reply(200, b"an image"))), server.at(broken)
    one = fetching(retries=1)
    one.submit(mended, hopeless)
    bodies = dict(one.next() for _ in range(2))
    assert bodies[mended] == b"an image"
    assert isinstance(bodies[hopeless], FetchError)
    assert str(bodies[hopeless]).startswith(said)
    assert (len(server.asked(mended)), len(server.asked(hopeless))) == (2, 2)


def test_without_retries_there_is_one_attempt(server: ImageServer, fetch: Callable[..., Body]) -> None:
    url = server.at(reply(503))
    expected = (FetchError, "the server answered 503 Service Unavailable")
    assert described(fetch(url, retries=0)) == expected
    assert len(server.asked(url)) == 1


def test_a_server_is_left_alone_for_as_long_as_it_asks(server: ImageServer, fetch: Callable[..., Body]) -> None:
    url = server.at(in_turn(reply(503, Retry_After="1"), reply(200, b"an image")))
    assert fetch(url) == b"an image"
    first, second = server.asked(url)
    assert second.at - first.at >= 0.95  # and 0.5 where it does not ask


def test_a_wait_beyond_the_time_limit_is_not_begun_and_the_error_names_the_status(
    server: ImageServer, fetch: Callable[..., Body]
) -> None:
    url = server.at(reply(429, Retry_After="3600"))
    start = time.monotonic()
    assert described(fetch(url, total=2.0)) == (FetchError, "the server answered 429 Too Many Requests")
    assert time.monotonic() - start < 1.5
    assert len(server.asked(url)) == 1


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30.0),
        (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
        ("Tue, 14 Nov 2023 23:13:30 +0100", 10.0),
        (None, 0.25),
        ("", 0.25),
        (" ", 0.25),
        ("-5", 0.25),
        ("1.5", 0.25),
        ("soon", 0.25),
        ("²", 0.25),
        ("Mon, 99 Foo 2023", 0.25),
        ("Mon, 01 Jan 2024 00:00:00 +999999999999999", 0.25),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_anything_else_counts_as_absent(
    monkeypatch: pytest.MonkeyPatch, value: str | None, seconds: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert retry_after(value, default=0.25) == seconds


# Time


@pytest.mark.parametrize("answer", [stuck, dripping_headers, dripping_body])
def test_the_time_limit_holds_whatever_the_server_does(
    server: ImageServer, fetch: Callable[..., Body], answer: Answer
) -> None:
    start = time.monotonic()
    body = fetch(server.at(answer), total=1.0)
    took = time.monotonic() - start
    assert described(body) == (FetchError, OUT_OF_TIME.format(1))
    assert 0.9 < took < 3


@pytest.mark.parametrize("answer", [reply(503, Retry_After="0"), broken_off], ids=["503", "broken off"])
def test_the_time_limit_holds_for_all_attempts_together(
    server: ImageServer, fetch: Callable[..., Body], answer: Answer
) -> None:
    start = time.monotonic()
    body = fetch(server.at(answer), total=1.0, retries=1_000_000)
    assert type(body) is FetchError
    assert time.monotonic() - start < 3


def test_the_time_that_a_url_waits_for_its_turn_does_not_count(
    server: ImageServer, fetching: Callable[..., Fetching]
) -> None:
    one = fetching(at_once=1, total=0.5)
    first, second, third = server.at(stuck), server.at(stuck), server.at(reply(200, b"an image"))
    one.submit(first, second, third)
    bodies = [one.next() for _ in range(3)]
    assert [url for url, _ in bodies] == [first, second, third]
    assert [str(body) for _, body in bodies[:2]] == [OUT_OF_TIME.format(0.5)] * 2
    assert bodies[2][1] == b"an image"


# Size


@pytest.mark.parametrize(
    ("size", "expected"), [(MIB - 1, None), (MIB, None), (MIB + 1, (TooLargeError, TOO_LARGE))], ids=str
)
def test_a_body_up_to_the_limit_is_taken_and_not_a_byte_more(
    server: ImageServer,
    fetch: Callable[..., Body],
    size: int,
    expected: tuple[type, str] | None,
) -> None:
    body = fetch(server.at(reply(200, bytes(size))), bytes=MIB)
    assert body == bytes(size) if expected is None else described(body) == expected


@pytest.mark.parametrize("headers", [{}, {"Content_Length": str(1 << 40)}], ids=["no length", "a length"])
def test_an_endless_body_is_broken_off_at_the_limit(
    server: ImageServer, fetch: Callable[..., Body], headers: dict[str, str]
) -> None:
    url = server.at(endless(**headers))
    assert described(fetch(url, bytes=MIB)) == (TooLargeError, TOO_LARGE)
    assert len(server.asked(url)) == 1


def test_no_more_is_read_than_a_lying_length_says(server: ImageServer, fetch: Callable[..., Body]) -> None:
    assert fetch(server.at(endless(Content_Length="5")), bytes=MIB) == bytes(5)


def bomb(layers: int, mib: int = 64) -> bytes:
    """Zeros, packed."""
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(mib)) + packer.flush()
    for _ in range(layers - 1):
        packed = gzip.compress(packed)
    return packed


def test_a_compression_bomb_is_stopped_at_the_limit_and_not_unpacked_first(
    server: ImageServer, fetch: Callable[..., Body]
) -> None:
    url = server.at(reply(200, bomb(1), Content_Encoding="gzip"))
    with little_memory():
        assert described(fetch(url, bytes=MIB)) == (TooLargeError, TOO_LARGE)


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Within it, no more than 16 MiB may be taken."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


@pytest.mark.parametrize(
    ("coding", "packed", "said"),
    [
        ("gzip, gzip", bomb(2), "the server packed the body, unasked, in a way not read here: gzip, gzip"),
        ("br", b"", "the server packed the body, unasked, in a way not read here: br"),
        ("gzip," * 1000, b"", f"the server packed the body, unasked, in a way not read here: {'gzip, ' * 33}gz…"),
        ("gzip", b"no gzip", "the body can't be unpacked: Error -3 while decompressing data: incorrect header check"),
        ("gzip", gzip.compress(BODY)[:-9], "the body can't be unpacked: it ends too early"),
        ("deflate", zlib.compress(BODY)[:9], "the body can't be unpacked: it ends too early"),
    ],
    ids=["gzip in gzip", "brotli", "a thousand layers", "no gzip", "half a gzip", "half a deflate"],
)
def test_a_body_that_can_not_be_unpacked_is_an_error_and_takes_no_memory(
    server: ImageServer, fetch: Callable[..., Body], coding: str, packed: bytes, said: str
) -> None:
    url = server.at(reply(200, packed, Content_Encoding=coding))
    with little_memory():
        assert described(fetch(url, bytes=MIB)) == (FetchError, said)


def test_a_body_that_takes_long_to_unpack_leaves_the_others_their_turns() -> None:
    turns = 0

    async def body() -> AsyncIterator[bytes]:
        yield bomb(1, mib=16)  # as one read of the network may bring

    async def unpack() -> bytes:
        response = httpx2.Response(200, headers={"Content-Encoding": "gzip"}, content=body())
        return await Fetcher._body(cast(Fetcher, SimpleNamespace(_limits=Limits(bytes=64 * MIB))), response)

    async def together() -> bytes:
        nonlocal turns
        unpacking = asyncio.create_task(unpack())
        while not unpacking.done():
            turns += 1
            await asyncio.sleep(0)
        return unpacking.result()

    assert asyncio.run(together()) == bytes(16 * MIB)
    assert turns > 200


OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (flood(OK, b"X-A: b\r\n"), "the server broke off its answer: Receive buffer too long"),
        (flood(OK + b"X-A: ", b"x"), "the server broke off its answer: Receive buffer too long"),
        (flood(b"HTTP/1.1 200 ", b"x"), "the server broke off its answer: Receive buffer too long"),
        (flood(CHUNKED + b"1;", b"x"), "the server broke off its answer: Receive buffer too long"),
        (flood(CHUNKED + b"0\r\n", b"X-A: b\r\n"), "the server broke off its answer: Receive buffer too long"),
        (flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), OUT_OF_TIME.format(0.5)),
        (flood(OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")), OUT_OF_TIME.format(0.5)),
        (reply(404, Content_Encoding="gzip, gzip"), "the server answered 404 Not Found"),
    ],
    ids=["headers", "a header", "a status line", "a chunk extension", "trailers", "hints", "empty gzips", "404"],
)  # fmt: skip
def test_an_answer_without_end_or_measure_ends_in_time_and_takes_no_memory(
    server: ImageServer, fetch: Callable[..., Body], answer: Answer, said: str
) -> None:
    url = server.at(answer)
    with little_memory():
        assert described(fetch(url, bytes=MIB, total=0.5, retries=0)) == (FetchError, said)


def test_of_the_words_of_a_server_no_more_is_told_than_a_line(server: ImageServer, fetch: Callable[..., Body]) -> None:
    def answer(request: Request) -> None:
        request.wfile.write(b"HTTP/1.1 404 " + b"x" * 90_000 + b"\r\nConnection: close\r\n\r\n")

    assert described(fetch(server.at(answer))) == (FetchError, f"the server answered 404 {'x' * 200}…")


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: ImageServer, fetch: Callable[..., Body], status: int) -> None:
    end = server.at(reply(200, b"an image"))
    middle = server.at(reply(status, Location=end.removeprefix(server.url)))
    assert fetch(server.at(reply(status, b"moved", Location=middle))) == b"an image"


def test_a_redirect_that_leads_back_to_itself_is_an_error(server: ImageServer, fetch: Callable[..., Body]) -> None:
    url = server.at(lambda request: request.reply(302, Location=request.path))
    body = fetch(url)
    assert type(body) is FetchError
    assert str(body).startswith("too many redirects")
    assert len(server.asked(url)) == 11


@pytest.mark.parametrize("body", ["a bomb", "without end"])
def test_the_body_of_a_redirect_is_not_read(server: ImageServer, fetch: Callable[..., Body], body: str) -> None:
    end = server.at(reply(200, b"an image"))
    redirect = f"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {end}\r\n".encode()
    answers = {
        "a bomb": reply(302, bomb(2), Location=end, Content_Encoding="gzip, gzip"),
        "without end": flood(redirect + b"\r\n", b"x"),
    }
    url = server.at(answers[body])
    with little_memory():
        assert fetch(url, bytes=MIB, total=PATIENCE) == b"an image"


def test_the_body_of_a_busy_server_s_answer_is_not_read(server: ImageServer, fetch: Callable[..., Body]) -> None:
    busy = reply(503, bomb(2), Retry_After="0", Content_Encoding="gzip, gzip")
    url = server.at(in_turn(busy, reply(200, b"an image")))
    with little_memory():
        assert fetch(url, bytes=MIB) == b"an image"


def test_a_redirect_to_nowhere_is_an_error(server: ImageServer, fetch: Callable[..., Body]) -> None:
    assert described(fetch(server.at(reply(302)))) == (FetchError, "the server answered 302 Found")
    expected = (FetchError, "the server redirects to something that is not a URL")
    assert described(fetch(server.at(reply(302, Location="http://127.0.0.1:port/")))) == expected


def test_a_password_in_a_url_goes_to_its_own_server_alone(server: ImageServer, fetch: Callable[..., Body]) -> None:
    elsewhere = ImageServer()
    try:
        url = server.at(reply(302, Location=elsewhere.at(reply(200, b"an image"))))
        assert fetch(url.replace("//", "//user:secret@")) == b"an image"
        (asked,), (redirected,) = server.requests, elsewhere.requests
    finally:
        elsewhere.close()
    assert asked.headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert redirected.headers["Authorization"] is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///x.jpg", "only http and https URLs are fetched, not file"),
        ("ftp://127.0.0.1/x.jpg", "only http and https URLs are fetched, not ftp"),
        ("http://", "the URL names no host"),
        ("HTTPS:///x.jpg", "the URL names no host"),
    ],
)
def test_what_is_not_a_url_of_the_web_is_told_by_what_it_is(fetch: Callable[..., Body], url: str, message: str) -> None:
    assert str(fetch(url)) == message


@pytest.mark.parametrize("target", ["file://{secret}", "ftp://127.0.0.1/{secret}", "ws://127.0.0.1/{secret}"])
def test_a_redirect_away_from_the_web_is_an_error_and_nothing_is_read(
    server: ImageServer, fetch: Callable[..., Body], tmp_path: Path, target: str
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    body = fetch(server.at(reply(302, Location=target.format(secret=tmp_path / "secret"))))
    assert type(body) is FetchError
    assert str(body).startswith("only http and https URLs are fetched")


@pytest.mark.parametrize(
    "location", ["http://", "http://[", "http://127.0.0.1:99999/", "//\N{SNOWMAN}/", "data:image/png;base64,AAAA", ""]
)
def test_a_redirect_to_no_url_at_all_is_an_error(
    server: ImageServer, fetch: Callable[..., Body], location: str
) -> None:
    url = server.at(reply(302, Location=location.encode().decode("latin-1")))
    assert type(fetch(url, retries=0)) is FetchError


# What is never fetched


def test_a_refused_connection_is_an_error(fetch: Callable[..., Body]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    body = fetch(f"http://127.0.0.1:{port}/", retries=1)
    assert type(body) is FetchError
    assert str(body).startswith("cannot connect")


def test_an_unknown_host_is_an_error(fetch: Callable[..., Body]) -> None:
    expected = (FetchError, f"cannot connect: [Errno {socket.EAI_NONAME}] Name or service not known")
    assert described(fetch("http://nowhere.invalid/", retries=0)) == expected


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "file:///etc/passwd", "s3://bucket/a.jpg", "gopher://127.0.0.1:1/", "ws://127.0.0.1:1/"]
)
def test_only_the_web_is_fetched_from(fetch: Callable[..., Body], url: str) -> None:
    body = fetch(url)
    assert type(body) is FetchError
    assert str(body).startswith("only http and https URLs are fetched")


BAD_URLS = [
    "http://",
    "http://[",
    "http://exa mple/",
    "http://a..b/",
    "http:///cat.jpg",
    "http://?",
    "http://user:secret@/",
    "http://\N{CAT}.example/",
    "http://xn--a/",
    "http://127.0.0.1:port/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://a\nb/",
    "http://a\0b/",
    "http://127.0.0.1:1/\udcff.jpg",
    "http://\udcff/",
    "http://127.0.0.1:1/" + "a" * 100_000,
]


def test_a_url_that_is_none_is_an_error_and_the_rest_go_on(
    server: ImageServer, fetching: Callable[..., Fetching]
) -> None:
    one = fetching(retries=0)
    good = server.at(reply(200, b"an image"))
    one.submit(*BAD_URLS, good)
    bodies = dict(one.next() for _ in (*BAD_URLS, good))
    assert {url: type(body) for url, body in bodies.items()} == {**dict.fromkeys(BAD_URLS, FetchError), good: bytes}
    assert one.done.empty()


@pytest.mark.parametrize("url", BAD_URLS, ids=lambda url: ascii(url[:30]))
def test_the_error_of_a_bad_url_is_one_line_without_the_names_of_our_insides(
    fetch: Callable[..., Body], url: str
) -> None:
    said = str(fetch(url, retries=0))
    assert said.isprintable()
    assert len(said) < 200
    assert "TaskGroup" not in said


# The end


def test_close_returns_at_once_and_lets_go_of_what_is_under_way(server: ImageServer) -> None:
    def open_files() -> int:
        return len(os.listdir("/dev/fd"))

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "fetch"]

    for thread in threads():  # of the tests before
        thread.join(PATIENCE)
    arrived = threading.Semaphore(0)

    def answer(request: Request) -> None:
        arrived.release()
        stuck(request)

    before = open_files()
    one = Fetching(at_once=3)
    one.submit(*[server.at(answer) for _ in range(5)])
    for _ in range(3):
        assert arrived.acquire(timeout=PATIENCE)
    start = time.monotonic()
    one.fetcher.close()
    assert time.monotonic() - start < 0.5
    server.close()  # its ends of the connections are files of this process, too
    deadline = time.monotonic() + 2
    while (threads() or open_files() >= before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == []
    assert open_files() < before  # by the server's listening socket


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "default", "-c", script], capture_output=True, text=True, timeout=5)


BEGINS = """
import gc, socket, time
from hiera_cli.inputs.fetch import Fetcher
from hiera_cli.limits import Limits

listener = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
fetcher = Fetcher(Limits(at_once=2))
for _ in range(4):
    fetcher.submit(url, lambda body: None)
with listener, listener.accept()[0] as connection:
    connection.recv(1)
"""


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("", id="not closed"),
        pytest.param("fetcher.close()", id="closed"),
        pytest.param("fetcher.close(); del fetcher; time.sleep(0.2); gc.collect()", id="closed and collected"),
    ],
)
def test_a_program_that_ends_while_fetches_are_under_way_ends_in_silence(end: str) -> None:
    done = run_script(f"{BEGINS}    {end}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_fetcher_can_be_closed_at_any_moment_and_closed_again_and_given_urls_after_it() -> None:
    done = run_script("""
import gc, threading, time
from hiera_cli.inputs.fetch import Fetcher
from hiera_cli.limits import Limits

def wait_for_the_end():
    for thread in threading.enumerate():
        if thread.name == "fetch":
            thread.join()

for turn in range(28):
    fetcher = Fetcher(Limits())
    for _ in range(turn % 4):
        fetcher.submit("http://127.0.0.1:1/", lambda body: None)
    time.sleep(turn % 7 / 1000)
    fetcher.close()
    if turn % 2:
        wait_for_the_end()
    fetcher.close()
    fetcher.submit("http://127.0.0.1:1/", lambda body: None)
    del fetcher
wait_for_the_end()
gc.collect()
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_fetcher_that_can_not_be_made_leaves_nothing_open() -> None:
    done = run_script("""
import gc, os
from contextlib import suppress
from hiera_cli.inputs.fetch import Fetcher
from hiera_cli.limits import Limits

os.environ["SSL_CERT_FILE"] = "/nowhere/at/all.pem"
with suppress(OSError):  # it may raise now, or give each URL its error
    Fetcher(Limits()).close()
gc.collect()
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_program_does_not_wait_for_a_name_server_that_never_answers() -> None:
    script = """
import socket, sys, time

def unanswered(*arguments, **options):
    time.sleep(60)  # a resolver whose servers are down takes about so long, and can't be interrupted

socket.getaddrinfo = unanswered
sys.argv = ["hiera", "classify", "http://nowhere.invalid/", "--url-timeout", "0.5", "-f", "jsonl", "-qq"]
from hiera_cli.__main__ import run
run()
"""
    done = run_script(script)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["error"] == {
        "type": "FetchError",
        "message": "no complete answer within 0.5 s",
    }


# In the pipeline

SAMPLES = [str(path) for path in sorted((Path(__file__).parent.parent / "sample_images").glob("*.jpg"))]


class FakeEngine:
    """Knows the sample images: the first is of class 0, the second of class 1, and so on.

    batches: when each was run, and the classes in it. wanted: images to be run until `all_run` is set.
    """

    batch_size = 4
    precision = "fp32"
    in_flight = 1
    takes_crops = False

    def __init__(self, wanted: int) -> None:
        self.batches: list[tuple[float, list[int]]] = []
        self.all_run = threading.Event()
        self._wanted = wanted
        self._known = {decode.load(path).tobytes(): index for index, path in enumerate(SAMPLES)}

    def submit(self, pixels: Sequence[np.ndarray[Any, Any]]) -> Callable[[], np.ndarray[Any, Any]]:
        classes = [self._known[image.tobytes()] for image in pixels]
        self.batches.append((time.monotonic(), classes))
        self._wanted -= len(classes)
        if not self._wanted:
            self.all_run.set()
        logits = np.zeros((len(classes), len(SAMPLES)), np.float32)
        logits[range(len(classes)), classes] = 10
        return lambda: logits


def stream(inputs: list[str], engine: FakeEngine, **limits: float) -> Stream[Any, Classified]:
    labels = tuple(Label(index, None, os.path.basename(path)) for index, path in enumerate(SAMPLES))
    fake = SimpleNamespace(engine=engine, labels=labels, name="fake")
    found = [Source(path, Kind.URL if "://" in path else Kind.FILE) for path in inputs]
    return Stream(found, lambda: cast(Classifier, fake), Classify(), Options(workers=2, limits=Limits(**limits)))  # type: ignore[arg-type]


def run(inputs: list[str], engine: FakeEngine, patience: float = PATIENCE, **limits: float) -> list[Classified]:
    """The Results of a stream. Raises what it raises, and TimeoutError if it does not end."""
    outcome: queue.SimpleQueue[list[Classified] | BaseException] = queue.SimpleQueue()

    def collect() -> None:
        try:
            outcome.put(list(stream(inputs, engine, **limits)))
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=collect, daemon=True).start()
    try:
        results = outcome.get(timeout=patience)
    except queue.Empty:
        raise TimeoutError("the stream hangs") from None
    if isinstance(results, BaseException):
        raise results
    return results


def summary(result: Classified) -> tuple[str, str]:
    """A Result's path and its label, or its error's type and message."""
    if result.error is not None:
        return result.path, f"{result.error.type}: {result.error.message}"
    return result.path, result.predictions[0].label


def test_files_behind_a_url_are_labelled_while_it_is_under_way(server: ImageServer) -> None:
    files = SAMPLES * 8  # more than are ever decoded ahead
    engine = FakeEngine(wanted=len(files))

    def answer(request: Request) -> None:
        request.reply(404 if engine.all_run.wait(PATIENCE) else 500)

    slow = server.at(answer)
    results = [summary(result) for result in run([slow, *files], engine)]
    assert results == [
        (slow, "FetchError: the server answered 404 Not Found"),
        *((file, os.path.basename(file)) for file in files),
    ]


def test_urls_and_files_come_in_input_order_and_a_stuck_one_ends_as_an_error_record(server: ImageServer) -> None:
    bodies = {server.at(reply(200, Path(path).read_bytes())): os.path.basename(path) for path in SAMPLES}
    page, hung, gone = server.at(reply(200, b"<!DOCTYPE html>")), server.at(stuck), server.at(reply(404))
    inputs = [SAMPLES[0], page, hung, *bodies, gone, *SAMPLES]
    engine = FakeEngine(wanted=1 + 2 * len(SAMPLES))
    start = time.monotonic()
    results = [summary(result) for result in run(inputs, engine, total=2, at_once=2)]
    took = time.monotonic() - start
    assert results == [
        (SAMPLES[0], os.path.basename(SAMPLES[0])),
        (page, "DecodeError: it is an HTML page, not an image"),
        (hung, f"FetchError: {OUT_OF_TIME.format(2)}"),
        *bodies.items(),
        (gone, "FetchError: the server answered 404 Not Found"),
        *((path, os.path.basename(path)) for path in SAMPLES),
    ]
    assert took < 5
    (request,) = server.asked(hung)
    assert max(when for when, _ in engine.batches) < request.at + 1.9  # before the stuck one ended


def test_any_number_of_stuck_urls_holds_up_no_file_and_a_stop_yields_what_was_done_behind_them(
    server: ImageServer,
) -> None:
    urls, files = [server.at(stuck) for _ in range(40)], SAMPLES * 8
    engine = FakeEngine(wanted=len(files))
    one = stream([*urls, *files], engine, total=60, at_once=2)

    def stop() -> None:
        if engine.all_run.wait(PATIENCE):
            one.stop()

    threading.Thread(target=stop, daemon=True).start()
    assert [summary(result) for result in one] == [(file, os.path.basename(file)) for file in files]
    assert len(server.requests) == 2


def test_no_more_urls_are_under_way_than_the_limit_says_until_their_pictures_are_decoded(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_bytes = decode.decode_bytes
    ahead: list[int] = []

    def decoding(body: bytes, *settings: object) -> recipe.Pixels:
        if not ahead:
            time.sleep(0.2)  # in which a server without this limit would be asked for all
        ahead.append(len(server.requests) - len(ahead))
        return decode_bytes(body)

    monkeypatch.setattr(decode, "decode_bytes", decoding)
    urls = [server.at(reply(200, Path(SAMPLES[0]).read_bytes())) for _ in range(20)]
    results = run(urls, FakeEngine(wanted=20), at_once=3)
    assert [result.path for result in results] == urls
    assert all(result.predictions for result in results)
    assert max(ahead) <= 3 + 1  # and one that is decoded and not counted here yet


def test_leaving_the_iteration_breaks_off_what_is_being_fetched(server: ImageServer) -> None:
    results = iter(stream([SAMPLES[0], server.at(stuck), *SAMPLES], FakeEngine(wanted=1)))
    assert summary(next(results)) == (SAMPLES[0], os.path.basename(SAMPLES[0]))
    start = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:1"), ("HTTP_PROXY", "no-proxy://x"), ("SSL_CERT_FILE", "/nowhere/at/all.pem")],
)
def test_a_web_client_that_can_not_be_set_up_costs_the_urls_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    url = "https://127.0.0.1:1/cat.jpg"
    inputs = [SAMPLES[0], url, SAMPLES[1]]
    results = run(inputs, FakeEngine(wanted=2), patience=3, retries=0)
    assert [result.path for result in results] == inputs
    assert [result.error and result.error.type for result in results] == [None, "FetchError", None]


def test_without_a_thread_to_fetch_on_the_urls_alone_are_errors_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def starting(thread: threading.Thread) -> None:
        if thread.name == "fetch":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starting)
    urls = [f"http://127.0.0.1:1/{number}" for number in range(20)]
    before = len(os.listdir("/dev/fd"))
    results = run([*urls, SAMPLES[0]], FakeEngine(wanted=1))
    assert len(os.listdir("/dev/fd")) <= before
    assert [summary(result) for result in results] == [
        *((url, "FetchError: the web client can't be set up: can't start new thread") for url in urls),
        (SAMPLES[0], os.path.basename(SAMPLES[0])),
    ]


def test_an_error_that_nobody_foresaw_ends_the_iteration_and_does_not_hang_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, *settings: object) -> recipe.Pixels:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(decode, "load", broken)
    with pytest.raises(RuntimeError, match=r"^nobody foresaw this$"):
        run([SAMPLES[0], "http://127.0.0.1:1/"], FakeEngine(wanted=1), patience=3)
