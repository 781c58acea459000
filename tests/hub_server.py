"""A Hub on this machine: what `huggingface_hub` asks for, answered as the real one does, with faults."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = 100_000  # bytes: files from here on are stored apart, under their sha256, and reached by a redirect


class Hub:
    """Serves the folders below `root` as repositories. Faults are attributes, to be set at any time.

    break_off_at: bytes after which each body of a large file breaks off, once per attempt. unavailable: large-file
    requests still to be answered 503. altered: send large files with one byte changed. stalls: large files still to
    be held up in the middle, for `stall` seconds. requests: what was asked, such as `HEAD /org/name/resolve/main/x`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.break_off_at = 0
        self.unavailable = 0
        self.altered = False
        self.stalls = 0
        self.stall = 60.0
        self._server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.storage_url = self.url.replace("127.0.0.1", "localhost")  # another host, as the real storage is
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that was killed, or had enough
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", self.path):
            return self._describe(match[1])
        if match := re.fullmatch(r"/stored/([^/]+/[^/]+)/([^/]+)", self.path):
            return self._send_stored(self.hub.root / match[1] / match[2])
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/?]+)", self.path)
        if not match or not (self.hub.root / match[1]).is_dir():
            return self._reply(404, {"X-Error-Code": "RepoNotFound"})
        file = self.hub.root / match[1] / match[3]
        commit = {"X-Repo-Commit": hashlib.sha1(match[1].encode()).hexdigest()}
        if not file.is_file():
            return self._reply(404, {"X-Error-Code": "EntryNotFound", **commit})
        body = file.read_bytes()
        if len(body) < LARGE:
            digest = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            return self._reply(200, {"ETag": f'"{digest}"', **commit}, body)
        digest = hashlib.sha256(body).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body)), "ETag": f'"{digest}"'}
        return self._reply(
            302, {"Location": f"{self.hub.storage_url}/stored/{match[1]}/{match[3]}", **linked, **commit}
        )

    def _describe(self, repository: str) -> None:
        known = (self.hub.root / repository).is_dir()
        body = json.dumps({"id": repository, "modelId": repository, "siblings": [], "tags": ["license:mit"]}).encode()
        self._reply(200 if known else 404, {"Content-Type": "application/json"}, body if known else b"")

    def _send_stored(self, file: Path) -> None:
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if self.command == "GET" and self.hub.unavailable > 0:
            self.hub.unavailable -= 1
            return self._reply(503, {})
        if self.hub.altered:
            body = body[:-1] + bytes([body[-1] ^ 1])
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(match[1]), int(match[2] or len(body) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
            body, status = body[start:stop], 206
        return self._reply(status, headers, body)

    def _reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        large = len(body) >= LARGE
        if large and self.hub.stalls > 0:
            self.hub.stalls -= 1
            self.wfile.write(body[: LARGE // 2])
            self.wfile.flush()
            time.sleep(self.hub.stall)
            body = body[LARGE // 2 :]
        if large and self.hub.break_off_at:
            self.wfile.write(body[: self.hub.break_off_at])
            self.close_connection = True
            return
        self.wfile.write(body)
