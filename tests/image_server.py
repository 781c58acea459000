"""A web server on this machine for images, and for all that servers do wrong."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ImageServer:
    """Answers each of its URLs in the way that was given with it, each request on a thread of its own.

    requests: what was asked, in order. closing: set when the server closes; an answer that is meant to hang waits for
    it.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._answers: dict[str, Answer] = {}
        self._server = _Server(("127.0.0.1", 0), type("Bound", (Request,), {"images": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def at(self, answer: Answer) -> str:
        """A new URL, answered so."""
        path = f"/{len(self._answers)}"
        self._answers[path] = answer
        return self.url + path

    def asked(self, url: str) -> list[Request]:
        """The requests for one URL."""
        return [request for request in self.requests if self.url + request.path == url]

    def answer(self, request: Request) -> None:
        """Called by the request itself."""
        self.requests.append(request)
        self._answers[request.path.partition("?")[0]](request)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class Request(BaseHTTPRequestHandler):
    """One request. at: when it came, in seconds of the monotonic clock."""

    protocol_version = "HTTP/1.1"
    images: ImageServer
    at = 0.0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.at = time.monotonic()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client went away, as many tests want
            self.images.answer(self)

    def reply(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """A whole answer, and an honest one unless the headers say otherwise. Retry_After becomes Retry-After."""
        self.send_response(status)
        for name, value in {"Connection": "close", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


Answer = Callable[[Request], None]


def reply(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """An answer that is whole and always the same."""
    return lambda request: request.reply(status, body, **headers)


def in_turn(*answers: Answer) -> Answer:
    """The first request is answered by the first of these, the second by the second, those after them by the last."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))
    return lambda request: next(turns)(request)


def stuck(request: Request) -> None:
    """Accept, and never answer."""
    request.images.closing.wait()


def broken_off(request: Request) -> None:
    """Promise a hundred bytes, send nine, hang up."""
    request.reply(body=b"the start", Content_Length="100")


def dripping_body(request: Request) -> None:
    """A byte of the body each 0.2 s, without end."""
    request.reply(Content_Length="1000000")
    while not request.images.closing.wait(0.2):
        request.wfile.write(b"x")


def dripping_headers(request: Request) -> None:
    """A byte of the headers each 0.2 s, without end."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not request.images.closing.wait(0.2):
        request.wfile.write(b"x")


def endless(**headers: str) -> Answer:
    """A body that goes on for as long as someone reads it."""

    def answer(request: Request) -> None:
        request.send_response(200)
        for name, value in {"Connection": "close", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        while not request.images.closing.is_set():
            request.wfile.write(bytes(1 << 16))

    return answer


def flood(start: bytes, piece: bytes) -> Answer:
    """What no server says: a beginning, and then the same again and again for as long as someone reads it."""

    def answer(request: Request) -> None:
        request.wfile.write(start)
        while not request.images.closing.is_set():
            request.wfile.write(piece * ((1 << 16) // len(piece)))

    return answer
